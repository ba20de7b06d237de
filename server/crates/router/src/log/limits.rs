//! What bounds a log.

/// Longest time a put may be tried, whatever the deadline: a signed request dies after 15 minutes,
/// and what is written must long be settled before anything expires.
const MAX_DEADLINE_MS: u64 = 60_000;

/// Bounds and times of one log.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records that wait for the store.
    pub queue_records: usize,
    /// Bytes that wait for the store.
    pub queue_bytes: usize,
    /// Milliseconds after which a ticket fails; at most 60 s are used.
    pub deadline_ms: u64,
    /// Milliseconds that a receipt or marker waits for another record's put.
    pub defer_ms: u64,
    /// The unit of [`Cover`]: milliseconds of a day.
    pub day_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_records: 1_024,
            queue_bytes: 4 * 1_024 * 1_024,
            deadline_ms: 10_000,
            defer_ms: 60_000,
            day_ms: 86_400_000,
        }
    }
}

impl Limits {
    /// With the deadline that holds whatever was configured.
    pub(super) fn bounded(self) -> Self {
        Self {
            deadline_ms: self.deadline_ms.min(MAX_DEADLINE_MS),
            day_ms: self.day_ms.max(1_000),
            ..self
        }
    }
}
