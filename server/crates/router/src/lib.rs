//! cirrus-router
