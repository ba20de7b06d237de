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
                if error.is_for_good() {
                    self.control
                        .broke("its database refuses everything after an error of the disk");
                }
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

#[cfg(test)]
mod tests {
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::map::Map;
    use super::super::memory::Layers;
    use super::*;

    /// A disk that is full for a while.
    #[derive(Debug, Default)]
    struct Disk {
        memory: InMemoryBackend,
        is_full: Arc<AtomicBool>,
    }

    type Done<T> = std::io::Result<T>;

    impl Disk {
        fn room(&self) -> Done<()> {
            match self.is_full.load(Ordering::Relaxed) {
                true => Err(std::io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> Done<u64> {
            self.memory.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Done<()> {
            self.memory.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Done<()> {
            self.room()?;
            self.memory.set_len(len)
        }
        fn sync_data(&self) -> Done<()> {
            self.room()?;
            self.memory.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Done<()> {
            self.room()?;
            self.memory.write(offset, data)
        }
    }

    /// The database never answers again after it: the process has to hear that.
    #[test]
    fn a_disk_that_was_full_breaks_the_store() {
        let disk = Disk::default();
        let is_full = Arc::clone(&disk.is_full);
        let base = Base::over(disk).unwrap();
        let map = Map::default();
        let layers = Layers {
            active: Map::default(),
            sealed: Some(Arc::new(Sealed { generation: 1, map })),
            snapshot: Arc::new(base.snapshot().unwrap()),
        };
        let control = Arc::new(Control::default());
        control.sealed();
        let applier = Applier {
            base,
            memory: Arc::new(Memory::new(layers)),
            control: Arc::clone(&control),
            clock: Arc::new(|| 1_000),
        };
        is_full.store(true, Ordering::Relaxed);
        assert!(
            !applier.apply().unwrap_err().is_for_good(),
            "it is full now"
        );
        is_full.store(false, Ordering::Relaxed);
        let running = std::thread::spawn(|| applier.run());
        let mut broken = control.broken();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let told = runtime.block_on(broken.wait_for(Option::is_some));
        assert!(told.unwrap().is_some());
        control.stop();
        running.join().unwrap();
    }
}
