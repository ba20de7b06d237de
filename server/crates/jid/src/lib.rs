//! cirrus-jid
