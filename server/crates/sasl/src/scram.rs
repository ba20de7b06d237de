//! The server's half of a SCRAM exchange (RFC 5802, RFC 7677).

mod message;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{digest, equal, hmac, xor};
use crate::server::{Identity, Step};
use crate::{ChannelBinding, FakeKeys, Hash, SaslError, StoredKey};
use message::{ClientFinal, ClientFirst, Flag};

/// Longest nonce taken from a client, in bytes. Clients send 16 to 64.
pub const MAX_CLIENT_NONCE_BYTES: usize = 256;

/// One exchange. Its states follow the messages: the client's first, the keys from the caller,
/// the client's final.
pub(crate) struct Exchange {
    hash: Hash,
    state: State,
}

enum State {
    First {
        plus: bool,
        plus_offered: bool,
        bindings: Vec<ChannelBinding>,
        nonce: String,
    },
    Keys(Begun),
    Final {
        begun: Begun,
        server_first: String,
        key: StoredKey,
        known: bool,
    },
    Done,
}

/// What the client's first message settled.
struct Begun {
    identity: Identity,
    /// `client-first-message-bare`, as received: part of what both sides sign.
    client_first: String,
    /// What `c=` must decode to: the gs2 header and the channel-binding data.
    binding: Vec<u8>,
    /// Client's and server's nonce joined.
    nonce: String,
}

impl Exchange {
    /// `nonce` is the server's part: printable ASCII without comma.
    pub(crate) fn new(
        hash: Hash,
        plus: bool,
        plus_offered: bool,
        bindings: Vec<ChannelBinding>,
        nonce: String,
    ) -> Exchange {
        Exchange {
            hash,
            state: State::First {
                plus,
                plus_offered,
                bindings,
                nonce,
            },
        }
    }

    /// Takes a message of the client. An error ends the exchange.
    pub(crate) fn step(&mut self, input: &str, host: &str) -> Result<Step, SaslError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::First {
                plus,
                plus_offered,
                bindings,
                nonce,
            } => {
                let first = ClientFirst::parse(input)?;
                let data = binding_data(&first.flag, plus, plus_offered, &bindings)?;
                let identity = Identity::new(&first.user, first.authzid.as_deref(), host)?;
                let step = Step::NeedKeys {
                    user: identity.user.clone(),
                    authzid: identity.authzid.clone(),
                    hash: self.hash,
                };
                self.state = State::Keys(Begun {
                    identity,
                    client_first: first.bare.to_owned(),
                    binding: [first.gs2_header.as_bytes(), data].concat(),
                    nonce: format!("{}{nonce}", first.nonce),
                });
                Ok(step)
            }
            State::Final {
                begun,
                server_first,
                key,
                known,
            } => finish(self.hash, begun, &server_first, &key, known, input),
            State::Keys(_) | State::Done => Err(SaslError::OutOfTurn),
        }
    }

    /// Takes the user's keys, `None` for a user without keys of this hash.
    pub(crate) fn keys(
        &mut self,
        key: Option<&StoredKey>,
        fake: &FakeKeys,
        host: &str,
    ) -> Result<Step, SaslError> {
        let State::Keys(begun) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(SaslError::OutOfTurn);
        };
        if key.is_some_and(|key| key.hash != self.hash) {
            return Err(SaslError::KeyFormat("keys of another hash"));
        }
        // Made even when not needed: the work must not tell known users from unknown ones.
        let made_up = fake.key(self.hash, host, &begun.identity.user);
        let known = key.is_some();
        let key = key.cloned().unwrap_or(made_up);
        let salt = STANDARD.encode(&key.salt);
        let server_first = format!("r={},s={salt},i={}", begun.nonce, key.iterations);
        let challenge = Step::Challenge(server_first.clone().into_bytes());
        self.state = State::Final {
            begun,
            server_first,
            key,
            known,
        };
        Ok(challenge)
    }
}

#[cfg(test)]
impl Exchange {
    /// Puts other keys in place of those the exchange runs on.
    pub(crate) fn plant(&mut self, planted: StoredKey) {
        if let State::Final {
            server_first,
            key,
            begun,
            ..
        } = &mut self.state
        {
            let salt = STANDARD.encode(&planted.salt);
            *server_first = format!("r={},s={salt},i={}", begun.nonce, planted.iterations);
            *key = planted;
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::First { .. } => "First",
            State::Keys(_) => "Keys",
            State::Final { .. } => "Final",
            State::Done => "Done",
        };
        write!(f, "Scram({}, {state})", self.hash.name())
    }
}

/// The channel-binding data the gs2 flag asks for, empty without binding (RFC 5802, section 6).
fn binding_data<'a>(
    flag: &Flag<'_>,
    plus: bool,
    plus_offered: bool,
    bindings: &'a [ChannelBinding],
) -> Result<&'a [u8], SaslError> {
    match (flag, plus) {
        (Flag::Bound(name), true) => bindings
            .iter()
            .find(|binding| binding.kind.name() == *name)
            .map(|binding| binding.data.as_slice())
            .ok_or(SaslError::BindingUnsupported),
        // The client would have bound, but says that nobody offered it.
        (Flag::NotOffered, false) if plus_offered => Err(SaslError::Downgrade),
        (Flag::NotOffered | Flag::Unsupported, false) => Ok(&[]),
        (Flag::Bound(_), false) | (Flag::NotOffered | Flag::Unsupported, true) => {
            Err(SaslError::BindingFlag)
        }
    }
}

/// Checks the client's final message and proves the server in turn (RFC 5802, section 3).
fn finish(
    hash: Hash,
    begun: Begun,
    server_first: &str,
    key: &StoredKey,
    known: bool,
    input: &str,
) -> Result<Step, SaslError> {
    let last = ClientFinal::parse(input)?;
    if !equal(last.nonce.as_bytes(), begun.nonce.as_bytes()) {
        return Err(SaslError::Malformed(
            "the nonce is not the one of this exchange",
        ));
    }
    let binding = decode(last.binding)?;
    if !equal(&binding, &begun.binding) {
        return Err(SaslError::BindingMismatch);
    }
    let proof = decode(last.proof)?;
    if proof.len() != hash.size() {
        return Err(SaslError::Malformed(
            "the proof has not the size of the hash",
        ));
    }
    let comma: &[u8] = b",";
    let signed = [
        begun.client_first.as_bytes(),
        comma,
        server_first.as_bytes(),
        comma,
        last.without_proof.as_bytes(),
    ];
    let signature = hmac(hash, &key.stored_key, &signed);
    let client_key = xor(&proof, signature.as_ref());
    if !(equal(&digest(hash, &client_key), &key.stored_key) & known) {
        return Err(SaslError::NotAuthorized);
    }
    let server_signature = hmac(hash, &key.server_key, &signed);
    let Identity { user, authzid } = begun.identity;
    let data = format!("v={}", STANDARD.encode(server_signature)).into_bytes();
    Ok(Step::Success {
        user,
        authzid,
        data,
    })
}

fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD
        .decode(text)
        .map_err(|_| SaslError::IncorrectEncoding)
}
