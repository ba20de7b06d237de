//! How it is made sure that items are sealed before they expire.

use cirrus_schema::keys::archive;
use cirrus_store::{Attrs, Condition, Item, Op, Outcome, StoreError};

use super::LogError;
use super::machine::{Log, LogEffect};

/// By when a log's items must be sealed, and until when they are there.
///
/// An item is only written when a *due row* is durable that is of the day on which it is written,
/// or of a later one. When that day is over, all due rows of it are looked up, and their logs are
/// sealed. The item expires [`Cover::KEPT_DAYS`] after it, so the row's day can be told from the
/// item, and items expire in the order of their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover;

impl Cover {
    /// Days from a due row's writing to its day.
    pub const AHEAD_DAYS: u64 = 7;
    /// Days from a due row's day to the end of the items that it covers: a quarter of a year in
    /// which sealing them is tried again and again, and in which no node need run.
    pub const KEPT_DAYS: u64 = 91;

    /// When an item expires that a due row of this day covers, Unix seconds.
    pub fn expires(day: u64, day_ms: u64) -> u64 {
        (day + Self::KEPT_DAYS).saturating_mul(day_ms) / 1_000
    }

    /// The day of the due row that covers an item which expires then.
    pub fn day(expires: u64, day_ms: u64) -> u64 {
        let days = expires.saturating_mul(1_000).div_ceil(day_ms.max(1));
        days.saturating_sub(Self::KEPT_DAYS)
    }
}

impl Log {
    pub(super) fn on_cover(
        &mut self,
        now: u64,
        day: u64,
        result: Result<Outcome, StoreError>,
        out: &mut Vec<LogEffect>,
    ) {
        match result {
            Ok(_) => {
                self.tries = 0;
                self.cover = self.cover.max(day);
            }
            Err(error) if error.is_retryable() => self.pause(now),
            Err(error) => self.break_down(LogError::Broken(error.to_string()), out),
        }
    }
}

/// Writes the due row of an owner: after that day its log is looked after.
pub fn put_due(owner: &[u8], day: u64) -> Op {
    let day = u32::try_from(day).unwrap_or(u32::MAX);
    let key = archive::due(day, due_shard(owner), owner);
    Op::Put {
        item: Item::new(key, Attrs::new().with("v", 1)),
        condition: Condition::Any,
        nonce: 0,
    }
}

/// Which of a day's partitions has the due row of an owner.
fn due_shard(owner: &[u8]) -> u8 {
    let sum = owner
        .iter()
        .fold(0, |sum, byte| scatter(sum ^ u64::from(*byte)));
    (sum % u64::from(archive::DUE_SHARDS)) as u8
}

/// Mixes the bits of a number (SplitMix64's finaliser).
pub(super) fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
