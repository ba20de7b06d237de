//! What homes ask of the stores and of the account service, in lanes that wait for themselves only.
//!
//! Writes are what somebody waits for who is served already. Most reads load a user who was not in
//! memory, and after a node is lost there are many of them at once; they must not hold up the
//! others.

use std::collections::VecDeque;
use std::sync::Arc;

use cirrus_cluster::Slot;
use cirrus_node::{Answered, Ask};
use cirrus_replica::Token;
use cirrus_router::AccountRequest;
use cirrus_store::{Answer, Blob, BlobOp, Op, Outcome, StoreError, Table};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::Accounts;
use crate::node::Options;

/// An answer for the node's task.
pub(crate) enum Done {
    Slot(Slot, Token, Answered, Lane),
    Membership(cirrus_cluster::Token, Result<Outcome, StoreError>),
}

/// What is counted together, and waits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Writes.
    Operation,
    /// Changes of accounts. A deletion asks homes, whose writes must not wait for it.
    Account,
    /// Reads.
    Read,
    /// The store of blobs.
    Blob,
}

/// What is under way, and what waits.
pub(crate) struct Lanes {
    table: Arc<dyn Table>,
    blobs: Arc<dyn Blob>,
    accounts: Arc<dyn Accounts>,
    options: Options,
    answers: mpsc::Sender<Done>,
    /// Writes under way.
    pub operations: usize,
    waiting: VecDeque<(Slot, Token, Op)>,
    /// Changes of accounts under way.
    changes: usize,
    /// Bounded by what homes ask at once: one for each session's request.
    changes_waiting: VecDeque<(Slot, Token, AccountRequest)>,
    /// Reads under way.
    pub reads: usize,
    reads_waiting: VecDeque<(Slot, Token, Op)>,
    /// Reads that were refused because as many waited as may.
    pub reads_refused: u64,
    blob_operations: usize,
    /// Bounded by what homes ask at once: one for each session's query and each account's log.
    blobs_waiting: VecDeque<(Slot, Token, BlobOp)>,
}

/// The queue of answers: it has room for one to everything that may be under way, in every lane, so
/// that none is ever refused.
pub(crate) fn answers(options: &Options) -> (mpsc::Sender<Done>, mpsc::Receiver<Done>) {
    // Membership asks for a few things at once, beside the homes.
    const MEMBERSHIP: usize = 16;
    let changes = options.operations;
    let lanes = options.operations + changes + options.reads + options.blob_operations;
    mpsc::channel(lanes + MEMBERSHIP)
}

impl Lanes {
    pub fn new(
        (table, blobs): (Arc<dyn Table>, Arc<dyn Blob>),
        accounts: Arc<dyn Accounts>,
        options: Options,
        answers: mpsc::Sender<Done>,
    ) -> Self {
        Self {
            table,
            blobs,
            accounts,
            options,
            answers,
            operations: 0,
            waiting: VecDeque::new(),
            changes: 0,
            changes_waiting: VecDeque::new(),
            reads: 0,
            reads_waiting: VecDeque::new(),
            reads_refused: 0,
            blob_operations: 0,
            blobs_waiting: VecDeque::new(),
        }
    }

    /// Whether as many writes wait as may: then nothing new is to be taken.
    pub fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Nothing is under way, and nothing waits.
    pub fn is_empty(&self) -> bool {
        let under_way = self.operations + self.changes + self.reads + self.blob_operations;
        let waiting = self.waiting.len() + self.changes_waiting.len() + self.blobs_waiting.len();
        under_way + waiting + self.reads_waiting() == 0
    }

    /// Reads that wait.
    pub fn reads_waiting(&self) -> usize {
        self.reads_waiting.len()
    }

    /// Begins what a slot asks for, or has it wait for its turn. If it is refused, that is its
    /// answer.
    pub fn ask(&mut self, slot: Slot, token: Token, ask: Ask) -> Option<Answered> {
        match ask {
            Ask::Blob(op) => {
                if self.blob_operations < self.options.blob_operations {
                    self.start_blob_operation(slot, token, op);
                } else {
                    self.blobs_waiting.push_back((slot, token, op));
                }
            }
            Ask::Store(op @ (Op::Get { .. } | Op::Query { .. } | Op::BatchGet { .. })) => {
                if self.reads < self.options.reads {
                    self.start_store_operation(slot, token, op, Lane::Read);
                } else if self.reads_waiting.len() < self.options.reads_waiting {
                    self.reads_waiting.push_back((slot, token, op));
                } else {
                    self.reads_refused += 1;
                    let (place, source) = (op.place(), None);
                    return Some(Answered::Store(Err(StoreError::Throttled {
                        place,
                        source,
                    })));
                }
            }
            Ask::Store(op @ (Op::Put { .. } | Op::Delete { .. })) => {
                if self.operations < self.options.operations {
                    self.start_store_operation(slot, token, op, Lane::Operation);
                } else {
                    self.waiting.push_back((slot, token, op));
                }
            }
            Ask::Account(request) => {
                if self.changes < self.options.operations {
                    self.start_change(slot, token, request);
                } else {
                    self.changes_waiting.push_back((slot, token, request));
                }
            }
        }
        None
    }

    /// Something in this lane is answered; the next has its turn.
    pub fn answered(&mut self, lane: Lane) {
        match lane {
            Lane::Blob => self.blob_operations -= 1,
            Lane::Read => self.reads -= 1,
            Lane::Operation => self.operations -= 1,
            Lane::Account => self.changes -= 1,
        }
        while self.operations < self.options.operations {
            let Some((slot, token, op)) = self.waiting.pop_front() else {
                break;
            };
            self.start_store_operation(slot, token, op, Lane::Operation);
        }
        while self.changes < self.options.operations {
            let Some((slot, token, request)) = self.changes_waiting.pop_front() else {
                break;
            };
            self.start_change(slot, token, request);
        }
        while self.reads < self.options.reads {
            let Some((slot, token, op)) = self.reads_waiting.pop_front() else {
                break;
            };
            self.start_store_operation(slot, token, op, Lane::Read);
        }
        while self.blob_operations < self.options.blob_operations {
            let Some((slot, token, op)) = self.blobs_waiting.pop_front() else {
                break;
            };
            self.start_blob_operation(slot, token, op);
        }
    }

    fn start_change(&mut self, slot: Slot, token: Token, request: AccountRequest) {
        self.changes += 1;
        let (accounts, answers) = (Arc::clone(&self.accounts), self.answers.clone());
        tokio::spawn(async move {
            let answered = Answered::Account(accounts.change(request).await);
            let done = Done::Slot(slot, token, answered, Lane::Account);
            // The task may be gone; then nobody waits for the answer.
            let _ = answers.send(done).await;
        });
    }

    fn start_store_operation(&mut self, slot: Slot, token: Token, op: Op, lane: Lane) {
        match lane {
            Lane::Read => self.reads += 1,
            Lane::Operation | Lane::Account | Lane::Blob => self.operations += 1,
        }
        let answers = self.answers.clone();
        let done = move |answer: Answer| {
            let answered = Answered::Store(answer.result);
            match answers.try_send(Done::Slot(slot, token, answered, lane)) {
                // If the queue is closed, the task is gone and nobody waits.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                // It has room for everything under way: without its answer the lane would stay
                // taken, and the home would wait for ever.
                Err(TrySendError::Full(_)) => {
                    tracing::error!(
                        slot,
                        token,
                        "an answer of the store is lost: no room for it"
                    );
                }
            }
        };
        Arc::clone(&self.table).submit(op, Box::new(done));
    }

    fn start_blob_operation(&mut self, slot: Slot, token: Token, op: BlobOp) {
        self.blob_operations += 1;
        let (blobs, answers) = (Arc::clone(&self.blobs), self.answers.clone());
        let patience = self.options.blob_deadline;
        tokio::spawn(async move {
            let place = op.place();
            let result = match tokio::time::timeout(patience, blobs.apply(op)).await {
                Ok(result) => result,
                Err(_) => Err(StoreError::Timeout {
                    place,
                    source: None,
                }),
            };
            let done = Done::Slot(slot, token, Answered::Blob(result), Lane::Blob);
            // The task may be gone; then nobody waits for the answer.
            let _ = answers.send(done).await;
        });
    }
}

#[cfg(test)]
mod tests;
