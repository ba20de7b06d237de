//! Everything between a line of user-data and a running XMPP server.

pub mod code;
pub mod control;
pub mod files;
pub mod greeting;
pub mod metadata;
pub mod password;
pub mod phases;
pub mod ready;
pub mod server;
pub mod site;
pub mod user_data;
