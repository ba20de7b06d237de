//! cirrus-tls
