//! cirrus-xep
