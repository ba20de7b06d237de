//! What must hold in every run.

use super::*;

impl Sim<'_> {
    /// A new view is in the store: who was removed for its lease had none, and has stopped.
    pub(super) fn check_put(&mut self, before: Option<&View>, view: &View, lapsed: &[u64]) {
        for node in &mut self.nodes {
            // A joiner may have been a member for a moment without knowing.
            if view.members.iter().any(|member| member.boot == node.boot) {
                node.removed = None;
            }
        }
        let removed = before.iter().flat_map(|before| &before.members);
        for member in removed.filter(|member| view.member(member).is_none()) {
            let by_lease = lapsed.contains(&member.node_id());
            match by_lease {
                true => self.counts.removed_lapsed += 1,
                false => self.counts.removed_unheard += 1,
            }
            let node = self.nodes.iter_mut().find(|node| node.boot == member.boot);
            let Some(node) = node.filter(|node| node.machine.is_some()) else {
                continue;
            };
            node.removed = Some(self.now);
            if by_lease && node.serves(self.now) {
                assert!(
                    node.is_degraded(),
                    "{} has a lease and was removed",
                    node.name
                );
                self.counts.removed_degraded += 1;
            }
        }
    }

    /// A removed node finds out.
    pub(super) fn check_removed(&self, n: usize) {
        let node = &self.nodes[n];
        let Some(removed) = node.removed.filter(|_| node.adopted > 0) else {
            return;
        };
        let is_member =
            (node.machine.as_ref()).is_some_and(|machine| machine.phase == Phase::Member);
        let hears = removed.max(node.paused).max(node.cut).max(self.outage);
        let late = self.now > hears + NOTICE;
        assert!(
            !is_member || !late,
            "{} is removed and does not notice",
            node.name
        );
    }

    /// Two nodes that each believe to be alone: only if one of them does not reach the store.
    pub(super) fn check_alone(&self) {
        let alone = |node: &&Node| {
            let machine = node.machine.as_ref();
            node.serves(self.now) && machine.is_some_and(Members::is_alone)
        };
        let alone: Vec<&Node> = self.nodes.iter().filter(alone).collect();
        let leased = alone.iter().filter(|node| !node.is_degraded());
        assert!(leased.count() <= 1, "two are alone with a lease");
        for node in alone
            .iter()
            .filter(|node| alone.len() > 1 && node.is_degraded())
        {
            let trouble = node.failed.max(node.paused).max(node.cut).max(self.outage);
            assert!(
                self.now < trouble + LEASE,
                "{} serves alone for no reason",
                node.name
            );
        }
    }

    /// After the faults, those that live are one cluster.
    pub(super) fn check_calm(&self) {
        let view = self.rows.view().unwrap();
        let live: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| node.machine.is_some())
            .collect();
        assert!(!live.is_empty());
        assert_eq!(view.members.len(), live.len(), "{view:?}");
        for node in live {
            let machine = node.machine.as_ref().unwrap();
            assert_eq!(machine.view(), Some(&view), "{} knows it", node.name);
            let member = view.member(&machine.options.me).unwrap();
            let drains = member.state == MemberState::Draining;
            assert_eq!(
                drains, node.drains,
                "{} is in the state it wants",
                node.name
            );
            assert!(
                node.serves(self.now) && !node.is_degraded(),
                "{} serves",
                node.name
            );
        }
    }
}
