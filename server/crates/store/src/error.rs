//! What can go wrong in a store.

use std::{borrow::Cow, error::Error, fmt, path::PathBuf};

use bytes::Bytes;
use cirrus_schema::TableId;
use serde::{Deserialize, Serialize};

use crate::{BlobKey, Item, Key, serial};

/// The error below an error.
pub type Source = Box<dyn Error + Send + Sync>;

/// What an error is about.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// An item.
    Item(Key),
    /// A partition.
    Partition(TableId, #[serde(with = "crate::raw")] Bytes),
    /// A table, or several of its items.
    Table(TableId),
    /// A blob, or the blobs whose name starts so.
    Blob(BlobKey),
    /// A file or folder of an embedded backend.
    Path(#[serde(with = "serial::path")] PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Item(key) => write!(f, "{key}"),
            Place::Partition(table, pk) => write!(f, "{}[{}]", table.name(), pk.escape_ascii()),
            Place::Table(table) => write!(f, "{}", table.name()),
            Place::Blob(key) => write!(f, "{key}"),
            Place::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error of a table or blob store.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The condition of a write didn't hold, and not because of an earlier try of the same write.
    #[error("{key}: the condition does not hold")]
    Conflict {
        /// The item that was to be written.
        key: Key,
        /// What is there instead; `None` = nothing.
        existing: Option<Box<Item>>,
    },
    /// The store refused for load, also when asked again. Nothing was written.
    #[error("{place}: the store is overloaded")]
    Throttled {
        /// What was asked for.
        place: Place,
        /// What the provider said.
        #[serde(with = "serial::source")]
        source: Option<Source>,
    },
    /// The store could not be reached, or failed.
    #[error("{place}: the store is not available")]
    Unavailable {
        /// What was asked for.
        place: Place,
        /// The request may have been carried out all the same.
        outcome_unknown: bool,
        /// What the provider or the system said.
        #[serde(with = "serial::source")]
        source: Option<Source>,
    },
    /// No answer came in time. The request may have been carried out, or may be yet.
    #[error("{place}: the store did not answer in time")]
    Timeout {
        /// What was asked for.
        place: Place,
        /// What the client library said.
        #[serde(with = "serial::source")]
        source: Option<Source>,
    },
    /// The item, key or blob exceeds a limit of [`limits`](crate::limits).
    #[error("{place}: {what} of {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What was to be written or read.
        place: Place,
        /// Which part of it is too large.
        what: Cow<'static, str>,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The request itself is wrong: a bug of the caller, or a refusal that no repetition cures.
    #[error("{place}: {reason}")]
    Invalid {
        /// What was asked for.
        place: Place,
        /// What is wrong.
        reason: String,
        /// What the provider said, if it was the provider who found it wrong.
        #[serde(with = "serial::source")]
        source: Option<Source>,
    },
    /// What is stored can't be understood.
    #[error("{place}: {reason}")]
    Corrupt {
        /// What was read.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// An embedded backend could not be opened.
    #[error("{place}: {reason}")]
    Open {
        /// The folder or file.
        place: Place,
        /// Why, and what to do about it.
        reason: String,
        /// What the system said.
        #[serde(with = "serial::source")]
        source: Option<Source>,
    },
}

impl StoreError {
    /// Whether the same request may succeed later (for a put: with the same nonce).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            StoreError::Throttled { .. }
                | StoreError::Unavailable { .. }
                | StoreError::Timeout { .. }
        )
    }

    /// Whether a write may have happened, or may yet happen, although it was not confirmed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            StoreError::Timeout { .. } => true,
            StoreError::Unavailable {
                outcome_unknown, ..
            } => *outcome_unknown,
            _ => false,
        }
    }

    pub(crate) fn invalid(place: Place, reason: impl Into<String>) -> StoreError {
        StoreError::Invalid {
            place,
            reason: reason.into(),
            source: None,
        }
    }

    pub(crate) fn corrupt(place: Place, reason: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            place,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_tried_again() {
        let place = Place::Table(TableId::Archive);
        let timeout = StoreError::Timeout {
            place: place.clone(),
            source: None,
        };
        assert!(timeout.is_retryable() && timeout.outcome_unknown());
        let throttled = StoreError::Throttled {
            place: place.clone(),
            source: None,
        };
        assert!(throttled.is_retryable() && !throttled.outcome_unknown());
        let invalid = StoreError::invalid(place, "no");
        assert!(!invalid.is_retryable() && !invalid.outcome_unknown());
        assert_eq!(invalid.to_string(), "archive: no");
    }
}
