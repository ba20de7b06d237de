//! What can go wrong between a domain and its certificate.

use cirrus_store::StoreError;

/// Why there is no certificate, or none yet.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority or the way to it.
    #[error("the authority {directory}: {}", crate::order::words(source))]
    Authority {
        /// Its directory.
        directory: String,
        /// Its word, or the network's.
        source: instant_acme::Error,
    },
    /// The authority has asked and was not satisfied.
    #[error("the authority could not confirm {name} by {method}: {reason}; {remedy}")]
    Unconfirmed {
        /// The name.
        name: String,
        /// The kind of challenge.
        method: &'static str,
        /// The authority's word.
        reason: String,
        /// What must be so for it to find the answer.
        remedy: &'static str,
    },
    /// The record that the authority is to read can't be published.
    #[error("the record {name} can't be published: {reason}")]
    Record {
        /// Its name.
        name: String,
        /// Why, with the remedy.
        reason: String,
    },
    /// The authority does not offer the configured challenge.
    #[error("the authority does not offer {method} for {name}; set acme.challenge to another")]
    NotOffered {
        /// The name.
        name: String,
        /// The kind of challenge.
        method: &'static str,
    },
    /// It took too long.
    #[error("the authority did not finish within {0} s")]
    Timeout(u64),
    /// What was issued can't be used.
    #[error("the authority issued a certificate that can't be used: {0}")]
    Unusable(String),
    /// A key or a request could not be made.
    #[error("the request for a certificate can't be made: {0}")]
    Request(String),
    /// The domain can't have a certificate.
    #[error("{0} is not a domain name, so no authority issues a certificate for it")]
    Name(String),
    /// The store failed.
    #[error("the certificate's row can't be read or written: {0}")]
    Store(#[from] Box<StoreError>),
    /// A row that this version can't read.
    #[error("{what} in the table `cluster` is not readable by this version")]
    Corrupt {
        /// Which row.
        what: String,
    },
    /// Another node has taken over.
    #[error("another node is asking the authority now")]
    TurnLost,
}

impl From<StoreError> for AcmeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl AcmeError {
    /// Whether the authority asked for more patience than a failure does.
    #[must_use]
    pub fn is_rate_limit(&self) -> bool {
        let Self::Authority { source, .. } = self else {
            return false;
        };
        let instant_acme::Error::Api(problem) = source else {
            return false;
        };
        let limited = |kind: &str| kind.ends_with(":rateLimited");
        problem.status == Some(429) || problem.r#type.as_deref().is_some_and(limited)
    }
}
