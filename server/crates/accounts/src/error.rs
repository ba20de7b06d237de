//! What can go wrong with an account.

use cirrus_jid::BareJid;
use cirrus_sasl::{PasswordFault, SaslError};
use cirrus_store::{Source, StoreError};

/// An account that could not be read or changed. Contains nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is an account of this name.
    #[error("{0} exists already")]
    Exists(BareJid),
    /// There is no account of this name.
    #[error("{0} does not exist")]
    NotFound(BareJid),
    /// The account's deletion has begun and not ended.
    #[error("{0} is being deleted; if that was interrupted, delete it again")]
    Deleting(BareJid),
    /// The address of a host, where a user's is needed.
    #[error("{0} is not a user: an account is called user@host")]
    NotAUser(BareJid),
    /// A name too long to be a key everywhere.
    #[error("{jid} is longer than {limit} bytes")]
    TooLong {
        /// Whose.
        jid: BareJid,
        /// The limit in bytes.
        limit: usize,
    },
    /// A password that cannot be used.
    #[error("the password {0}")]
    Password(#[from] PasswordFault),
    /// Too many derivations are waiting: try again.
    #[error("too many passwords are being checked")]
    Busy,
    /// Others kept changing the account at the same time: try again.
    #[error("{0} was changed by others at the same time")]
    Contended(BareJid),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The options or a stored key are out of range.
    #[error("{what}: {source}")]
    Keys {
        /// Whose keys, or which option.
        what: String,
        /// What is wrong.
        source: SaslError,
    },
    /// A row that this version cannot read.
    #[error("account row of {jid}: {reason}")]
    Corrupt {
        /// Whose.
        jid: BareJid,
        /// What is wrong.
        reason: &'static str,
    },
    /// What the account owned could not be erased; the account is disabled. Delete it again.
    #[error("what {jid} owned could not be erased: {source}; delete it again")]
    Erase {
        /// Whose.
        jid: BareJid,
        /// What went wrong.
        source: Source,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl AccountError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Contended(_) | Self::Erase { .. } => true,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> AccountError {
        // The item in the way holds keys, and errors are printed.
        match error {
            StoreError::Conflict { key, .. } => AccountError::Store(StoreError::Conflict {
                key,
                existing: None,
            }),
            error => AccountError::Store(error),
        }
    }
}
