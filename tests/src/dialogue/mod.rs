//! Dialogues: protocol tests that a protocol person reads.
//!
//! A dialogue is a text file in `tests/dialogues`: who takes part, then, step by step, what each
//! sends and what each must receive. `tests/dialogues/README.md` describes the form. [`parse`]
//! reads it, [`play`] plays it against a server, [`pattern`] compares what came with what was
//! expected.

pub mod parse;
pub mod pattern;
pub mod play;

use std::collections::BTreeMap;

use crate::client::Identity;
use crate::xml::Node;

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialogue {
    /// The comment at its head: what it shows.
    pub about: String,
    /// Options of the server's configuration, by dotted name, with their values as YAML.
    pub options: BTreeMap<String, String>,
    /// Who takes part.
    pub clients: Vec<Role>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The name by which steps call it.
    pub name: String,
    /// Who it is.
    pub identity: Identity,
    /// Whether the account is made before the dialogue starts.
    pub has_account: bool,
}

/// One step, with its line in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// From 1.
    pub line: usize,
    /// The line as it stands there.
    pub text: String,
    /// What happens.
    pub action: Action,
}

/// What happens in a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A client does or sees something.
    Client(String, Deed),
    /// These two come to see each other's presence, before they take part.
    Befriend(String, String),
    /// The server is stopped by this signal and started again.
    Restart(&'static str),
}

/// What a client does or sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Opens a TCP connection and sends nothing.
    Dials,
    /// Opens a connection that begins with TLS.
    DialsTls,
    /// Opens a stream and takes the server's header and features.
    OpensAStream,
    /// Asks for TLS and makes the handshake.
    StartsTls,
    /// Logs in, up to `<success/>`.
    Authenticates,
    /// Tries to log in and is refused with this condition.
    IsRefused(String),
    /// All of it up to the features after the login.
    LogsIn,
    /// All of it with a bound resource.
    Connects,
    /// Sends this text, as it is.
    Sends(String),
    /// Receives exactly this, in this order.
    Receives(Vec<Expected>),
    /// Receives exactly these, in any order.
    ReceivesInAnyOrder(Vec<Expected>),
    /// Nothing is on its way to it.
    ReceivesNothing,
    /// Receives this stream error, the end of the stream and of the connection.
    StreamEndsWith(String),
    /// The server ends the connection.
    IsDisconnected,
    /// Ends its stream; the server ends its own and the connection.
    Disconnects,
    /// Its connection breaks.
    BreaksOff,
    /// The server has acknowledged this many stanzas.
    IsAcknowledged(u32),
    /// No longer answers requests for acknowledgement.
    StopsAcknowledging,
}

/// Something a client must receive.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// A stream header.
    Open(Node),
    /// An element.
    Element(Node),
    /// The end of the stream.
    Close,
}
