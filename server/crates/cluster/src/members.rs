//! Membership of a cluster in which many nodes serve.
//!
//! [`Members`] is the machine of one node. Its events are time, answers of the store, beats of the
//! others over their links, and what people want (drain, leave). Its effects are operations, whom
//! to keep links to, and which view holds. Four rules carry it:
//!
//! - **The item decides.** The view changes by conditional puts only, so views are one sequence.
//!   Beats and broken links only lead to a try.
//! - **Joining takes links.** A node joins when it has a lease and is linked, both ways, with every
//!   member that is not known to be dead. So nobody becomes a member whom others can't reach.
//! - **Removal takes a majority or a lapsed lease.** When a majority of the view, this node
//!   included, hears nothing of a member, it is removed at once: what it sends after that bears an
//!   older epoch. Otherwise a member that this node doesn't hear is removed when its lease has not
//!   changed for a full lease and the margin; then it has stopped, unless it serves on as below.
//! - **Serving takes a lease, or a majority.** A node whose lease has run out serves on while a
//!   majority of the view, at the same epoch, answers its beats: so an outage of the store does
//!   not stop it. A lone node is its own majority. Others who reach the store when such nodes
//!   don't, and hear none of them, may remove them meanwhile, as they can't tell them from dead
//!   ones; they find out from the first beat or read that reaches them.
//!
//! Why a lease that was lost is not simply renewed: another may have seen it lapsed, and its
//! removal may be on the way. So after a renewal the node reads the view, and trusts its lease
//! when there is a view after that one with itself in it, if need be by writing it: then a
//! removal on the condition of the older view fails, and a later one sees the renewal.
//!
//! Why beats are answered ([`Beat::echo`]): beats that wait in a socket's buffer while a process
//! is suspended look new when it wakes. What counts is how long ago it sent what they answer.
//!
//! The machine wants a tick at [`Members::wake_at`], which is at least one for each beat: a longer
//! gap means that the process was not running, so its ears were shut.
//!
//! What is not solved: when two members don't hear each other but a majority hears both, all stay.

mod change;
mod join;
mod looks;
mod peers;
mod store;

use cirrus_store::Op;
use serde::{Deserialize, Serialize};

use self::looks::Looks;
use self::peers::Peers;
use self::store::Asked;
use crate::lease::Held;
use crate::{ClusterError, Member, MemberState, View};

/// Names an operation from [`Effect::Store`] to [`Members::on_result`].
pub type Token = u64;

/// How much longer the next in rank waits before it proposes a removal: time for one write and a
/// beat that tells of it.
const STAGGER_MS: u64 = 200;
/// Beats in the time of silence: three may be lost.
const BEATS: u64 = 4;

/// What a node is told about itself and its cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node; its state is what it wants to be: serving or draining.
    pub me: Member,
    /// The oldest format of frames and stored values that it understands.
    pub oldest: u16,
    /// How long a lease lasts.
    pub lease_ms: u64,
    /// How often it is renewed and the view is read; at most a third of the lease.
    pub renew_ms: u64,
    /// After which time without a beat a member is suspected; at most the lease.
    pub silence_ms: u64,
    /// After which time without a majority and without the store a node stops.
    pub cut_off_ms: u64,
    /// Key for the slots if this node creates the view: 16 random bytes.
    pub slot_key: [u8; 16],
    /// 128 random bits, drawn anew for every process: the nonces of its writes come from it.
    pub seed: u128,
}

/// What a node says over each link, [`BEATS`] times in the time of silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The epoch of the newest view it knows; 0 = none.
    pub epoch: u64,
    /// The members that it has not heard for the time of silence, by [`Member::node_id`].
    pub deaf: Vec<u64>,
    /// It is not a member yet, as far as it knows.
    pub joining: bool,
    /// When it was sent, in milliseconds of the sender's clock.
    pub sent: u64,
    /// `sent` of the last beat that came from the one it goes to; 0 = none.
    pub echo: u64,
}

/// Why a node must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There is a view without it.
    Removed,
    /// It reaches neither a majority nor the store; or no majority, and a member before it in
    /// order of ids, which it doesn't reach either, lives: one side has to give way.
    CutOff,
}

/// What the machine asks for or says, in order.
#[derive(Debug)]
pub enum Effect {
    /// Carry out the operation and answer with [`Members::on_result`] within [`Options`]'
    /// `renew_ms`, if need be with a timeout.
    Store {
        /// The answer's token.
        token: Token,
        /// The operation.
        op: Op,
    },
    /// Keep links to exactly these; links that others open are welcome as well.
    Links {
        /// Other members of the view.
        members: Vec<Member>,
    },
    /// This view holds from now on, and this node is in it.
    Adopt {
        /// The view.
        view: View,
    },
    /// Send the view to that node, if a link to it is open: it knows an older one.
    Push {
        /// [`Member::node_id`] of a member, or of one that was removed.
        node: u64,
        /// The view.
        view: View,
    },
    /// The lease has run out, as the store does not answer; serve on, [`Members::may_serve`] says
    /// for how long.
    Degraded,
    /// The lease is good again.
    Restored,
    /// Stop at once: drop every session and connection before another byte is sent. The machine
    /// does nothing more; a new process may try again.
    Stop {
        /// Why.
        reason: Stopped,
    },
    /// [`Members::leave`] is done: the process may exit.
    Left,
    /// Something is wrong with the shared items or this node; the machine goes on trying.
    Fault {
        /// What.
        error: ClusterError,
    },
    /// Why joining waits, in words for whoever runs the cluster; once for each reason.
    JoinWaits {
        /// The reason and what to look at.
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    Member,
    Leaving,
    Stopped,
}

/// The machine of one node.
#[derive(Debug)]
pub struct Members {
    options: Options,
    me: u64,
    phase: Phase,
    /// What this node wants to be.
    state: MemberState,
    /// The newest view that is known.
    view: Option<View>,
    /// The view in the store may be another: it is read before anything is put.
    stale: bool,
    /// The newest epoch that another said it knows.
    hinted: u64,
    peers: Peers,
    looks: Looks,
    lease: Held,
    renewal: Option<Token>,
    renew_at: u64,
    /// The lease has lapsed since this node last proved that it is a member.
    lapsed: bool,
    /// The epoch that was read since the lease was renewed after that.
    seen: Option<u64>,
    degraded: bool,
    /// The process was suspended for longer than a lease, and has heard nothing since.
    woke: bool,
    asked: Option<(Token, Asked)>,
    round_at: u64,
    look_at: u64,
    /// Since when somebody is to be removed.
    wanted: Option<u64>,
    /// When it was last linked with a majority; and with that or the store.
    majority_at: u64,
    reached_at: u64,
    /// Since when a member lives that it would give way to.
    yields_since: Option<u64>,
    ticked: u64,
    leave_by: u64,
    /// A put that would make it a member was sent.
    tried: bool,
    /// Whom it was last told to link to, and when.
    links: (Vec<Member>, u64),
    told: Vec<String>,
    tokens: Token,
    nonces: u128,
}

impl Members {
    /// A node that has not asked for anything yet: tick it.
    pub fn new(options: Options) -> Self {
        let me = options.me.node_id();
        let state = options.me.state;
        Self {
            me,
            phase: Phase::Joining,
            state,
            view: None,
            stale: true,
            hinted: 0,
            peers: Peers::new(options.silence_ms),
            looks: Looks::new(options.lease_ms, options.renew_ms),
            lease: Held::new(options.lease_ms),
            renewal: None,
            renew_at: 0,
            lapsed: true,
            seen: None,
            degraded: false,
            woke: false,
            asked: None,
            round_at: 0,
            look_at: 0,
            wanted: None,
            majority_at: 0,
            reached_at: 0,
            yields_since: None,
            ticked: 0,
            leave_by: 0,
            tried: false,
            links: (Vec::new(), 0),
            told: Vec::new(),
            tokens: 0,
            nonces: 0,
            options,
        }
    }

    /// The newest view that is known; after [`Effect::Adopt`] this node is in it.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whom the put under way, if there is one, removes because their leases have lapsed, by
    /// [`Member::node_id`]; those that a majority does not hear are not among them.
    pub fn removes(&self) -> &[u64] {
        match &self.asked {
            Some((_, Asked::Put { lapsed, .. })) => lapsed,
            _ => &[],
        }
    }

    /// What to send to that node now.
    pub fn beat(&self, now: u64, to: u64) -> Beat {
        let is_member = self.phase == Phase::Member;
        let others = self.others().filter(|_| is_member).map(Member::node_id);
        Beat {
            epoch: self.epoch(),
            deaf: others
                .filter(|node| self.peers.is_deaf_to(now, *node))
                .collect(),
            joining: self.phase == Phase::Joining,
            sent: now,
            echo: self.peers.echo(to),
        }
    }

    /// How often to send a beat over each link, in milliseconds.
    pub fn beat_ms(&self) -> u64 {
        (self.options.silence_ms / BEATS).max(1)
    }

    /// Whether the node may send what a member sends, at this moment. To be asked before every
    /// batch: a process that was suspended finds out here. `now` must come from a clock that runs
    /// during suspension.
    pub fn may_serve(&self, now: u64) -> bool {
        now < self.serves_until()
    }

    /// Until when the node may send what a member sends, if nothing else happens before.
    pub fn serves_until(&self) -> u64 {
        match self.phase {
            Phase::Member if self.degraded => self.agreed_until(),
            Phase::Member if !self.lapsed => self.lease.until(),
            _ => 0,
        }
    }

    /// When [`Members::tick`] has something to do; `None` = never again.
    pub fn wake_at(&self) -> Option<u64> {
        let idle = self.asked.is_none();
        let later = |at: u64| (at > self.ticked).then_some(at);
        let all = [
            Some(self.ticked + self.beat_ms()),
            later(self.lease.until()),
            later(self.round_at).filter(|_| idle),
            later(self.renew_at).filter(|_| self.renewal.is_none()),
            later(self.next_look()).filter(|_| idle),
            self.removes_at(self.ticked)
                .and_then(later)
                .filter(|_| idle),
            self.peers.next_silence(self.ticked),
        ];
        (self.phase != Phase::Stopped).then(|| all.into_iter().flatten().min())?
    }

    /// Time has passed. `wall_ms` = Unix milliseconds, for the expiry of the lease's item only.
    pub fn tick(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        self.pass(now, out);
        self.renew(now, wall_ms, out);
        self.ask_next(now, out);
    }

    /// A beat of that node came over its link.
    pub fn heard(&mut self, now: u64, node: u64, beat: &Beat, out: &mut Vec<Effect>) {
        self.pass(now, out);
        if self.phase == Phase::Stopped || !self.peers.heard(now, node, beat) {
            return;
        }
        if beat.epoch > self.epoch().max(self.hinted) {
            // Once: when that fails, it is tried again in its time, however many say so.
            (self.hinted, self.round_at) = (beat.epoch, now);
        }
        if let Some(view) = self.view.as_ref().filter(|_| self.phase == Phase::Member) {
            let is_member = view.members.iter().any(|member| member.node_id() == node);
            let behind = beat.epoch < view.epoch && (is_member || !beat.joining);
            if behind && self.peers.push(now, node, view.epoch) {
                let view = view.clone();
                out.push(Effect::Push { node, view });
            }
        }
        // What the beat changed counts from now on, not from the next tick.
        self.pass(now, out);
        self.ask_next(now, out);
    }

    /// The link to that node broke, or could not be opened.
    pub fn link_down(&mut self, now: u64, node: u64, out: &mut Vec<Effect>) {
        self.pass(now, out);
        let is_member = self.others().any(|member| member.node_id() == node);
        self.peers.link_down(node, is_member);
        self.ask_next(now, out);
    }

    /// Another node sent the view that it knows.
    pub fn view_pushed(&mut self, now: u64, view: View, out: &mut Vec<Effect>) {
        self.pass(now, out);
        self.learn(now, view, out);
        self.ask_next(now, out);
    }

    /// The node is to give its slots away; it stays a member, and a pipe.
    pub fn drain(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        self.state = MemberState::Draining;
        self.tick(now, wall_ms, out);
    }

    /// The node is to have slots again.
    pub fn undrain(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        self.state = MemberState::Serving;
        self.tick(now, wall_ms, out);
    }

    /// Takes the node out of the view; [`Effect::Left`] follows, after a lease at the latest. The
    /// caller has stopped serving before.
    pub fn leave(&mut self, now: u64, wall_ms: u64, out: &mut Vec<Effect>) {
        self.pass(now, out);
        match self.phase {
            Phase::Leaving => return,
            Phase::Stopped => return out.push(Effect::Left),
            Phase::Joining if !self.tried => return self.left(out),
            // Its put may have been written unseen.
            Phase::Joining => (self.stale, self.round_at) = (true, now),
            Phase::Member => {}
        }
        self.phase = Phase::Leaving;
        self.leave_by = now.saturating_add(self.options.lease_ms);
        self.tick(now, wall_ms, out);
    }

    fn epoch(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.epoch)
    }

    /// The members of the view besides this node.
    fn others(&self) -> impl Iterator<Item = &Member> {
        let members = self.view.as_ref().map_or(&[][..], |view| &view.members);
        members
            .iter()
            .filter(|member| !member.is_same(&self.options.me))
    }

    fn is_alone(&self) -> bool {
        self.others().next().is_none()
    }

    /// Until when a majority of the view agrees that this node is one of them.
    fn agreed_until(&self) -> u64 {
        if self.is_alone() {
            let ticked = self.ticked.saturating_add(self.options.lease_ms);
            return if self.woke { 0 } else { ticked };
        }
        let epoch = self.epoch();
        self.majority_until(|node| self.peers.agrees_until(self.ticked, node, epoch))
    }

    /// Until when a majority counts, of which this node is one and each other counts until then.
    fn majority_until(&self, until: impl Fn(u64) -> u64) -> u64 {
        let Some(view) = &self.view else { return 0 };
        let until = |node| {
            if node == self.me {
                u64::MAX
            } else {
                until(node)
            }
        };
        let mut times: Vec<u64> = view.members.iter().map(|m| until(m.node_id())).collect();
        times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
        // One more than half always is a majority, half may be.
        let half = view.members.len().div_ceil(2);
        let enough = times.into_iter().skip(half.saturating_sub(1)).take(2);
        let mut enough = enough.filter(|time| view.is_majority(|node| until(node) >= *time));
        enough.next().unwrap_or(0)
    }

    /// Comes first in every event: what happened by the mere passing of time.
    fn pass(&mut self, now: u64, out: &mut Vec<Effect>) {
        let gap = now.saturating_sub(self.ticked);
        let slept = gap >= self.options.lease_ms;
        if gap >= self.options.silence_ms / 2 {
            self.peers.resume(self.ticked, now);
        }
        self.ticked = self.ticked.max(now);
        if now >= self.lease.until() {
            (self.lapsed, self.seen) = (true, None);
            if let Some((_, Asked::View { leased })) = &mut self.asked {
                *leased = false;
            }
        }
        match self.phase {
            Phase::Member if slept => self.wake(now),
            Phase::Member => self.look_around(now, out),
            Phase::Leaving if now >= self.leave_by => self.left(out),
            _ => {}
        }
    }

    /// What was asked before the process was suspended says nothing about now.
    fn wake(&mut self, now: u64) {
        (self.asked, self.renewal) = (None, None);
        (self.round_at, self.renew_at) = (now, now);
        (self.reached_at, self.majority_at) = (now, now);
        (self.woke, self.degraded, self.stale) = (true, false, true);
        self.yields_since = None;
    }

    /// Where a member stands.
    fn look_around(&mut self, now: u64, out: &mut Vec<Effect>) {
        // It counts from the beat that was answered.
        let majority = self.majority_until(|node| self.peers.both_ways_until(now, node));
        let at = majority.saturating_sub(self.options.silence_ms).min(now);
        self.majority_at = self.majority_at.max(at);
        self.reached_at = self.reached_at.max(at);
        let cut_off = |since: u64| now >= since.saturating_add(self.options.cut_off_ms);
        let others: Vec<u64> = self.others().map(Member::node_id).collect();
        for node in others {
            if self.peers.is_heard(now, node) {
                self.looks.heard(node);
            }
        }
        let yields = self.yields(now);
        self.yields_since = yields.then(|| self.yields_since.unwrap_or(now));
        // One that has just been heard again has time to answer: it may have been suspended, and be
        // no member any more.
        let silence = self.options.silence_ms;
        let gives_way = (self.yields_since).is_some_and(|since| now >= since + silence);
        if cut_off(self.reached_at) || (gives_way && cut_off(self.majority_at)) {
            return self.stop(Stopped::CutOff, out);
        }
        if self.lapsed && !self.degraded && self.agreed_until() > now {
            self.degraded = true;
            out.push(Effect::Degraded);
        }
    }

    /// Whether a member with a lower id lives that this node is not linked with.
    fn yields(&self, now: u64) -> bool {
        let lower = |node: &u64| *node < self.me;
        self.others()
            .map(Member::node_id)
            .filter(lower)
            .any(|node| {
                let lives = self.peers.is_heard(now, node) || self.looks.is_renewed(now, node);
                lives && self.peers.both_ways_until(now, node) <= now
            })
    }

    /// A view that is in the store, or was.
    fn learn(&mut self, now: u64, view: View, out: &mut Vec<Effect>) {
        if self.phase != Phase::Stopped && view.epoch > self.epoch() {
            self.take(now, view, out);
        }
    }

    fn take(&mut self, now: u64, view: View, out: &mut Vec<Effect>) {
        let mine = view.member(&self.options.me).is_some();
        let before = self.view.replace(view);
        self.wanted = None;
        match self.phase {
            Phase::Leaving if !mine => {
                // They need not wait for the store, which may fail now, to know that it is gone.
                self.push_to_others(out);
                return self.left(out);
            }
            Phase::Member if !mine => return self.stop(Stopped::Removed, out),
            Phase::Joining if mine => {
                self.phase = Phase::Member;
                (self.majority_at, self.reached_at) = (now, now);
            }
            _ => {}
        }
        self.adopt(now, before, out);
        self.prove(now, out);
    }

    fn push_to_others(&self, out: &mut Vec<Effect>) {
        let views = self.view.iter().cycle();
        out.extend(self.others().zip(views).map(|(member, view)| Effect::Push {
            node: member.node_id(),
            view: view.clone(),
        }));
    }

    fn adopt(&mut self, now: u64, before: Option<View>, out: &mut Vec<Effect>) {
        let Some(view) = &self.view else { return };
        let gone = now.saturating_sub(self.options.cut_off_ms);
        let nodes = view.members.iter().map(Member::node_id);
        self.peers
            .listen(now, nodes.filter(|node| *node != self.me), gone);
        self.looks.keep(&view.members);
        if self.phase == Phase::Member {
            // Before its links go.
            let removed = before.iter().flat_map(|before| &before.members);
            for member in removed.filter(|member| view.member(member).is_none()) {
                let (node, view) = (member.node_id(), view.clone());
                out.push(Effect::Push { node, view });
            }
            let view = view.clone();
            out.push(Effect::Adopt { view });
        }
        let linked = |member: &&Member| member.instance != self.options.me.instance;
        let members: Vec<Member> = self.others().filter(linked).cloned().collect();
        if members != self.links.0 {
            self.links = (members.clone(), now);
            out.push(Effect::Links { members });
        }
    }

    /// There is a view with this node in it that was written after the lease was renewed.
    fn prove(&mut self, now: u64, out: &mut Vec<Effect>) {
        let later = self.seen.is_some_and(|seen| self.epoch() > seen);
        if self.phase == Phase::Member && later && now < self.lease.until() {
            (self.lapsed, self.woke) = (false, false);
            if std::mem::take(&mut self.degraded) {
                out.push(Effect::Restored);
            }
        }
    }

    fn stop(&mut self, reason: Stopped, out: &mut Vec<Effect>) {
        self.phase = Phase::Stopped;
        out.push(Effect::Stop { reason });
    }

    fn left(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Stopped;
        out.push(Effect::Left);
    }
}

#[cfg(test)]
mod tests;
