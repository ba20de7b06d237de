//! cirrus-stanza
