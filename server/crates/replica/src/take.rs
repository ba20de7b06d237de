//! How a slot comes to its new home.

use std::collections::BTreeMap;
use std::sync::Arc;

use cirrus_cluster::planted::{self, Bug};
use cirrus_cluster::{Member, Placement, SLOTS, Slot, View};

use crate::copies::CopyAt;
use crate::frame::{Frame, Has};
use crate::home::{Home, Said};
use crate::machine::{Input, Machine, Peer, Random};
use crate::replicated::Replicated;
use crate::slots::{Copy, Held, Offer, Queued, SlotSet, Want};
use crate::{Now, Replica};

impl<M: Machine> Replica<M> {
    /// Goes over to the next view.
    pub(crate) fn take_view(&mut self, now: Now, random: &mut dyn Random, view: Arc<View>) {
        let before: Vec<Option<u64>> = (0..SLOTS).map(|slot| self.home_of(slot)).collect();
        let nodes: Vec<u64> = view.members.iter().map(Member::node_id).collect();
        let gone = self.nodes.iter().filter(|node| !nodes.contains(node));
        let gone: Vec<u64> = gone.copied().collect();
        if !gone.is_empty() || self.view.is_none() {
            self.fresh_at = now.steady + self.options.fresh_ms;
        }
        self.placement = Placement::new(&view);
        self.format = view.common().unwrap_or(self.format);
        self.view = Some(view);
        self.nodes = nodes;
        self.links.retain(|node| !gone.contains(node));
        self.reported.clear();
        self.pacing.reset(self.slots.homes());
        let mut moved = SlotSet::default();
        for slot in 0..SLOTS {
            self.want_slot(slot);
            moved.set(slot, self.home_of(slot) != before[usize::from(slot)]);
        }
        if !gone.is_empty() {
            for slot in self.slots.homes() {
                self.leave_gone_copies(slot);
                self.lose_ports(now, random, slot);
            }
        }
        self.tell_format(now, random);
        self.redirect(&moved);
        self.send_inventories();
        let early = std::mem::take(&mut self.early);
        for (node, (epoch, has)) in early {
            if self.nodes.contains(&node) {
                self.inventory(now, random, node, epoch, has);
            }
        }
        self.decide(now, random);
    }

    fn want_slot(&mut self, slot: Slot) {
        let mine = self.home_of(slot) == Some(self.me);
        let want = match mine && !self.slots.is_home(slot) {
            true => Want::Inventories,
            false => Want::Nothing,
        };
        self.slots.set_want(slot, want);
        let here = self.slots.get_mut(slot);
        here.offers.clear();
        if want == Want::Nothing {
            // Who said it says it again, to the new home.
            here.queue.clear();
        }
    }

    /// Ports of nodes that are no members any more are gone.
    fn lose_ports(&mut self, now: Now, random: &mut dyn Random, slot: Slot) {
        let Some(home) = self.slots.home(slot) else {
            return;
        };
        let mut nodes = home.core.machine.port_nodes();
        nodes.retain(|node| !self.nodes.contains(node));
        for node in nodes {
            self.feed(
                now,
                random,
                slot,
                Some(Input::PortsGone { node }),
                Said::default(),
            );
        }
    }

    /// The slots have other homes: what was said to them is said again there.
    fn redirect(&mut self, moved: &SlotSet) {
        self.say_again_where(|_, to| matches!(to, Peer::Slot(to) if moved.contains(*to)));
        for port in self.ports.speaking(|slot| moved.contains(slot)) {
            self.port_says_again(port);
        }
    }

    /// Sends again what slots here said to those peers.
    fn say_again_where(&mut self, which: impl Fn(&Self, &Peer) -> bool) {
        for slot in self.speaking {
            let Some(home) = self.slots.home(slot) else {
                continue;
            };
            let peers = home.core.outs.keys();
            let peers: Vec<Peer> = peers.filter(|to| which(self, to)).copied().collect();
            for to in peers {
                self.say_again(slot, to);
            }
        }
    }

    /// Tells every member that is linked with what is here of the slots that are its.
    fn send_inventories(&mut self) {
        let mut all: BTreeMap<u64, Vec<Has>> = BTreeMap::new();
        for node in self.links.iter().filter(|node| self.nodes.contains(node)) {
            all.insert(*node, Vec::new());
        }
        for (node, has) in self.inventory_of_all() {
            if let Some(list) = all.get_mut(&node) {
                list.push(has);
            }
        }
        let epoch = self.epoch();
        for (node, has) in all {
            self.send(node, &Frame::Inventory { epoch, has });
        }
    }

    /// The same for one member.
    pub(crate) fn send_inventory(&mut self, node: u64) {
        if !self.nodes.contains(&node) {
            return;
        }
        let all = self.inventory_of_all();
        let its = all.filter(|(home, _)| *home == node);
        let has = its.map(|(_, has)| has).collect();
        let epoch = self.epoch();
        self.send(node, &Frame::Inventory { epoch, has });
    }

    /// What is here of every slot, with the node that is its home in the view; ascending.
    fn inventory_of_all(&self) -> impl Iterator<Item = (u64, Has)> {
        let mut here = self.slots.homes();
        here.extend(self.slots.copies());
        here.into_iter().filter_map(|slot| {
            let (home, sure, core) = match self.slots.get(slot).held() {
                Held::Home(home) => (true, true, &home.core),
                Held::Copy(copy) => (false, copy.sure, &copy.core),
                Held::Nothing => return None,
            };
            let (term, entry) = (core.term, core.entry);
            let has = Has {
                slot,
                home,
                sure,
                term,
                entry,
            };
            Some((self.home_of(slot)?, has))
        })
    }

    /// A member says what it has.
    pub(crate) fn inventory(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        node: u64,
        epoch: u64,
        has: Vec<Has>,
    ) {
        if epoch > self.epoch() {
            self.early.insert(node, (epoch, has));
            return;
        }
        if epoch < self.epoch() && !planted::is(Bug::StaleEpoch) {
            return;
        }
        self.reported.insert(node);
        let homes = self.slots.homes();
        self.tell_began(node, homes);
        for has in has {
            let here = self.slots.get_mut(has.slot);
            match here.want() {
                Want::Inventories if has.home => {
                    self.slots.set_want(has.slot, Want::Turn(node));
                    let turns = self.pacing.turns.entry(node).or_default();
                    turns.insert(has.slot);
                }
                Want::Inventories | Want::Turn(_) | Want::Fresh => {
                    here.offers.retain(|other| other.node != node);
                    here.offers.push(Offer {
                        node,
                        sure: has.sure,
                        term: has.term,
                        entry: has.entry,
                    });
                }
                Want::State(_) | Want::Nothing if !has.home => self.copy_at(node, has.slot),
                Want::State(_) | Want::Nothing => {}
            }
        }
        self.pacing.due = true;
        self.decide(now, random);
    }

    /// A member has a copy of a slot: it is to count, or to be dropped.
    fn copy_at(&mut self, node: u64, slot: Slot) {
        let Some(home) = self.slots.home(slot) else {
            return;
        };
        let term = home.core.term;
        match home.copies.iter().find(|copy| copy.node == node) {
            None => self.send(node, &Frame::Drop { slot, term }),
            Some(copy) if copy.ready && !copy.sure => {
                self.send(node, &Frame::Counts { slot, term });
            }
            Some(_) => {}
        }
    }

    /// Copies here of which nobody has said for a while that they count. Those that sent them may
    /// not be their homes any more.
    fn tell_idle(&mut self) {
        let mut idle: BTreeMap<u64, Vec<Slot>> = BTreeMap::new();
        for slot in self.slots.copies() {
            let home = self.home_of(slot);
            if let Some(copy) = self.slots.copy_mut(slot)
                && !copy.sure
                && std::mem::replace(&mut copy.idle, true)
                && let Some(home) = home
            {
                idle.entry(home).or_default().push(slot);
            }
        }
        for (home, slots) in idle {
            self.send(home, &Frame::Idle { slots });
        }
    }

    /// The same of a member.
    pub(crate) fn idle(&mut self, node: u64, slots: &[Slot]) {
        for slot in slots {
            self.copy_at(node, *slot);
        }
    }

    /// When every member has said what it has, slots without a home get one.
    pub(crate) fn decide(&mut self, now: Now, random: &mut dyn Random) {
        let known = |node: &u64| *node == self.me || self.reported.contains(node);
        if self.view.is_none() || !self.nodes.iter().all(known) {
            return;
        }
        let lone = self.nodes.len() == 1;
        for slot in self.slots.wanted() {
            let me = self.me;
            let here = self.slots.get(slot);
            if !matches!(here.want(), Want::Inventories | Want::Fresh) {
                continue;
            }
            let mut offers = here.offers.clone();
            if let Held::Copy(copy) = here.held() {
                offers.push(Offer {
                    node: me,
                    sure: copy.sure,
                    term: copy.core.term,
                    entry: copy.core.entry,
                });
            }
            let sure = offers.iter().filter(|offer| offer.sure);
            let best = |offer: &&Offer| (offer.term, offer.entry, offer.node == me);
            match sure.max_by_key(best).map(|offer| offer.node) {
                Some(node) if node == me => self.promote(now, random, slot),
                Some(node) => {
                    self.slots.set_want(slot, Want::State(node));
                    let epoch = self.epoch();
                    self.send(node, &Frame::Take { epoch, slot });
                }
                None if lone || now.steady >= self.fresh_at => {
                    let core = Replicated::new(self.factory.fresh(slot), self.epoch());
                    self.activate(now, random, slot, core, None);
                }
                None => self.slots.set_want(slot, Want::Fresh),
            }
        }
    }

    /// The copy here is the best there is.
    fn promote(&mut self, now: Now, random: &mut dyn Random, slot: Slot) {
        let held = self.slots.hold(slot, Held::Nothing);
        if let Held::Copy(copy) = held {
            let others = copy.others.iter().filter(|other| **other != self.me);
            let offers = &mut self.slots.get_mut(slot).offers;
            offers.extend(others.map(|other| Offer::of(*other)));
            self.activate(now, random, slot, copy.core, None);
        }
    }

    /// The new home of a slot asks for it. From here on this node is a copy of it.
    pub(crate) fn hand_over(&mut self, node: u64, epoch: u64, slot: Slot) {
        let stale = epoch != self.epoch() && !planted::is(Bug::StaleEpoch);
        if stale || self.home_of(slot) != Some(node) {
            return; // One of the two does not know the view yet; it asks again.
        }
        let Some(image) = self.image_of(slot) else {
            return; // It is asked for again; there is nothing else to go on from.
        };
        if image.len() > self.options.state_bytes {
            self.work.too_large += 1;
            return; // As before; here it goes on.
        }
        let (core, copies, alone) = match self.slots.hold(slot, Held::Nothing) {
            Held::Copy(copy) if copy.sure => (copy.core, copy.others, copy.alone),
            Held::Nothing | Held::Copy(_) => {
                return self.send(node, &Frame::Nothing { epoch, slot });
            }
            Held::Home(home) => {
                let alone = !home.is_copied();
                let copies = home.copies.iter().map(|copy| copy.node);
                let copies = copies.chain(home.retired.iter().copied());
                let copies = copies.filter(|copy| *copy != node).collect();
                (home.core, copies, alone)
            }
        };
        // The new home becomes its leader with the first entry of its term.
        let copy = Copy {
            core,
            leader: None,
            sure: true,
            idle: false,
            others: copies.clone(),
            alone,
        };
        self.slots.hold(slot, Held::Copy(Box::new(copy)));
        let state = Frame::State {
            epoch: Some(epoch),
            slot,
            image,
            copies,
        };
        self.send(node, &state);
    }

    /// The state of what is here of a slot, if the cluster's format has all of it; empty where
    /// nothing is here.
    fn image_of(&self, slot: Slot) -> Option<Vec<u8>> {
        match self.slots.get(slot).held() {
            Held::Home(home) => home.core.image(self.format),
            Held::Copy(copy) if copy.sure => copy.core.image(self.format),
            Held::Copy(_) | Held::Nothing => Some(Vec::new()),
        }
    }

    /// Homes here that do not know the cluster's format yet are told.
    fn tell_format(&mut self, now: Now, random: &mut dyn Random) {
        for slot in self.slots.homes() {
            if let Some(input) = self.format_for(slot) {
                self.feed(now, random, slot, Some(input), Said::default());
            }
        }
    }

    fn format_for(&self, slot: Slot) -> Option<Input<M>> {
        let home = self.slots.home(slot)?;
        let format = self.format;
        (home.core.machine.format() < format).then_some(Input::Format(format))
    }

    /// A member that had something of the slot has nothing any more.
    pub(crate) fn nothing(&mut self, node: u64, epoch: u64, slot: Slot) {
        if epoch != self.epoch() || self.slots.get(slot).want() != Want::State(node) {
            return;
        }
        self.slots.set_want(slot, Want::Inventories);
        self.slots.get_mut(slot).offers.clear();
        self.reported.clear();
        for node in self.links.clone() {
            self.send(node, &Frame::Ask { epoch });
        }
    }

    /// A slot's state: to keep a copy of, or to be home of.
    pub(crate) fn state(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        node: u64,
        (epoch, slot): (Option<u64>, Slot),
        (image, copies): (&[u8], &[u64]),
    ) {
        let wanted = epoch.is_some();
        if wanted
            && (epoch != Some(self.epoch()) && !planted::is(Bug::StaleEpoch)
                || self.slots.get(slot).want() != Want::State(node))
        {
            return; // It was asked for in another view.
        }
        if wanted {
            let offers = &mut self.slots.get_mut(slot).offers;
            let others = copies.iter().filter(|copy| **copy != self.me);
            offers.extend(others.chain([&node]).map(|copy| Offer::of(*copy)));
        }
        let Some(core) = Replicated::from_image(slot, image, self.factory.as_ref()) else {
            // Of another version, perhaps: there is nothing to go on from.
            if wanted {
                let epoch = self.epoch();
                let core = Replicated::new(self.factory.fresh(slot), epoch);
                self.activate(now, random, slot, core, None);
            }
            return;
        };
        if wanted {
            let entry = core.entry;
            let copy = CopyAt {
                node,
                ready: true,
                sure: true,
                sent: Some(entry),
                acked: entry,
            };
            return self.activate(now, random, slot, core, Some(copy));
        }
        let newer = match self.slots.get(slot).held() {
            Held::Nothing => true,
            Held::Copy(copy) => core.term >= copy.core.term,
            Held::Home(_) => false,
        };
        if newer {
            let leader = Some(node);
            let copy = Copy {
                core,
                leader,
                sure: false,
                idle: false,
                others: Vec::new(),
                alone: false,
            };
            self.slots.hold(slot, Held::Copy(Box::new(copy)));
            self.confirm.insert((node, slot));
        }
    }

    /// This node is home of the slot from here on.
    fn activate(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        slot: Slot,
        mut core: Replicated<M>,
        copy: Option<CopyAt>,
    ) {
        let epoch = self.epoch();
        let offers = std::mem::take(&mut self.slots.get_mut(slot).offers);
        let kept = copy.as_ref().map(|copy| copy.node);
        core.term = epoch;
        let gone = core.machine.port_nodes();
        self.slots.set_want(slot, Want::Nothing);
        self.slots
            .hold(slot, Held::Home(Box::new(Home::new(core, copy))));
        for offer in offers.iter().filter(|offer| Some(offer.node) != kept) {
            match offer.sure && self.nodes.contains(&offer.node) {
                true => self.retire(slot, offer.node),
                false => self.send(offer.node, &Frame::Drop { slot, term: epoch }),
            }
        }
        // What these make due stands in channels, with what stood there before.
        let mut due = Vec::new();
        let mut inputs = vec![Input::Takeover];
        inputs.extend(self.format_for(slot));
        let gone = gone.into_iter().filter(|node| !self.nodes.contains(node));
        inputs.extend(gone.map(|node| Input::PortsGone { node }));
        for input in inputs {
            self.feed_into(
                now,
                random,
                slot,
                Some(input),
                (Said::default(), true),
                &mut due,
            );
        }
        if let Some(home) = self.slots.home_mut(slot) {
            home.say_all_again(due);
            self.waiting.insert(slot);
        }
        self.release_waiting(slot);
        let queue = std::mem::take(&mut self.slots.get_mut(slot).queue);
        for Queued {
            from,
            place,
            message,
        } in queue
        {
            self.arrive(
                now,
                random,
                (from, Peer::Slot(slot)),
                place,
                (message, None),
            );
        }
        self.set_deadline(slot);
        self.arrived.insert(slot);
        self.pacing.unchosen.insert(slot);
        self.pacing.due = true;
    }

    /// There is a new link with a node.
    pub(crate) fn greet(&mut self, node: u64) {
        self.pacing.due = true;
        self.send_inventory(node);
        self.greet_copies(node);
        self.say_again_where(|this, to| match to {
            Peer::Port(port) => port.node == node,
            Peer::Slot(to) => this.home_of(*to) == Some(node),
        });
        for port in self.ports.speaking(|slot| self.home_of(slot) == Some(node)) {
            self.port_says_again(port);
        }
    }

    /// Once more what may have been lost.
    pub(crate) fn repeat(&mut self, now: Now, random: &mut dyn Random) {
        if self.view.is_none() {
            return;
        }
        self.repeat_slots(now, random);
        self.repeat_ports();
        self.drop_retired(None);
        self.ask_copies();
        self.tell_idle();
        let epoch = self.epoch();
        let mut silent = false;
        for slot in self.slots.wanted() {
            match self.slots.get(slot).want() {
                Want::State(node) => self.send(node, &Frame::Take { epoch, slot }),
                Want::Inventories => silent = true,
                Want::Turn(_) | Want::Fresh | Want::Nothing => {}
            }
        }
        if silent {
            for node in self.links.clone() {
                if !self.reported.contains(&node) {
                    self.send(node, &Frame::Ask { epoch });
                }
            }
        }
        self.pacing.repeat();
        self.decide(now, random);
    }
}
