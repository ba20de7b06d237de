//! What a log refuses.

use std::borrow::Cow;

use cirrus_store::Key;
use serde::{Deserialize, Serialize};

/// Why a record is not taken, or a log can't be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogError {
    /// Too many records wait for the store ([`Limits`](super::Limits)).
    #[error("{records} records of {bytes} bytes wait for the store already")]
    Full {
        /// Records that wait.
        records: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The record does not fit an item.
    #[error("a record of {bytes} bytes, at most {limit} are kept")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The bytes that fit.
        limit: usize,
    },
    /// A stored item can't be understood.
    #[error("{key}: {reason}")]
    Corrupt {
        /// The item.
        key: Key,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// A stored item does not begin where the one before ends.
    #[error("{key}: the log goes on at position {expected}")]
    Gap {
        /// The item.
        key: Key,
        /// Where it should begin.
        expected: u64,
    },
    /// The store failed in a way that asking again does not cure; the log must be loaded again.
    #[error("the log can't be written or read: {0}")]
    Broken(String),
}
