//! Table `cluster`: what the nodes of one cluster share.

use super::KeyBytes;
use crate::TableId;

/// Length in bytes of a session id in a key.
pub const SESSION_ID: usize = 16;

const VIEW: u8 = b'v';
const LEASE: u8 = b'l';
const KEY: u8 = b'k';
const ACME: u8 = b'a';
const CERTIFICATE: u8 = b'c';
const CHALLENGE: u8 = b'h';
const PARKED: u8 = b'p';
const ERASED: u8 = b'e';
const SWEEP: u8 = b's';

fn key_of(pk: Vec<u8>, sk: Vec<u8>) -> KeyBytes {
    KeyBytes {
        table: TableId::Cluster,
        pk,
        sk,
    }
}

/// The one view item: epoch, slot-hash key, members.
#[must_use]
pub fn view() -> KeyBytes {
    key_of(vec![VIEW], vec![0])
}

/// All leases.
#[must_use]
pub fn lease_partition() -> Vec<u8> {
    vec![LEASE]
}

/// The lease of a node.
#[must_use]
pub fn lease(node: &str) -> KeyBytes {
    key_of(lease_partition(), node.as_bytes().to_vec())
}

/// All generations of every shared key.
#[must_use]
pub fn key_partition() -> Vec<u8> {
    vec![KEY]
}

/// One generation of a shared key: `purpose NUL generation(4)`.
#[must_use]
pub fn key(purpose: &str, generation: u32) -> KeyBytes {
    let mut sk = key_prefix(purpose);
    sk.extend_from_slice(&generation.to_be_bytes());
    key_of(key_partition(), sk)
}

/// Sort-key prefix of all generations of a shared key.
#[must_use]
pub fn key_prefix(purpose: &str) -> Vec<u8> {
    [purpose.as_bytes(), &[0]].concat()
}

/// Purpose and generation of a shared key's sort key.
#[must_use]
pub fn key_parts(sk: &[u8]) -> Option<(&str, u32)> {
    let (rest, generation) = sk.split_last_chunk::<4>()?;
    let purpose = std::str::from_utf8(rest.strip_suffix(&[0])?).ok()?;
    Some((purpose, u32::from_be_bytes(*generation)))
}

/// Certificate account state under a name.
#[must_use]
pub fn acme(name: &str) -> KeyBytes {
    key_of(vec![ACME], name.as_bytes().to_vec())
}

/// A certificate and its key under a name.
#[must_use]
pub fn certificate(name: &str) -> KeyBytes {
    key_of(vec![CERTIFICATE], name.as_bytes().to_vec())
}

/// The answer to a certificate challenge.
#[must_use]
pub fn challenge(token: &str) -> KeyBytes {
    key_of(vec![CHALLENGE], token.as_bytes().to_vec())
}

/// One of the 256 partitions of parked sessions.
#[must_use]
pub fn parked_partition(number: u8) -> Vec<u8> {
    vec![PARKED, number]
}

/// The partition of an owner's parked sessions: FNV-1a, folded to a byte.
fn partition_of(owner: &[u8]) -> u8 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(PRIME);
    let hash = owner.iter().fold(BASIS, mix);
    hash.to_be_bytes()
        .into_iter()
        .fold(0, |all, byte| all ^ byte)
}

/// A parked session: `owner NUL session-id`.
#[must_use]
pub fn parked(owner: &[u8], session: &[u8; SESSION_ID]) -> KeyBytes {
    key_of(
        parked_partition(partition_of(owner)),
        [&parked_prefix(owner)[..], session].concat(),
    )
}

/// Sort-key prefix of all parked sessions of an owner.
#[must_use]
pub fn parked_prefix(owner: &[u8]) -> Vec<u8> {
    [owner, &[0]].concat()
}

/// Owner and session id of a parked session's sort key.
#[must_use]
pub fn parked_parts(sk: &[u8]) -> Option<(&[u8], &[u8; SESSION_ID])> {
    let (rest, session) = sk.split_last_chunk::<SESSION_ID>()?;
    Some((rest.strip_suffix(&[0])?, session))
}

/// The last archive position of an erased account: a later one of that name starts above it.
#[must_use]
pub fn erased(owner: &[u8]) -> KeyBytes {
    key_of(vec![ERASED], owner.to_vec())
}

/// Who looks after archives that are due, and how far that is.
#[must_use]
pub fn sweep() -> KeyBytes {
    key_of(vec![SWEEP], vec![0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip() {
        assert_eq!(key_parts(&key("token", 7).sk), Some(("token", 7)));
        assert_eq!(key_parts(b"token"), None);
        let id = *b"0123456789abcdef";
        let parked = parked(b"example.com\0bob", &id);
        assert_eq!(parked.pk, b"p\xe5");
        assert_eq!(
            parked_parts(&parked.sk),
            Some((&b"example.com\0bob"[..], &id))
        );
        assert_eq!(parked_parts(b"short"), None);
    }

    #[test]
    fn kinds_have_partitions_of_their_own() {
        let mut first = vec![
            VIEW,
            LEASE,
            KEY,
            ACME,
            CERTIFICATE,
            CHALLENGE,
            PARKED,
            ERASED,
            SWEEP,
        ];
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 9);
        assert_eq!(view().sk, [0]);
    }
}
