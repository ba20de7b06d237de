//! The client's half of SCRAM and PLAIN: for tests and for the load generator, not for the server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{digest, equal, hmac, salted_password, xor};
use crate::{ChannelBinding, Hash, Password, SaslError};

/// What the client says about channel binding.
#[derive(Debug, Clone)]
pub enum ClientBinding {
    /// `n`: it cannot.
    Unsupported,
    /// `y`: it could, but saw no -PLUS.
    NotOffered,
    /// `p=`: bound.
    Bound(ChannelBinding),
}

/// The derived keys, kept so that a generator of many logins need not derive them again.
#[derive(Clone)]
pub struct ClientKeys {
    salt: Vec<u8>,
    iterations: u32,
    client_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// A SCRAM client: [`Client::first`], [`Client::respond`], [`Client::finish`].
pub struct Client {
    hash: Hash,
    binding: ClientBinding,
    authzid: Option<String>,
    user: String,
    password: Password,
    nonce: String,
    keys: Option<ClientKeys>,
    server_signature: Vec<u8>,
}

impl Client {
    /// `nonce` must be fresh and printable, without comma.
    pub fn new(hash: Hash, user: &str, password: Password, nonce: &str) -> Client {
        Client {
            hash,
            binding: ClientBinding::Unsupported,
            authzid: None,
            user: user.to_owned(),
            password,
            nonce: nonce.to_owned(),
            keys: None,
            server_signature: Vec::new(),
        }
    }

    /// Sets the gs2 flag.
    #[must_use]
    pub fn binding(mut self, binding: ClientBinding) -> Client {
        self.binding = binding;
        self
    }

    /// Sets the authorization identity.
    #[must_use]
    pub fn authzid(mut self, authzid: &str) -> Client {
        self.authzid = Some(authzid.to_owned());
        self
    }

    /// Uses keys of an earlier exchange where salt and iterations are still the same.
    #[must_use]
    pub fn cached(mut self, keys: ClientKeys) -> Client {
        self.keys = Some(keys);
        self
    }

    /// The keys of this exchange, once it has answered a challenge.
    pub fn keys(&self) -> Option<ClientKeys> {
        self.keys.clone()
    }

    /// `client-first-message`.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.gs2_header(), self.first_bare()).into_bytes()
    }

    /// `client-final-message` for a `server-first-message`.
    ///
    /// # Errors
    /// [`SaslError::Malformed`] and others when the challenge is not what it should be.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        let text = str::from_utf8(challenge).map_err(|_| SaslError::Malformed("not UTF-8"))?;
        let mut parts = text.split(',');
        let nonce = attribute(parts.next(), "r=")?;
        let salt = STANDARD
            .decode(attribute(parts.next(), "s=")?)
            .map_err(|_| SaslError::IncorrectEncoding)?;
        let iterations = attribute(parts.next(), "i=")?
            .parse()
            .map_err(|_| SaslError::Malformed("iterations"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() <= self.nonce.len() {
            return Err(SaslError::Malformed(
                "the nonce does not continue the client's",
            ));
        }
        let keys = self.derive(salt, iterations)?;
        let mut binding = self.gs2_header().into_bytes();
        if let ClientBinding::Bound(bound) = &self.binding {
            binding.extend_from_slice(&bound.data);
        }
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(binding));
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let stored_key = digest(self.hash, &keys.client_key);
        let signature = hmac(self.hash, &stored_key, &[signed.as_bytes()]);
        let proof = STANDARD.encode(xor(&keys.client_key, signature.as_ref()));
        self.server_signature = hmac(self.hash, &keys.server_key, &[signed.as_bytes()])
            .as_ref()
            .to_vec();
        Ok(format!("{without_proof},p={proof}").into_bytes())
    }

    /// Checks the server's proof.
    ///
    /// # Errors
    /// [`SaslError::NotAuthorized`] when the server does not know the keys.
    pub fn finish(&self, data: &[u8]) -> Result<(), SaslError> {
        let wanted = format!("v={}", STANDARD.encode(&self.server_signature));
        if equal(data, wanted.as_bytes()) {
            Ok(())
        } else {
            Err(SaslError::NotAuthorized)
        }
    }

    fn gs2_header(&self) -> String {
        let flag = match &self.binding {
            ClientBinding::Unsupported => "n".to_owned(),
            ClientBinding::NotOffered => "y".to_owned(),
            ClientBinding::Bound(bound) => format!("p={}", bound.kind.name()),
        };
        let authzid = self
            .authzid
            .as_deref()
            .map(|it| format!("a={}", escape(it)));
        format!("{flag},{},", authzid.unwrap_or_default())
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", escape(&self.user), self.nonce)
    }

    fn derive(&mut self, salt: Vec<u8>, iterations: u32) -> Result<ClientKeys, SaslError> {
        if let Some(keys) = &self.keys
            && keys.salt == salt
            && keys.iterations == iterations
        {
            return Ok(keys.clone());
        }
        let salted = salted_password(self.hash, &self.password, &salt, iterations)?;
        let make = |what: &[u8]| hmac(self.hash, &salted, &[what]).as_ref().to_vec();
        let keys = ClientKeys {
            client_key: make(b"Client Key"),
            server_key: make(b"Server Key"),
            salt,
            iterations,
        };
        self.keys = Some(keys.clone());
        Ok(keys)
    }
}

/// The one message of PLAIN.
pub fn plain(authzid: &str, user: &str, password: &Password) -> Vec<u8> {
    format!("{authzid}\0{user}\0{}", password.expose()).into_bytes()
}

fn attribute<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str, SaslError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(SaslError::Malformed("an attribute"))
}

fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
