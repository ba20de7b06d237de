//! SCRAM, the client's side (RFC 5802, RFC 7677; channel binding of RFC 9266 and RFC 5929).

use std::collections::HashMap;
use std::num::NonZeroU32;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The hash function of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    /// The mechanism's name, without channel binding.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hash::Sha1 => "SCRAM-SHA-1",
            Hash::Sha256 => "SCRAM-SHA-256",
        }
    }
}

/// The data of a channel binding, and its type's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// The client knows no channel binding: `n`.
    Unsupported,
    /// The client knows it and believes that the server does not: `y`.
    NotOffered,
    /// Bound to the channel: `p=<type>`.
    Bound(&'static str, Vec<u8>),
}

/// What one account's password was stretched to, by hash, salt and iterations: the slow part of a
/// login, which clients do once and keep.
#[derive(Default)]
pub struct KeyCache(HashMap<(&'static str, Vec<u8>, NonZeroU32), Vec<u8>>);

/// One login under way.
#[derive(Debug)]
pub struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    header: String,
    binding: Vec<u8>,
    first_bare: String,
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    /// Starts a login; `nonce` is printable ASCII without commas.
    #[must_use]
    pub fn new(hash: Hash, user: &str, password: &str, nonce: &str, binding: Binding) -> Scram {
        let (flag, data) = match binding {
            Binding::Unsupported => ("n".to_owned(), Vec::new()),
            Binding::NotOffered => ("y".to_owned(), Vec::new()),
            Binding::Bound(name, data) => (format!("p={name}"), data),
        };
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Scram {
            hash,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            header: format!("{flag},,"),
            binding: data,
            first_bare: format!("n={user},r={nonce}"),
            server_signature: None,
        }
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> String {
        format!("{}{}", self.header, self.first_bare)
    }

    /// The answer to the server's challenge.
    ///
    /// # Errors
    /// When the challenge is not one of SCRAM or does not continue our nonce.
    pub fn answer(&mut self, challenge: &str) -> Result<String> {
        self.answer_with(challenge, &mut KeyCache::default())
    }

    /// As [`Scram::answer`], with the keys that an earlier login of the same account left.
    ///
    /// # Errors
    /// When the challenge is not one of SCRAM or does not continue our nonce.
    pub fn answer_with(&mut self, challenge: &str, keys: &mut KeyCache) -> Result<String> {
        let field = |name: &str| {
            let found = challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name));
            found.ok_or_else(|| anyhow!("no {name} in the challenge {challenge:?}"))
        };
        let nonce = field("r=")?;
        ensure!(
            nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(),
            "the server's nonce {nonce:?} does not continue ours"
        );
        let salt = STANDARD.decode(field("s=")?).context("the salt")?;
        let iterations: NonZeroU32 = field("i=")?.parse().context("the iterations")?;
        let mut channel = self.header.clone().into_bytes();
        channel.extend(&self.binding);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(channel));
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let kept = keys.0.entry((self.hash.name(), salt.clone(), iterations));
        let salted = kept.or_insert_with(|| self.salted(&salt, iterations));
        let client_key = self.mac(salted, b"Client Key");
        let stored_key = digest::digest(self.digest(), &client_key);
        let signature = self.mac(stored_key.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let server_key = self.mac(salted, b"Server Key");
        self.server_signature = Some(self.mac(&server_key, message.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Checks the server's last message: that it, too, knows the password.
    ///
    /// # Errors
    /// When it does not.
    pub fn finish(&self, last: &str) -> Result<()> {
        let shown = last
            .strip_prefix("v=")
            .ok_or_else(|| anyhow!("no v= in {last:?}"))?;
        let shown = STANDARD.decode(shown).context("the server's signature")?;
        match &self.server_signature {
            Some(expected) if *expected == shown => Ok(()),
            _ => bail!("the server's signature is wrong"),
        }
    }

    fn salted(&self, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self.hash {
            Hash::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, digest::SHA1_OUTPUT_LEN),
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            self.password.as_bytes(),
            &mut salted,
        );
        salted
    }

    fn mac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let algorithm = match self.hash {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message)
            .as_ref()
            .to_vec()
    }

    fn digest(&self) -> &'static digest::Algorithm {
        match self.hash {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hash: Hash, nonce: &str, challenge: &str, answer: &str, last: &str) {
        let mut scram = Scram::new(hash, "user", "pencil", nonce, Binding::Unsupported);
        assert_eq!(scram.first(), format!("n,,n=user,r={nonce}"));
        assert_eq!(scram.answer(challenge).unwrap(), answer);
        scram.finish(last).unwrap();
        assert!(scram.finish("v=AAAA").is_err());
    }

    /// The exchange printed in RFC 5802, section 5.
    #[test]
    fn rfc_5802() {
        check(
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        );
    }

    /// The exchange printed in RFC 7677, section 3.
    #[test]
    fn rfc_7677() {
        check(
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        );
    }

    #[test]
    fn kept_keys_answer_as_fresh_ones_do() {
        let challenge = "r=abcd,s=QSXCR+Q6sek8bf92,i=4096";
        let mut keys = KeyCache::default();
        let answer = |hash, keys: &mut KeyCache| {
            let mut scram = Scram::new(hash, "a", "b", "abc", Binding::Unsupported);
            scram.answer_with(challenge, keys).unwrap()
        };
        for hash in [Hash::Sha1, Hash::Sha256] {
            let fresh = answer(hash, &mut KeyCache::default());
            assert_eq!(answer(hash, &mut keys), fresh);
            assert_eq!(answer(hash, &mut keys), fresh);
        }
        assert_eq!(keys.0.len(), 2);
    }

    #[test]
    fn a_nonce_that_is_not_ours_is_refused() {
        let mut scram = Scram::new(Hash::Sha1, "a", "b", "abc", Binding::Unsupported);
        assert!(scram.answer("r=xyz,s=QSXCR+Q6sek8bf92,i=4096").is_err());
        assert!(scram.answer("r=abc,s=QSXCR+Q6sek8bf92,i=4096").is_err());
        assert!(scram.answer("r=abcd,s=QSXCR+Q6sek8bf92,i=0").is_err());
    }
}
