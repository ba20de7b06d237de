//! The links of this node: at most one with each other node.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::hello::{Hello, Refusal};
use crate::queue::Queue;
use crate::rank::{Rank, supersedes};

/// Who is linked, and who is being dialled.
pub(crate) struct Table {
    me: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Of the last hello.
    sequence: u64,
    /// Number of the last link.
    link: u64,
    links: HashMap<u64, Entry>,
    /// Nodes to which a hello was said that is not answered.
    asked: HashSet<u64>,
}

struct Entry {
    link: u64,
    rank: Rank,
    queue: Arc<Queue>,
    /// Ends when the link's last event has been told.
    told: watch::Receiver<()>,
}

/// A link that counts. Dropping it takes it out of the table.
pub(crate) struct Seat {
    pub(crate) node: u64,
    pub(crate) link: u64,
    pub(crate) queue: Arc<Queue>,
    /// Sequence for this node's hello.
    pub(crate) sequence: u64,
    /// The link that this one replaces.
    replaced: Option<watch::Receiver<()>>,
    table: Arc<Table>,
    _told: watch::Sender<()>,
}

/// A hello that is said to a node and not answered yet.
pub(crate) struct Asked {
    pub(crate) sequence: u64,
    node: u64,
    table: Arc<Table>,
}

impl Table {
    pub(crate) fn new(me: u64) -> Table {
        Table {
            me,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Before a hello to `node` (0: unknown). `None`: there is a link with it.
    pub(crate) fn ask(self: &Arc<Self>, node: u64) -> Option<Asked> {
        let mut state = self.lock();
        if state.links.contains_key(&node) {
            return None;
        }
        state.sequence += 1;
        if node != 0 {
            state.asked.insert(node);
        }
        Some(Asked {
            sequence: state.sequence,
            node,
            table: Arc::clone(self),
        })
    }

    /// Seats a link that was dialled and answered by `hello`.
    pub(crate) fn seat_dialled(
        self: &Arc<Self>,
        asked: Asked,
        hello: &Hello,
        queue: Queue,
    ) -> Result<Seat, Refusal> {
        let mine = asked.sequence;
        drop(asked);
        self.seat(self.lock(), hello, mine, true, queue)
    }

    /// Seats a link that another node dialled.
    pub(crate) fn seat_accepted(
        self: &Arc<Self>,
        hello: &Hello,
        queue: Queue,
    ) -> Result<Seat, Refusal> {
        let mut state = self.lock();
        // Of two that dial each other at once the higher node waits for its answer.
        if self.me > hello.node && state.asked.contains(&hello.node) {
            return Err(Refusal::Crossed);
        }
        state.sequence += 1;
        let mine = state.sequence;
        self.seat(state, hello, mine, false, queue)
    }

    fn seat(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        hello: &Hello,
        mine: u64,
        dialled: bool,
        queue: Queue,
    ) -> Result<Seat, Refusal> {
        let node = hello.node;
        let rank = Rank {
            mine,
            theirs: hello.sequence,
            incarnation: hello.incarnation,
            dialled,
        };
        let old = state.links.get(&node);
        if old.is_some_and(|old| !supersedes(&rank, &old.rank, self.me, node)) {
            return Err(Refusal::Crossed);
        }
        state.link += 1;
        let link = state.link;
        let queue = Arc::new(queue);
        let (told, entry_told) = watch::channel(());
        let entry = Entry {
            link,
            rank,
            queue: Arc::clone(&queue),
            told: entry_told,
        };
        let replaced = state.links.insert(node, entry);
        drop(state);
        if let Some(old) = &replaced {
            old.queue.close("a newer link with the node replaces it");
        }
        self.changed.send_replace(());
        Ok(Seat {
            node,
            link,
            queue,
            sequence: mine,
            replaced: replaced.map(|old| old.told),
            table: Arc::clone(self),
            _told: told,
        })
    }

    /// Waits until there is no link with the node.
    pub(crate) async fn without(&self, node: u64) {
        let mut changed = self.changed.subscribe();
        while self.lock().links.contains_key(&node) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Closes the links that this node dialled, except those with nodes in `kept`.
    pub(crate) fn close_dialled(&self, kept: &HashSet<u64>) {
        let state = self.lock();
        let others = state.links.iter().filter(|(node, _)| !kept.contains(node));
        for (_, entry) in others.filter(|(_, entry)| entry.rank.dialled) {
            entry
                .queue
                .close("the node is no longer one to be linked with");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until the link that this one replaces has told its end.
    pub(crate) async fn replaced_told(&mut self) {
        if let Some(mut told) = self.replaced.take() {
            // Nothing is ever sent: it ends when the sender is dropped.
            while told.changed().await.is_ok() {}
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.queue.close("closed");
        let mut state = self.table.lock();
        let current = state.links.get(&self.node);
        if current.is_some_and(|entry| entry.link == self.link) {
            state.links.remove(&self.node);
        }
        drop(state);
        self.table.changed.send_replace(());
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.table.lock().asked.remove(&self.node);
    }
}
