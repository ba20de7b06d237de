//! Table `archive`: the message log of an owner, and the list of logs that are due to be sealed.

use super::{KeyBytes, owner_partition};
use crate::TableId;

/// Partitions that one day's due rows are spread over.
pub const DUE_SHARDS: u8 = 16;

const HOT: u8 = b'h';
/// Next to segments and tombstones, so that one query has all of them.
const DIGEST: u8 = b'r';
const SEGMENT: u8 = b's';
const TOMBSTONE: u8 = b't';
const DUE: u8 = b'd';

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

/// Sort key of the row of a segment whose last position is `last`: `s` and 8 bytes, big-endian.
#[must_use]
pub fn segment_sk(last: u64) -> Vec<u8> {
    let mut sk = Vec::with_capacity(9);
    sk.push(SEGMENT);
    sk.extend_from_slice(&last.to_be_bytes());
    sk
}

/// The row of a segment.
#[must_use]
pub fn segment(owner: &[u8], last: u64) -> KeyBytes {
    KeyBytes {
        table: TableId::Archive,
        pk: partition(owner),
        sk: segment_sk(last),
    }
}

/// The last position of a segment's row; `None` for another kind of row.
#[must_use]
pub fn segment_last(sk: &[u8]) -> Option<u64> {
    let digits = sk.strip_prefix(&[SEGMENT])?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

/// Sort key of the row of a digest whose last position is `last`: `r` and 8 bytes, big-endian.
#[must_use]
pub fn digest_sk(last: u64) -> Vec<u8> {
    let mut sk = Vec::with_capacity(9);
    sk.push(DIGEST);
    sk.extend_from_slice(&last.to_be_bytes());
    sk
}

/// The row of a digest.
#[must_use]
pub fn digest(owner: &[u8], last: u64) -> KeyBytes {
    KeyBytes {
        table: TableId::Archive,
        pk: partition(owner),
        sk: digest_sk(last),
    }
}

/// The last position of a digest's row; `None` for another kind of row.
#[must_use]
pub fn digest_last(sk: &[u8]) -> Option<u64> {
    let digits = sk.strip_prefix(&[DIGEST])?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

/// Sort key of the tombstone of the message at position `seq`: `t` and 8 bytes, big-endian.
#[must_use]
pub fn tombstone_sk(seq: u64) -> Vec<u8> {
    let mut sk = Vec::with_capacity(9);
    sk.push(TOMBSTONE);
    sk.extend_from_slice(&seq.to_be_bytes());
    sk
}

/// The tombstone of a message that was retracted.
#[must_use]
pub fn tombstone(owner: &[u8], seq: u64) -> KeyBytes {
    KeyBytes {
        table: TableId::Archive,
        pk: partition(owner),
        sk: tombstone_sk(seq),
    }
}

/// The position of a tombstone's row; `None` for another kind of row.
#[must_use]
pub fn tombstone_seq(sk: &[u8]) -> Option<u64> {
    let digits = sk.strip_prefix(&[TOMBSTONE])?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

/// First and last possible sort key of the rows of digests, segments and tombstones, both
/// inclusive.
#[must_use]
pub fn index_range() -> (Vec<u8>, Vec<u8>) {
    (digest_sk(0), tombstone_sk(u64::MAX))
}

/// One of the partitions of a day's due rows. `day` counts from the first of January 1970.
#[must_use]
pub fn due_partition(day: u32, shard: u8) -> Vec<u8> {
    let mut pk = Vec::with_capacity(6);
    pk.push(DUE);
    pk.extend_from_slice(&day.to_be_bytes());
    pk.push(shard % DUE_SHARDS);
    pk
}

/// The row which says that after `day` the log of `owner` has to be looked after.
#[must_use]
pub fn due(day: u32, shard: u8, owner: &[u8]) -> KeyBytes {
    KeyBytes {
        table: TableId::Archive,
        pk: due_partition(day, shard),
        sk: owner.to_vec(),
    }
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
        for last in [0, 256, u64::MAX] {
            assert_eq!(segment_last(&segment_sk(last)), Some(last));
            assert_eq!(segment_last(&hot_sk(last)), None);
            assert_eq!(digest_last(&digest_sk(last)), Some(last));
            assert_eq!(digest_last(&segment_sk(last)), None);
            assert!(digest_sk(last) < segment_sk(0));
            assert_eq!(tombstone_seq(&tombstone_sk(last)), Some(last));
            assert_eq!(tombstone_seq(&segment_sk(last)), None);
            assert!(segment_sk(last) < tombstone_sk(0));
            let (first, end) = index_range();
            for sk in [digest_sk(last), segment_sk(last), tombstone_sk(last)] {
                assert!(first <= sk && sk <= end);
            }
            assert!(hot_sk(last) < first);
        }
    }

    #[test]
    fn due_rows_are_apart_from_logs() {
        let due = due(20_000, 17, b"h\0u");
        assert_eq!(due.pk, due_partition(20_000, 1));
        assert_ne!(due.pk[0], partition(b"h\0u")[0]);
        assert_eq!(due.sk, b"h\0u");
    }
}
