//! Everything between a line of user-data and a running XMPP server.

pub mod code;
pub mod metadata;
pub mod phases;
pub mod site;
pub mod user_data;
