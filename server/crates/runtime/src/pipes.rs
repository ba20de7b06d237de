//! Connections of this node and the ports they speak through.

use std::sync::atomic::Ordering;

use cirrus_jid::BareJid;
use cirrus_router::{PipeEvent, PipeId, PipeOut};
use tokio::sync::{mpsc, oneshot};

use crate::node::Task;
use crate::slot::{Word, slot_of};

/// Who listens at a port.
pub(crate) enum Ear {
    Pipe(PipeId),
    Erase(oneshot::Sender<Result<(), String>>),
    Nobody,
}

/// A connection of this node.
pub(crate) struct Pipe {
    pub queue: mpsc::Sender<PipeOut>,
    /// The port it speaks through, once it is known to whom.
    pub port: Option<u64>,
}

impl Task {
    pub(crate) fn pipe(&mut self, id: PipeId, event: PipeEvent) {
        let user = match &event {
            PipeEvent::Bind { user, .. } | PipeEvent::Resume { user, .. } => Some(user.clone()),
            _ => None,
        };
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let port = match (pipe.port, user) {
            (Some(port), _) => port,
            (None, Some(user)) => {
                let port = self.open(&user, Ear::Pipe(id));
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    pipe.port = Some(port);
                }
                port
            }
            // Nobody knows it yet.
            (None, None) => {
                if matches!(event, PipeEvent::Closed { .. }) {
                    self.pipes.remove(&id);
                }
                return;
            }
        };
        let last = matches!(event, PipeEvent::Closed { .. });
        if last {
            self.pipes.remove(&id);
            self.ports.remove(&port);
        }
        self.say(port, Word::Pipe(event), last);
    }

    /// A new port to the home of an account.
    pub(crate) fn open(&mut self, user: &BareJid, ear: Ear) -> u64 {
        self.last_port += 1;
        let slot = slot_of(&self.key, self.cluster.is_none(), user);
        if let Some(replica) = &mut self.replica {
            replica.open(self.last_port, slot);
        }
        self.ports.insert(self.last_port, ear);
        self.last_port
    }

    pub(crate) fn say(&mut self, port: u64, word: Word, last: bool) {
        if let Some(replica) = &mut self.replica {
            replica.say(self.now, &mut self.rng, port, word, last);
        }
    }

    pub(crate) fn deliver(&mut self, port: u64, word: Word) {
        match (self.ports.get_mut(&port), word) {
            (Some(Ear::Pipe(id)), Word::Out(out)) => {
                let id = *id;
                self.give_pipe(id, port, out);
            }
            (Some(ear @ Ear::Erase(_)), Word::Erased(result)) => {
                if let Ear::Erase(answer) = std::mem::replace(ear, Ear::Nobody) {
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(result);
                }
                self.ports.remove(&port);
                // Nothing more is said through this port.
                let event = PipeEvent::Closed { clean: true };
                self.say(port, Word::Pipe(event), true);
            }
            _ => {}
        }
    }

    fn give_pipe(&mut self, id: PipeId, port: u64, out: PipeOut) {
        let last = matches!(out, PipeOut::Close { .. });
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let broken = pipe.queue.try_send(out).is_err();
        if !broken && !last {
            return;
        }
        self.pipes.remove(&id);
        self.ports.remove(&port);
        if broken && !last {
            self.counters.overflows.fetch_add(1, Ordering::Relaxed);
        }
        // To a session that is gone already it says nothing.
        let event = PipeEvent::Closed { clean: false };
        self.say(port, Word::Pipe(event), true);
    }
}
