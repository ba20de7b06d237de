//! How a node becomes a member.

use super::{Effect, Members};
use crate::{Member, View};

/// What stands between a joiner and a member of the view.
enum Standing {
    /// They are linked, both ways.
    Linked,
    /// It is dead, as far as leases tell.
    Dead,
    /// It is neither.
    Waits,
}

impl Members {
    /// The view that makes this node a member, if it may become one now, and who is dropped in it
    /// because of their leases.
    pub(super) fn join(&mut self, now: u64, out: &mut Vec<Effect>) -> Option<(View, Vec<u64>)> {
        if self.seen.is_none() || now >= self.lease.until() {
            return None;
        }
        let (mut dead, mut waits) = (Vec::new(), None);
        for member in self.others() {
            match self.standing(now, member) {
                Standing::Linked => {}
                Standing::Dead => dead.push(member.node_id()),
                Standing::Waits => waits = waits.or(Some(member)),
            }
        }
        if let Some(text) = self.strange(&dead) {
            self.say_waits(text, out);
            return None;
        }
        if let Some(member) = waits {
            let text = self.why_it_waits(member);
            // A link takes its time.
            if now >= self.links.1.saturating_add(self.options.silence_ms) {
                self.say_waits(text, out);
            }
            return None;
        }
        let mut view = self.next_view(|member| !dead.contains(&member.node_id()));
        view.members.push(Member {
            state: self.state,
            ..self.options.me.clone()
        });
        Some((view, dead))
    }

    fn standing(&self, now: u64, member: &Member) -> Standing {
        if self.looks.is_lapsed(member.node_id(), self.epoch()) && !self.is_linked(now, member) {
            return Standing::Dead;
        }
        match self.is_linked(now, member) {
            true => Standing::Linked,
            false => Standing::Waits,
        }
    }

    /// Why this node and those that stay can't understand each other, if they can't.
    fn strange(&self, dead: &[u64]) -> Option<String> {
        let (old, new) = (self.options.oldest, self.options.me.understands());
        let reached = self.view.as_ref().map_or(0, View::reached);
        if reached > new {
            return Some(format!(
                "the cluster writes format {reached}, and this one reads {old} to {new}: start a \
                 newer version here (and without cluster.hold_format); a cluster does not go back \
                 to an older format"
            ));
        }
        let stay = self
            .others()
            .filter(|member| !dead.contains(&member.node_id()));
        let oldest = stay.min_by_key(|member| member.understands())?;
        let theirs = oldest.understands();
        (theirs < old).then(|| {
            let instance = &oldest.instance;
            format!(
                "{instance} reads nothing newer than format {theirs}, and this node reads {old} \
                 to {new}: update every node to the version between the two first (and switch \
                 cluster.hold_format off)"
            )
        })
    }

    /// Whether a member and this joiner hear each other. An earlier process of the same machine
    /// is not linked with: it must be gone.
    pub(super) fn is_linked(&self, now: u64, member: &Member) -> bool {
        let other = member.instance != self.options.me.instance;
        other && self.peers.both_ways_until(now, member.node_id()) > now
    }

    fn why_it_waits(&self, member: &Member) -> String {
        let Member {
            instance, address, ..
        } = member;
        if *instance == self.options.me.instance {
            return format!(
                "an earlier process of {instance} is a member until its lease has run out: \
                 if it still runs, stop it, or give each a name of its own"
            );
        }
        match address.rsplit_once(':') {
            Some((_, port)) => format!(
                "no link to {instance} at {address} yet: does the security group allow port \
                 {port} from itself?"
            ),
            None => format!("no link to {instance} yet: it says no address to other nodes"),
        }
    }
}
