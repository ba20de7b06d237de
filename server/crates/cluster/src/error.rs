//! What can be wrong with what the nodes share.

use cirrus_store::Key;

/// Why a shared item can't be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClusterError {
    /// A stored item can't be understood.
    #[error("{key}: {reason}")]
    Corrupt {
        /// The item.
        key: Key,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A member does not fit the view.
    #[error("{what}: {given}, at most {limit} are allowed")]
    TooMuch {
        /// What, with its unit.
        what: &'static str,
        /// How much it is.
        given: usize,
        /// How much it may be.
        limit: usize,
    },
    /// The store failed in a way that asking again does not cure.
    #[error("the cluster table can't be used: {0}")]
    Store(String),
}
