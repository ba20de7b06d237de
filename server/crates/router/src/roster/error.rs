//! What a roster refuses, and how its user is told.

use cirrus_stanza::{Condition, StanzaError};
use cirrus_store::Key;

/// Why a change or a load of a roster is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RosterError {
    /// A roster set without item, or with several (RFC 6121 section 2.3.3).
    #[error("a roster set has exactly one item, not {0}")]
    Items(usize),
    /// An item without address, or with that of a session.
    #[error("an item needs the bare JID of a contact")]
    NoContact,
    /// An item whose address is malformed.
    #[error("the contact's address is not a JID: {0}")]
    Malformed(cirrus_jid::JidError),
    /// The user is no contact of its own.
    #[error("you can't be a contact of your own")]
    Own,
    /// A group named twice (RFC 6121 section 2.3.3).
    #[error("the group {0:?} is named twice")]
    DuplicateGroup(Box<str>),
    /// A group without a name (RFC 6121 section 2.3.3).
    #[error("a group needs a name; leave it out to remove the contact from all groups")]
    EmptyGroup,
    /// A name or group name that is too long, or too many groups (RFC 6121 section 2.3.3).
    #[error("{what}: {given}, at most {limit} are allowed")]
    TooLong {
        /// What, with its unit.
        what: &'static str,
        /// How much it is.
        given: usize,
        /// How much it may be.
        limit: usize,
    },
    /// The contact to remove is not in the roster (RFC 6121 section 2.5.3).
    #[error("{0} is not in your roster")]
    Unknown(Box<str>),
    /// The roster has no room for another contact.
    #[error("the roster is full: {limit} contacts, those removed in the last 90 days included")]
    Full {
        /// Contacts and tombstones together.
        limit: usize,
    },
    /// The roster has no room for such long names.
    #[error("the roster is full: {given} bytes of addresses, names and groups, at most {limit}")]
    TooLarge {
        /// Bytes with the change.
        given: usize,
        /// Bytes of a roster.
        limit: usize,
    },
    /// Too many requests wait for the user's answer.
    #[error("{limit} subscription requests are waiting already")]
    RequestsFull {
        /// Requests of one user.
        limit: usize,
    },
    /// A request is too large to be kept.
    #[error("a subscription request of {given} bytes, at most {limit} are kept")]
    RequestTooLong {
        /// Bytes of the stanza.
        given: usize,
        /// Bytes that are kept.
        limit: usize,
    },
    /// Another change of this roster is being written; ask again after it.
    #[error("another change of the roster is being written")]
    Busy,
    /// The outcome of a write is unknown, or another node wrote: load the roster again first.
    #[error("the roster must be loaded again")]
    Stale,
    /// A stored row can't be understood.
    #[error("{key}: {reason}")]
    Corrupt {
        /// The row.
        key: Key,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl RosterError {
    /// Whether asking again later is refused just the same.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Busy | Self::Stale | Self::Corrupt { .. })
    }

    /// The error stanza for the one who asked.
    pub fn stanza_error(&self) -> StanzaError {
        let condition = match self {
            Self::Items(_) | Self::NoContact | Self::DuplicateGroup(_) => Condition::BadRequest,
            Self::Malformed(_) => Condition::JidMalformed,
            Self::Own => Condition::NotAllowed,
            Self::EmptyGroup | Self::TooLong { .. } => Condition::NotAcceptable,
            Self::Unknown(_) => Condition::ItemNotFound,
            Self::Full { .. } | Self::TooLarge { .. } | Self::RequestTooLong { .. } => {
                Condition::PolicyViolation
            }
            Self::RequestsFull { .. } | Self::Busy | Self::Stale => Condition::ResourceConstraint,
            Self::Corrupt { .. } => return Condition::InternalServerError.into(),
        };
        StanzaError::new(condition, self.to_string())
    }
}
