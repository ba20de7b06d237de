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
    /// A member and a node that wants to join don't understand each other's frames.
    #[error(
        "{member} speaks wire version {theirs} and this node {ours}: only adjacent versions run \
         together, so update step by step"
    )]
    Wire {
        /// The member's instance.
        member: String,
        /// Its version.
        theirs: u16,
        /// The version of this node.
        ours: u16,
    },
    /// The store failed in a way that asking again does not cure.
    #[error("the cluster table can't be used: {0}")]
    Store(String),
}
