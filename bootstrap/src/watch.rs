//! The life of an instance after its boot: a pure machine that hears what the metadata and the
//! server say, and decides when the server stops, what the autoscaling group hears, and what is
//! published.
//!
//! What the instance metadata has (EC2 User Guide, "Instance metadata categories";
//! EC2 Auto Scaling User Guide, "Retrieve the target lifecycle state through instance metadata"):
//!
//! - the target lifecycle state becomes `Terminated` when the group wants the instance gone; its
//!   terminate hook then waits, for as long as heartbeats come;
//! - a spot notice comes two minutes before the instance is taken;
//! - a recommendation to rebalance may come before that, and binds nobody.
//!
//! It can be started anew at any moment and finds its way: everything that it asks for may be asked
//! for twice.

mod hook;
mod notice;
mod order;
mod publish;

use crate::control::{Member, NodeStatus};

pub use hook::{Seen, Step, TerminateHook};
pub use notice::{MAX_SPOT_SECONDS, Notices, Spot};
pub use publish::{Figure, NAMESPACE};

use hook::Hook;
use order::{Kind, Order};
use publish::Publisher;

/// Milliseconds between two looks at a server that is to stop.
const LOOK_MS: u64 = 1_000;
/// The first pause after a failure.
const FIRST_PAUSE_MS: u64 = 1_000;
/// What a server may take after its drain's deadline: its last words and what lingers.
const AFTER_DEADLINE_MS: u64 = 15_000;
/// What a server gets at least, however late it is.
const LEAST_MS: u64 = 1_000;

/// What the configuration says; see `watch` and `drain` there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `watch.poll_seconds`, in milliseconds.
    pub poll_ms: u64,
    /// `watch.backoff_seconds`, in milliseconds.
    pub backoff_ms: u64,
    /// `watch.gone_seconds`, in milliseconds.
    pub gone_ms: u64,
    /// `watch.hook_seconds`, in milliseconds.
    pub hook_ms: u64,
    /// `watch.spot_reserve_seconds`.
    pub spot_reserve_seconds: u64,
    /// `watch.rebalance`.
    pub rebalance: bool,
    /// `watch.metrics_seconds`, in milliseconds; 0 for none.
    pub metrics_ms: u64,
    /// `drain.deadline_seconds`, in milliseconds.
    pub drain_ms: u64,
}

/// What is known anew.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The metadata has this.
    Notices(Notices),
    /// The metadata did not say.
    MetadataFailed(String),
    /// The server has said where it stands.
    Server(NodeStatus),
    /// There is no server, or it has ended before it answered.
    ServerAbsent(String),
    /// There is one, but it did not say: it was late, refused, or made no sense.
    ServerUnclear(String),
    /// It heard this, or why not.
    Asked(Ask, Result<(), String>),
    /// What came of a step at the hook.
    Hook(Seen),
    /// The figures were put, or why not.
    Published(Result<(), String>),
}

/// What the server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Effect::Stop`].
    Stop,
    /// [`Effect::Drain`].
    Drain,
    /// [`Effect::Abort`].
    Abort,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Look at the metadata.
    Metadata,
    /// Ask the server where it stands.
    Status,
    /// Have the server stop; in so many seconds at the latest, if that is less than configured.
    Stop(Option<u64>),
    /// Have the server give its slots away.
    Drain,
    /// Take that back.
    Abort,
    /// A step at the hook.
    Hook(Step),
    /// Publish figures, of this domain.
    Publish(String, Vec<Figure>),
    /// Say something.
    Say(String),
}

/// When something is asked next: nothing is asked while an answer is awaited.
#[derive(Clone, Copy, Debug)]
struct Poll {
    next_ms: Option<u64>,
    failures: u32,
}

impl Poll {
    fn at(now_ms: u64) -> Self {
        Self {
            next_ms: Some(now_ms),
            failures: 0,
        }
    }

    /// Whether it is time; then it counts as asked.
    fn due(&mut self, now_ms: u64) -> bool {
        let due = self.next_ms.is_some_and(|next| next <= now_ms);
        if due {
            self.next_ms = None;
        }
        due
    }

    fn answered(&mut self, next_ms: u64) {
        *self = Self::at(next_ms);
    }

    /// Pauses double from [`FIRST_PAUSE_MS`] to `most_ms`.
    fn failed(&mut self, now_ms: u64, most_ms: u64) {
        let pause = FIRST_PAUSE_MS << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.next_ms = Some(now_ms.saturating_add(pause.min(most_ms)));
    }
}

/// What is known of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Nothing yet.
    Unknown,
    /// It answers.
    Up,
    /// It is there, and where it stands is not known.
    Unclear,
    /// It has not been there since then.
    Down(u64),
}

/// The machine.
#[derive(Debug)]
pub struct Watch {
    settings: Settings,
    metadata: Poll,
    status: Poll,
    notices: Notices,
    /// When the last look at the metadata began.
    looked_ms: u64,
    /// When the last look began that found no spot notice.
    unnoticed_ms: Option<u64>,
    /// When the server must have ended for a spot notice's sake.
    spot_end_ms: Option<u64>,
    /// The server has refused to do what is recommended now.
    declined: bool,
    /// A drain was to be taken back, and the server has not heard it.
    abort_failed: bool,
    server: Server,
    members: Vec<Member>,
    order: Option<Order>,
    hook: Hook,
    publisher: Publisher,
}

impl Watch {
    /// Begins.
    pub fn new(settings: Settings, now_ms: u64) -> (Self, Vec<Effect>) {
        let mut watch = Self {
            hook: Hook::new(&settings),
            publisher: Publisher::new(settings.metrics_ms),
            settings,
            metadata: Poll::at(now_ms),
            status: Poll::at(now_ms),
            notices: Notices::default(),
            looked_ms: now_ms,
            unnoticed_ms: None,
            spot_end_ms: None,
            declined: false,
            abort_failed: false,
            server: Server::Unknown,
            members: Vec::new(),
            order: None,
        };
        let effects = watch.step(Event::Tick, now_ms);
        (watch, effects)
    }

    /// Other settings from now on: the server's configuration is there, or has changed.
    pub fn configure(&mut self, settings: Settings) {
        self.hook.configure(&settings);
        self.publisher.configure(settings.metrics_ms);
        self.settings = settings;
    }

    /// When it wants to hear that time has passed, at the latest.
    pub fn wake_ms(&self) -> u64 {
        let order = self.order.as_ref().and_then(Order::wake_ms);
        [
            self.metadata.next_ms,
            self.status.next_ms,
            self.hook.wake_ms(),
            order,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
    }

    /// Takes an event.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Notices(notices) => self.noticed(notices, now_ms, &mut effects),
            Event::MetadataFailed(why) => self.metadata_failed(&why, now_ms, &mut effects),
            Event::Server(status) => self.answered(status, now_ms, &mut effects),
            Event::ServerAbsent(why) => self.absent(&why, now_ms, &mut effects),
            Event::ServerUnclear(why) => self.unclear(&why, now_ms, &mut effects),
            Event::Asked(ask, outcome) => self.asked(ask, outcome, &mut effects),
            Event::Hook(seen) => effects.extend(self.hook.seen(seen, now_ms).map(Effect::Say)),
            Event::Published(outcome) => {
                effects.extend(self.publisher.published(outcome).map(Effect::Say));
            }
        }
        self.due(now_ms, &mut effects);
        effects
    }

    /// What is due now.
    fn due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(order) = &mut self.order
            && order.is_late(now_ms)
        {
            order.finished_ms = Some(now_ms);
            effects.push(say("the server has not ended within its deadline"));
            self.finish(now_ms);
        }
        if self.metadata.due(now_ms) {
            self.looked_ms = now_ms;
            effects.push(Effect::Metadata);
        }
        if self.status.due(now_ms) {
            effects.push(Effect::Status);
        }
        effects.extend(self.hook.due(now_ms).map(Effect::Hook));
    }

    fn metadata_failed(&mut self, why: &str, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.metadata.failures == 0 {
            effects.push(say(&format!(
                "warning: the instance metadata gives no answer, and is asked again: {why}"
            )));
        }
        self.metadata.failed(now_ms, self.settings.backoff_ms);
    }

    fn noticed(&mut self, mut notices: Notices, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.metadata.failures > 0 {
            effects.push(say("the instance metadata answers again"));
        }
        self.metadata.answered(now_ms + self.settings.poll_ms);
        let is_new = self.spot(&mut notices, now_ms, effects);
        let before = std::mem::replace(&mut self.notices, notices.clone());
        effects.extend(notices.changes(&before).into_iter().map(Effect::Say));
        if is_new {
            self.want_stop(now_ms, effects);
        }
        if notices.is_terminated() {
            self.hook.begin(now_ms);
            self.want_stop(now_ms, effects);
            // A server that has ended before, after a spot notice, is not waited for.
            if self.order.as_ref().is_some_and(Order::is_finished) {
                self.hook.complete(now_ms);
            }
        }
        self.declined &= notices.rebalance;
        let drains = notices.rebalance && self.settings.rebalance && !self.declined;
        if drains && self.order.is_none() && self.server == Server::Up {
            self.order = Some(Order::drain(now_ms));
            effects.push(Effect::Drain);
        }
        self.withdrawn(&notices, effects);
    }

    /// Whether there is a spot notice that was not there before. The same one is seen again and
    /// again, with less time left each time; what counts is when it was seen first.
    fn spot(&mut self, notices: &mut Notices, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        let Some(spot) = &mut notices.spot else {
            self.unnoticed_ms = Some(self.looked_ms);
            self.spot_end_ms = None;
            return false;
        };
        if self.spot_end_ms.is_some() {
            return false;
        }
        let seen_ms = self.unnoticed_ms.map(|at| now_ms.saturating_sub(at));
        if let Some(doubt) = seen_ms.and_then(|ms| spot.came_within(ms)) {
            effects.push(say(&doubt));
        }
        let reserve = self.settings.spot_reserve_seconds;
        let seconds = spot.left_seconds.saturating_sub(reserve).max(1);
        self.spot_end_ms = Some(now_ms.saturating_add(seconds * 1_000));
        true
    }

    /// Takes back what can be taken back, if nothing asks for it any more.
    fn withdrawn(&mut self, notices: &Notices, effects: &mut Vec<Effect>) {
        let wanted = notices.is_terminated() || notices.spot.is_some();
        match &mut self.order {
            Some(order) if order.kind == Kind::Drain && !wanted && !notices.rebalance => {
                self.order = None;
                effects.push(say("the drain is taken back"));
                effects.push(Effect::Abort);
            }
            Some(order) if order.kind == Kind::Stop && !wanted && !order.told_withdrawn => {
                order.told_withdrawn = true;
                let words = "warning: nothing asks for this instance's end any more, but its \
                             server stops or has stopped; start it by hand if the instance is to \
                             go on";
                effects.push(say(words));
            }
            _ => {}
        }
    }

    /// When a server that is to stop from now on must have ended.
    fn deadline_ms(&self, now_ms: u64) -> u64 {
        let configured = now_ms.saturating_add(self.settings.drain_ms);
        let spot = self.spot_end_ms.unwrap_or(u64::MAX);
        configured.min(spot.max(now_ms.saturating_add(LEAST_MS)))
    }

    /// Has the server stop. An order that exists can only become more urgent.
    fn want_stop(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let deadline_ms = self.deadline_ms(now_ms);
        if let Some(order) = &mut self.order
            && order.kind == Kind::Stop
        {
            if !order.sooner(deadline_ms) {
                return;
            }
        } else {
            self.order = Some(Order::stop(now_ms, deadline_ms));
        }
        let seconds = (deadline_ms - now_ms) / 1_000;
        effects.push(say(&format!("the server is to stop within {seconds} s")));
        self.ask_to_stop(now_ms, effects);
    }

    fn ask_to_stop(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(order) = &mut self.order
            && order.kind == Kind::Stop
            && order.ask()
        {
            // As configured, unless that would be too long by now.
            let left = order.left_ms(now_ms);
            let shorter = left < self.settings.drain_ms;
            effects.push(Effect::Stop(shorter.then(|| left.max(LEAST_MS) / 1_000)));
            self.status.next_ms = self.status.next_ms.map(|it| it.min(now_ms + LOOK_MS));
        }
    }

    fn asked(&mut self, ask: Ask, outcome: Result<(), String>, effects: &mut Vec<Effect>) {
        match (ask, outcome) {
            (Ask::Stop, outcome) => {
                if let Some(order) = &mut self.order
                    && order.kind == Kind::Stop
                {
                    let is_told = order.heard(outcome.is_ok());
                    if let (Err(why), false) = (outcome, is_told) {
                        effects.push(say(&format!("the server has not heard it: {why}")));
                    }
                }
            }
            (Ask::Drain, Err(why)) => {
                // There is no other node, or it serves no more: a recommendation is not pressed.
                if self
                    .order
                    .take_if(|order| order.kind == Kind::Drain)
                    .is_some()
                {
                    self.declined = true;
                    effects.push(say(&format!("the server does not drain: {why}")));
                }
            }
            (Ask::Abort, Err(why)) => {
                self.abort_failed = true;
                let words = "warning: the drain is not taken back yet, and that is tried again";
                effects.push(say(&format!("{words}: {why}")));
            }
            (Ask::Drain | Ask::Abort, Ok(())) => {}
        }
    }

    fn answered(&mut self, status: NodeStatus, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.server != Server::Up {
            effects.push(say(&format!("the server answers: {}", status.state)));
        }
        self.server = Server::Up;
        if status.members != self.members && !status.members.is_empty() {
            effects.push(say(&told(&status.members)));
            self.members.clone_from(&status.members);
        }
        if std::mem::take(&mut self.abort_failed) && status.draining && self.order.is_none() {
            effects.push(Effect::Abort);
        }
        let deadline_ms = self.deadline_ms(now_ms);
        let mut pause = self.settings.poll_ms;
        if let Some(order) = &mut self.order
            && order.kind == Kind::Stop
        {
            pause = LOOK_MS;
            if order.hears_again(status.stopping) && !self.hook.is_over() {
                effects.push(say(
                    "the server was started anew, and is asked again to stop",
                ));
                *order = Order::stop(now_ms, deadline_ms);
            }
            if !status.stopping {
                // It was started anew between two looks if it has heard it before.
                order.forget();
                self.ask_to_stop(now_ms, effects);
            }
        }
        self.status.answered(now_ms + pause);
        if let Some((domain, figures)) = self.publisher.figures(&status, now_ms) {
            effects.push(Effect::Publish(domain, figures));
        }
    }

    /// There is no server. After an order, that is its end if it lasts.
    fn absent(&mut self, why: &str, now_ms: u64, effects: &mut Vec<Effect>) {
        let since = match self.server {
            Server::Down(since) => since,
            before => {
                let stops = self.order.as_ref().is_some_and(|o| o.kind == Kind::Stop);
                effects.push(say(&match (before, stops) {
                    (Server::Up | Server::Unclear, true) => "the server answers no more".to_owned(),
                    _ => format!("the server gives no answer, and is asked again: {why}"),
                }));
                now_ms
            }
        };
        self.server = Server::Down(since);
        self.publisher.lost();
        let mut pause = self.settings.poll_ms;
        if let Some(order) = &mut self.order
            && order.kind == Kind::Stop
            && !order.is_finished()
        {
            pause = LOOK_MS;
            // What it was asked for last has gone with it.
            order.forget();
            // One that was down before may be about to come up.
            let since = since.max(order.begun_ms);
            if now_ms.saturating_sub(since) >= self.settings.gone_ms {
                order.finished_ms = Some(now_ms);
                let seconds = now_ms.saturating_sub(order.begun_ms) / 1_000;
                effects.push(say(&format!(
                    "the server has ended, {seconds} s after it was to stop"
                )));
                self.finish(now_ms);
            }
        }
        self.status.answered(now_ms + pause);
    }

    /// There is a server, which may drain for all that is known: only its deadline ends the wait.
    fn unclear(&mut self, why: &str, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.server != Server::Unclear {
            let words = "the server does not say where it stands, and is asked again";
            effects.push(say(&format!("{words}: {why}")));
        }
        self.server = Server::Unclear;
        let stops = |o: &Order| o.kind == Kind::Stop && !o.is_finished();
        let pause = match &self.order {
            Some(order) if stops(order) => LOOK_MS,
            _ => self.settings.poll_ms,
        };
        self.status.answered(now_ms + pause);
        // It may not have heard either.
        self.ask_to_stop(now_ms, effects);
    }

    /// The server has ended, or has had its time.
    fn finish(&mut self, now_ms: u64) {
        if self.notices.is_terminated() {
            self.hook.complete(now_ms);
        }
    }
}

fn say(words: &str) -> Effect {
    Effect::Say(words.to_owned())
}

fn told(members: &[Member]) -> String {
    let one = |it: &Member| format!("{} ({}, {})", it.instance, it.state, it.address);
    let list: Vec<String> = members.iter().map(one).collect();
    let noun = if members.len() == 1 {
        "member"
    } else {
        "members"
    };
    format!("the view has {} {noun}: {}", members.len(), list.join(", "))
}

#[cfg(test)]
mod tests;
