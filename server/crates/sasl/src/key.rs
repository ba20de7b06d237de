//! What is stored of a password: the keys of RFC 5802, section 3, never the password.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::{Hash, Password, SaslError};

/// Fewest iterations accepted (RFC 7677, section 4).
pub const MIN_ITERATIONS: u32 = 4096;
/// Most iterations accepted: 0.3 s of one core.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Shortest salt in bytes.
pub const MIN_SALT_BYTES: usize = 8;
/// Longest salt in bytes.
pub const MAX_SALT_BYTES: usize = 64;

/// Format written today. Golden files in `golden/` hold one example of each that was ever written.
const FORMAT: u8 = 1;

/// The keys of one user for one hash. Not printed: `stored_key` allows an offline search for the
/// password, `server_key` lets its holder pose as the server.
#[derive(Clone)]
pub struct StoredKey {
    /// Which mechanisms these keys are for.
    pub hash: Hash,
    /// Random, [`MIN_SALT_BYTES`] to [`MAX_SALT_BYTES`].
    pub salt: Vec<u8>,
    /// PBKDF2 iterations, [`MIN_ITERATIONS`] to [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// H(ClientKey): what a proof is checked against; [`Hash::size`] bytes.
    pub stored_key: Vec<u8>,
    /// What the server proves itself with; [`Hash::size`] bytes.
    pub server_key: Vec<u8>,
}

/// Derives the keys of a password: `iterations` rounds of PBKDF2, some milliseconds. Call it off
/// the event loop.
///
/// # Errors
/// [`SaslError::Iterations`] or [`SaslError::Salt`] when out of range.
pub fn derive(
    hash: Hash,
    password: &Password,
    salt: &[u8],
    iterations: u32,
) -> Result<StoredKey, SaslError> {
    check_parameters(salt, iterations)?;
    let salted = salted_password(hash, password, salt, iterations)?;
    let client_key = hmac(hash, &salted, &[b"Client Key"]);
    Ok(StoredKey {
        hash,
        salt: salt.to_vec(),
        iterations,
        stored_key: digest(hash, client_key.as_ref()),
        server_key: hmac(hash, &salted, &[b"Server Key"]).as_ref().to_vec(),
    })
}

impl StoredKey {
    /// Whether `password` gives these keys. Costs as much as [`derive()`]; call it off the event
    /// loop.
    ///
    /// # Errors
    /// [`SaslError::Iterations`] or [`SaslError::Salt`] when this key's own figures are out of
    /// range.
    pub fn verify(&self, password: &Password) -> Result<bool, SaslError> {
        let derived = derive(self.hash, password, &self.salt, self.iterations)?;
        Ok(equal(&derived.stored_key, &self.stored_key))
    }

    /// The stored form: version, hash, iterations (big-endian), salt length, salt, stored key,
    /// server key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(7 + self.salt.len() + 2 * self.hash.size());
        out.push(FORMAT);
        out.push(match self.hash {
            Hash::Sha1 => 1,
            Hash::Sha256 => 2,
        });
        out.extend_from_slice(&self.iterations.to_be_bytes());
        // Never cut: `derive` and `decode` accept at most MAX_SALT_BYTES.
        out.push(u8::try_from(self.salt.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.stored_key);
        out.extend_from_slice(&self.server_key);
        out
    }

    /// Reads the stored form of any version that was ever written.
    ///
    /// # Errors
    /// [`SaslError::KeyFormat`] for an unknown version or hash, missing or left-over bytes;
    /// [`SaslError::Iterations`], [`SaslError::Salt`] for figures out of range.
    pub fn decode(bytes: &[u8]) -> Result<StoredKey, SaslError> {
        let (&version, rest) = bytes.split_first().ok_or(SaslError::KeyFormat("empty"))?;
        match version {
            1 => decode_v1(rest),
            _ => Err(SaslError::KeyFormat("unknown version")),
        }
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey")
            .field("hash", &self.hash)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

fn decode_v1(bytes: &[u8]) -> Result<StoredKey, SaslError> {
    let short = SaslError::KeyFormat("cut short");
    let (&[hash, i0, i1, i2, i3, salt_len], rest) =
        bytes.split_first_chunk::<6>().ok_or(short.clone())?;
    let hash = match hash {
        1 => Hash::Sha1,
        2 => Hash::Sha256,
        _ => return Err(SaslError::KeyFormat("unknown hash")),
    };
    let (salt, rest) = rest
        .split_at_checked(salt_len.into())
        .ok_or(short.clone())?;
    let (stored_key, rest) = rest.split_at_checked(hash.size()).ok_or(short.clone())?;
    let (server_key, rest) = rest.split_at_checked(hash.size()).ok_or(short)?;
    if !rest.is_empty() {
        return Err(SaslError::KeyFormat("bytes left over"));
    }
    let iterations = u32::from_be_bytes([i0, i1, i2, i3]);
    check_parameters(salt, iterations)?;
    Ok(StoredKey {
        hash,
        salt: salt.to_vec(),
        iterations,
        stored_key: stored_key.to_vec(),
        server_key: server_key.to_vec(),
    })
}

fn check_parameters(salt: &[u8], iterations: u32) -> Result<(), SaslError> {
    if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
        return Err(SaslError::Iterations(iterations));
    }
    if !(MIN_SALT_BYTES..=MAX_SALT_BYTES).contains(&salt.len()) {
        return Err(SaslError::Salt(salt.len()));
    }
    Ok(())
}

/// `Hi(password, salt, i)` of RFC 5802, section 2.2.
pub(crate) fn salted_password(
    hash: Hash,
    password: &Password,
    salt: &[u8],
    iterations: u32,
) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    let algorithm = match hash {
        Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
    };
    let rounds = NonZeroU32::new(iterations).ok_or(SaslError::Iterations(iterations))?;
    let mut salted = Zeroizing::new(vec![0; hash.size()]);
    pbkdf2::derive(
        algorithm,
        rounds,
        salt,
        password.expose().as_bytes(),
        &mut salted,
    );
    Ok(salted)
}

/// HMAC over the concatenation of `parts`.
pub(crate) fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// The plain hash.
pub(crate) fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => &digest::SHA256,
    };
    digest::digest(algorithm, data).as_ref().to_vec()
}

/// Equality in time that depends on the lengths only.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Byte-wise XOR of equally long slices.
pub(crate) fn xor(a: &[u8], b: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(a.iter().zip(b).map(|(a, b)| a ^ b).collect())
}

#[cfg(test)]
mod tests;
