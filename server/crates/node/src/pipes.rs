//! Connections of this node and the ports they speak through.

use std::collections::HashMap;

use cirrus_jid::BareJid;
use cirrus_replica::{Now, Random};
use cirrus_router::{PipeEvent, PipeId, PipeOut};
use cirrus_stanza::StreamError;
use cirrus_store::Item;

use crate::slot::{Word, slot_of};
use crate::{Effect, Node};

/// Who listens at a port.
pub(crate) enum Ear {
    Pipe(PipeId),
    Erase(u64),
    Unpark(u64),
}

/// The ports that are open, and whose they are.
#[derive(Default)]
pub(crate) struct Ears {
    /// A connection has a port once it is known to whom it speaks.
    pub pipes: HashMap<PipeId, u64>,
    ports: HashMap<u64, Ear>,
    last: u64,
}

impl Ears {
    /// Number of the next port.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Node {
    /// A connection of this node speaks. One that was told to close is not to be heard again.
    pub fn pipe(&mut self, now: Now, random: &mut dyn Random, pipe: PipeId, event: PipeEvent) {
        let port = match (self.ears.pipes.get(&pipe), &event) {
            (Some(port), _) => *port,
            (None, PipeEvent::Bind { user, .. } | PipeEvent::Resume { user, .. }) => {
                let port = self.open(user, Ear::Pipe(pipe));
                self.ears.pipes.insert(pipe, port);
                port
            }
            // Nobody knows it yet.
            (None, _) => return,
        };
        let last = matches!(event, PipeEvent::Closed { .. });
        if last {
            self.forget(pipe, port);
        }
        self.say(now, random, port, Word::Pipe(event), last);
        let replica = self.replica.as_ref();
        let backlog = replica.map_or(0, |replica| replica.port_backlog(port));
        if !last && backlog > self.options.replica.queue {
            let error = Some(StreamError::ResourceConstraint);
            let out = PipeOut::Close { error };
            self.effects.push_back(Effect::Pipe { pipe, out });
            self.broken(now, random, pipe);
        }
    }

    /// A connection of this node has ended without a word.
    pub fn broken(&mut self, now: Now, random: &mut dyn Random, pipe: PipeId) {
        if let Some(port) = self.ears.pipes.get(&pipe).copied() {
            self.forget(pipe, port);
            // To a session that is gone already it says nothing.
            let event = PipeEvent::Closed { clean: false };
            self.say(now, random, port, Word::Pipe(event), true);
        }
    }

    fn forget(&mut self, pipe: PipeId, port: u64) {
        self.ears.pipes.remove(&pipe);
        self.ears.ports.remove(&port);
    }

    /// The log of an account is due to be sealed. [`Effect::Erased`] tells when that is done.
    pub fn seal(&mut self, now: Now, random: &mut dyn Random, token: u64, user: BareJid) {
        let port = self.open(&user, Ear::Erase(token));
        self.say(now, random, port, Word::Seal(user), false);
    }

    /// The account no longer exists: what it owns is to be erased. [`Effect::Erased`] tells when
    /// that is done; if this node dies before, nothing does, and it may be asked again elsewhere.
    pub fn erase(&mut self, now: Now, random: &mut dyn Random, token: u64, user: BareJid) {
        let port = self.open(&user, Ear::Erase(token));
        self.say(now, random, port, Word::Erase(user), false);
    }

    /// A session that the last process has parked, from its row, is to wait at its account's home.
    /// [`Effect::Unparked`] tells when it does.
    pub fn unpark(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        token: u64,
        (user, row): (BareJid, Item),
    ) {
        let port = self.open(&user, Ear::Unpark(token));
        self.say(now, random, port, Word::Unpark(user, row), false);
    }

    /// Nothing more is said through this port.
    fn leave_port(&mut self, now: Now, random: &mut dyn Random, port: u64) {
        self.ears.ports.remove(&port);
        let event = PipeEvent::Closed { clean: true };
        self.say(now, random, port, Word::Pipe(event), true);
    }

    /// A new port to the home of an account.
    fn open(&mut self, user: &BareJid, ear: Ear) -> u64 {
        let port = self.ears.next();
        let slot = slot_of(&self.key, self.membership.is_none(), user);
        if let Some(replica) = &mut self.replica {
            replica.open(port, slot);
        }
        self.ears.ports.insert(port, ear);
        port
    }

    pub(crate) fn say(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        port: u64,
        word: Word,
        last: bool,
    ) {
        if let Some(replica) = &mut self.replica {
            replica.say(now, random, port, word, last);
        }
    }

    /// The home that a port of this node spoke to is lost with every copy. A client whose session
    /// it had has to log in again, and learns that by the end of its connection.
    pub(crate) fn lost(&mut self, port: u64) -> Option<Effect> {
        match self.ears.ports.remove(&port)? {
            Ear::Pipe(pipe) => {
                self.ears.pipes.remove(&pipe);
                let out = PipeOut::Close { error: None };
                Some(Effect::Pipe { pipe, out })
            }
            Ear::Erase(token) => {
                let result = Err("the nodes that kept the account are gone".into());
                Some(Effect::Erased { token, result })
            }
            Ear::Unpark(token) => Some(Effect::Unparked { token }),
        }
    }

    /// A slot speaks to a port of this node.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        port: u64,
        word: Word,
    ) -> Option<Effect> {
        match (self.ears.ports.get(&port)?, word) {
            (Ear::Pipe(pipe), Word::Out(out)) => {
                let pipe = *pipe;
                if matches!(out, PipeOut::Close { .. }) {
                    self.broken(now, random, pipe);
                }
                Some(Effect::Pipe { pipe, out })
            }
            (Ear::Erase(token), Word::Erased(result)) => {
                let token = *token;
                self.leave_port(now, random, port);
                Some(Effect::Erased { token, result })
            }
            (Ear::Unpark(token), Word::Unparked) => {
                let token = *token;
                self.leave_port(now, random, port);
                Some(Effect::Unparked { token })
            }
            _ => None,
        }
    }
}
