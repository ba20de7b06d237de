//! What conditions, ranges and pages mean: shared by the backends that keep items themselves.

use std::ops::Bound;

use bytes::Bytes;

use crate::limits::MAX_PAGE;
use crate::{Condition, Direction, Item, SkRange};

/// What a backend must know of an item to decide on a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Version, 0 = none.
    pub version: u64,
    /// Second from which it is expired.
    pub expires: Option<u64>,
    /// Nonce of the put that wrote it, 0 = none.
    pub nonce: u128,
}

impl Head {
    /// Whether the item counts as absent at `now_ms` (Unix milliseconds).
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires.is_some_and(|second| second <= now_ms / 1_000)
    }
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It happens.
    Write,
    /// It has happened already: an earlier try of it succeeded.
    Already,
    /// Its condition doesn't hold.
    Conflict,
}

/// Decides on a write with this nonce (0 = none), given what is under the key.
pub(crate) fn decide(
    condition: Condition,
    nonce: u128,
    existing: Option<&Head>,
    now_ms: u64,
) -> Verdict {
    let existing = existing.filter(|head| !head.is_expired(now_ms));
    let holds = match (condition, existing) {
        (Condition::Any, _) | (Condition::Absent, None) => true,
        (Condition::Version(wanted), Some(head)) => head.version == wanted,
        (Condition::Absent, Some(_)) | (Condition::Version(_), None) => false,
    };
    match existing {
        _ if holds => Verdict::Write,
        Some(head) if nonce != 0 && head.nonce == nonce => Verdict::Already,
        _ => Verdict::Conflict,
    }
}

/// The sort keys that a query looks at, in the order of keys; `None` = there can't be any.
pub(crate) fn bounds(
    range: &SkRange,
    direction: Direction,
    after: Option<&Bytes>,
) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
    let (mut first, mut last) = match range {
        SkRange::All => (Bound::Unbounded, Bound::Unbounded),
        SkRange::Prefix(prefix) => {
            let end = successor(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
            (Bound::Included(prefix.clone()), end)
        }
        SkRange::From(first) => (Bound::Included(first.clone()), Bound::Unbounded),
        SkRange::To(last) => (Bound::Unbounded, Bound::Included(last.clone())),
        SkRange::Between(first, last) => (
            Bound::Included(first.clone()),
            Bound::Included(last.clone()),
        ),
    };
    if let Some(sk) = after {
        match direction {
            Direction::Forward if is_below(&first, sk) => first = Bound::Excluded(sk.clone()),
            Direction::Backward if is_above(&last, sk) => last = Bound::Excluded(sk.clone()),
            _ => {}
        }
    }
    let possible = match (&first, &last) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(first), Bound::Included(last)) => first <= last,
        (
            Bound::Included(first) | Bound::Excluded(first),
            Bound::Included(last) | Bound::Excluded(last),
        ) => first < last,
    };
    possible.then_some((first, last))
}

/// Whether the range that starts at `bound` has something at or before `sk`.
fn is_below(bound: &Bound<Bytes>, sk: &Bytes) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(first) | Bound::Excluded(first) => first <= sk,
    }
}

/// Whether the range that ends at `bound` has something at or behind `sk`.
fn is_above(bound: &Bound<Bytes>, sk: &Bytes) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(last) | Bound::Excluded(last) => last >= sk,
    }
}

/// The smallest byte string above all that start with `prefix`; `None` = there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}

/// A page in the making.
pub(crate) struct Page {
    limit: usize,
    now_ms: u64,
    items: Vec<Item>,
    looked_at: usize,
    bytes: usize,
    next: Option<Bytes>,
}

impl Page {
    pub(crate) fn new(limit: Option<u32>, now_ms: u64) -> Page {
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        Page {
            limit,
            now_ms,
            items: Vec::new(),
            looked_at: 0,
            bytes: 0,
            next: None,
        }
    }

    /// Takes the next item of the range, `size` bytes large; `false` = the page is full.
    pub(crate) fn push(&mut self, item: Item, size: usize) -> bool {
        self.looked_at += 1;
        self.bytes += size;
        let full = self.looked_at >= self.limit || self.bytes >= MAX_PAGE;
        if full {
            self.next = Some(item.key.sk.clone());
        }
        if !item.is_expired(self.now_ms) {
            self.items.push(item);
        }
        !full
    }

    /// Items, the sort key to continue after, and the bytes looked at.
    pub(crate) fn finish(self) -> (Vec<Item>, Option<Bytes>, usize) {
        (self.items, self.next, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u64, expires: Option<u64>, nonce: u128) -> Head {
        Head {
            version,
            expires,
            nonce,
        }
    }

    #[test]
    fn decisions() {
        use Condition::{Absent, Any, Version};
        let now = 10_000;
        for (condition, nonce, existing, expected) in [
            (Any, 0, None, Verdict::Write),
            (Any, 0, Some(head(1, None, 0)), Verdict::Write),
            (Absent, 0, None, Verdict::Write),
            (Absent, 0, Some(head(0, None, 0)), Verdict::Conflict),
            (Absent, 0, Some(head(0, Some(10), 0)), Verdict::Write),
            (Absent, 7, Some(head(0, Some(11), 7)), Verdict::Already),
            (Absent, 7, Some(head(0, None, 8)), Verdict::Conflict),
            (Version(1), 0, None, Verdict::Conflict),
            (Version(1), 0, Some(head(1, None, 0)), Verdict::Write),
            (Version(1), 0, Some(head(1, Some(10), 0)), Verdict::Conflict),
            (Version(1), 7, Some(head(2, None, 7)), Verdict::Already),
            (Version(1), 7, Some(head(2, Some(9), 7)), Verdict::Conflict),
            (Version(0), 0, Some(head(0, None, 0)), Verdict::Write),
        ] {
            let got = decide(condition, nonce, existing.as_ref(), now);
            assert_eq!(got, expected, "{condition:?} {nonce} {existing:?}");
        }
    }

    fn hits(range: &SkRange, direction: Direction, after: Option<&'static [u8]>) -> String {
        let after = after.map(Bytes::from_static);
        let Some((first, last)) = bounds(range, direction, after.as_ref()) else {
            return "none".into();
        };
        let all = (b'a'..=b'f').map(|byte| Bytes::copy_from_slice(&[byte]));
        let hit = |sk: &Bytes| {
            std::ops::RangeBounds::<Bytes>::contains(&(first.as_ref(), last.as_ref()), sk)
        };
        all.filter(hit).map(|sk| char::from(sk[0])).collect()
    }

    #[test]
    fn ranges_and_tokens() {
        use Direction::{Backward, Forward};
        let between = || SkRange::Between(Bytes::from_static(b"b"), Bytes::from_static(b"d"));
        for (range, direction, after, expected) in [
            (SkRange::All, Forward, None, "abcdef"),
            (SkRange::All, Forward, Some(&b"c"[..]), "def"),
            (SkRange::All, Backward, Some(b"c"), "ab"),
            (between(), Forward, None, "bcd"),
            (between(), Forward, Some(b"a"), "bcd"),
            (between(), Forward, Some(b"b"), "cd"),
            (between(), Forward, Some(b"bb"), "cd"),
            (between(), Forward, Some(b"d"), "none"),
            (between(), Forward, Some(b"e"), "none"),
            (between(), Backward, Some(b"e"), "bcd"),
            (between(), Backward, Some(b"d"), "bc"),
            (between(), Backward, Some(b"b"), "none"),
            (
                SkRange::Between(Bytes::from_static(b"d"), Bytes::from_static(b"b")),
                Forward,
                None,
                "none",
            ),
            (SkRange::From(Bytes::from_static(b"e")), Forward, None, "ef"),
            (SkRange::To(Bytes::from_static(b"b")), Forward, None, "ab"),
            (
                SkRange::Prefix(Bytes::from_static(b"b")),
                Forward,
                None,
                "b",
            ),
        ] {
            assert_eq!(
                hits(&range, direction, after),
                expected,
                "{range:?} {after:?}"
            );
        }
    }

    #[test]
    fn successors() {
        assert_eq!(successor(b"a"), Some(b"b".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
