//! cirrus-runtime
