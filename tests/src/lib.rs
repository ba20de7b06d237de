//! cirrus-tests
