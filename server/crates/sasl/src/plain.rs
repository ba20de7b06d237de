//! The grammar of PLAIN (RFC 4616, section 2).

use crate::server::Identity;
use crate::{Password, SaslError};

/// Reads `[authzid] NUL authcid NUL passwd`.
pub(crate) fn parse(input: &str, host: &str) -> Result<(Identity, Password), SaslError> {
    let mut parts = input.split('\0');
    let (Some(authzid), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed("not authzid NUL authcid NUL password"));
    };
    if user.is_empty() || password.is_empty() {
        return Err(SaslError::Malformed("an empty name or password"));
    }
    let identity = Identity::new(user, Some(authzid).filter(|it| !it.is_empty()), host)?;
    // A password that no account can have is a wrong password, not a protocol error.
    let password = Password::prepare(password).map_err(|_| SaslError::NotAuthorized)?;
    Ok((identity, password))
}
