//! What a node asks of the store, and what it makes of the answers.

use cirrus_schema::keys::cluster;
use cirrus_store::{Condition, Item, Op, Outcome, StoreError};

use super::{Effect, Members, Phase};
use crate::planted::{self, Bug};
use crate::{ClusterError, Member, Token, View, lease};

/// The operation under way besides the renewal of the lease.
#[derive(Debug)]
pub(super) enum Asked {
    /// The view; the lease was good when it was asked for, and has been since.
    View { leased: bool },
    /// The leases of nodes that are not heard, asked at that time and epoch.
    Leases {
        members: Vec<Member>,
        at: u64,
        epoch: u64,
    },
    /// A new view, and whom it removes because of their leases.
    Put { view: View, lapsed: Vec<u64> },
}

impl Members {
    /// An operation was answered. A token that is not under way is ignored.
    pub fn on_result(
        &mut self,
        now: u64,
        wall_ms: u64,
        token: Token,
        result: Result<Outcome, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        // Before anything else: what this answer confirms may have come too late.
        self.pass(now, out);
        if self.renewal.take_if(|renewal| *renewal == token).is_some() {
            self.on_renewed(now, result, out);
        } else if let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == token) {
            self.on_answer(now, asked, result, out);
        }
        self.renew(now, wall_ms, out);
        self.ask_next(now, out);
    }

    fn on_renewed(&mut self, now: u64, result: Result<Outcome, StoreError>, out: &mut Vec<Effect>) {
        match result {
            Ok(_) => {
                self.lease.confirmed();
                return self.has_renewed(now);
            }
            Err(StoreError::Conflict { existing, .. }) => {
                let beat = existing.map(|item| item.version);
                if self.lease.is_stored(beat).is_some() {
                    self.has_renewed(now);
                }
            }
            Err(error) => self.failed(&error, out),
        }
        // Once more soon: a lease is worth three tries.
        self.renew_at = now.saturating_add(self.options.renew_ms / 4);
    }

    fn has_renewed(&mut self, now: u64) {
        let sent = self.lease.until().saturating_sub(self.options.lease_ms);
        self.reached_at = self.reached_at.max(sent);
        if self.lapsed && self.seen.is_none() {
            self.round_at = now;
        }
    }

    fn on_answer(
        &mut self,
        now: u64,
        asked: Asked,
        result: Result<Outcome, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        match (asked, result) {
            (Asked::View { leased }, Ok(Outcome::Item(item))) => {
                match item.as_ref().map(View::from_item).transpose() {
                    Ok(view) => self.on_view(now, leased, view, out),
                    Err(error) => out.push(Effect::Fault { error }),
                }
            }
            (Asked::Leases { members, at, epoch }, Ok(Outcome::Items(items))) => {
                for member in &members {
                    let key = cluster::lease(&member.node()).into();
                    let item = items.iter().find(|item| item.key == key);
                    let beat = item.map(|item| item.version);
                    self.looks.saw(member, beat, (at, epoch), now);
                }
            }
            (Asked::Put { view, .. }, Ok(Outcome::Put)) => self.learn(now, view, out),
            (Asked::Put { .. }, Err(StoreError::Conflict { .. })) => {
                (self.stale, self.round_at) = (true, now);
            }
            (asked, Err(error)) => {
                // A put may have been written all the same, or may be yet.
                self.stale |= matches!(asked, Asked::Put { .. });
                self.round_at = now.saturating_add(self.options.renew_ms / 4);
                self.look_at = self.round_at;
                self.failed(&error, out);
            }
            (_, Ok(_)) => {
                let error = ClusterError::Store("the answer to another request".into());
                out.push(Effect::Fault { error });
            }
        }
    }

    fn on_view(&mut self, now: u64, leased: bool, view: Option<View>, out: &mut Vec<Effect>) {
        self.stale = false;
        let epoch = view.as_ref().map_or(0, |view| view.epoch);
        let backwards = planted::is(Bug::ViewBackwards) && self.phase != Phase::Stopped;
        match view {
            Some(view) if backwards && epoch < self.epoch() => self.take(now, view, out),
            Some(view) => self.learn(now, view, out),
            None => {}
        }
        if leased && self.lapsed && self.seen.is_none() {
            self.seen = Some(epoch);
        }
    }

    fn failed(&mut self, error: &StoreError, out: &mut Vec<Effect>) {
        if self.phase == Phase::Joining && error.is_retryable() {
            self.say_waits("the store does not answer yet".into(), out);
        }
        // A lone node that was suspended has asked, and goes on with what it did before.
        self.woke = false;
        if !error.is_retryable() {
            out.push(Effect::Fault {
                error: ClusterError::Store(error.to_string()),
            });
        }
    }

    /// Renews the lease when it is due.
    pub(super) fn renew(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        let active = matches!(self.phase, Phase::Joining | Phase::Member);
        if !active || self.renewal.is_some() || now < self.renew_at {
            return;
        }
        self.renew_at = now.saturating_add(self.options.renew_ms);
        let (beat, stored) = self.lease.renew(now);
        let item = lease::item(&self.options.me.node(), beat, wall_ms);
        let condition = stored.map_or(Condition::Absent, Condition::Version);
        let token = self.token();
        self.renewal = Some(token);
        let op = self.put_op(item, condition);
        out.push(Effect::Store { token, op });
    }

    /// Sends what is due besides the renewal, if nothing is under way: a change of the view that
    /// is known, else a look at leases, else a look at the view.
    pub(super) fn ask_next(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped || self.asked.is_some() {
            return;
        }
        if !self.stale {
            let next = match self.phase {
                Phase::Joining => self.join(now, out),
                Phase::Leaving => self.view_without_me(),
                _ => self.change(now),
            };
            if let Some((view, lapsed)) = next {
                return self.put(now, view, lapsed, out);
            }
            if self.phase == Phase::Leaving {
                return self.left(out);
            }
        }
        let reads_first = self.stale && now >= self.round_at;
        if !reads_first && now >= self.next_look() {
            return self.look(now, out);
        }
        if now >= self.round_at {
            self.round_at = now.saturating_add(self.options.renew_ms);
            let leased = now < self.lease.until();
            let key = cluster::view().into();
            self.ask(Asked::View { leased }, Op::Get { key }, out);
        }
    }

    fn put(&mut self, now: u64, view: View, lapsed: Vec<u64>, out: &mut Vec<Effect>) {
        let item = match view.to_item() {
            Ok(item) => item,
            Err(error) => {
                // Perhaps the next view has room.
                (self.stale, self.round_at) = (true, now + self.options.renew_ms);
                return self.say_fault(error, out);
            }
        };
        let condition = match view.epoch {
            1 => Condition::Absent,
            epoch => Condition::Version(epoch - 1),
        };
        self.tried = true;
        let op = self.put_op(item, condition);
        self.ask(Asked::Put { view, lapsed }, op, out);
    }

    fn put_op(&mut self, item: Item, condition: Condition) -> Op {
        self.nonces += 1;
        // 0 would mean "no nonce".
        let nonce = self.options.seed.wrapping_add(self.nonces).max(1);
        Op::Put {
            item,
            condition,
            nonce,
        }
    }

    /// Whose leases are watched: of those that are not heard; between two, always, as only the
    /// store tells that the other is gone; and for a joiner, of those that it is not linked with.
    fn watched(&self) -> impl Iterator<Item = &Member> {
        let (now, joins) = (self.ticked, self.phase == Phase::Joining);
        let two = self.others().count() == 1;
        self.others().filter(move |member| {
            let node = member.node_id();
            match joins {
                true => !self.is_linked(now, member),
                false => two || self.peers.is_deaf_to(now, node),
            }
        })
    }

    /// When leases are to be read next.
    pub(super) fn next_look(&self) -> u64 {
        let active = matches!(self.phase, Phase::Joining | Phase::Member);
        let epoch = self.epoch();
        let due = |member: &Member| self.looks.due(member.node_id(), epoch);
        let first = self.watched().filter(|_| active).map(due).min();
        first.map_or(u64::MAX, |first| first.max(self.look_at))
    }

    fn look(&mut self, now: u64, out: &mut Vec<Effect>) {
        let members: Vec<Member> = self.watched().cloned().collect();
        let key = |member: &Member| cluster::lease(&member.node()).into();
        let keys = members.iter().map(key).collect();
        let asked = Asked::Leases {
            members,
            at: now,
            epoch: self.epoch(),
        };
        self.ask(asked, Op::BatchGet { keys }, out);
    }

    fn ask(&mut self, asked: Asked, op: Op, out: &mut Vec<Effect>) {
        let token = self.token();
        self.asked = Some((token, asked));
        out.push(Effect::Store { token, op });
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }
}
