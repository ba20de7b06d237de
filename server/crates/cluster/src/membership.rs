//! Membership of the single serving node: who serves, who stands by, when to stop.

mod standbys;

use cirrus_schema::keys::cluster;
use cirrus_store::{Condition, Item, Op, Outcome, StoreError};

use crate::lease::{self, Held, Watch};
use crate::{ClusterError, Member, MemberState, View};

/// Names an operation from [`Effect::Store`] to [`Membership::on_result`].
pub type Token = u64;

/// What a serving node does when it can't renew its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// It stops, whoever else there is. At most one node ever serves.
    Stop,
    /// It stops if the last view it read had another member; a lone node serves on, so that an
    /// outage of the store does not stop it. Only a node that first appears during the outage,
    /// and reaches the store when the lone one doesn't, may then serve beside it until the lone
    /// one reaches the store again. What is durable is safe even then.
    ServeOn,
}

/// What a node is told about itself and its cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node; its state is ignored.
    pub me: Member,
    /// How long a lease lasts.
    pub lease_ms: u64,
    /// How often it is renewed and the view is read; at most a third of the lease.
    pub renew_ms: u64,
    /// See [`CutOff`].
    pub cut_off: CutOff,
    /// This process holds a lock that an earlier process of the same instance must have lost, such
    /// as its listening port: an entry of that process is taken over without waiting.
    pub exclusive: bool,
    /// Key for the slots if this node creates the view: 16 random bytes.
    pub slot_key: [u8; 16],
    /// 128 random bits, drawn anew for every process: the nonces of its writes come from it.
    pub seed: u128,
}

/// Why a node must stop serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It could not renew its lease in time, or the process was suspended.
    LeaseLost,
    /// The view names another node, or none.
    Removed,
}

/// What the machine asks for or says, in order.
#[derive(Debug)]
pub enum Effect {
    /// Carry out the operation and answer with [`Membership::on_result`] within [`Options`]'
    /// `renew_ms`, if need be with [`StoreError::Timeout`].
    Store {
        /// The answer's token.
        token: Token,
        /// The operation.
        op: Op,
    },
    /// Serve. Comes again when a node that had served on without a lease has renewed its claim.
    Serve {
        /// The view that says so.
        view: View,
    },
    /// Stand by: that node serves.
    StandBy {
        /// Who.
        holder: Member,
        /// The view's epoch.
        epoch: u64,
    },
    /// The store can't be reached; serve on without a lease ([`CutOff::ServeOn`]).
    Degraded,
    /// Stop at once: drop every session and connection before another byte is sent. The machine
    /// does nothing more; a new process may try again.
    Stop {
        /// Why.
        reason: Stopped,
    },
    /// [`Membership::leave`] is done: another node may serve, the process may exit.
    Left,
    /// Something is wrong with the shared items; the machine goes on trying.
    Fault {
        /// What.
        error: ClusterError,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for its turn.
    Candidate,
    Serving,
    /// Serving without a lease.
    Degraded,
    Leaving,
    Stopped,
}

/// The operation under way besides the renewal of the lease.
#[derive(Debug)]
enum Asked {
    View,
    /// The holder's lease, asked when.
    Lease {
        holder: Member,
        at: u64,
    },
    /// The leases of the standbys, one after the other.
    Standby {
        member: Member,
        rest: Vec<Member>,
        at: u64,
    },
    Put {
        view: View,
        claim: bool,
    },
}

/// The machine of one node.
#[derive(Debug)]
pub struct Membership {
    options: Options,
    phase: Phase,
    view: Option<View>,
    lease: Held,
    renewal: Option<Token>,
    renew_at: u64,
    asked: Option<(Token, Asked)>,
    round_at: u64,
    rounds: u32,
    /// The own lease has lapsed since the claim under way was sent.
    lapsed: bool,
    holder: Watch,
    standbys: Vec<Watch>,
    told: Option<Member>,
    leave_by: u64,
    /// When it was last given the time.
    ticked: u64,
    /// It served without a lease, or was about to, when the process was suspended: it sends
    /// nothing until the store has said who serves, or can't be reached.
    woke: bool,
    tokens: Token,
    nonces: u128,
}

impl Membership {
    /// A node that has not asked for anything yet: tick it.
    pub fn new(options: Options) -> Self {
        Self {
            lease: Held::new(options.lease_ms),
            phase: Phase::Candidate,
            view: None,
            renewal: None,
            renew_at: 0,
            asked: None,
            round_at: 0,
            rounds: 0,
            lapsed: false,
            holder: Watch::default(),
            standbys: Vec::new(),
            told: None,
            leave_by: 0,
            ticked: 0,
            woke: false,
            tokens: 0,
            nonces: 0,
            options,
        }
    }

    /// Whether the node may send what a serving node sends, at this moment. To be asked before
    /// every batch: a process that was suspended finds out here. `now` must come from a clock that
    /// runs during suspension.
    pub fn may_serve(&self, now: u64) -> bool {
        now < self.serves_until()
    }

    /// Until when the node may send what a serving node sends, if nothing else happens before.
    pub fn serves_until(&self) -> u64 {
        match self.phase {
            Phase::Serving => self.lease.until(),
            Phase::Degraded if !self.woke => self.ticked.saturating_add(self.options.lease_ms),
            _ => 0,
        }
    }

    /// The view as it was last read or written.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// When [`Membership::tick`] has something to do; `None` = never again.
    pub fn wake_at(&self) -> Option<u64> {
        let lapse = (self.phase == Phase::Serving).then(|| self.lease.until());
        let renewal = self.renewal.is_none().then_some(self.renew_at);
        let round = self.asked.is_none().then_some(self.round_at);
        let leave = (self.phase == Phase::Leaving).then_some(self.leave_by);
        let all = [lapse, renewal, round, leave];
        all.into_iter()
            .flatten()
            .min()
            .filter(|_| self.phase != Phase::Stopped)
    }

    /// Time has passed. `wall_ms` = Unix milliseconds, for the expiry of the lease's item only.
    pub fn tick(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        self.check_lapse(now, out);
        self.pump(now, wall_ms, out);
    }

    /// Hands over: another node may serve at once. The caller has stopped serving before.
    pub fn leave(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            out.push(Effect::Left);
            return;
        }
        self.phase = Phase::Leaving;
        self.leave_by = now.saturating_add(self.options.lease_ms);
        self.round_at = now;
        self.tick(now, wall_ms, out);
    }

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
        self.check_lapse(now, out);
        if self.renewal.take_if(|renewal| *renewal == token).is_some() {
            self.on_renewed(now, result, out);
        } else if let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == token) {
            self.on_answer(now, asked, result, out);
        }
        self.pump(now, wall_ms, out);
    }

    fn serves_on(&self) -> bool {
        let alone = |view: &View| view.members.len() <= 1;
        self.options.cut_off == CutOff::ServeOn && self.view.as_ref().is_some_and(alone)
    }

    fn check_lapse(&mut self, now: u64, out: &mut Vec<Effect>) {
        let slept = now.saturating_sub(self.ticked) >= self.options.lease_ms;
        self.ticked = now;
        if now < self.lease.until() {
            return;
        }
        self.lapsed = true;
        match self.phase {
            Phase::Serving if self.serves_on() => {
                self.phase = Phase::Degraded;
                match slept {
                    true => self.wake(now),
                    false => out.push(Effect::Degraded),
                }
            }
            Phase::Degraded if slept => self.wake(now),
            Phase::Serving => self.stop(Stopped::LeaseLost, out),
            Phase::Leaving if now >= self.leave_by => self.left(out),
            _ => {}
        }
    }

    /// What was asked before the process was suspended says nothing about now.
    fn wake(&mut self, now: u64) {
        self.woke = true;
        (self.asked, self.renewal) = (None, None);
        (self.round_at, self.renew_at) = (now, now);
    }

    fn stop(&mut self, reason: Stopped, out: &mut Vec<Effect>) {
        self.phase = Phase::Stopped;
        out.push(Effect::Stop { reason });
    }

    fn left(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Stopped;
        out.push(Effect::Left);
    }

    fn on_renewed(&mut self, now: u64, result: Result<Outcome, StoreError>, out: &mut Vec<Effect>) {
        match result {
            Ok(_) => {
                if now >= self.lease.until() {
                    // There is a lease again: what waits for it need not wait for its round.
                    self.round_at = now;
                }
                self.lease.confirmed();
                return;
            }
            Err(StoreError::Conflict { existing, .. }) => {
                self.lease.is_stored(existing.map(|item| item.version));
            }
            Err(error) => self.fault(&error, out),
        }
        // Once more soon: a lease is worth three tries.
        self.renew_at = now.saturating_add(self.options.renew_ms / 4);
    }

    fn on_answer(
        &mut self,
        now: u64,
        asked: Asked,
        result: Result<Outcome, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        match (asked, result) {
            (Asked::View, Ok(Outcome::Item(item))) => {
                match item.as_ref().map(View::from_item).transpose() {
                    Ok(view) => {
                        self.view = view;
                        self.decide(now, out);
                    }
                    Err(error) => out.push(Effect::Fault { error }),
                }
            }
            (Asked::Lease { holder, at }, Ok(Outcome::Item(item))) => {
                let beat = item.map(|item| item.version);
                let unchanged = self.holder.saw(&holder.node(), beat, at, now);
                let lease_ms = self.options.lease_ms;
                if unchanged >= lease_ms + lease::margin(lease_ms) {
                    self.claim(now, out);
                }
            }
            (Asked::Standby { member, rest, at }, Ok(Outcome::Item(item))) => {
                self.saw_standby(now, &member, rest, (at, item), out);
            }
            (Asked::Put { view, claim }, Ok(_)) => self.on_put(now, view, claim, out),
            (Asked::Put { .. }, Err(StoreError::Conflict { .. })) => self.round_at = now,
            (_, Err(error)) => self.fault(&error, out),
            (_, Ok(_)) => {
                let error = ClusterError::Store("the answer to another request".into());
                out.push(Effect::Fault { error });
            }
        }
    }

    fn fault(&mut self, error: &StoreError, out: &mut Vec<Effect>) {
        if self.phase == Phase::Degraded && std::mem::take(&mut self.woke) {
            out.push(Effect::Degraded);
        }
        if !error.is_retryable() {
            out.push(Effect::Fault {
                error: ClusterError::Store(error.to_string()),
            });
        }
    }

    /// What the view that was just read asks for.
    fn decide(&mut self, now: u64, out: &mut Vec<Effect>) {
        let me = self.options.me.clone();
        let holder = self
            .view
            .as_ref()
            .and_then(|view| view.serving().next())
            .cloned();
        let mine = holder.as_ref().is_some_and(|holder| holder.is_same(&me));
        match self.phase {
            Phase::Stopped => {}
            Phase::Leaving => self.put_without_me(out),
            Phase::Serving | Phase::Degraded if !mine => self.stop(Stopped::Removed, out),
            Phase::Serving => self.look_after_standbys(now, out),
            Phase::Degraded => self.claim(now, out),
            Phase::Candidate => match holder {
                // An own claim whose answer was lost or came too late does not count: only a new
                // one proves that nobody has taken over since.
                None => self.claim(now, out),
                Some(_) if mine => self.claim(now, out),
                Some(old) if old.instance == me.instance && self.options.exclusive => {
                    self.claim(now, out);
                }
                Some(holder) => self.stand_by(now, holder, out),
            },
        }
    }

    fn stand_by(&mut self, now: u64, holder: Member, out: &mut Vec<Effect>) {
        let Some(view) = &self.view else { return };
        if self.told.as_ref() != Some(&holder) {
            self.told = Some(holder.clone());
            out.push(Effect::StandBy {
                holder: holder.clone(),
                epoch: view.epoch,
            });
        }
        if view.member(&self.options.me).is_none() {
            // The holder must know that somebody could take over.
            let view = self.next_view(MemberState::Standby, |_| true);
            return self.put(view, false, out);
        }
        // Asked after the view was read: the put will be on the condition of that view.
        let op = Op::Get {
            key: cluster::lease(&holder.node()).into(),
        };
        self.ask(Asked::Lease { holder, at: now }, op, out);
    }

    /// Makes this node the serving one, if its lease is good.
    fn claim(&mut self, now: u64, out: &mut Vec<Effect>) {
        let wants = matches!(self.phase, Phase::Candidate | Phase::Degraded);
        if wants && now < self.lease.until() {
            self.lapsed = false;
            let keep = |member: &Member| member.state == MemberState::Standby;
            let view = self.next_view(MemberState::Serving, keep);
            self.put(view, true, out);
        }
    }

    /// The next view: this node in that state, the others that are kept, no older process of it.
    fn next_view(&self, state: MemberState, keep: impl Fn(&Member) -> bool) -> View {
        let me = Member {
            state,
            ..self.options.me.clone()
        };
        let mut view = self.view.clone().unwrap_or(View {
            epoch: 0,
            slot_key: self.options.slot_key,
            members: Vec::new(),
        });
        view.epoch += 1;
        // Who serves is removed by a claim only.
        let older = |member: &Member| {
            let replaced = state == MemberState::Serving || member.state == MemberState::Standby;
            member.instance == me.instance && replaced
        };
        view.members.retain(|member| keep(member) && !older(member));
        view.members.push(me);
        view
    }

    fn put_without_me(&mut self, out: &mut Vec<Effect>) {
        let Some(mut view) = self.view.clone() else {
            return self.left(out);
        };
        let before = view.members.len();
        view.members
            .retain(|member| !member.is_same(&self.options.me));
        if view.members.len() == before {
            return self.left(out);
        }
        view.epoch += 1;
        self.put(view, false, out);
    }

    fn put(&mut self, view: View, claim: bool, out: &mut Vec<Effect>) {
        let item: Item = match view.to_item() {
            Ok(item) => item,
            Err(error) => return out.push(Effect::Fault { error }),
        };
        let condition = match view.epoch {
            1 => Condition::Absent,
            epoch => Condition::Version(epoch - 1),
        };
        let nonce = self.nonce();
        self.ask(
            Asked::Put { view, claim },
            Op::Put {
                item,
                condition,
                nonce,
            },
            out,
        );
    }

    fn on_put(&mut self, now: u64, view: View, claim: bool, out: &mut Vec<Effect>) {
        self.view = Some(view.clone());
        match self.phase {
            Phase::Leaving if view.member(&self.options.me).is_none() => self.left(out),
            Phase::Candidate | Phase::Degraded if claim => {
                // A lapse since the claim was sent may have let another claim follow it.
                if self.lapsed || now >= self.lease.until() {
                    self.round_at = now;
                } else {
                    self.phase = Phase::Serving;
                    self.woke = false;
                    out.push(Effect::Serve { view });
                }
            }
            Phase::Candidate | Phase::Leaving => self.round_at = now,
            _ => {}
        }
    }

    /// Sends what is due and not under way.
    fn pump(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        let leaves = self.phase == Phase::Leaving;
        if self.renewal.is_none() && now >= self.renew_at && !leaves {
            self.renew_at = now.saturating_add(self.options.renew_ms);
            let (beat, stored) = self.lease.renew(now);
            let item = lease::item(&self.options.me.node(), beat, wall_ms);
            let condition = stored.map_or(Condition::Absent, Condition::Version);
            let nonce = self.nonce();
            self.tokens += 1;
            self.renewal = Some(self.tokens);
            let op = Op::Put {
                item,
                condition,
                nonce,
            };
            out.push(Effect::Store {
                token: self.tokens,
                op,
            });
        }
        if self.asked.is_none() && now >= self.round_at {
            self.ask(
                Asked::View,
                Op::Get {
                    key: cluster::view().into(),
                },
                out,
            );
            self.round_at = now.saturating_add(self.options.renew_ms);
        }
    }

    fn ask(&mut self, asked: Asked, op: Op, out: &mut Vec<Effect>) {
        self.tokens += 1;
        self.asked = Some((self.tokens, asked));
        out.push(Effect::Store {
            token: self.tokens,
            op,
        });
    }

    fn nonce(&mut self) -> u128 {
        self.nonces += 1;
        // 0 would mean "no nonce".
        self.options.seed.wrapping_add(self.nonces).max(1)
    }
}

#[cfg(test)]
mod tests;
