//! The answers that lie ready for authorities, read so that questions cost little.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use cirrus_store::Table;
use tokio::time::{Instant, sleep_until};

use crate::record::{self, Question};

/// Time between reads of the table, however many ask: anybody may. An authority waits longer.
const PACE: Duration = Duration::from_secs(1);
/// Longest name that is looked up (RFC 1035).
const MAX_NAME: usize = 253;

/// The table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answers for authorities can't be read")]
pub struct Unread;

/// The answers in the table, for questions of any number. All that wait share the next read; "there
/// is none" always is from a read that began after the question came, so what a node has laid down
/// before it let the authority ask is found.
pub struct Answers {
    table: Arc<dyn Table>,
    last: Mutex<Last>,
    /// Whoever has it reads.
    turn: tokio::sync::Mutex<()>,
}

/// Answers by the sort keys of their questions.
type Found = Result<HashMap<Vec<u8>, String>, Unread>;

#[derive(Default)]
struct Last {
    /// When the last read began, whatever became of it.
    began: Option<Instant>,
    /// What it found, and when it began.
    found: Option<(Instant, Found)>,
}

impl Answers {
    /// Those of a table.
    #[must_use]
    pub fn new(table: Arc<dyn Table>) -> Self {
        Self {
            table,
            last: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// TLS-ALPN-01 (RFC 8737): the SHA-256 of the key authorization for a name in A-labels, while
    /// an authority is expected to ask about it.
    ///
    /// # Errors
    /// [`Unread`].
    pub async fn proof(&self, name: &str) -> Result<Option<[u8; 32]>, Unread> {
        if name.len() > MAX_NAME {
            return Ok(None);
        }
        let answer = self.answer(Question::Tls(name)).await?;
        let hash = |answer: String| {
            let mut out = [0; 32];
            out.copy_from_slice(digest::digest(&digest::SHA256, answer.as_bytes()).as_ref());
            out
        };
        Ok(answer.map(hash))
    }

    pub(crate) async fn answer(&self, question: Question<'_>) -> Result<Option<String>, Unread> {
        if !question.is_sound() {
            return Ok(None);
        }
        let (asked, key) = (now(), question.key().sk);
        // A known one has an answer while others make this node read again and again.
        let fresh = asked.checked_sub(PACE).unwrap_or(asked);
        if let Some(Ok(Some(answer))) = self.found(fresh, &key) {
            return Ok(Some(answer));
        }
        let _turn = self.turn.lock().await;
        if let Some(found) = self.found(asked, &key) {
            return found;
        }
        let before = self.last().began;
        if let Some(began) = before {
            sleep_until(began + PACE).await;
        }
        let began = now();
        // Before it is done: who goes away meanwhile has had a read all the same.
        self.last().began = Some(began);
        let read = record::answers(&*self.table).await.map_err(|error| {
            tracing::warn!(%error, "an authority's question has no answer");
            Unread
        });
        let answer = match &read {
            Ok(answers) => Ok(answers.get(&key[..]).cloned()),
            Err(unread) => Err(*unread),
        };
        self.last().found = Some((began, read));
        answer
    }

    /// What a read that began after that found.
    fn found(&self, since: Instant, key: &[u8]) -> Option<Result<Option<String>, Unread>> {
        let last = self.last();
        let (_, found) = last.found.as_ref().filter(|(began, _)| *began > since)?;
        Some(match found {
            Ok(answers) => Ok(answers.get(key).cloned()),
            Err(unread) => Err(*unread),
        })
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a shell: it keeps a pace towards the table"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cirrus_store::{BoxFuture, MemoryTable, Op, Outcome, StoreError};

    use super::*;

    /// Counts what is asked of it.
    struct Counting(MemoryTable, AtomicUsize);

    impl Table for Counting {
        fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.apply(op)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_are_few_reads_and_what_was_just_laid_down_is_found() {
        let memory = MemoryTable::new(Arc::new(|| 1_000));
        let table = Arc::new(Counting(memory, AtomicUsize::new(0)));
        let answers = Arc::new(Answers::new(table.clone()));
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let answers = Arc::clone(&answers);
            asking.spawn(async move { answers.answer(Question::Http(&format!("t{n}"))).await });
        }
        tokio::task::yield_now().await;
        let known = Question::Http("known");
        let when = (1_000, 1);
        record::prepare(&table.0, known, "print", when)
            .await
            .unwrap();
        assert_eq!(answers.answer(known).await, Ok(Some("print".into())));
        assert_eq!(answers.answer(known).await, Ok(Some("print".into())));
        for answer in asking.join_all().await {
            assert_eq!(answer, Ok(None));
        }
        let reads = table.1.load(Ordering::Relaxed);
        assert!((1..=2).contains(&reads), "{reads}");
        let name = "example.com";
        record::prepare(&table.0, Question::Tls(name), "print", when)
            .await
            .unwrap();
        assert!(answers.proof(name).await.unwrap().is_some());
    }
}
