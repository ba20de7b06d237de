//! cirrus-config
