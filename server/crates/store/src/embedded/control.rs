//! How writer and applier wait for each other.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

#[derive(Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// Part of the active log file that is used, in percent.
    used_percent: AtomicU64,
    commits: AtomicU64,
    is_stopping: AtomicBool,
    /// Why the store can't go on in this process.
    broken: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    /// A sealed file waits for the applier, or the applier is at work on it.
    is_sealed: bool,
    /// Why the applier could not do its work, the last time it tried.
    failure: Option<String>,
}

/// What the applier is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Apply,
    /// Nothing came for the time it was willing to wait.
    Sweep,
    Stop,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a commit, and how much of the active log file is used after it.
    pub(super) fn committed(&self, percent: u64) {
        self.used_percent.store(percent, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) fn used_percent(&self) -> u64 {
        self.used_percent.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        // Under the lock, so that nobody is between looking and waiting.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Tells the applier that a file was sealed.
    pub(super) fn sealed(&self) {
        self.lock().is_sealed = true;
        self.changed.notify_all();
    }

    /// Tells the writer that the sealed file is in the database.
    pub(super) fn applied(&self) {
        let mut state = self.lock();
        (state.is_sealed, state.failure) = (false, None);
        self.changed.notify_all();
    }

    /// Tells the writer why the applier can't go on.
    pub(super) fn failed(&self, why: String) {
        self.lock().failure = Some(why);
        self.changed.notify_all();
    }

    /// Tells everybody that the store can't go on before it is opened anew. Of several reasons the
    /// first counts.
    pub(super) fn broke(&self, why: &str) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    pub(super) fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }

    /// Waits until no sealed file is left to apply.
    ///
    /// # Errors
    /// Why the applier can't go on.
    pub(super) fn wait_applied(&self) -> Result<(), String> {
        let mut state = self.lock();
        while state.is_sealed {
            if let Some(why) = &state.failure {
                return Err(why.clone());
            }
            if self.is_stopping() {
                return Err("the store is being closed".to_owned());
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Waits for work, for `patience` at most.
    pub(super) fn wait_work(&self, patience: Duration) -> Work {
        let state = self.lock();
        let idle = |state: &mut State| !state.is_sealed && !self.is_stopping();
        let waited = self.changed.wait_timeout_while(state, patience, idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match () {
            () if self.is_stopping() => Work::Stop,
            () if state.is_sealed => Work::Apply,
            () => Work::Sweep,
        }
    }

    /// Lets other threads run for a while. `false` = the store is being closed.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let state = self.lock();
        let going_on = |_: &mut State| !self.is_stopping();
        drop(self.changed.wait_timeout_while(state, time, going_on));
        !self.is_stopping()
    }
}
