//! cirrus-schema
