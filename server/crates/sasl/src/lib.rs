//! cirrus-sasl
