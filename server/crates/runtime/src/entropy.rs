//! The system's clock and randomness, for the machines that take them as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

use cirrus_router::Entropy;
use rustix::time::{ClockId, clock_gettime};

/// Random bytes drawn from the system some at a time.
pub struct SystemEntropy {
    pool: [u8; 256],
    left: usize,
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self {
            pool: [0; 256],
            left: 0,
        }
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.left == 0 {
                draw(&mut self.pool);
                self.left = self.pool.len();
            }
            self.left -= 1;
            *byte = std::mem::take(&mut self.pool[self.left]);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell is where randomness comes from"
)]
#[expect(
    clippy::panic,
    reason = "without randomness no session id is safe; nothing can go on"
)]
fn draw(pool: &mut [u8]) {
    if aws_lc_rs::rand::fill(pool).is_err() {
        panic!("the system has no randomness");
    }
}

/// The wall clock, Unix milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell is where time comes from"
)]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds of a clock that never goes back and runs while the machine sleeps.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}
