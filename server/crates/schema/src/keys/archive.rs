//! Table `archive`: the message log of an owner.

use super::{KeyBytes, owner_partition};
use crate::TableId;

const HOT: u8 = b'h';

/// All rows of an owner's log.
#[must_use]
pub fn partition(owner: &[u8]) -> Vec<u8> {
    owner_partition(owner)
}

/// Sort key of the hot item at position `seq`: `h` and 8 bytes, big-endian.
#[must_use]
pub fn hot_sk(seq: u64) -> Vec<u8> {
    let mut sk = Vec::with_capacity(9);
    sk.push(HOT);
    sk.extend_from_slice(&seq.to_be_bytes());
    sk
}

/// The hot item at position `seq`.
#[must_use]
pub fn hot(owner: &[u8], seq: u64) -> KeyBytes {
    KeyBytes {
        table: TableId::Archive,
        pk: partition(owner),
        sk: hot_sk(seq),
    }
}

/// First and last possible sort key of hot items from position `seq` on, both inclusive.
#[must_use]
pub fn hot_from(seq: u64) -> (Vec<u8>, Vec<u8>) {
    (hot_sk(seq), hot_sk(u64::MAX))
}

/// The position of a hot item; `None` for another kind of row.
#[must_use]
pub fn hot_seq(sk: &[u8]) -> Option<u64> {
    let digits = sk.strip_prefix(&[HOT])?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_and_sort() {
        for seq in [0, 1, 255, 256, u64::MAX] {
            assert_eq!(hot_seq(&hot_sk(seq)), Some(seq));
        }
        assert!(hot_sk(255) < hot_sk(256));
        for other in [&b"h"[..], b"s\0\0\0\0\0\0\0\0", b"h\0", b""] {
            assert_eq!(hot_seq(other), None);
        }
        assert_eq!(hot(b"h\0u", 258).sk, b"h\0\0\0\0\0\0\x01\x02");
    }
}
