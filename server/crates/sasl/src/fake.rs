//! Keys for users that do not exist.

use std::fmt;

use crate::key::hmac;
use crate::{Hash, MAX_ITERATIONS, MIN_ITERATIONS, SaslError, StoredKey};

/// Salt length in bytes: that of real accounts, else the length would tell them apart.
pub(crate) const FAKE_SALT_BYTES: usize = 16;

/// Makes up salt and iterations for users that do not exist: stable from one try to the next and
/// from node to node, so that an exchange with an unknown user looks like one with a wrong
/// password (RFC 5802, section 9).
///
/// `secret` belongs to the deployment and must be the same on every node; who knows it can tell
/// fake salts from real ones, nothing more. `iterations` should be what new accounts get.
#[derive(Clone)]
pub struct FakeKeys {
    secret: [u8; 32],
    iterations: u32,
}

impl FakeKeys {
    /// # Errors
    /// [`SaslError::Iterations`] when out of range.
    pub fn new(secret: [u8; 32], iterations: u32) -> Result<FakeKeys, SaslError> {
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(SaslError::Iterations(iterations));
        }
        Ok(FakeKeys { secret, iterations })
    }

    /// The keys of a user that does not exist. No password matches them.
    pub fn key(&self, hash: Hash, host: &str, user: &str) -> StoredKey {
        // Spellings that name one account must share a salt, as they do when it exists.
        let folded = stringprep::nodeprep(user);
        let user = folded.as_deref().unwrap_or(user);
        let make = |what: &str| {
            let parts = ["cirrus fake key 1", what, hash.name(), host, user];
            let parts: Vec<&[u8]> = parts
                .iter()
                .flat_map(|part| [part.as_bytes(), b"\0"])
                .collect();
            hmac(Hash::Sha256, &self.secret, &parts).as_ref().to_vec()
        };
        let mut salt = make("salt");
        salt.truncate(FAKE_SALT_BYTES);
        let mut stored_key = make("stored");
        stored_key.truncate(hash.size());
        let mut server_key = make("server");
        server_key.truncate(hash.size());
        StoredKey {
            hash,
            salt,
            iterations: self.iterations,
            stored_key,
            server_key,
        }
    }
}

impl fmt::Debug for FakeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKeys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_stable_and_differ_where_real_ones_would() {
        let fake = FakeKeys::new([7; 32], 10_000).unwrap();
        let salt = |hash, host: &str, user: &str| fake.key(hash, host, user).salt;
        let one = salt(Hash::Sha256, "example.com", "nobody");
        assert_eq!(one.len(), FAKE_SALT_BYTES);
        assert_eq!(one, salt(Hash::Sha256, "example.com", "nobody"));
        assert_eq!(
            one,
            salt(Hash::Sha256, "example.com", "NoBody"),
            "one account, one salt"
        );
        assert_ne!(one, salt(Hash::Sha1, "example.com", "nobody"));
        assert_ne!(one, salt(Hash::Sha256, "example.org", "nobody"));
        assert_ne!(one, salt(Hash::Sha256, "example.com", "nobod"));
        let other = FakeKeys::new([8; 32], 10_000).unwrap();
        assert_ne!(one, other.key(Hash::Sha256, "example.com", "nobody").salt);
    }

    #[test]
    fn a_fake_key_encodes_like_a_real_one() {
        let fake = FakeKeys::new([7; 32], 10_000).unwrap();
        for hash in Hash::ALL {
            let key = fake.key(hash, "example.com", "a@b");
            assert_eq!(StoredKey::decode(&key.encode()).unwrap().iterations, 10_000);
        }
        assert_eq!(
            FakeKeys::new([0; 32], 1).err(),
            Some(SaslError::Iterations(1))
        );
        assert_eq!(format!("{fake:?}"), "FakeKeys { iterations: 10000, .. }");
    }
}
