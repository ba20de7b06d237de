//! The client's side of SCRAM-SHA-1 (RFC 5802), with its derived keys cached.
//!
//! A real client derives its keys once and keeps them; a generator that derived them at every login
//! would measure PBKDF2 instead of the server. SHA-1 because it is the one hash that all measured
//! servers have stored.

use std::collections::HashMap;
use std::num::NonZeroU32;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const HASH_BYTES: usize = 20;

/// Derived keys by salt and iteration count, for one password.
pub(crate) struct KeyCache {
    password: String,
    keys: HashMap<(Vec<u8>, u32), Keys>,
}

struct Keys {
    client: [u8; HASH_BYTES],
    stored: hmac::Key,
    server: hmac::Key,
}

/// An exchange in progress.
pub(crate) struct Exchange {
    first_bare: String,
    expected_signature: Option<String>,
}

impl Exchange {
    /// Begins; `nonce` must be new for every exchange and free of commas.
    pub(crate) fn begin(user: &str, nonce: &str) -> (Exchange, String) {
        let first_bare = format!("n={user},r={nonce}");
        let initial = BASE64.encode(format!("n,,{first_bare}"));
        (
            Exchange {
                first_bare,
                expected_signature: None,
            },
            initial,
        )
    }

    /// Answers the server's first message (base64) with the client's final message (base64).
    pub(crate) fn answer(&mut self, cache: &mut KeyCache, challenge: &[u8]) -> Result<String> {
        let challenge = BASE64
            .decode(challenge)
            .context("the challenge is not base64")?;
        let challenge = std::str::from_utf8(&challenge).context("the challenge is not UTF-8")?;
        let field = |name: char| {
            challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("the challenge lacks {name}="))
        };
        let salt = BASE64
            .decode(field('s')?)
            .context("the salt is not base64")?;
        let iterations: u32 = field('i')?
            .parse()
            .context("the iteration count is no number")?;
        let keys = cache.get(salt, iterations)?;

        let without_proof = format!("c=biws,r={}", field('r')?);
        let auth_message = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = hmac::sign(&keys.stored, auth_message.as_bytes());
        let proof: Vec<u8> = keys
            .client
            .iter()
            .zip(signature.as_ref())
            .map(|(key, sign)| key ^ sign)
            .collect();
        let server_signature = hmac::sign(&keys.server, auth_message.as_bytes());
        self.expected_signature = Some(format!("v={}", BASE64.encode(server_signature)));
        Ok(BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof))))
    }

    /// Checks the server's final message (base64).
    pub(crate) fn verify(&self, success: &[u8]) -> Result<()> {
        let success = BASE64
            .decode(success)
            .context("the final message is not base64")?;
        match &self.expected_signature {
            Some(expected) if expected.as_bytes() == success => Ok(()),
            _ => bail!("the server's signature is wrong"),
        }
    }
}

impl KeyCache {
    /// An empty cache for the one password that all accounts share.
    pub(crate) fn new(password: &str) -> KeyCache {
        KeyCache {
            password: password.to_owned(),
            keys: HashMap::new(),
        }
    }

    fn get(&mut self, salt: Vec<u8>, iterations: u32) -> Result<&Keys> {
        use std::collections::hash_map::Entry;
        match self.keys.entry((salt, iterations)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let (salt, iterations) = entry.key();
                let keys = Keys::derive(&self.password, salt, *iterations)?;
                Ok(entry.insert(keys))
            }
        }
    }
}

impl Keys {
    fn derive(password: &str, salt: &[u8], iterations: u32) -> Result<Keys> {
        let iterations = NonZeroU32::new(iterations).context("the iteration count is zero")?;
        let mut salted = [0_u8; HASH_BYTES];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA1;
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        let sha1 = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
        let salted = hmac::Key::new(sha1, &salted);
        let client_tag = hmac::sign(&salted, b"Client Key");
        let server_tag = hmac::sign(&salted, b"Server Key");
        let mut client = [0_u8; HASH_BYTES];
        client.copy_from_slice(client_tag.as_ref());
        let stored = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &client);
        Ok(Keys {
            client,
            stored: hmac::Key::new(sha1, stored.as_ref()),
            server: hmac::Key::new(sha1, server_tag.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 5802 section 5.
    #[test]
    fn the_example_of_the_rfc() {
        let mut cache = KeyCache::new("pencil");
        let (mut exchange, initial) = Exchange::begin("user", "fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(
            initial,
            BASE64.encode("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")
        );
        let challenge =
            BASE64.encode("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
        let answer = exchange.answer(&mut cache, challenge.as_bytes()).unwrap();
        let expected = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                        p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(answer, BASE64.encode(expected));
        let last = BASE64.encode("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
        exchange.verify(last.as_bytes()).unwrap();
        assert!(exchange.verify(BASE64.encode("v=").as_bytes()).is_err());
    }
}
