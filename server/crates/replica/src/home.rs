//! A slot at its home: entries, copies, and what waits for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cirrus_cluster::Slot;
use cirrus_cluster::planted::{self, Bug};

use crate::copies::CopyAt;
use crate::frame::Frame;
use crate::machine::{Input, Machine, Peer, Random};
use crate::replicated::{Emit, Entry, Keep, Recorder, Replicated, encoded, step};
use crate::slots::{Held, Place};
use crate::{Effect, Inner, Now, Replica};

/// A slot's home.
pub(crate) struct Home<M: Machine> {
    pub core: Replicated<M>,
    pub copies: Vec<CopyAt>,
    /// Nodes whose copies are not needed. Nothing leaves the home before they are gone: one that
    /// has missed something must not become home, whoever else dies.
    pub retired: BTreeSet<u64>,
    /// Entries that a copy has not confirmed, as frames.
    pub log: VecDeque<(u64, Vec<u8>)>,
    /// What waits until the entry that made it due is confirmed.
    pub waiting: VecDeque<(u64, Emit<M>)>,
    /// The number up to which what was said has left.
    released: u64,
    /// What copies are to forget with the next entry.
    trims: Vec<(Peer, u64)>,
    /// The first message of each channel, as it was when what is not taken was last looked at.
    fronts: BTreeMap<Peer, u64>,
}

impl<M: Machine> Home<M> {
    pub fn new(core: Replicated<M>, copy: Option<CopyAt>) -> Self {
        Self {
            core,
            copies: copy.into_iter().collect(),
            retired: BTreeSet::new(),
            log: VecDeque::new(),
            waiting: VecDeque::new(),
            released: 0,
            trims: Vec::new(),
            fronts: BTreeMap::new(),
        }
    }

    /// Some other node has its state, and every entry that made something due that has left.
    pub fn is_copied(&self) -> bool {
        let has = |copy: &CopyAt| copy.sure && copy.sent.is_some() && !copy.is_under_way();
        self.copies.iter().any(has)
    }

    /// Some other node has its state, or will.
    fn is_copying(&self) -> bool {
        self.copies.iter().any(|copy| copy.base().is_some())
    }

    pub fn unconfirmed(&self) -> usize {
        self.log.len()
    }

    /// The last entry that every copy has that counts.
    fn committed(&self) -> u64 {
        if planted::is(Bug::OutputBeforeCopy) {
            return u64::MAX;
        }
        if !self.retired.is_empty() {
            return 0;
        }
        let ready = self.copies.iter().filter(|copy| copy.ready);
        ready.map(|copy| copy.acked).min().unwrap_or(u64::MAX)
    }

    /// What was on its way to that node may not have arrived. Returns whether it needs the state.
    pub fn unsend(&mut self, node: u64) -> bool {
        let Some(copy) = self.copies.iter_mut().find(|copy| copy.node == node) else {
            return false;
        };
        if !copy.ready || copy.is_under_way() {
            copy.sent = None;
            self.prune();
        }
        self.copies.iter().any(|copy| copy.sent.is_none())
    }

    /// It has said something that was not taken, or copies have something to forget.
    pub fn is_speaking(&self) -> bool {
        !self.core.outs.is_empty() || !self.trims.is_empty()
    }

    pub fn prune(&mut self) {
        let base = self.copies.iter().filter_map(CopyAt::base).min();
        let base = base.unwrap_or(u64::MAX);
        while self.log.front().is_some_and(|(number, _)| *number <= base) {
            self.log.pop_front();
        }
    }

    /// Everything that stands in channels and requests is due again, in order, and what else
    /// was just made due.
    pub fn say_all_again(&mut self, due: Vec<Emit<M>>) {
        let entry = self.core.entry;
        let mut said: Vec<(u64, Peer)> = Vec::new();
        for (peer, queue) in &self.core.outs {
            said.extend(queue.iter().map(|said| (said.seq, *peer)));
        }
        said.sort_unstable();
        self.waiting.clear();
        self.released = 0;
        for (seq, to) in said {
            self.waiting.push_back((entry, Emit::Said { to, seq }));
        }
        let forgotten = planted::is(Bug::ForgetPending);
        for (token, request) in self.core.pending.iter().filter(|_| !forgotten) {
            let (token, request) = (*token, request.clone());
            self.waiting
                .push_back((entry, Emit::Request { token, request }));
        }
        // The rest of it stands in channels and requests already.
        let taken = |emit: &Emit<M>| matches!(emit, Emit::Taken { .. } | Emit::Direct { .. });
        let rest = due.into_iter().filter(taken).map(|emit| (entry, emit));
        self.waiting.extend(rest);
    }

    fn note_trim(&mut self, to: Peer, seq: u64) {
        if !self.is_copying() {
            return;
        }
        match self.trims.iter_mut().find(|(peer, _)| *peer == to) {
            Some((_, last)) => *last = seq.max(*last),
            None => self.trims.push((to, seq)),
        }
    }
}

/// How an input that is a message was said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Said<'a> {
    /// Its number in its channel.
    pub seq: u64,
    /// Its bytes, where it came over a link: the copy gets the same.
    pub raw: Option<&'a [u8]>,
}

impl<M: Machine> Replica<M> {
    /// Gives an input to the machine of a slot whose home is here.
    pub(crate) fn feed(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        slot: Slot,
        input: Option<Input<M>>,
        said: Said<'_>,
    ) {
        let mut emits = Vec::new();
        self.feed_into(now, random, slot, input, (said, false), &mut emits);
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        let entry = home.core.entry;
        if home.waiting.is_empty() && home.committed() >= entry {
            for emit in emits {
                self.release(slot, emit);
            }
        } else {
            let emits = emits.into_iter().map(|emit| (entry, emit));
            home.waiting.extend(emits);
            self.waiting.insert(slot);
        }
        self.set_deadline(slot);
    }

    /// The same, without letting out what it makes due. With `keep_all`, every message stands in
    /// its channel.
    pub(crate) fn feed_into(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        slot: Slot,
        input: Option<Input<M>>,
        (Said { seq, raw }, keep_all): (Said<'_>, bool),
        emits: &mut Vec<Emit<M>>,
    ) {
        let held = self.slots.hold(slot, Held::Nothing);
        let Held::Home(mut home) = held else {
            self.slots.hold(slot, held);
            return;
        };
        self.work.taken += 1;
        let copying = home.is_copying();
        // What has to wait may have to go on elsewhere.
        let keep_all = keep_all || copying || !home.retired.is_empty();
        let step = copying.then(|| step(self.format, input.as_ref(), seq, raw));
        let keep = |peer: &Peer| match peer {
            Peer::Port(port) => keep_all || port.node != self.me,
            Peer::Slot(to) => keep_all || !self.slots.is_home(*to),
        };
        let keep = Keep {
            message: &keep,
            requests: !self.options.alone,
        };
        if let Some(step) = step {
            let mut recorder = Recorder {
                source: random,
                drawn: Vec::new(),
            };
            let at = (now.wall, seq);
            let mark = home.core.take(at, &mut recorder, input, &keep, emits);
            let entry = Entry {
                now: home.core.clock(0),
                random: recorder.drawn.into(),
                trims: std::mem::take(&mut home.trims),
                step,
                mark,
            };
            let (term, number) = (home.core.term, home.core.entry);
            let frame = Frame::Entry {
                slot,
                term,
                number,
                entry,
            };
            let frame = frame.bytes();
            for copy in home.copies.iter().filter(|copy| copy.base().is_some()) {
                self.send_entry(copy.node, frame.clone());
            }
            home.log.push_back((number, frame));
        } else {
            let at = (now.wall, seq);
            home.core.take(at, random, input, &keep, emits);
        }
        if home.is_speaking() {
            self.speaking.insert(slot);
        }
        self.slots.hold(slot, Held::Home(home));
    }

    /// Lets out what waited for the copies.
    pub(crate) fn release_waiting(&mut self, slot: Slot) {
        while let Some(home) = self.slots.home_mut(slot) {
            let committed = home.committed();
            let Some((_, emit)) = home.waiting.pop_front_if(|(entry, _)| *entry <= committed)
            else {
                return;
            };
            self.release(slot, emit);
        }
    }

    fn release(&mut self, slot: Slot, emit: Emit<M>) {
        match emit {
            Emit::Direct { to, seq, message } => {
                let Some(home) = self.slots.home_mut(slot) else {
                    return;
                };
                home.released = seq;
                let prev = home.core.prev(&to, seq);
                match to {
                    Peer::Port(port) => self.deliver(port.number, seq, message),
                    Peer::Slot(to) => self.inner.push_back(Inner {
                        from: Peer::Slot(slot),
                        to,
                        place: Place { seq, prev, hops: 0 },
                        message,
                    }),
                }
            }
            Emit::Said { to, seq } => {
                if let Some(home) = self.slots.home_mut(slot) {
                    home.released = seq;
                    self.say_said(slot, to, seq);
                }
            }
            Emit::Request { token, request } => self.effects.push(Effect::Request {
                slot,
                token,
                request,
            }),
            Emit::Taken { from, seq } => self.tell_taken(from, Peer::Slot(slot), seq),
        }
    }

    /// Sends a message that stands in its channel.
    fn say_said(&mut self, slot: Slot, to: Peer, seq: u64) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        let Some(queue) = home.core.outs.get_mut(&to) else {
            return;
        };
        let at = queue.partition_point(|said| said.seq < seq);
        if queue.get(at).is_none_or(|said| said.seq != seq) {
            return; // It was taken meanwhile.
        }
        match to {
            // A port here has it when it is given to it.
            Peer::Port(port) if port.node == self.me => {
                let said = queue.remove(at);
                if queue.is_empty() {
                    home.core.outs.remove(&to);
                }
                home.note_trim(to, seq);
                if let Some(said) = said {
                    self.deliver(port.number, seq, said.message);
                }
            }
            _ => {
                let prev = at.checked_sub(1).and_then(|at| queue.get(at));
                let prev = prev.map_or(0, |said| said.seq);
                let Some(said) = queue.get(at) else { return };
                let place = Place { seq, prev, hops: 0 };
                let message = said.message.clone();
                self.dispatch(Peer::Slot(slot), to, place, message);
            }
        }
    }

    /// Sends a message to where its listener is.
    pub(crate) fn dispatch(&mut self, from: Peer, to: Peer, place: Place, message: M::Message) {
        let node = match to {
            Peer::Port(port) => Some(port.node),
            Peer::Slot(to) if self.slots.is_home(to) => Some(self.me),
            Peer::Slot(to) => self.home_of(to),
        };
        match (node, to) {
            (Some(node), Peer::Slot(to)) if node == self.me => self.inner.push_back(Inner {
                from,
                to,
                place,
                message,
            }),
            (Some(node), _) => self.send_message(node, (from, to), place, &message),
            // It is said again when there is a link or another home.
            _ => {}
        }
    }

    /// Sends a message to another node.
    pub(crate) fn send_message(
        &mut self,
        node: u64,
        (from, to): (Peer, Peer),
        Place { seq, prev, hops }: Place,
        message: &M::Message,
    ) {
        if self.links.contains(&node) {
            let frame = Frame::Message {
                from,
                to,
                seq,
                prev,
                hops,
                message: encoded(self.format, message).into(),
            };
            self.send(node, &frame);
        }
    }

    /// Sends again what a slot's machine said to a peer and was not taken.
    pub(crate) fn say_again(&mut self, slot: Slot, to: Peer) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        let released = home.released;
        let Some(queue) = home.core.outs.get(&to) else {
            return;
        };
        let left = queue.iter().map(|said| said.seq);
        let left: Vec<u64> = left.take_while(|seq| *seq <= released).collect();
        for seq in left {
            self.say_said(slot, to, seq);
        }
    }

    /// Something waits for the last entry as if that had made it due.
    pub(crate) fn after_last(&mut self, slot: Slot, emit: Emit<M>) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        let entry = home.core.entry;
        home.waiting.push_back((entry, emit));
        self.waiting.insert(slot);
        self.release_waiting(slot);
    }

    /// A peer of a slot here has taken what it said.
    pub(crate) fn trim(&mut self, slot: Slot, to: Peer, seq: u64) {
        if let Some(home) = self.slots.home_mut(slot) {
            home.core.trim(&to, seq);
            home.note_trim(to, seq);
            if home.is_speaking() {
                self.speaking.insert(slot);
            }
        }
    }

    /// What every slot here said, was not taken when last looked at, and still is not.
    pub(crate) fn repeat_slots(&mut self, now: Now, random: &mut dyn Random) {
        for slot in self.speaking {
            let Some(home) = self.slots.home_mut(slot).filter(|home| home.is_speaking()) else {
                self.speaking.remove(slot);
                continue;
            };
            let front = |(peer, queue): (&Peer, &VecDeque<_>)| {
                Some((
                    *peer,
                    queue
                        .front()
                        .map(|said: &crate::replicated::Said<M>| said.seq)?,
                ))
            };
            let fronts: BTreeMap<Peer, u64> = home.core.outs.iter().filter_map(front).collect();
            let stuck = fronts
                .iter()
                .filter(|(peer, seq)| home.fronts.get(peer) == Some(seq));
            let stuck: Vec<Peer> = stuck.map(|(peer, _)| *peer).collect();
            home.fronts = fronts;
            let trims = !home.trims.is_empty();
            for to in stuck {
                self.say_again(slot, to);
            }
            if trims {
                self.feed(now, random, slot, None, Said::default());
            }
        }
    }
}
