//! A serving node's look at those that stand by.

use cirrus_schema::keys::cluster;
use cirrus_store::{Item, Op};

use super::{Asked, Effect, Membership, Phase};
use crate::lease::Watch;
use crate::{Member, MemberState};

/// Rounds between two looks at whether the standbys still live.
const PRUNE_ROUNDS: u32 = 30;

impl Membership {
    /// Now and then, a serving node removes standbys that are gone.
    pub(super) fn look_after_standbys(&mut self, now: u64, out: &mut Vec<Effect>) {
        self.rounds += 1;
        if self.rounds < PRUNE_ROUNDS {
            return;
        }
        self.rounds = 0;
        let Some(view) = &self.view else { return };
        let standby = |member: &&Member| member.state == MemberState::Standby;
        let standbys: Vec<Member> = view.members.iter().filter(standby).cloned().collect();
        self.standbys
            .retain(|watch| standbys.iter().any(|member| watch.is_of(&member.node())));
        self.ask_standby(now, standbys, out);
    }

    fn ask_standby(&mut self, now: u64, mut rest: Vec<Member>, out: &mut Vec<Effect>) {
        if let Some(member) = rest.pop() {
            let op = Op::Get {
                key: cluster::lease(&member.node()).into(),
            };
            self.ask(
                Asked::Standby {
                    member,
                    rest,
                    at: now,
                },
                op,
                out,
            );
        }
    }

    pub(super) fn saw_standby(
        &mut self,
        now: u64,
        member: &Member,
        rest: Vec<Member>,
        (at, item): (u64, Option<Item>),
        out: &mut Vec<Effect>,
    ) {
        let node = member.node();
        let known = self.standbys.iter().position(|watch| watch.is_of(&node));
        let index = known.unwrap_or_else(|| {
            self.standbys.push(Watch::default());
            self.standbys.len() - 1
        });
        let beat = item.map(|item| item.version);
        let unchanged = self.standbys[index].saw(&node, beat, at, now);
        if unchanged > self.options.lease_ms && self.phase == Phase::Serving {
            let view = self.next_view(MemberState::Serving, |other| !other.is_same(member));
            return self.put(view, false, out);
        }
        self.ask_standby(now, rest, out);
    }
}
