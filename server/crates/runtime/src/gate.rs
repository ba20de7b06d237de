//! Whether this process may act for its users at this moment.

use tokio::sync::watch;

/// Asked before every batch: a process that was suspended finds here that its lease has run out,
/// before it does anything that another process may do by now.
pub struct Gate {
    /// Until when it is open, on the clock; `None` = always.
    until: Option<watch::Receiver<u64>>,
    clock: fn() -> u64,
}

impl Gate {
    /// The gate of the only process that can open its store.
    pub fn open() -> Self {
        Self {
            until: None,
            clock: || 0,
        }
    }

    /// Open until the time that was last sent, on a clock that runs during suspension.
    pub fn until(until: watch::Receiver<u64>, clock: fn() -> u64) -> Self {
        Self {
            until: Some(until),
            clock,
        }
    }

    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        let open = |until: &watch::Receiver<u64>| (self.clock)() < *until.borrow();
        self.until.as_ref().is_none_or(open)
    }

    /// Waits until it is open.
    pub async fn opened(&mut self) {
        while !self.is_open() {
            if let Some(until) = &mut self.until
                && until.changed().await.is_err()
            {
                // Nobody renews the lease any more: the process is ending.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_open_until_its_time_and_opens_again() {
        let (tell, until) = watch::channel(0);
        let mut gate = Gate::until(until, || 1_000);
        assert!(!gate.is_open());
        tell.send_replace(1_000);
        assert!(!gate.is_open());
        let opened = tokio::time::timeout(Duration::ZERO, gate.opened()).await;
        assert!(opened.is_err(), "it waits");
        tell.send_replace(1_001);
        gate.opened().await;
        assert!(gate.is_open());
        assert!(Gate::open().is_open());
    }
}
