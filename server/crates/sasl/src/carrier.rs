//! How the XMPP profiles of SASL carry the bytes of an exchange: base64 with two special cases
//! (RFC 6120, section 6.4; XEP-0388 uses the same).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{MAX_MESSAGE_BYTES, SaslError};

/// The initial response of `<auth/>` or `<initial-response/>`: empty text = none, `=` = an empty
/// one.
///
/// # Errors
/// [`SaslError::IncorrectEncoding`], [`SaslError::TooLong`].
pub fn decode_initial(text: &str) -> Result<Option<Vec<u8>>, SaslError> {
    if text.is_empty() {
        Ok(None)
    } else {
        decode(text).map(Some)
    }
}

/// The content of a later `<response/>`: empty text and `=` both mean empty data.
///
/// # Errors
/// [`SaslError::IncorrectEncoding`], [`SaslError::TooLong`].
pub fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    if text == "=" {
        return Ok(Vec::new());
    }
    // Looked at before anything is allocated for it.
    if text.len() > MAX_MESSAGE_BYTES.div_ceil(3) * 4 {
        return Err(SaslError::TooLong {
            what: "the SASL message",
            limit: MAX_MESSAGE_BYTES,
        });
    }
    STANDARD
        .decode(text)
        .map_err(|_| SaslError::IncorrectEncoding)
}

/// The content of `<challenge/>`: base64, empty text for an empty challenge.
pub fn encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// The additional data of `<success/>`: no data means an empty element.
pub fn encode_success(data: &[u8]) -> Option<String> {
    (!data.is_empty()).then(|| encode(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_and_empty_are_told_apart() {
        assert_eq!(decode_initial(""), Ok(None));
        assert_eq!(decode_initial("="), Ok(Some(vec![])));
        assert_eq!(decode_initial("bg=="), Ok(Some(b"n".to_vec())));
        assert_eq!(decode(""), Ok(vec![]));
        assert_eq!(decode("="), Ok(vec![]));
        assert_eq!(encode(b""), "");
        assert_eq!(encode_success(b""), None);
        assert_eq!(encode_success(b"v"), Some("dg==".to_owned()));
    }

    #[test]
    fn base64_is_strict() {
        // White space, missing padding, padding bits set, padding inside, other alphabets.
        for text in [
            "bg==\n", " bg==", "bg", "bh==", "bg==bg==", "b-__", "b", "==", "bé==",
        ] {
            assert_eq!(decode(text), Err(SaslError::IncorrectEncoding), "{text:?}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let long = "AAAA".repeat(MAX_MESSAGE_BYTES.div_ceil(3) + 1);
        assert!(matches!(decode(&long), Err(SaslError::TooLong { .. })));
    }
}
