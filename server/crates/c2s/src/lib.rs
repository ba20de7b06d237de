//! cirrus-c2s
