//! The home: the entities of this node and the way from one to another.

mod config;
mod frame;
mod host;
mod snapshot;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cirrus_jid::BareJid;
use cirrus_stanza::{Kind, Ty};
use cirrus_store::{Outcome, StoreError};

pub use config::{HomeConfig, Limits, Territory};
pub(crate) use frame::Body;
pub use frame::Frame;
pub use work::Tally;
pub(crate) use work::{Cx, Purpose, Work};

use crate::entropy::Entropy;
use crate::event::{Effect, Effects, Event, PipeEvent, PipeId, PipeOut, Token};
use crate::user::User;

/// Entities that live on this node. Single-threaded by design: one event at a time.
///
/// The state is a function of the events, their times, and the random bytes drawn: a second home
/// that is told the same has the same state and asks for the same effects.
pub struct Home {
    config: Arc<HomeConfig>,
    territory: Territory,
    users: HashMap<BareJid, User>,
    timers: BTreeSet<(u64, BareJid)>,
    work: Work,
    entry: u64,
    /// The latest time that an event had, Unix milliseconds.
    clock: u64,
    started_ms: u64,
    stopping: bool,
}

/// Sizes for the operator's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Entities in memory.
    pub entities: usize,
    /// Sessions with a connection.
    pub attached: usize,
    /// Sessions that wait to be resumed.
    pub detached: usize,
    /// Store operations under way.
    pub operations: usize,
    /// About archives.
    pub tally: Tally,
}

impl Home {
    /// A home without entities.
    pub fn new(config: Arc<HomeConfig>, territory: Territory) -> Self {
        Self {
            started_ms: config.started_ms,
            config,
            territory,
            users: HashMap::new(),
            timers: BTreeSet::new(),
            work: Work::default(),
            entry: 0,
            clock: 0,
            stopping: false,
        }
    }

    /// Takes one event at `now` (Unix milliseconds) and appends its effects. Time does not go
    /// back, even where another node's clock is behind: until `now` has caught up, it stands.
    pub fn handle(&mut self, now: u64, rng: &mut dyn Entropy, event: Event, out: &mut Effects) {
        let now = self.clock.max(now);
        self.clock = now;
        self.entry += 1;
        out.entry = self.entry;
        match event {
            Event::Pipe { pipe, event } => self.pipe(now, rng, pipe, event, out),
            Event::Store { token, result } => self.store(now, rng, token, result, out),
            Event::Blob { token, result } => {
                if let Some((jid, purpose)) = self.work.finish(token) {
                    let result = self.work.judge(token, result);
                    self.with_user(now, rng, &jid, out, |user, cx| {
                        user.on_blob(cx, purpose, result);
                    });
                }
            }
            Event::Account { token, result } => {
                if let Some((jid, Purpose::Account { reply, session })) = self.work.finish(token) {
                    self.with_user(now, rng, &jid, out, |user, cx| {
                        user.on_account(cx, session, *reply, result);
                    });
                }
            }
            Event::Erase { user, token } => {
                self.ensure(&user);
                self.with_user(now, rng, &user, out, |user, cx| user.erase(cx, token));
            }
            Event::Seal { user, token } => {
                if self.admit(now, rng, &user, out) {
                    self.with_user(now, rng, &user, out, |user, cx| user.seal(cx, token));
                } else {
                    let result = Err("too many accounts are in memory".into());
                    out.push(Effect::Erased { token, result });
                }
            }
            Event::Frame(frame) => self.work.frames.push_back(frame),
            Event::PipesGone { node } => self.pipes_gone(now, rng, node, out),
            Event::Takeover => self.take_over(now, rng, out),
            Event::Tick => {}
            Event::Shutdown { park } => self.shutdown(now, rng, park, out),
            Event::Park => {
                for jid in self.all(User::has_detached) {
                    self.with_user(now, rng, &jid, out, User::park);
                }
            }
            Event::Unpark { user, row, token } => {
                if let Some(until) = self.work.parked.add(now, &user, &row) {
                    self.timers.insert((until, user.compact()));
                }
                self.with_user(now, rng, &user, out, |_, _| {});
                out.push(Effect::Unparked { token });
            }
            Event::Format(format) => self.work.format.learn(format.0),
        }
        self.run_timers(now, rng, out);
        self.run_frames(now, rng, out);
    }

    /// The newest [format](crate::codec) that it was told every node of the cluster has.
    pub fn format(&self) -> u8 {
        self.work.format.newest()
    }

    /// When [`Event::Tick`] is next due, Unix milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Nothing is under way that an orderly stop would lose. Looks at every entity.
    pub fn is_quiet(&self) -> bool {
        self.work.is_quiet() && self.users.values().all(User::is_settled)
    }

    /// It has been told that its process is at its end.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Counts of what is in memory.
    pub fn census(&self) -> Census {
        let attached = self.work.pipes.len();
        let sessions: usize = self.users.values().map(User::session_count).sum();
        Census {
            entities: self.users.len(),
            attached,
            detached: sessions.saturating_sub(attached),
            operations: self.work.operations(),
            tally: self.work.tally,
        }
    }

    /// The nodes that pipes of its sessions are on.
    pub fn pipe_nodes(&self) -> BTreeSet<u64> {
        let pipes = self.work.pipes.keys().chain(self.work.binding.keys());
        pipes.map(|pipe| pipe.node).collect()
    }

    fn pipe(
        &mut self,
        now: u64,
        rng: &mut dyn Entropy,
        pipe: PipeId,
        event: PipeEvent,
        out: &mut Effects,
    ) {
        let user = match &event {
            PipeEvent::Bind { user, .. } | PipeEvent::Resume { user, .. } => {
                if self.stopping || !self.admit(now, rng, user, out) {
                    let close = PipeOut::Close {
                        error: Some(self.refusal()),
                    };
                    out.push(Effect::Pipe { pipe, out: close });
                    return;
                }
                user.clone()
            }
            _ => match self.work.pipes.get(&pipe) {
                Some((user, _)) => user.clone(),
                // A pipe that closes while its bind waits for the store has no session yet.
                None => match self.work.binding.get(&pipe) {
                    Some(user) => user.clone(),
                    None => return,
                },
            },
        };
        self.with_user(now, rng, &user, out, |user, cx| {
            user.on_pipe(cx, pipe, event);
        });
    }

    fn refusal(&self) -> cirrus_stanza::StreamError {
        if self.stopping {
            cirrus_stanza::StreamError::SystemShutdown
        } else {
            cirrus_stanza::StreamError::ResourceConstraint
        }
    }

    fn store(
        &mut self,
        now: u64,
        rng: &mut dyn Entropy,
        token: Token,
        result: Result<Outcome, StoreError>,
        out: &mut Effects,
    ) {
        let Some((jid, purpose)) = self.work.finish(token) else {
            return;
        };
        let result = self.work.judge(token, result);
        self.with_user(now, rng, &jid, out, |user, cx| {
            user.on_store(cx, purpose, result);
        });
    }

    /// Makes room for an entity, if there is any. `false` when it must be refused.
    fn admit(&mut self, now: u64, rng: &mut dyn Entropy, jid: &BareJid, out: &mut Effects) -> bool {
        if self.users.contains_key(jid) {
            return true;
        }
        if self.users.len() >= self.config.limits.entities {
            self.evict(now, rng, out);
        }
        if self.users.len() >= self.config.limits.entities {
            return false;
        }
        self.ensure(jid);
        true
    }

    fn ensure(&mut self, jid: &BareJid) {
        if !self.users.contains_key(jid) {
            let jid = jid.compact();
            self.users
                .insert(jid.clone(), User::new(jid, &self.config.limits));
        }
    }

    /// Lets a few idle entities go, the ones whose timer is next first.
    fn evict(&mut self, now: u64, rng: &mut dyn Entropy, out: &mut Effects) {
        const AT_ONCE: usize = 16;
        let next: Vec<_> = self
            .timers
            .iter()
            .take(AT_ONCE)
            .map(|(_, jid)| jid.clone())
            .collect();
        for jid in next {
            self.with_user(now, rng, &jid, out, |user, _| user.hurry());
        }
    }

    /// Runs `act` on an entity, then keeps its timer, or forgets it when it has nothing to keep.
    fn with_user(
        &mut self,
        now: u64,
        rng: &mut dyn Entropy,
        jid: &BareJid,
        out: &mut Effects,
        act: impl FnOnce(&mut User, &mut Cx<'_>),
    ) {
        let Some(user) = self.users.get_mut(jid) else {
            return;
        };
        let mut cx = Cx {
            now,
            rng,
            out,
            home: &self.config,
            started_ms: self.started_ms,
            stopping: self.stopping,
            work: &mut self.work,
        };
        act(user, &mut cx);
        user.settle(&mut cx);
        // A timer that has become later is left to fire early and find nothing to do: deadlines
        // move with every message, and moving a timer costs more than a message does.
        if let Some(at) = user.deadline(now).map(|at| at.max(now + 1))
            && user.timer.is_none_or(|set| at < set)
        {
            if let Some(old) = user.timer.replace(at) {
                self.timers.remove(&(old, user.jid.clone()));
            }
            self.timers.insert((at, user.jid.clone()));
        }
        if user.is_gone(now) {
            if let Some(old) = user.timer.take() {
                self.timers.remove(&(old, user.jid.clone()));
            }
            self.users.remove(jid);
        }
    }

    fn run_timers(&mut self, now: u64, rng: &mut dyn Entropy, out: &mut Effects) {
        while let Some((at, jid)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, jid.clone()));
            if self.work.parked.has(&jid) {
                self.ensure(&jid);
                self.with_user(now, rng, &jid, out, User::wake);
            }
            if let Some(user) = self.users.get_mut(&jid) {
                user.timer = None;
            }
            self.with_user(now, rng, &jid, out, User::tick);
        }
    }

    fn run_frames(&mut self, now: u64, rng: &mut dyn Entropy, out: &mut Effects) {
        while let Some(frame) = self.work.frames.pop_front() {
            if !self.config.serves(frame.to.host()) {
                self.not_ours(frame);
            } else if frame.to.local().is_none() {
                let mut cx = Cx {
                    now,
                    rng,
                    out,
                    home: &self.config,
                    started_ms: self.started_ms,
                    stopping: self.stopping,
                    work: &mut self.work,
                };
                host::on_frame(&mut cx, frame);
            } else if !self.territory.has(&frame.to) {
                let to = frame.to.clone();
                out.push(Effect::Frame { to, frame });
            } else if self.wants_activation(&frame) {
                let jid = frame.to.clone();
                if self.admit(now, rng, &jid, out) {
                    self.with_user(now, rng, &jid, out, |user, cx| user.on_frame(cx, frame));
                } else {
                    let full = cirrus_stanza::Condition::ResourceConstraint.into();
                    frame.refuse(full, &mut self.work.frames);
                }
            } else {
                // What gets no answer is still confirmed: its sender's stream counts it.
                let nobody = cirrus_stanza::Condition::ServiceUnavailable.into();
                frame.refuse(nobody, &mut self.work.frames);
            }
        }
    }

    /// Presence and probes reach only entities that are in memory: a user without a session is
    /// offline, and nobody reads a roster to find that out.
    fn wants_activation(&self, frame: &Frame) -> bool {
        if self.users.contains_key(&frame.to) || self.work.parked.has(&frame.to) {
            return true;
        }
        match &frame.body {
            Body::Stanza { stanza, .. } if stanza.kind == Kind::Presence => matches!(
                stanza.ty,
                Ty::Subscribe | Ty::Subscribed | Ty::Unsubscribe | Ty::Unsubscribed
            ),
            Body::Stanza { stanza, .. } => !matches!(stanza.ty, Ty::Error | Ty::Result),
            Body::Subscription { .. } => true,
            Body::Confirm { .. } | Body::Refused { .. } | Body::Subscribed { .. } => false,
        }
    }

    fn not_ours(&mut self, frame: Frame) {
        let text = format!(
            "{} is not served here, and federation is off",
            frame.to.host()
        );
        let error =
            cirrus_stanza::StanzaError::new(cirrus_stanza::Condition::RemoteServerNotFound, text);
        match &frame.body {
            // A subscription stays unsent, to be driven when the domain can be reached; who asked
            // for it learns that it can't be now.
            Body::Subscription { stanza, .. } => {
                if stanza.ty == Ty::Subscribe {
                    let reply = stanza.error(&error);
                    if let Some(to) = reply.to.as_ref().map(cirrus_jid::Jid::bare) {
                        self.work.frames.push_back(Frame::stanza(to, reply, None));
                    }
                }
            }
            Body::Stanza { stanza, .. } if stanza.kind == Kind::Presence => {}
            _ => frame.refuse(error, &mut self.work.frames),
        }
    }

    fn pipes_gone(&mut self, now: u64, rng: &mut dyn Entropy, node: u64, out: &mut Effects) {
        let bound = self.work.pipes.keys().chain(self.work.binding.keys());
        let gone: BTreeSet<_> = bound.filter(|pipe| pipe.node == node).copied().collect();
        for pipe in gone {
            let event = PipeEvent::Closed { clean: false };
            self.pipe(now, rng, pipe, event, out);
            // Frames in between keep the queue short.
            self.run_frames(now, rng, out);
        }
    }

    fn take_over(&mut self, now: u64, rng: &mut dyn Entropy, out: &mut Effects) {
        // It may have been a process at its end that was home before.
        self.stopping = false;
        self.work.doubt();
        for jid in self.all(User::has_detached) {
            self.with_user(now, rng, &jid, out, User::restart_deadlines);
        }
    }

    /// The entities for which this holds, in an order that does not depend on the map's chance.
    fn all(&self, which: impl Fn(&User) -> bool) -> Vec<BareJid> {
        let users = self.users.iter().filter(|(_, user)| which(user));
        let mut all: Vec<_> = users.map(|(jid, _)| jid.clone()).collect();
        all.sort_unstable();
        all
    }

    fn shutdown(&mut self, now: u64, rng: &mut dyn Entropy, park: bool, out: &mut Effects) {
        self.stopping = true;
        for jid in self.all(|_| true) {
            self.with_user(now, rng, &jid, out, |user, cx| user.shutdown(cx, park));
            // Frames in between keep the queue short.
            self.run_frames(now, rng, out);
        }
    }
}

#[cfg(test)]
mod tests;
