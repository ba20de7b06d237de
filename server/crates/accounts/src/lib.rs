//! cirrus-accounts
