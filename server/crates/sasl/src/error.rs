//! Everything that can go wrong, and what a peer is told about it.

use crate::password::PasswordFault;

/// A failed exchange, or key material that cannot be used.
///
/// The text of a variant never contains what the peer sent, so it may be logged and may go into
/// `<text/>`. [`SaslError::condition`] is what goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The peer sent `<abort/>`.
    #[error("the client aborted the exchange")]
    Aborted,
    /// Wrong password, wrong proof or no such user: deliberately one variant.
    #[error("the credentials are not valid")]
    NotAuthorized,
    /// The account exists and the proof was right, but it may not log in.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The proof was right, but the credential is too old to be accepted.
    #[error("the credentials have expired")]
    CredentialsExpired,
    /// The mechanism is only allowed on an encrypted stream.
    #[error("this mechanism needs an encrypted stream")]
    EncryptionRequired,
    /// The account store did not answer, or a derivation could not be queued in time.
    #[error("authentication is temporarily not possible")]
    TemporaryFailure,
    /// The mechanism is unknown or was not advertised on this stream.
    #[error("the mechanism was not offered on this stream")]
    InvalidMechanism,
    /// The mechanism is known but policy forbids it for this user.
    #[error("the mechanism is too weak for this account")]
    MechanismTooWeak,
    /// The base64 of the carrier is broken (RFC 6120, 6.5.4).
    #[error("the data is not base64 as RFC 4648 section 4 wants it")]
    IncorrectEncoding,
    /// The authorization identity is not the bare JID of the authenticated user.
    #[error("the authorization identity is not the user's own bare JID")]
    InvalidAuthzid,
    /// A message that breaks the mechanism's grammar; the text says where.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A message, name or nonce above its limit.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// `m=`: an extension the client insists on and this server does not know (RFC 5802, 5.1).
    #[error("a mandatory extension is not supported")]
    ExtensionRefused,
    /// The user name does not survive SASLprep.
    #[error("the user name is not valid")]
    UserName,
    /// gs2 flag `y` although -PLUS was offered: somebody removed it from the list (RFC 5802, 6).
    #[error("the client did not see the channel binding that this server offered")]
    Downgrade,
    /// A -PLUS mechanism without channel binding, or channel binding without -PLUS.
    #[error("the channel binding flag does not fit the mechanism")]
    BindingFlag,
    /// A channel-binding type that was not offered (XEP-0440).
    #[error("the channel binding type was not offered")]
    BindingUnsupported,
    /// The channel-binding data differ: the two ends are not on the same TLS connection.
    #[error("the channel bindings do not match")]
    BindingMismatch,
    /// The machine was driven out of turn, or after it had ended.
    #[error("message out of turn")]
    OutOfTurn,
    /// A password that cannot be used.
    #[error("the password {0}")]
    Password(#[from] PasswordFault),
    /// An iteration count outside the accepted range.
    #[error("{0} iterations: the accepted range is 4096 to 1000000")]
    Iterations(u32),
    /// A salt outside the accepted range.
    #[error("a salt of {0} bytes: the accepted range is 8 to 64")]
    Salt(usize),
    /// A stored key that cannot be read; the text says why.
    #[error("stored key: {0}")]
    KeyFormat(&'static str),
}

/// The failure conditions of RFC 6120, section 6.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of RFC 6120, section 6.5")]
pub enum Condition {
    Aborted,
    AccountDisabled,
    CredentialsExpired,
    EncryptionRequired,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    MalformedRequest,
    MechanismTooWeak,
    NotAuthorized,
    TemporaryAuthFailure,
}

impl Condition {
    /// The element's name inside `<failure/>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::MechanismTooWeak => "mechanism-too-weak",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

impl SaslError {
    /// What the peer is told (RFC 6120, section 6.5).
    pub fn condition(&self) -> Condition {
        match self {
            Self::Aborted => Condition::Aborted,
            Self::AccountDisabled => Condition::AccountDisabled,
            Self::CredentialsExpired => Condition::CredentialsExpired,
            Self::EncryptionRequired => Condition::EncryptionRequired,
            Self::IncorrectEncoding => Condition::IncorrectEncoding,
            Self::InvalidAuthzid => Condition::InvalidAuthzid,
            Self::InvalidMechanism => Condition::InvalidMechanism,
            Self::MechanismTooWeak => Condition::MechanismTooWeak,
            Self::Malformed(_)
            | Self::TooLong { .. }
            | Self::ExtensionRefused
            | Self::BindingFlag
            | Self::OutOfTurn => Condition::MalformedRequest,
            Self::NotAuthorized
            | Self::UserName
            | Self::Downgrade
            | Self::BindingUnsupported
            | Self::BindingMismatch
            | Self::Password(_) => Condition::NotAuthorized,
            Self::TemporaryFailure | Self::Iterations(_) | Self::Salt(_) | Self::KeyFormat(_) => {
                Condition::TemporaryAuthFailure
            }
        }
    }

    /// The `server-error-value` of RFC 5802, section 7, for carriers that deliver one, and for
    /// logs.
    pub fn scram_error(&self) -> &'static str {
        match self {
            Self::NotAuthorized => "invalid-proof",
            Self::IncorrectEncoding => "invalid-encoding",
            Self::ExtensionRefused => "extensions-not-supported",
            Self::UserName => "invalid-username-encoding",
            Self::Downgrade => "server-does-support-channel-binding",
            Self::BindingFlag => "channel-binding-not-supported",
            Self::BindingUnsupported => "unsupported-channel-binding-type",
            Self::BindingMismatch => "channel-bindings-dont-match",
            Self::TemporaryFailure => "no-resources",
            _ => "other-error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_of_rfc_6120_has_its_name() {
        let names = [
            (SaslError::Aborted, "aborted"),
            (SaslError::AccountDisabled, "account-disabled"),
            (SaslError::CredentialsExpired, "credentials-expired"),
            (SaslError::EncryptionRequired, "encryption-required"),
            (SaslError::IncorrectEncoding, "incorrect-encoding"),
            (SaslError::InvalidAuthzid, "invalid-authzid"),
            (SaslError::InvalidMechanism, "invalid-mechanism"),
            (SaslError::Malformed(""), "malformed-request"),
            (SaslError::MechanismTooWeak, "mechanism-too-weak"),
            (SaslError::NotAuthorized, "not-authorized"),
            (SaslError::TemporaryFailure, "temporary-auth-failure"),
        ];
        for (error, name) in names {
            assert_eq!(error.condition().name(), name);
        }
    }

    #[test]
    fn the_texts_name_the_real_limits() {
        use crate::{MAX_ITERATIONS, MAX_SALT_BYTES, MIN_ITERATIONS, MIN_SALT_BYTES};
        let text = SaslError::Iterations(1).to_string();
        assert!(text.contains(&MIN_ITERATIONS.to_string()), "{text}");
        assert!(text.contains(&MAX_ITERATIONS.to_string()), "{text}");
        let text = SaslError::Salt(1).to_string();
        assert!(text.contains(&MIN_SALT_BYTES.to_string()), "{text}");
        assert!(text.contains(&MAX_SALT_BYTES.to_string()), "{text}");
    }
}
