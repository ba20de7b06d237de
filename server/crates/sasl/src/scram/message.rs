//! The grammar of the client's messages (RFC 5802, section 7), read strictly: every attribute
//! once, in its place.

use super::MAX_CLIENT_NONCE_BYTES;
use crate::SaslError;

/// The gs2 channel-binding flag.
pub(super) enum Flag<'a> {
    /// `n`: the client cannot bind.
    Unsupported,
    /// `y`: the client can, and believes that the server cannot.
    NotOffered,
    /// `p=name`: bound with this type.
    Bound(&'a str),
}

/// `client-first-message`.
pub(super) struct ClientFirst<'a> {
    pub(super) flag: Flag<'a>,
    pub(super) authzid: Option<String>,
    pub(super) gs2_header: &'a str,
    pub(super) bare: &'a str,
    /// Unescaped, not yet prepared.
    pub(super) user: String,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(text: &'a str) -> Result<ClientFirst<'a>, SaslError> {
        let (flag, rest) = text
            .split_once(',')
            .ok_or(SaslError::Malformed("no gs2 header"))?;
        let flag = match (flag, flag.strip_prefix("p=")) {
            ("n", _) => Flag::Unsupported,
            ("y", _) => Flag::NotOffered,
            (_, Some(name)) if is_binding_name(name) => Flag::Bound(name),
            _ => return Err(SaslError::Malformed("gs2 channel binding flag")),
        };
        let (authzid, bare) = rest
            .split_once(',')
            .ok_or(SaslError::Malformed("no gs2 header"))?;
        let authzid = match (authzid, authzid.strip_prefix("a=")) {
            ("", _) => None,
            (_, Some(name)) => Some(unescape(name)?),
            _ => return Err(SaslError::Malformed("gs2 authorization identity")),
        };
        let gs2_header = text.strip_suffix(bare).unwrap_or_default();

        let mut attributes = bare.split(',');
        let user = unescape(value(attributes.next(), 'n')?)?;
        let nonce = value(attributes.next(), 'r')?;
        if nonce.len() > MAX_CLIENT_NONCE_BYTES {
            return Err(SaslError::TooLong {
                what: "the nonce",
                limit: MAX_CLIENT_NONCE_BYTES,
            });
        }
        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SaslError::Malformed("the nonce is not printable"));
        }
        check_extensions(attributes)?;
        Ok(ClientFirst {
            flag,
            authzid,
            gs2_header,
            bare,
            user,
            nonce,
        })
    }
}

/// `client-final-message`.
pub(super) struct ClientFinal<'a> {
    /// `c`, in base64.
    pub(super) binding: &'a str,
    pub(super) nonce: &'a str,
    /// `p`, in base64.
    pub(super) proof: &'a str,
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(text: &'a str) -> Result<ClientFinal<'a>, SaslError> {
        let (without_proof, proof) = text
            .rsplit_once(',')
            .ok_or(SaslError::Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = value(attributes.next(), 'c')?;
        let nonce = value(attributes.next(), 'r')?;
        check_extensions(attributes)?;
        let proof = value(Some(proof), 'p')?;
        Ok(ClientFinal {
            binding,
            nonce,
            proof,
            without_proof,
        })
    }
}

/// The value of the attribute that must stand here.
fn value(attribute: Option<&str>, name: char) -> Result<&str, SaslError> {
    let (found, value) = split(attribute.ok_or(SaslError::Malformed("an attribute is missing"))?)?;
    if found == 'm' {
        return Err(SaslError::ExtensionRefused);
    }
    if found != name {
        return Err(SaslError::Malformed(
            "an attribute is missing or out of order",
        ));
    }
    Ok(value)
}

/// Optional extensions are ignored, as RFC 5802 section 5.1 asks; one that repeats, or that takes
/// the name of an attribute the RFC defines, is refused.
fn check_extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), SaslError> {
    const DEFINED: &str = "anmrcsipve";
    let mut seen = 0_u128;
    for attribute in attributes {
        let (name, _) = split(attribute)?;
        if name == 'm' {
            return Err(SaslError::ExtensionRefused);
        }
        // A letter of ASCII: below 128.
        let bit = 1_u128 << u32::from(name);
        if DEFINED.contains(name) || seen & bit != 0 {
            return Err(SaslError::Malformed(
                "an attribute is repeated or out of order",
            ));
        }
        seen |= bit;
    }
    Ok(())
}

/// `attr-val`: one letter, `=`, at least one character.
fn split(attribute: &str) -> Result<(char, &str), SaslError> {
    let malformed = SaslError::Malformed("not a name, '=' and a value");
    let mut characters = attribute.chars();
    match (characters.next(), characters.next()) {
        (Some(name), Some('=')) if name.is_ascii_alphabetic() && attribute.len() > 2 => {
            Ok((name, characters.as_str()))
        }
        _ => Err(malformed),
    }
}

/// `saslname`: `=2C` is a comma, `=3D` an equals sign, any other `=` an error.
fn unescape(name: &str) -> Result<String, SaslError> {
    if name.is_empty() {
        return Err(SaslError::Malformed("an empty name"));
    }
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match part.split_at_checked(2) {
            Some(("2C", rest)) => (',', rest),
            Some(("3D", rest)) => ('=', rest),
            _ => return Err(SaslError::Malformed("a bad escape in a name")),
        };
        out.push(character);
        out.push_str(rest);
    }
    Ok(out)
}

/// `cb-name`: letters, digits, `.` and `-`.
fn is_binding_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Result<(String, Option<String>), SaslError> {
        ClientFirst::parse(text).map(|first| (first.user, first.authzid))
    }

    #[test]
    fn names_are_unescaped() {
        let user = |name: &str| first(&format!("n,,n={name},r=abc")).map(|(user, _)| user);
        assert_eq!(user("user").unwrap(), "user");
        assert_eq!(user("a=2Cb=3Dc").unwrap(), "a,b=c");
        assert_eq!(user("=3D2C").unwrap(), "=2C");
        assert_eq!(user("jos\u{e9}").unwrap(), "jos\u{e9}");
        for bad in ["", "a=", "a=2", "a=2c", "a=41", "==3D", "a=\u{e9}"] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_gs2_header_is_kept_as_received() {
        let message = "p=tls-exporter,a=u@h,n=u,r=abc,x=y";
        let parsed = ClientFirst::parse(message).unwrap();
        assert_eq!(parsed.gs2_header, "p=tls-exporter,a=u@h,");
        assert_eq!(parsed.bare, "n=u,r=abc,x=y");
        assert_eq!(parsed.authzid.as_deref(), Some("u@h"));
        assert!(matches!(parsed.flag, Flag::Bound("tls-exporter")));
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        use SaslError::{ExtensionRefused, Malformed};
        assert_eq!(first("n,,m=x,n=u,r=abc").err(), Some(ExtensionRefused));
        assert_eq!(first("n,,n=u,r=abc,m=x").err(), Some(ExtensionRefused));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=u,r=abc",
            "p=,,n=u,r=abc",
            "p=tls exporter,,n=u,r=abc",
            "p,,n=u,r=abc",
            "nn,,n=u,r=abc",
            "n,b=u,n=u,r=abc",
            "n,a=,n=u,r=abc",
            "n,,n=u",
            "n,,r=abc,n=u",
            "n,,n=u,n=u,r=abc",
            "n,,n=u,r=abc,r=abc",
            "n,,n=u,r=abc,x=1,x=2",
            "n,,n=u,r=abc,i=1",
            "n,,n=u,r=abc,",
            "n,,n=u,r=abc,=x",
            "n,,n=u,r=abc,xx",
            "n,,n=u,r=abc,1=x",
            "n,,n=u,r=",
            "n,,n=u,r=a b",
            "n,,n=u,r=a\u{e9}",
            "n,,N=u,r=abc",
        ] {
            assert!(matches!(first(bad), Err(Malformed(_))), "{bad:?}");
        }
        assert!(first("n,,n=u,r=abc,x=1,y=2,X=3").is_ok());
        let long = format!("n,,n=u,r={}", "a".repeat(MAX_CLIENT_NONCE_BYTES + 1));
        assert!(matches!(first(&long), Err(SaslError::TooLong { .. })));
    }

    #[test]
    fn the_final_message_is_read_in_order() {
        let parse = |text| ClientFinal::parse(text).map(|last| last.without_proof.to_owned());
        assert_eq!(parse("c=biws,r=ab,x=1,p=AA==").unwrap(), "c=biws,r=ab,x=1");
        for bad in [
            "",
            "p=AA==",
            "c=biws,p=AA==",
            "c=biws,r=ab",
            "c=biws,r=ab,p=",
            "r=ab,c=biws,p=AA==",
            "c=biws,c=biws,r=ab,p=AA==",
            "c=biws,r=ab,p=AA==,p=AA==",
            "c=biws,r=ab,p=AA==,x=1",
            "c=biws,r=ab,v=1,p=AA==",
            "c=biws,r=ab,x=1,x=1,p=AA==",
            "c=,r=ab,p=AA==",
        ] {
            assert!(
                matches!(parse(bad), Err(SaslError::Malformed(_))),
                "{bad:?}"
            );
        }
        assert_eq!(
            parse("c=biws,r=ab,m=1,p=AA==").err(),
            Some(SaslError::ExtensionRefused)
        );
    }
}
