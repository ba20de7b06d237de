//! The exchange as its carrier drives it, whatever the mechanism.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::scram::Exchange;
use crate::{ChannelBinding, FakeKeys, Hash, Mechanism, Password, SaslError, StoredKey, plain};

/// Longest message taken from a client, in bytes. The longest sensible one is a PLAIN message or a
/// first SCRAM message: 2,047 for the authorization identity and 1,023 for the user, all of it
/// escaped, 1,023 for a password or 256 for a nonce.
pub const MAX_MESSAGE_BYTES: usize = 10 * 1024;
/// Longest user name in bytes, as sent and prepared: a localpart's (RFC 7622, section 3.3).
pub const MAX_NAME_BYTES: usize = 1023;
/// Random bytes in the server's nonce: 144 bits, 24 characters on the wire.
pub const NONCE_BYTES: usize = 18;

/// What an exchange needs to know of its stream.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The mechanism the client chose.
    pub mechanism: Mechanism,
    /// The stream's host, normalised.
    pub host: &'a str,
    /// What this stream advertised: see [`crate::offer`].
    pub advertised: &'a [Mechanism],
    /// The accepted channel bindings, those of XEP-0440's list, with this connection's data.
    pub bindings: &'a [ChannelBinding],
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_BYTES],
}

/// What comes next in an exchange.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send this to the client, then call [`Server::step`] with its answer. May be empty.
    Challenge(Vec<u8>),
    /// Load the user's keys for this hash, then call [`Server::keys`].
    NeedKeys {
        /// The name after SASLprep; not yet a localpart.
        user: String,
        /// Already found to be the user's own bare JID.
        authzid: Option<String>,
        /// Which keys.
        hash: Hash,
    },
    /// Check this password (off the event loop), then call [`Server::verified`].
    NeedVerify {
        /// The name after SASLprep; not yet a localpart.
        user: String,
        /// The password after SASLprep.
        password: Password,
    },
    /// The client is who it says. Only now may the caller look at whether the account is disabled;
    /// if so it fails with [`SaslError::AccountDisabled`] and drops `data`.
    Success {
        /// The name after SASLprep; not yet a localpart.
        user: String,
        /// Already found to be the user's own bare JID.
        authzid: Option<String>,
        /// Goes to the client with the success. Empty: none.
        data: Vec<u8>,
    },
    /// The exchange is over. What the client is told is [`SaslError::condition`].
    Failure(SaslError),
}

/// One SASL exchange, the server's side. After [`Step::Success`] or [`Step::Failure`] it only
/// answers [`SaslError::OutOfTurn`].
#[derive(Debug)]
pub struct Server {
    host: String,
    state: State,
}

enum State {
    Scram(Exchange),
    Plain,
    PlainVerify(Identity),
    Done,
}

impl Server {
    /// # Errors
    /// [`SaslError::InvalidMechanism`] when the mechanism was not advertised.
    pub fn new(setup: &Setup<'_>) -> Result<Server, SaslError> {
        Self::with_nonce(setup, STANDARD.encode(setup.nonce))
    }

    /// Vectors of the RFCs have nonces that are not base64.
    fn with_nonce(setup: &Setup<'_>, nonce: String) -> Result<Server, SaslError> {
        if !setup.advertised.contains(&setup.mechanism) {
            return Err(SaslError::InvalidMechanism);
        }
        let state = match setup.mechanism.hash() {
            None => State::Plain,
            Some(hash) => State::Scram(Exchange::new(
                hash,
                setup.mechanism.is_plus(),
                setup.advertised.iter().any(|mechanism| mechanism.is_plus()),
                setup.bindings.to_vec(),
                nonce,
            )),
        };
        Ok(Server {
            host: setup.host.to_owned(),
            state,
        })
    }

    /// Begins with the client's initial response. Without one the client is asked for it by an
    /// empty challenge, as both mechanisms are client-first (RFC 4422, section 5).
    pub fn start(&mut self, initial: Option<&[u8]>) -> Step {
        match initial {
            Some(input) => self.step(input),
            None => Step::Challenge(Vec::new()),
        }
    }

    /// Takes a message of the client, out of its base64.
    pub fn step(&mut self, input: &[u8]) -> Step {
        if input.len() > MAX_MESSAGE_BYTES {
            let limit = MAX_MESSAGE_BYTES;
            return self.fail(SaslError::TooLong {
                what: "the SASL message",
                limit,
            });
        }
        let Ok(input) = str::from_utf8(input) else {
            return self.fail(SaslError::Malformed("not UTF-8"));
        };
        let step = match &mut self.state {
            State::Scram(_) if input.contains('\0') => Err(SaslError::Malformed("a NUL")),
            State::Scram(exchange) => exchange.step(input, &self.host),
            State::Plain => plain::parse(input, &self.host).map(|(identity, password)| {
                let user = identity.user.clone();
                self.state = State::PlainVerify(identity);
                Step::NeedVerify { user, password }
            }),
            State::PlainVerify(_) | State::Done => Err(SaslError::OutOfTurn),
        };
        self.conclude(step)
    }

    /// Answers [`Step::NeedKeys`]; `None` for an unknown user, or one without keys of that hash.
    /// `fake` then stands in, and the exchange runs to its end as with a wrong password.
    pub fn keys(&mut self, key: Option<&StoredKey>, fake: &FakeKeys) -> Step {
        let step = match &mut self.state {
            State::Scram(exchange) => exchange.keys(key, fake, &self.host),
            _ => Err(SaslError::OutOfTurn),
        };
        self.conclude(step)
    }

    /// Answers [`Step::NeedVerify`]: whether the password is the user's.
    pub fn verified(&mut self, right: bool) -> Step {
        match std::mem::replace(&mut self.state, State::Done) {
            State::PlainVerify(Identity { user, authzid }) if right => Step::Success {
                user,
                authzid,
                data: Vec::new(),
            },
            State::PlainVerify(_) => Step::Failure(SaslError::NotAuthorized),
            _ => Step::Failure(SaslError::OutOfTurn),
        }
    }

    fn conclude(&mut self, step: Result<Step, SaslError>) -> Step {
        match step {
            Ok(step) => {
                if matches!(step, Step::Success { .. }) {
                    self.state = State::Done;
                }
                step
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: SaslError) -> Step {
        self.state = State::Done;
        Step::Failure(error)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scram(exchange) => exchange.fmt(f),
            Self::Plain => f.write_str("Plain"),
            Self::PlainVerify(_) => f.write_str("PlainVerify"),
            Self::Done => f.write_str("Done"),
        }
    }
}

/// Who authenticates, and as whom: the latter is always the same user.
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) authzid: Option<String>,
}

impl Identity {
    /// Prepares the name and checks that `authzid`, if any, is `user@host` (RFC 6120, section
    /// 6.3.8: acting for somebody else is not supported).
    pub(crate) fn new(
        user: &str,
        authzid: Option<&str>,
        host: &str,
    ) -> Result<Identity, SaslError> {
        let too_long = SaslError::TooLong {
            what: "the user name",
            limit: MAX_NAME_BYTES,
        };
        if user.len() > MAX_NAME_BYTES {
            return Err(too_long);
        }
        let user = stringprep::saslprep(user)
            .map_err(|_| SaslError::UserName)?
            .into_owned();
        if user.is_empty() {
            return Err(SaslError::UserName);
        }
        if user.len() > MAX_NAME_BYTES {
            return Err(too_long);
        }
        if authzid.is_some_and(|authzid| !is_bare_jid_of(authzid, &user, host)) {
            return Err(SaslError::InvalidAuthzid);
        }
        Ok(Identity {
            user,
            authzid: authzid.map(str::to_owned),
        })
    }
}

/// Whether `authzid` is another spelling of `user@host` by the rules of XMPP addresses.
fn is_bare_jid_of(authzid: &str, user: &str, host: &str) -> bool {
    let Some((local, domain)) = authzid.split_once('@') else {
        return false;
    };
    if local.len() > MAX_NAME_BYTES || domain.len() > MAX_NAME_BYTES {
        return false;
    }
    let (Ok(local), Ok(user)) = (stringprep::nodeprep(local), stringprep::nodeprep(user)) else {
        return false;
    };
    let (Ok(domain), Ok(host)) = (stringprep::nameprep(domain), stringprep::nameprep(host)) else {
        return false;
    };
    !local.is_empty() && local == user && domain == host
}

#[cfg(test)]
mod tests;
