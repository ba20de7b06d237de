//! Archive ids: opaque to clients, positions to the server.
//!
//! An id must say nothing about the archive, its size least of all (XEP-0359 section 5), must never
//! change, and must be turned back into a position without a read. So it is the position through a
//! permutation that depends on a key and on the owner (a Feistel network), and a code that only
//! who has the key can make: an id of somebody else's archive, or a made-up one, is recognised as
//! such. SipHash-2-4 is the keyed function for both, with keys of their own.
//!
//! ```text
//! id = hex(permuted position, 8 bytes | code, 4 bytes): 24 digits
//! ```

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Rounds of the network. Four make a permutation that can't be told from a random one by a few
/// ten thousand known ids of one archive; eight put that out of reach, at 20 ns a round.
const ROUNDS: u8 = 8;
/// Characters of an id.
const LENGTH: usize = 24;

/// The key behind all archive ids of a deployment. It is never replaced: ids are for ever.
#[derive(Clone)]
pub struct IdKey {
    permutation: [u8; 16],
    code: [u8; 16],
}

impl IdKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let (mut permutation, mut code) = ([0; 16], [0; 16]);
        permutation.copy_from_slice(&bytes[..16]);
        code.copy_from_slice(&bytes[16..]);
        Self { permutation, code }
    }
}

impl std::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdKey(…)")
    }
}

/// The ids of one owner's archive.
pub(crate) struct Ids<'a> {
    key: &'a IdKey,
    owner: &'a [u8],
}

impl<'a> Ids<'a> {
    pub fn new(key: &'a IdKey, owner: &'a [u8]) -> Self {
        Self { key, owner }
    }

    /// The id of a position.
    pub fn encode(&self, position: u64) -> String {
        let permuted = (0..ROUNDS).fold(position, |block, round| {
            let (left, right) = halves(block);
            joined(right, left ^ self.round(round, right))
        });
        format!("{permuted:016x}{:08x}", self.code(permuted))
    }

    /// The position of an id; `None` when it is none of this archive.
    pub fn decode(&self, id: &str) -> Option<u64> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if id.len() != LENGTH || !id.bytes().all(digit) {
            return None;
        }
        let (permuted, code) = id.split_at(16);
        let permuted = u64::from_str_radix(permuted, 16).ok()?;
        if u32::from_str_radix(code, 16).ok()? != self.code(permuted) {
            return None;
        }
        Some((0..ROUNDS).rev().fold(permuted, |block, round| {
            let (left, right) = halves(block);
            joined(right ^ self.round(round, left), left)
        }))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of the hash is wanted"
    )]
    fn round(&self, round: u8, half: u32) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.key.permutation);
        hasher.write_u8(round);
        hasher.write(&half.to_be_bytes());
        hasher.write(self.owner);
        hasher.finish() as u32
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of the hash is wanted"
    )]
    fn code(&self, permuted: u64) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.key.code);
        hasher.write(&permuted.to_be_bytes());
        hasher.write(self.owner);
        hasher.finish() as u32
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a block")]
fn halves(block: u64) -> (u32, u32) {
    ((block >> 32) as u32, block as u32)
}

fn joined(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> IdKey {
        IdKey::new(*b"0123456789abcdefghijklmnopqrstuv")
    }

    #[test]
    fn ids_stay_what_they_are() {
        let key = key();
        let ids = Ids::new(&key, b"example.com\0juliet");
        assert_eq!(
            ids.encode(1),
            GOLDEN,
            "ids that clients know must not change"
        );
        assert_eq!(ids.decode(GOLDEN), Some(1));
    }

    const GOLDEN: &str = "0742c659c545b9235ab33af7";

    #[test]
    fn neighbours_have_nothing_in_common() {
        let key = key();
        let ids = Ids::new(&key, b"example.com\0juliet");
        let all: Vec<_> = (1..=1_000).map(|position| ids.encode(position)).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
        assert_ne!(sorted, all, "their order says nothing");
        for pair in all.windows(2) {
            assert_ne!(pair[0][..8], pair[1][..8]);
        }
    }

    proptest! {
        #[test]
        fn a_position_comes_back_to_its_owner_only(position: u64, flip in 0..24usize) {
            let key = key();
            let ids = Ids::new(&key, b"example.com\0juliet");
            let id = ids.encode(position);
            prop_assert_eq!(ids.decode(&id), Some(position));
            prop_assert_eq!(Ids::new(&key, b"example.com\0julie").decode(&id), None);
            let other = IdKey::new([1; 32]);
            prop_assert_eq!(Ids::new(&other, b"example.com\0juliet").decode(&id), None);
            prop_assert_eq!(ids.decode(&id[1..]), None);
            let digit = if &id[flip..=flip] == "0" { "1" } else { "0" };
            let changed = format!("{}{digit}{}", &id[..flip], &id[flip + 1..]);
            prop_assert_eq!(ids.decode(&changed), None);
            let upper = id.to_ascii_uppercase();
            prop_assert!(upper == id || ids.decode(&upper).is_none());
        }

        #[test]
        fn anything_is_read_without_a_panic(text: String) {
            let key = key();
            prop_assert_eq!(Ids::new(&key, b"o").decode(&text), None);
        }
    }
}
