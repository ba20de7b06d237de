//! Everything between a line of user-data and a running XMPP server.

pub mod code;
pub mod phases;
pub mod user_data;
