//! What a node knows of the leases of those that it does not hear.

use std::collections::BTreeMap;

use crate::Member;
use crate::lease::{self, Watch};
use crate::planted::{self, Bug};

#[derive(Debug, Default)]
struct Look {
    watch: Watch,
    /// When it was last asked for.
    asked: u64,
    /// It was seen unchanged for a full lease and the margin, asked when that epoch was known.
    lapsed_at: Option<u64>,
    /// When at the earliest it changed for the last time: since the read before.
    changed: Option<u64>,
    /// How often it has changed since its holder was heard.
    changes: u32,
}

/// Leases that are being watched.
#[derive(Debug)]
pub(super) struct Looks {
    lease_ms: u64,
    renew_ms: u64,
    known: BTreeMap<u64, Look>,
}

impl Looks {
    pub(super) fn new(lease_ms: u64, renew_ms: u64) -> Self {
        Self {
            lease_ms,
            renew_ms,
            known: BTreeMap::new(),
        }
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, members: &[Member]) {
        let is_member = |node: u64| members.iter().any(|member| member.node_id() == node);
        self.known.retain(|node, _| is_member(*node));
    }

    /// When the lease of that node should be read next.
    pub(super) fn due(&self, node: u64, epoch: u64) -> u64 {
        let Some((look, since)) = self.known.get(&node).and_then(|look| {
            let since = look.watch.since()?;
            Some((look, since))
        }) else {
            return 0;
        };
        let round = look.asked.saturating_add(self.renew_ms);
        match look.lapsed_at == Some(epoch) {
            true => round,
            false => round.min(since.saturating_add(self.enough())),
        }
    }

    /// A read that was asked at one time and epoch and answered at another time showed this.
    pub(super) fn saw(
        &mut self,
        member: &Member,
        beat: Option<u64>,
        (asked, epoch): (u64, u64),
        answered: u64,
    ) {
        let enough = self.enough();
        let look = self.known.entry(member.node_id()).or_default();
        let (before, asked_before) = (look.watch.since(), look.asked);
        let unchanged = look.watch.saw(&member.node(), beat, asked, answered);
        if before.is_some() && look.watch.since() != before {
            look.changed = Some(asked_before);
            look.changes = look.changes.saturating_add(1);
        }
        look.asked = asked;
        look.lapsed_at = (unchanged >= enough).then_some(epoch);
    }

    /// Whether its holder has no lease, shown by a read that was asked when the view of that epoch
    /// was known. A holder that renews late proves itself by a newer view, so a put on the
    /// condition of this epoch removes nobody who has a lease.
    pub(super) fn is_lapsed(&self, node: u64, epoch: u64) -> bool {
        (self.known.get(&node)).is_some_and(|look| look.lapsed_at == Some(epoch))
    }

    /// Its holder has been heard.
    pub(super) fn heard(&mut self, node: u64) {
        if let Some(look) = self.known.get_mut(&node) {
            look.changes = 0;
        }
    }

    /// Whether its holder goes on renewing it: it has changed in the last lease's time, and not
    /// only by what a dead one has written since it was last read, and by its last write, which may
    /// land late.
    pub(super) fn is_renewed(&self, now: u64, node: u64) -> bool {
        let look = self.known.get(&node).filter(|look| look.changes > 2);
        let changed = look.and_then(|look| look.changed);
        changed.is_some_and(|at| now < at.saturating_add(self.lease_ms))
    }

    fn enough(&self) -> u64 {
        if planted::is(Bug::LeaseNotAwaited) {
            return 0;
        }
        self.lease_ms + lease::margin(self.lease_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberState;

    #[test]
    fn what_a_dead_holder_wrote_is_no_sign_of_life() {
        let member = Member {
            instance: "i-1".into(),
            boot: 1,
            address: "10.0.0.1:7250".into(),
            zone: String::new(),
            weight: 1,
            state: MemberState::Serving,
            wire: 1,
            storage: 1,
        };
        let node = member.node_id();
        let mut looks = Looks::new(3_000, 1_000);
        let mut seen = Vec::new();
        for (beat, at) in [(1, 0), (2, 1_000), (3, 2_000), (4, 3_000)] {
            looks.saw(&member, Some(beat), (at, 1), at);
            seen.push(looks.is_renewed(at, node));
        }
        // The second and third are what it wrote before it died, and what landed late.
        assert_eq!(seen, [false, false, false, true]);
        looks.heard(node);
        assert!(!looks.is_renewed(3_000, node), "it is counted anew");
    }
}
