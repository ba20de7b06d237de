//! Many sessions on one thread: opens, pumps and closes them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::poller::Poller;
use crate::session::{Arrival, Dialect, Session, Shared};
use crate::sys;

/// Logins under way at once when many sessions are opened.
const OPENING: usize = 32;
/// Longest time for one batch of logins to make no progress.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions by slot; slot and poller token are the same number.
pub(crate) struct Fleet {
    ports: Vec<u16>,
    poller: Poller,
    shared: Shared,
    slots: Vec<Option<Session>>,
    watching_output: Vec<bool>,
    ready: Vec<u64>,
    arrivals: Vec<Arrival>,
}

impl Fleet {
    /// No sessions yet, to the servers at these ports; users take them in turn.
    pub(crate) fn new(ports: &[u16], shared: Shared) -> Result<Fleet> {
        Ok(Fleet {
            ports: ports.to_vec(),
            poller: Poller::new()?,
            shared,
            slots: Vec::new(),
            watching_output: Vec::new(),
            ready: Vec::new(),
            arrivals: Vec::new(),
        })
    }

    /// Gives back what outlives the fleet: the cached keys above all.
    pub(crate) fn into_shared(mut self) -> Shared {
        self.close_all();
        self.shared
    }

    /// Opens one session per user, slot = user, and returns when all are online.
    pub(crate) fn open(&mut self, users: std::ops::Range<u32>, dialect: Dialect) -> Result<()> {
        let mut waiting = users;
        let mut opening: Vec<usize> = Vec::new();
        let mut progress = sys::now();
        loop {
            while opening.len() < OPENING {
                let Some(user) = waiting.next() else { break };
                self.start(user as usize, user, dialect)?;
                opening.push(user as usize);
            }
            if opening.is_empty() {
                return Ok(());
            }
            self.pump(100_000_000)?;
            let before = opening.len();
            opening.retain(|slot| !self.is_online(*slot));
            if opening.len() < before {
                progress = sys::now();
            } else if sys::now() - progress > PATIENCE.as_nanos() as u64 {
                bail!("{} logins make no progress", opening.len());
            }
        }
    }

    /// Begins a login in `slot`, which must be free.
    pub(crate) fn start(&mut self, slot: usize, user: u32, dialect: Dialect) -> Result<()> {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
            self.watching_output.resize(slot + 1, false);
        }
        let server = user as usize % self.ports.len();
        let session = Session::open(self.ports[server], user, dialect, &self.shared)?;
        self.poller.add(session.link().socket(), slot as u64)?;
        self.watching_output[slot] = false;
        self.slots[slot] = Some(session);
        self.settle(slot)
    }

    /// The session in a slot.
    pub(crate) fn session(&self, slot: usize) -> Option<&Session> {
        self.slots.get(slot)?.as_ref()
    }

    /// The session in this slot has finished its login.
    pub(crate) fn is_online(&self, slot: usize) -> bool {
        self.session(slot).is_some_and(Session::is_online)
    }

    /// Sends in one write from the session in `slot`.
    pub(crate) fn send(&mut self, slot: usize, bytes: &[u8]) -> Result<()> {
        let session = self.slots.get_mut(slot).and_then(Option::as_mut);
        session
            .with_context(|| format!("slot {slot} is empty"))?
            .send(bytes)?;
        self.settle(slot)
    }

    /// Waits at most `nanoseconds` for input, and handles all that is there.
    pub(crate) fn pump(&mut self, nanoseconds: u64) -> Result<()> {
        self.ready.clear();
        self.poller.wait(nanoseconds, &mut self.ready)?;
        for index in 0..self.ready.len() {
            let slot = self.ready[index] as usize;
            let Some(session) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            session.ready(&mut self.shared, sys::now(), &mut self.arrivals)?;
            self.settle(slot)?;
        }
        Ok(())
    }

    /// Slots that had input in the last pump.
    pub(crate) fn touched(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().map(|token| *token as usize)
    }

    /// Takes the messages that arrived, leaving `spare` (emptied) in their place.
    pub(crate) fn take_arrivals(&mut self, spare: &mut Vec<Arrival>) {
        spare.clear();
        std::mem::swap(&mut self.arrivals, spare);
    }

    /// Ends the stream in a slot.
    pub(crate) fn close(&mut self, slot: usize) {
        if let Some(session) = self.slots.get_mut(slot).and_then(Option::take) {
            session.close();
        }
    }

    /// Ends every stream.
    pub(crate) fn close_all(&mut self) {
        for slot in 0..self.slots.len() {
            self.close(slot);
        }
    }

    fn settle(&mut self, slot: usize) -> Result<()> {
        let Some(session) = self.slots[slot].as_ref() else {
            return Ok(());
        };
        let wants = session.link().wants_write();
        if wants != self.watching_output[slot] {
            self.poller
                .watch_output(session.link().socket(), slot as u64, wants)?;
            self.watching_output[slot] = wants;
        }
        Ok(())
    }
}
