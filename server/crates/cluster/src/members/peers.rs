//! What a node hears from the others.

use std::collections::BTreeMap;

use super::Beat;
use crate::MAX_MEMBERS;

/// Most nodes whose beats are kept: the members, and as many that join or were removed.
const MAX_PEERS: usize = 2 * MAX_MEMBERS;

#[derive(Debug)]
struct Peer {
    /// When it was last heard, or when listening to it began.
    heard: u64,
    /// Its last beat, and when that came. Of a link that broke, nothing is kept.
    beat: Option<(u64, Beat)>,
    /// The epoch that was last pushed to it, and when.
    pushed: Option<(u64, u64)>,
}

/// The beats of other nodes, by [`Member::node_id`](crate::Member::node_id).
#[derive(Debug)]
pub(super) struct Peers {
    silence_ms: u64,
    known: BTreeMap<u64, Peer>,
}

impl Peers {
    pub(super) fn new(silence_ms: u64) -> Self {
        Self {
            silence_ms,
            known: BTreeMap::new(),
        }
    }

    /// Listens to these nodes. A new one has the usual time to be heard; of the others, those that
    /// were not heard since `gone` are forgotten.
    pub(super) fn listen(&mut self, now: u64, nodes: impl Iterator<Item = u64>, gone: u64) {
        let mut known = std::mem::take(&mut self.known);
        for node in nodes {
            let peer = known.remove(&node).unwrap_or(Peer {
                heard: now,
                beat: None,
                pushed: None,
            });
            self.known.insert(node, peer);
        }
        known.retain(|_, peer| peer.heard >= gone);
        self.known.extend(known);
    }

    /// A beat has come. `false` = it is older than the last one, or there are too many nodes.
    pub(super) fn heard(&mut self, now: u64, node: u64, beat: &Beat) -> bool {
        if !self.known.contains_key(&node) && self.known.len() >= MAX_PEERS {
            return false;
        }
        let peer = self.known.entry(node).or_insert(Peer {
            heard: now,
            beat: None,
            pushed: None,
        });
        if (peer.beat.as_ref()).is_some_and(|(_, last)| last.sent > beat.sent) {
            return false;
        }
        peer.heard = now;
        peer.beat = Some((now, beat.clone()));
        true
    }

    /// Its link broke: what it said says nothing about now. Of whoever is no member nothing is
    /// kept: each process that comes and goes, as one that can't join does, has a number of its
    /// own, and they would take the places of those that can.
    pub(super) fn link_down(&mut self, node: u64, is_member: bool) {
        if !is_member {
            self.known.remove(&node);
        } else if let Some(peer) = self.known.get_mut(&node) {
            peer.beat = None;
        }
    }

    /// This process did nothing from `before` to `now`, so it could not hear.
    pub(super) fn resume(&mut self, before: u64, now: u64) {
        for peer in self.known.values_mut() {
            if before < peer.heard.saturating_add(self.silence_ms) {
                peer.heard = now;
            }
        }
    }

    /// Whether it has not been heard for the time of silence.
    pub(super) fn is_deaf_to(&self, now: u64, node: u64) -> bool {
        let heard = self.known.get(&node).map(|peer| peer.heard);
        heard.is_none_or(|heard| now >= heard.saturating_add(self.silence_ms))
    }

    /// Whether it has lately said that it does not hear the other.
    pub(super) fn says_deaf(&self, now: u64, node: u64, other: u64) -> bool {
        self.fresh(now, node)
            .is_some_and(|beat| beat.deaf.contains(&other))
    }

    /// Whether a beat of it came lately.
    pub(super) fn is_heard(&self, now: u64, node: u64) -> bool {
        self.fresh(now, node).is_some()
    }

    fn fresh(&self, now: u64, node: u64) -> Option<&Beat> {
        let (at, beat) = self.known.get(&node)?.beat.as_ref()?;
        (now < at.saturating_add(self.silence_ms)).then_some(beat)
    }

    /// Until when it counts as linked both ways: it has answered a beat of this node, and that
    /// beat was sent less than the time of silence ago. A beat that was sent long ago and came
    /// late, as to a process that was suspended, does not count.
    pub(super) fn both_ways_until(&self, now: u64, node: u64) -> u64 {
        let beat = self.known.get(&node).and_then(|peer| peer.beat.as_ref());
        match beat {
            Some((_, beat)) if beat.echo > 0 => beat.echo.min(now).saturating_add(self.silence_ms),
            _ => 0,
        }
    }

    /// The same, if it is at that epoch.
    pub(super) fn agrees_until(&self, now: u64, node: u64, epoch: u64) -> u64 {
        match self.epoch(node) == Some(epoch) {
            true => self.both_ways_until(now, node),
            false => 0,
        }
    }

    fn epoch(&self, node: u64) -> Option<u64> {
        let (_, beat) = self.known.get(&node)?.beat.as_ref()?;
        Some(beat.epoch)
    }

    /// The moment that its last beat was sent at, on its clock; 0 = none.
    pub(super) fn echo(&self, node: u64) -> u64 {
        let beat = self.known.get(&node).and_then(|peer| peer.beat.as_ref());
        beat.map_or(0, |(_, beat)| beat.sent)
    }

    /// Whether that epoch should be pushed to it now: not again within the time of silence.
    pub(super) fn push(&mut self, now: u64, node: u64, epoch: u64) -> bool {
        let Some(peer) = self.known.get_mut(&node) else {
            return false;
        };
        let again = |(pushed, at): (u64, u64)| pushed != epoch || now >= at + self.silence_ms;
        let due = peer.pushed.is_none_or(again);
        if due {
            peer.pushed = Some((epoch, now));
        }
        due
    }

    /// When the next one falls silent.
    pub(super) fn next_silence(&self, now: u64) -> Option<u64> {
        let silent = |peer: &Peer| peer.heard.saturating_add(self.silence_ms);
        self.known.values().map(silent).filter(|at| *at > now).min()
    }
}
