//! cirrus-xml
