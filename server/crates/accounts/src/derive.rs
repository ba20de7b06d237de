//! Key derivation off the event loop: a bounded number of threads, a bounded queue before them.

use std::fmt;
use std::sync::Arc;

use cirrus_sasl::{Hash, Password, SaslError, StoredKey, derive};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::AccountError;

/// Runs derivations.
pub(crate) struct Derivations {
    /// Places to run and to wait.
    places: Arc<Semaphore>,
    /// Places to run.
    running: Arc<Semaphore>,
}

impl Derivations {
    /// At most `running` at once, and `waiting` more in the queue; at least one can run.
    pub(crate) fn new(running: usize, waiting: usize) -> Derivations {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        let places = running.saturating_add(waiting).min(Semaphore::MAX_PERMITS);
        Derivations {
            places: Arc::new(Semaphore::new(places)),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// The keys of a password for both hashes, strongest first, each with its own salt.
    pub(crate) async fn keys(
        &self,
        password: Password,
        salts: [[u8; 16]; 2],
        iterations: u32,
    ) -> Result<Vec<StoredKey>, AccountError> {
        let keys = self.run(move || -> Result<Vec<StoredKey>, SaslError> {
            let salted = Hash::ALL.into_iter().zip(salts);
            salted
                .map(|(hash, salt)| derive(hash, &password, &salt, iterations))
                .collect()
        });
        let refused = |source| AccountError::Keys {
            what: "auth.iterations".to_owned(),
            source,
        };
        keys.await?.map_err(refused)
    }

    /// Runs `work` on a blocking thread. Its places are held until it ends, even when the caller
    /// stops waiting: else abandoned logins would pile up work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AccountError> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => AccountError::Busy,
                TryAcquireError::Closed => AccountError::Stopping,
            })?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| AccountError::Stopping)?;
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((running, place));
            done
        });
        task.await.map_err(|_| AccountError::Stopping)
    }
}

impl fmt::Debug for Derivations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Derivations({} places free)",
            self.places.available_permits()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn running_and_waiting_are_bounded() {
        let derivations = Arc::new(Derivations::new(1, 1));
        let (release, gate) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let derivations = Arc::clone(&derivations);
            async move {
                let work = move || {
                    started.send(()).ok();
                    gate.recv().ok();
                };
                derivations.run(work).await
            }
        });
        has_started.await.unwrap();
        let mut second = Box::pin(derivations.run(|| 2));
        // Polled once: it takes its place in the queue.
        assert!(futures_poll(&mut second).is_none());
        assert!(matches!(
            derivations.run(|| 3).await,
            Err(AccountError::Busy)
        ));
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(derivations.run(|| 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn who_stops_waiting_does_not_free_the_thread() {
        let derivations = Derivations::new(1, 0);
        let (release, gate) = mpsc::channel::<()>();
        let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
        let mut abandoned = Box::pin(derivations.run(move || {
            gate.recv().ok();
            ended
        }));
        assert!(futures_poll(&mut abandoned).is_none());
        drop(abandoned);
        assert!(matches!(
            derivations.run(|| 1).await,
            Err(AccountError::Busy)
        ));
        release.send(()).unwrap();
        // The sender is dropped with the abandoned result, after the places were given back.
        has_ended.await.unwrap_err();
        assert_eq!(derivations.run(|| 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn both_hashes_have_keys_and_salts_of_their_own() {
        let derivations = Derivations::new(2, 2);
        let password = Password::prepare("pencil").unwrap();
        let keys = derivations
            .keys(password.clone(), [[1; 16], [2; 16]], 4096)
            .await
            .unwrap();
        assert_eq!(
            keys.iter().map(|key| key.hash).collect::<Vec<_>>(),
            Hash::ALL
        );
        assert_eq!((keys[0].salt[0], keys[1].salt[0]), (1, 2));
        assert!(keys.iter().all(|key| key.verify(&password).unwrap()));
        let refused = derivations
            .keys(password, [[1; 16], [2; 16]], 1)
            .await
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("auth.iterations: 1 iterations"),
            "{refused}"
        );
    }

    fn futures_poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }
}
