//! Changes of the view that a member proposes: removals, its own state, its claim.

use super::{Effect, Members, Phase, STAGGER_MS};
use crate::{ClusterError, MAX_MEMBERS, Member, View};

/// Members that may be removed.
#[derive(Debug, Default)]
struct Removable {
    /// As a majority does not hear them.
    unheard: Vec<u64>,
    /// As their leases have lapsed.
    lapsed: Vec<u64>,
}

impl Members {
    /// The view that this member should write now, and whom it removes because of their leases.
    pub(super) fn change(&mut self, now: u64) -> Option<(View, Vec<u64>)> {
        let Removable { unheard, lapsed } = self.removable(now);
        let nobody = unheard.is_empty() && lapsed.is_empty();
        self.wanted = match nobody {
            true => None,
            false => self.wanted.or(Some(now)),
        };
        let removes = self.removes_at(now).is_some_and(|at| now >= at);
        let view = self.view.as_ref()?;
        let mine = view.member(&self.options.me)?;
        let claims = self.lapsed && self.seen.is_some() && now < self.lease.until();
        if !removes && !claims && mine.state == self.state {
            return None;
        }
        let goes = |member: &Member| {
            let node = member.node_id();
            unheard.contains(&node) || lapsed.contains(&node)
        };
        let mut next = self.next_view(|member| !goes(member));
        for member in &mut next.members {
            if member.is_same(&self.options.me) {
                member.state = self.state;
            }
        }
        Some((next, lapsed))
    }

    /// When this node proposes the removal that is due, if one is: in the order of ids among those
    /// that it hears, so that one writes and the others learn of it.
    pub(super) fn removes_at(&self, now: u64) -> Option<u64> {
        let before = self.others().map(Member::node_id).filter(|node| {
            let hears = !self.peers.is_deaf_to(now, *node);
            *node < self.me && hears
        });
        Some(self.wanted? + STAGGER_MS * before.count() as u64)
    }

    fn removable(&self, now: u64) -> Removable {
        let mut removable = Removable::default();
        let Some(view) = &self.view else {
            return removable;
        };
        let nodes = self.others().map(Member::node_id);
        for node in nodes.filter(|node| self.peers.is_deaf_to(now, *node)) {
            let deaf = |other| other == self.me || self.peers.says_deaf(now, other, node);
            if view.is_majority(|other| other != node && deaf(other)) {
                removable.unheard.push(node);
            } else if self.looks.is_lapsed(node, view.epoch) {
                removable.lapsed.push(node);
            }
        }
        removable
    }

    /// The view without this node; `None` = it is not in the one that is known.
    pub(super) fn view_without_me(&self) -> Option<(View, Vec<u64>)> {
        self.view.as_ref()?.member(&self.options.me)?;
        let next = self.next_view(|member| !member.is_same(&self.options.me));
        Some((next, Vec::new()))
    }

    /// The next view, with those that are kept.
    pub(super) fn next_view(&self, keep: impl Fn(&Member) -> bool) -> View {
        let mut view = self.view.clone().unwrap_or(View {
            epoch: 0,
            slot_key: self.options.slot_key,
            reached: 0,
            members: Vec::new(),
        });
        view.epoch += 1;
        view.reached = view.reached();
        view.members.retain(keep);
        view
    }

    /// Says a fault that lasts once.
    pub(super) fn say_fault(&mut self, error: ClusterError, out: &mut Vec<Effect>) {
        if self.is_news(error.to_string()) {
            out.push(Effect::Fault { error });
        }
    }

    /// Says once why joining waits.
    pub(super) fn say_waits(&mut self, text: String, out: &mut Vec<Effect>) {
        if self.phase == Phase::Joining && self.is_news(text.clone()) {
            out.push(Effect::JoinWaits { text });
        }
    }

    fn is_news(&mut self, text: String) -> bool {
        let news = !self.told.contains(&text);
        if news {
            // Bounded: past that, something may be said twice.
            self.told.truncate(MAX_MEMBERS);
            self.told.insert(0, text);
        }
        news
    }
}
