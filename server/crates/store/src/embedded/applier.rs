//! The applier: one thread that moves sealed log files into the database, and removes what has
//! expired there. It keeps out of the way while the log has room, and hurries when it fills.

use std::{sync::Arc, time::Duration};

use super::base::{Base, BaseError, Swept};
use super::control::{Control, Work};
use super::memory::{Memory, Sealed};
use crate::Clock;

/// Changes between two rests: about half a millisecond of work.
const SLICE: usize = 256;
/// Rest while the active log file has much room: two thirds of the time, at least.
const LONG_REST: Duration = Duration::from_millis(2);
/// Rest while it has some room.
const SHORT_REST: Duration = Duration::from_micros(500);
/// Below this part of the active file, in percent, rests are long; below twice as much, short.
const MUCH_ROOM: u64 = 35;
/// Pause after a failure, for instance while the disk is full.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Pause between two looks for expired items.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Items looked at each time.
const SWEEP_ITEMS: usize = 4_096;

pub(super) struct Applier {
    pub base: Base,
    pub memory: Arc<Memory>,
    pub control: Arc<Control>,
    pub clock: Clock,
}

impl Applier {
    /// Works until the store is closed. What is not applied by then is still in the log.
    pub(super) fn run(self) {
        let mut swept = None;
        loop {
            let result = match self.control.wait_work(SWEEP_EVERY) {
                Work::Stop => return,
                Work::Apply => self.apply(),
                Work::Sweep => self.sweep(&mut swept),
            };
            if let Err(error) = result {
                tracing::error!(%error, "the database of the embedded store can't be written");
                self.control.failed(error.to_string());
                self.control.rest(AFTER_FAILURE);
            }
        }
    }

    fn apply(&self) -> Result<(), BaseError> {
        let sealed = self.memory.read().sealed.clone();
        if let Some(sealed) = sealed {
            let Sealed { generation, map } = &*sealed;
            if !self.base.apply(*generation, map, SLICE, || self.pace())? {
                return Ok(());
            }
            let snapshot = Arc::new(self.base.snapshot()?);
            let mut layers = self.memory.write();
            layers.snapshot = snapshot;
            // Freed here, and not while the lock is held: it is large.
            let freed = layers.sealed.take();
            drop(layers);
            drop(freed);
        }
        self.control.applied();
        Ok(())
    }

    /// `false` = the store is being closed.
    fn pace(&self) -> bool {
        match self.control.used_percent() {
            used if used < MUCH_ROOM => self.control.rest(LONG_REST),
            used if used < 2 * MUCH_ROOM => self.control.rest(SHORT_REST),
            _ => !self.control.is_stopping(),
        }
    }

    fn sweep(&self, swept: &mut Option<Box<[u8]>>) -> Result<(), BaseError> {
        let now_ms = (self.clock)();
        let Swept { removed, next } = self.base.sweep(swept.as_deref(), SWEEP_ITEMS, now_ms)?;
        *swept = next;
        if removed > 0 {
            tracing::debug!(removed, "removed expired items");
        }
        Ok(())
    }
}
