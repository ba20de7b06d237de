//! Everything between a line of user-data and a running XMPP server.
//!
//! The boot is a pure machine ([`phases`]) that a thin shell ([`shell`]) drives. Pure too: reading
//! user-data ([`user_data`]) and what it refers to ([`reference`]), settling what it left open
//! ([`site`]), deciding what must be made ([`provision`]), what the metadata's answers mean
//! ([`metadata`]), and what an autoscaling group hears ([`launch`]). The instance's life after its
//! boot is another such machine ([`watch`]).
//!
//! What it does not do: it never speaks XMPP beyond opening one stream, never reads or writes an
//! item of the store, and never changes a table or bucket that is complete. Of the server's crates
//! it knows the configuration and the schema.
//!
//! Limits: [`user_data::MAX_USER_DATA`]; every call to the metadata, to AWS and to the server has a
//! deadline, named where it is made.

pub mod cli;
pub mod code;
pub mod control;
pub mod files;
pub mod greeting;
pub mod launch;
pub mod metadata;
pub mod password;
pub mod phases;
pub mod provision;
pub mod ready;
pub mod reference;
pub mod server;
pub mod shell;
pub mod site;
pub mod unit;
pub mod user_data;
pub mod watch;
