//! The server's life, and the store behind it.

use std::sync::Arc;

use cirrus_router::codec::{FORMAT, Only};
use cirrus_router::registry::About;
use cirrus_router::{
    Effect, Effects, Event, Home, HomeConfig, Recorder, Registry, Territory, Token,
};
use cirrus_store::Op;

use super::blobs::Asker;
use super::shadow::{Entry, Shadow};
use super::{Answer, Happening, START, World};
use crate::client::Phase;
use crate::plan::DOMAINS;
use crate::store::{Fate, throttled, timeout};

/// Longest time that a write of a dead server is under way, milliseconds.
pub const STRAY_MS: u64 = 5_000;
/// Longest time that a server runs without a network before it dies, milliseconds.
const FADE_MS: u64 = 1_000;
/// Longest time that an orderly stop takes, milliseconds.
const STOP_MS: u64 = 20_000;

impl World {
    pub(super) fn start(&mut self) {
        if self.home.is_some() || self.cluster.is_some() {
            return;
        }
        self.life += 1;
        self.tell(|| "the server starts".into());
        let config = Arc::new(self.home_config());
        self.skew = 0;
        self.shadow = Some(Shadow::new(&config, &mut self.chance));
        self.home = Some(Home::new(config, Territory::Everything));
        // There is nobody who is older.
        self.home_event(Event::Format(Only(FORMAT)));
    }

    /// What a home is told about itself.
    pub(super) fn home_config(&self) -> HomeConfig {
        let about = About {
            name: "Cirrus".into(),
            version: "sim".into(),
            domains: DOMAINS.map(Into::into).into(),
            registration: false,
        };
        HomeConfig {
            limits: self.plan.limits.clone(),
            about,
            registry: Registry::new(&[]),
            archive: self.plan.archive,
            archive_key: cirrus_router::archive::IdKey::new([7; 32]),
            started_ms: START,
        }
    }

    pub(super) fn kill(&mut self) {
        if self.home.take().is_none() {
            return;
        }
        self.report.kills += 1;
        self.tell(|| "the server is killed".into());
        self.history.kills.push(self.now);
        self.died_at = self.now;
        self.ended();
    }

    /// The network goes first: what the server still does, nobody hears.
    pub(super) fn kill_slowly(&mut self) {
        self.tell(|| "the network is gone".into());
        self.fading = true;
        self.break_connections();
        self.soon(FADE_MS, Happening::Kill);
    }

    fn break_connections(&mut self) {
        for pipe in self.pipes.values_mut() {
            pipe.heard = false;
            pipe.talks = false;
        }
        for client in &mut self.clients {
            if client.phase != Phase::Off {
                client.phase = Phase::Broken;
            }
        }
    }

    /// The server stops in order. One that does not come to rest in time is killed; a copy that
    /// takes over meanwhile serves.
    pub(super) fn stop(&mut self) {
        if self.home.is_none() {
            return;
        }
        self.report.stops += 1;
        self.tell(|| "the server is stopped".into());
        self.home_event(Event::Shutdown { park: false });
        let deadline = self.now + STOP_MS;
        let stops = |home: &Home| home.is_stopping();
        let busy = |home: &Home| home.is_stopping() && !home.is_quiet();
        while self.home.as_ref().is_some_and(busy) && self.now < deadline && self.step() {}
        if !self.home.as_ref().is_some_and(stops) {
            return;
        }
        if self.home.as_ref().is_some_and(busy) {
            self.tell(|| "the server does not come to rest".into());
            self.history.kills.push(self.now);
            self.died_at = self.now;
        }
        self.home = None;
        self.ended();
    }

    fn ended(&mut self) {
        self.fading = false;
        self.shadow = None;
        self.orphan_operations(true);
        self.break_connections();
        self.history.end_sessions(self.now);
        self.soon(2_000, Happening::Start);
    }

    /// Writes of a dead server land, vanish, or, if they may, land late.
    pub(super) fn orphan_operations(&mut self, strays: bool) {
        let mine = |happening: &Happening| matches!(happening, Happening::Answer { .. });
        let queued = self.queue.iter().filter(|(_, h)| mine(h));
        let keys: Vec<_> = queued.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Happening::Answer {
                op,
                fate: Answer::Do,
                ..
            }) = self.queue.remove(&key).map(|it| *it)
            {
                self.orphan(op, strays);
            }
        }
    }

    pub(super) fn orphan(&mut self, op: Box<Op>, strays: bool) {
        match self.rng.below(if strays { 3 } else { 2 }) {
            0 => drop(self.store.apply(*op)),
            2 => self.soon(STRAY_MS, Happening::Stray(self.life, op)),
            _ => {}
        }
    }

    pub(super) fn home_event(&mut self, event: Event) {
        let now = self.home_now();
        let Some(home) = &mut self.home else { return };
        self.report.events += 1;
        let mut out = Effects::default();
        let mut entry = Entry {
            now,
            event: event.encode(),
            drawn: Vec::new(),
        };
        let mut rng = Recorder::new(&mut self.rng, &mut entry.drawn);
        home.handle(now, &mut rng, event, &mut out);
        let due = home.next_deadline();
        self.shadow_event(&entry, &out);
        for output in out.outputs {
            match output.effect {
                Effect::Pipe { pipe, out } => self.emit(pipe, out),
                Effect::Store { token, op } => self.operate(token, op),
                Effect::Blob { token, op } => self.ask_blob(Asker::Home(self.life, token), op),
                Effect::Erased { token, result } => self.erased(token, result),
                Effect::Account { .. } | Effect::Frame { .. } | Effect::Unparked { .. } => {}
            }
        }
        let due = due.map(|due| due.saturating_add_signed(-self.skew));
        if let Some(due) = due
            && self.ticking.is_none_or(|at| due < at)
        {
            self.ticking = Some(due);
            self.at(due.max(self.now + 1), Happening::Tick);
        }
        self.take_over_if_due();
    }

    /// What the store answers at its time, or what it says and does now.
    pub(super) fn answer(&mut self, fate: Fate, op: &Op) -> Answer {
        match fate {
            Fate::Late => Answer::Do,
            Fate::Early => Answer::Done(self.store.apply(op.clone())),
            Fate::Throttled => Answer::Done(Err(throttled(op.place()))),
            Fate::Lost => {
                drop(self.store.apply(op.clone()));
                Answer::Done(Err(timeout(op.place())))
            }
            Fate::Vanished => Answer::Done(Err(timeout(op.place()))),
        }
    }

    pub(super) fn operate(&mut self, token: Token, op: Op) {
        let fate = self.store.fate(&mut self.rng);
        self.tell(|| format!("store {token} {fate:?} {}", crate::tell::op(&op)));
        let answer = self.answer(fate, &op);
        let happening = Happening::Answer {
            life: self.life,
            token,
            op: Box::new(op),
            fate: answer,
        };
        self.soon(self.plan.faults.slowest_ms, happening);
    }

    pub(super) fn answered(&mut self, life: u64, token: Token, op: Op, answer: Answer) {
        if life != self.life || self.home.is_none() {
            return;
        }
        let result = match answer {
            Answer::Do => self.store.apply(op),
            Answer::Done(result) => result,
        };
        self.tell(|| format!("answer {token} {}", crate::tell::answer(&result)));
        self.home_event(Event::Store { token, result });
    }
}
