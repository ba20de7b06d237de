//! Tokens in place of passwords, and the mechanisms HT-SHA-256-* that prove the possession of one
//! in a single message (draft-schmaus-kitten-sasl-ht-08; XEP-0484).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::key::{equal, hmac};
use crate::server::Identity;
use crate::{BindingKind, ChannelBinding, Hash, MAX_MESSAGE_BYTES, SaslError};

/// Keeps tokens apart from whatever else may one day be made with the same key.
const PURPOSE: &[u8] = b"cirrus token 1";

/// A mechanism of the family HT. It is no member of [`Mechanism`](crate::Mechanism): passwords are
/// not for it, and it is offered in another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenMechanism {
    /// HT-SHA-256-EXPR: bound to the TLS connection by `tls-exporter`.
    Exporter,
    /// HT-SHA-256-ENDP: bound to the server's certificate by `tls-server-end-point`.
    EndPoint,
    /// HT-SHA-256-NONE: not bound.
    Unbound,
}

impl TokenMechanism {
    /// All of them, strongest first.
    pub const ALL: [TokenMechanism; 3] = [Self::Exporter, Self::EndPoint, Self::Unbound];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exporter => "HT-SHA-256-EXPR",
            Self::EndPoint => "HT-SHA-256-ENDP",
            Self::Unbound => "HT-SHA-256-NONE",
        }
    }

    /// The mechanism of a registered name.
    pub fn parse(name: &str) -> Option<TokenMechanism> {
        let mut all = Self::ALL.into_iter();
        all.find(|mechanism| mechanism.name() == name)
    }

    /// The binding data of a connection with these bindings: none for a mechanism without binding,
    /// `None` where the connection lacks the one that is needed.
    fn data(self, bindings: &[ChannelBinding]) -> Option<&[u8]> {
        let kind = match self {
            Self::Exporter => BindingKind::TlsExporter,
            Self::EndPoint => BindingKind::TlsServerEndPoint,
            Self::Unbound => return Some(&[]),
        };
        let binding = bindings.iter().find(|binding| binding.kind == kind);
        binding.map(|binding| &*binding.data)
    }

    /// Those that an encrypted connection with these bindings can do.
    pub fn offer(bindings: &[ChannelBinding]) -> impl Iterator<Item = TokenMechanism> {
        let all = Self::ALL.into_iter();
        all.filter(|mechanism| mechanism.data(bindings).is_some())
    }
}

/// A secret that a client shows instead of its password. `Debug` doesn't show it.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token that belongs to `parts`, in their order and with their borders: who doesn't have
    /// the key can't make it from them. So it need not be stored.
    pub fn derive(key: &[u8; 32], parts: &[&[u8]]) -> Token {
        let mut input = Zeroizing::new(PURPOSE.to_vec());
        for part in parts {
            // A length of eight bytes is longer than any part can be.
            input.extend_from_slice(&(part.len() as u64).to_be_bytes());
            input.extend_from_slice(part);
        }
        let tag = hmac(Hash::Sha256, key, &[&input]);
        Token(Zeroizing::new(URL_SAFE_NO_PAD.encode(tag.as_ref())))
    }

    /// The token as the client is given it: 43 characters of base64 for URLs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The message by which a client proves that it has a token. `Debug` shows neither proof nor
/// binding.
#[derive(Clone)]
pub struct TokenProof {
    /// Which mechanism made it.
    pub mechanism: TokenMechanism,
    /// The name after SASLprep; not yet a localpart.
    pub user: String,
    proof: Vec<u8>,
    binding: Vec<u8>,
}

impl TokenProof {
    /// Reads `authcid NUL HMAC`, which came over a connection with these bindings.
    ///
    /// # Errors
    /// [`SaslError::InvalidMechanism`] when the connection can't do the mechanism, else what is
    /// wrong with the message.
    pub fn parse(
        mechanism: TokenMechanism,
        input: &[u8],
        bindings: &[ChannelBinding],
    ) -> Result<TokenProof, SaslError> {
        const WRONG: SaslError = SaslError::Malformed("not authcid NUL hashed token");
        if input.len() > MAX_MESSAGE_BYTES {
            let limit = MAX_MESSAGE_BYTES;
            let what = "the SASL message";
            return Err(SaslError::TooLong { what, limit });
        }
        let binding = mechanism.data(bindings);
        let binding = binding.ok_or(SaslError::InvalidMechanism)?.to_vec();
        let end = input.iter().position(|byte| *byte == 0).ok_or(WRONG)?;
        let (user, proof) = input.split_at(end);
        let proof = proof.get(1..).unwrap_or_default();
        let user = str::from_utf8(user).map_err(|_| SaslError::Malformed("not UTF-8"))?;
        if user.is_empty() || proof.len() != Hash::Sha256.size() {
            return Err(WRONG);
        }
        // There is no authorization identity in these messages.
        let Identity { user, .. } = Identity::new(user, None, "")?;
        Ok(TokenProof {
            mechanism,
            user,
            proof: proof.to_vec(),
            binding,
        })
    }

    /// Whether `token` made it. Takes the same time whatever is wrong.
    pub fn is_of(&self, token: &Token) -> bool {
        equal(self.tag(token, b"Initiator").as_ref(), &self.proof)
    }

    /// What proves to the client that the server knows its token.
    pub fn answer(&self, token: &Token) -> Vec<u8> {
        self.tag(token, b"Responder").as_ref().to_vec()
    }

    fn tag(&self, token: &Token, side: &[u8]) -> aws_lc_rs::hmac::Tag {
        let key = token.expose().as_bytes();
        hmac(Hash::Sha256, key, &[side, &self.binding])
    }
}

impl fmt::Debug for TokenProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProof")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The client's half: the message of `user` who has `token`, over a connection with this binding
/// data, and what the server must answer.
#[cfg(any(test, feature = "client"))]
pub fn present(user: &str, token: &str, binding: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let tag = |side: &[u8]| hmac(Hash::Sha256, token.as_bytes(), &[side, binding]);
    let mut message = [user.as_bytes(), b"\0"].concat();
    message.extend_from_slice(tag(b"Initiator").as_ref());
    (message, tag(b"Responder").as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings() -> Vec<ChannelBinding> {
        let binding = |(kind, byte)| ChannelBinding {
            kind,
            data: vec![byte; 32],
        };
        let kinds = [
            (BindingKind::TlsExporter, 1),
            (BindingKind::TlsServerEndPoint, 2),
        ];
        kinds.map(binding).to_vec()
    }

    fn token() -> Token {
        Token::derive(&[7; 32], &[b"example.com\0juliet", b"client"])
    }

    /// HMAC-SHA-256 under the key "token" of "Initiator" and 32 bytes 0x01, and of "Responder" and
    /// the same, computed with another implementation.
    #[test]
    fn both_messages_are_those_of_the_draft() {
        let token = Token(Zeroizing::new("token".to_owned()));
        let (message, answer) = present("juliet", "token", &[1; 32]);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&message[7..]), INITIATOR);
        assert_eq!(hex(&answer), RESPONDER);
        let proof = TokenProof::parse(TokenMechanism::Exporter, &message, &bindings()).unwrap();
        assert!(proof.is_of(&token));
        assert_eq!(
            (proof.user.as_str(), proof.answer(&token)),
            ("juliet", answer)
        );
    }

    const INITIATOR: &str = "d238e513930f5de03ad3e4a0784cdf3af2a6ab348b6e50a324b2a543b367c7c9";
    const RESPONDER: &str = "dbb717a3e9c8d6be84bc762da6b82c2875894cf5aabfb994056217fd48c983ae";

    #[test]
    fn a_proof_is_bound_to_its_token_and_its_connection() {
        let token = token();
        for (mechanism, data) in [
            (TokenMechanism::Exporter, vec![1; 32]),
            (TokenMechanism::EndPoint, vec![2; 32]),
            (TokenMechanism::Unbound, vec![]),
        ] {
            let (message, _) = present("juliet", token.expose(), &data);
            let is_right = |bindings: &[ChannelBinding], token: &Token| {
                let proof = TokenProof::parse(mechanism, &message, bindings).unwrap();
                proof.is_of(token)
            };
            assert!(is_right(&bindings(), &token));
            let other = Token::derive(&[7; 32], &[b"example.com\0juliet", b"clien", b"t"]);
            assert!(!is_right(&bindings(), &other));
            let mut elsewhere = bindings();
            for binding in &mut elsewhere {
                binding.data[0] ^= 1;
            }
            let unbound = mechanism == TokenMechanism::Unbound;
            assert_eq!(is_right(&elsewhere, &token), unbound);
            let (broken, _) = present("juliet", token.expose(), b"other data");
            let proof = TokenProof::parse(mechanism, &broken, &bindings()).unwrap();
            assert!(!proof.is_of(&token));
        }
    }

    #[test]
    fn parts_of_a_token_have_borders() {
        let token = |parts: &[&[u8]]| Token::derive(&[1; 32], parts).expose().to_owned();
        assert_eq!(token(&[b"ab", b"c"]).len(), 43);
        assert_ne!(token(&[b"ab", b"c"]), token(&[b"a", b"bc"]));
        assert_ne!(token(&[b"ab"]), Token::derive(&[2; 32], &[b"ab"]).expose());
    }

    #[test]
    fn what_is_no_message_of_the_mechanism_is_refused() {
        let parse = |input: &[u8]| {
            let proof = TokenProof::parse(TokenMechanism::Unbound, input, &[]);
            proof.map(drop).unwrap_err()
        };
        let malformed = |input: &[u8]| matches!(parse(input), SaslError::Malformed(_));
        assert!(malformed(b""));
        assert!(malformed(b"juliet"));
        assert!(malformed(&[b"juliet\0".as_slice(), &[1; 31]].concat()));
        assert!(malformed(&[b"juliet\0".as_slice(), &[1; 33]].concat()));
        assert!(malformed(&[b"\0".as_slice(), &[1; 32]].concat()));
        assert!(malformed(&[b"\xff\0".as_slice(), &[1; 32]].concat()));
        let long = [vec![b'x'; 1_024], vec![0; 33]].concat();
        assert!(matches!(parse(&long), SaslError::TooLong { .. }));
        let long = vec![b'x'; MAX_MESSAGE_BYTES + 1];
        assert!(matches!(parse(&long), SaslError::TooLong { .. }));
        let (message, _) = present("juliet", "t", &[]);
        let bound = TokenProof::parse(TokenMechanism::Exporter, &message, &bindings()[1..]);
        assert_eq!(bound.map(drop).unwrap_err(), SaslError::InvalidMechanism);
    }

    #[test]
    fn a_connection_is_offered_what_it_can_do() {
        let names = |bindings: &[ChannelBinding]| {
            let offered = TokenMechanism::offer(bindings);
            offered.map(TokenMechanism::name).collect::<Vec<_>>()
        };
        let all = ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"];
        assert_eq!(names(&bindings()), all);
        assert_eq!(names(&[]), ["HT-SHA-256-NONE"]);
        for mechanism in TokenMechanism::ALL {
            assert_eq!(TokenMechanism::parse(mechanism.name()), Some(mechanism));
        }
        assert_eq!(TokenMechanism::parse("HT-SHA-256-UNIQ"), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let token = token();
        let (message, _) = present("juliet", token.expose(), &[1; 32]);
        let proof = TokenProof::parse(TokenMechanism::Exporter, &message, &bindings()).unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(
            format!("{proof:?}"),
            "TokenProof { mechanism: Exporter, user: \"juliet\", .. }"
        );
    }
}
