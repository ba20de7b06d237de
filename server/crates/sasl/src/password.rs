//! A password as it is used: prepared by SASLprep, never printed, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Longest password in bytes, before and after preparation. The figure is that of an XMPP address
/// part (RFC 7622, section 3.1): long enough for any generator, short enough to bound the work.
pub const MAX_PASSWORD_BYTES: usize = 1023;

/// A prepared password (RFC 4013). Its text appears in no `Debug` output.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a password cannot be used. Its text contains nothing of the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// Nothing left after SASLprep has removed what does not count.
    #[error("is empty")]
    Empty,
    /// Above [`MAX_PASSWORD_BYTES`].
    #[error("is longer than 1023 bytes")]
    TooLong,
    /// Control characters, unassigned code points or mixed directions (RFC 4013, section 2).
    #[error("contains characters that SASLprep (RFC 4013) forbids, such as control characters")]
    Forbidden,
}

impl Password {
    /// Prepares what a user typed.
    ///
    /// # Errors
    /// A [`PasswordFault`] when it is empty, too long or refused by SASLprep.
    pub fn prepare(text: &str) -> Result<Password, PasswordFault> {
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordFault::TooLong);
        }
        let prepared = stringprep::saslprep(text).map_err(|_| PasswordFault::Forbidden)?;
        let prepared = Zeroizing::new(prepared.into_owned());
        // Checked after preparation too: it drops characters, and NFKC may make several of one.
        if prepared.is_empty() {
            return Err(PasswordFault::Empty);
        }
        if prepared.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordFault::TooLong);
        }
        Ok(Password(prepared))
    }

    /// The prepared text, for key derivation and for showing a generated password once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saslprep_examples_of_rfc_4013() {
        let prepared = |text| Password::prepare(text).map(|password| password.expose().to_owned());
        assert_eq!(prepared("I\u{AD}X").unwrap(), "IX");
        assert_eq!(prepared("user").unwrap(), "user");
        assert_eq!(prepared("USER").unwrap(), "USER");
        assert_eq!(prepared("\u{AA}").unwrap(), "a");
        assert_eq!(prepared("\u{2168}").unwrap(), "IX");
        assert_eq!(prepared("\u{7}"), Err(PasswordFault::Forbidden));
        assert_eq!(prepared("\u{627}1"), Err(PasswordFault::Forbidden));
        assert_eq!(prepared("a\u{A0}b").unwrap(), "a b");
    }

    #[test]
    fn empty_and_long_are_told_apart() {
        assert_eq!(Password::prepare("").err(), Some(PasswordFault::Empty));
        assert_eq!(
            Password::prepare("\u{AD}").err(),
            Some(PasswordFault::Empty)
        );
        assert!(Password::prepare(&"x".repeat(MAX_PASSWORD_BYTES)).is_ok());
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        assert_eq!(Password::prepare(&long).err(), Some(PasswordFault::TooLong));
        // 341 ligatures fit as typed, and become 18 characters each.
        let ligatures = "\u{FDFA}".repeat(341);
        assert!(ligatures.len() <= MAX_PASSWORD_BYTES);
        assert!(Password::prepare(&ligatures).is_err());
    }

    #[test]
    fn it_is_not_printed() {
        let password = Password::prepare("correct horse").unwrap();
        assert_eq!(format!("{password:?}"), "Password(…)");
    }

    #[test]
    fn the_text_names_the_real_limit() {
        assert!(
            PasswordFault::TooLong
                .to_string()
                .contains(&MAX_PASSWORD_BYTES.to_string())
        );
    }
}
