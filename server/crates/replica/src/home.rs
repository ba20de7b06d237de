//! A slot at its home: entries, copies, and what waits for them.

use std::collections::{BTreeMap, VecDeque};

use cirrus_cluster::Slot;

use crate::frame::Frame;
use crate::machine::{Input, Machine, Payload, Peer, Random};
use crate::replicated::{Emit, Entry, Keep, Recorder, Replicated, step};
use crate::slots::{Copy, Held, Place};
use crate::{Effect, Inner, Now, Replica};

/// A copy of a slot on another node, as its home sees it.
#[derive(Debug)]
pub(crate) struct CopyAt {
    pub node: u64,
    /// It has had the whole state: what leaves the home waits for it.
    pub ready: bool,
    /// The entry of the state that was sent to it.
    pub sent: Option<u64>,
    /// The last entry that it has confirmed.
    pub acked: u64,
}

impl CopyAt {
    /// One that has nothing yet.
    pub fn new(node: u64) -> Self {
        Self {
            node,
            ready: false,
            sent: None,
            acked: 0,
        }
    }

    /// The state that was sent to it is not confirmed.
    pub fn is_under_way(&self) -> bool {
        self.sent.is_some_and(|sent| self.acked < sent)
    }

    /// The last entry that need not be sent to it again.
    fn base(&self) -> Option<u64> {
        let sent = self.sent.map(|sent| sent.max(self.acked));
        sent.or(self.ready.then_some(self.acked))
    }
}

/// A slot's home.
pub(crate) struct Home<M: Machine> {
    pub core: Replicated<M>,
    pub copies: Vec<CopyAt>,
    /// Entries that a copy has not confirmed, as frames.
    log: VecDeque<(u64, Vec<u8>)>,
    /// What waits until the entry that made it due is confirmed.
    waiting: VecDeque<(u64, Emit<M>)>,
    /// The number up to which what was said has left.
    released: u64,
    /// What copies are to forget with the next entry.
    trims: Vec<(Peer, u64)>,
    /// The first message of each channel, as it was when what is not taken was last looked at.
    fronts: BTreeMap<Peer, u64>,
}

impl<M: Machine> Home<M> {
    pub fn new(core: Replicated<M>, copies: Vec<CopyAt>) -> Self {
        Self {
            core,
            copies,
            log: VecDeque::new(),
            waiting: VecDeque::new(),
            released: 0,
            trims: Vec::new(),
            fronts: BTreeMap::new(),
        }
    }

    /// Some other node has its state, and every entry that made something due that has left.
    pub fn is_copied(&self) -> bool {
        let has = |copy: &CopyAt| copy.ready && copy.sent.is_some() && !copy.is_under_way();
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
        for (token, request) in &self.core.pending {
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

impl<M: Machine> Replica<M> {
    /// Gives an input to the machine of a slot whose home is here.
    pub(crate) fn feed(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        slot: Slot,
        input: Option<Input<M>>,
        seq: u64,
    ) {
        let mut emits = Vec::new();
        self.feed_into(now, random, slot, input, (seq, false), &mut emits);
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
        (seq, keep_all): (u64, bool),
        emits: &mut Vec<Emit<M>>,
    ) {
        let held = self.slots.hold(slot, Held::Nothing);
        let Held::Home(mut home) = held else {
            self.slots.hold(slot, held);
            return;
        };
        let copying = home.is_copying();
        let step = copying.then(|| step(input.as_ref(), seq));
        let keep = |peer: &Peer| match peer {
            Peer::Port(port) => copying || keep_all || port.node != self.me,
            Peer::Slot(to) => copying || keep_all || !self.slots.is_home(*to),
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
                random: recorder.drawn,
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
                if self.links.contains(&copy.node) {
                    let (node, frame) = (copy.node, frame.clone());
                    self.effects.push(Effect::Send { node, frame });
                }
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
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let frame = Frame::Message {
                from,
                to,
                seq,
                prev,
                hops,
                message: bytes,
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

    /// A copy confirms entries.
    pub(crate) fn has(&mut self, node: u64, slot: Slot, (term, number): (u64, u64)) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        if term != home.core.term || number > home.core.entry {
            return;
        }
        let Some(copy) = home.copies.iter_mut().find(|copy| copy.node == node) else {
            return;
        };
        copy.acked = copy.acked.max(number);
        if !copy.ready && copy.sent.is_some_and(|sent| copy.acked >= sent) {
            copy.ready = true;
            self.pacing.unchosen.insert(slot);
        }
        self.pacing.due = true;
        if let Some(home) = self.slots.home_mut(slot) {
            home.prune();
        }
        self.release_waiting(slot);
    }

    /// A copy can't go on: it gets the state once more.
    pub(crate) fn lost(&mut self, node: u64, slot: Slot, diverged: bool) {
        self.diverged += u64::from(diverged);
        if let Some(home) = self.slots.home_mut(slot) {
            for copy in home.copies.iter_mut().filter(|copy| copy.node == node) {
                copy.sent = None;
            }
            self.pacing.unchosen.insert(slot);
            self.pacing.due = true;
        }
    }

    /// Members that are no more keep no copies.
    pub(crate) fn leave_gone_copies(&mut self, slot: Slot) {
        let nodes = &self.nodes;
        if let Some(home) = self.slots.home_mut(slot) {
            home.copies.retain(|copy| nodes.contains(&copy.node));
            home.prune();
        }
        self.release_waiting(slot);
    }

    /// A new link with a node: what it keeps copies of, what these miss, and what its ports and
    /// slots were told and have not taken.
    pub(crate) fn greet_copies(&mut self, node: u64) {
        let mut slots = Vec::new();
        let mut frames = Vec::new();
        for slot in self.slots.homes() {
            let Some(home) = self.slots.home_mut(slot) else {
                continue;
            };
            let copy = home.copies.iter().find(|copy| copy.node == node);
            if let Some(base) = copy.and_then(CopyAt::base) {
                slots.push(slot);
                let missed = home.log.iter().filter(|(number, _)| *number > base);
                frames.extend(missed.map(|(_, frame)| frame.clone()));
            }
        }
        self.send(node, &Frame::Copies { slots });
        for frame in frames {
            self.send_bytes(node, frame);
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
                self.feed(now, random, slot, None, 0);
            }
        }
    }

    /// An entry for a copy here.
    pub(crate) fn entry(&mut self, node: u64, slot: Slot, at: (u64, u64), entry: &Entry) {
        let follows = match self.slots.copy_mut(slot) {
            Some(copy) if copy.leader == Some(node) || at.0 > copy.core.term => {
                let follows = Self::follow(copy, at, entry);
                if follows != Follows::Behind {
                    copy.leader = Some(node);
                }
                follows
            }
            _ => Follows::Behind,
        };
        if follows == Follows::Yes {
            self.confirm.insert((node, slot));
        } else {
            let diverged = follows == Follows::Otherwise;
            self.slots.drop_copy(slot, node, 0);
            self.send(node, &Frame::Lost { slot, diverged });
        }
    }

    fn follow(copy: &mut Copy<M>, (term, number): (u64, u64), entry: &Entry) -> Follows {
        if number <= copy.core.entry {
            return Follows::Yes;
        }
        if number != copy.core.entry + 1 || term < copy.core.term {
            return Follows::Behind;
        }
        copy.core.term = term;
        match copy.core.follow(entry) {
            true => Follows::Yes,
            false => Follows::Otherwise,
        }
    }
}

/// How a copy took an entry.
#[derive(PartialEq, Eq)]
enum Follows {
    Yes,
    /// It misses something.
    Behind,
    /// It came to other outputs than the home.
    Otherwise,
}
