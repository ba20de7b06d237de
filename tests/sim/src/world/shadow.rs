//! The home's copy, as a backup has it: told every event in the bytes of a link, with the same time
//! and random bytes. It must ask for the same and be in the same state. Now and then it begins anew
//! from a snapshot, and in every run it takes the home's place.

use std::collections::BTreeMap;
use std::sync::Arc;

use cirrus_router::codec::{FORMAT, encode};
use cirrus_router::{Effect, Effects, Event, Home, HomeConfig, Replay, Territory, Token};
use cirrus_schema::TableId;
use cirrus_store::{BlobOp, Op};

use super::World;
use super::blobs::Asker;
use super::network::NODES;
use crate::check::Violation;
use crate::client::Phase;
use crate::plan::{RESUME_SECONDS, SKEW_MS};
use crate::rng::Rng;

/// How often the copy begins anew from a snapshot, in events.
const SNAPSHOT: u64 = 128;
/// Fewest events before a copy takes over, and most after that.
const TAKEOVER: (u64, u64) = (50, 900);
/// Events that a copy then waits at most for a roster to be written: the moment that hurts.
const PATIENCE: u64 = 200;
/// Longest time that the store is overloaded after a node has died, milliseconds.
const OVERLOAD_MS: u64 = 500;

/// A home that is told what another is told.
pub struct Shadow {
    home: Home,
    config: Arc<HomeConfig>,
    /// What it has asked the store for and not been answered.
    operations: BTreeMap<Token, Op>,
    blobs: BTreeMap<Token, BlobOp>,
    /// Events until it may take over, and until it must.
    left: u64,
    patience: u64,
}

/// One event as a copy is told of it.
pub struct Entry {
    pub now: u64,
    pub event: Vec<u8>,
    pub drawn: Vec<u8>,
}

impl Shadow {
    pub fn new(config: &Arc<HomeConfig>, rng: &mut Rng) -> Self {
        Self {
            home: Home::new(Arc::clone(config), Territory::Everything),
            config: Arc::clone(config),
            operations: BTreeMap::new(),
            blobs: BTreeMap::new(),
            left: TAKEOVER.0 + rng.below(TAKEOVER.1),
            patience: PATIENCE,
        }
    }

    /// It has waited long enough, for so many events or for its moment.
    fn is_due(&self) -> bool {
        let writes = |op: &Op| op.kind().is_write() && op.table() == Some(TableId::Rosters);
        self.left == 0 && (self.patience == 0 || self.operations.values().any(writes))
    }

    /// Goes along with the home, which asked for this. `Err`: how it is no copy any more.
    fn follow(&mut self, entry: &Entry, asked: &Effects) -> Result<(), String> {
        let event = Event::decode(&entry.event).map_err(|error| error.to_string())?;
        if let Event::Store { token, .. } = &event {
            self.operations.remove(token);
        }
        if let Event::Blob { token, .. } = &event {
            self.blobs.remove(token);
        }
        let mut out = Effects::default();
        let mut rng = Replay::new(&entry.drawn);
        self.home.handle(entry.now, &mut rng, event, &mut out);
        if !rng.is_used_up() {
            return Err("it draws other random bytes".into());
        }
        if out.outputs.len() != asked.outputs.len() {
            let (own, given) = (out.outputs.len(), asked.outputs.len());
            return Err(format!("it asks for {own} effects instead of {given}"));
        }
        for (output, other) in out.outputs.into_iter().zip(&asked.outputs) {
            let own = encode(FORMAT, &output);
            if own != encode(FORMAT, other) {
                return Err(format!("it asks for {output:?} instead of {other:?}"));
            }
            match output.effect {
                Effect::Store { token, op } => drop(self.operations.insert(token, op)),
                Effect::Blob { token, op } => drop(self.blobs.insert(token, op)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Begins anew with the home's state, which must be its own.
    fn copy(&mut self, home: &Home) -> Result<(), String> {
        let bytes = home.snapshot();
        if self.home.snapshot() != bytes {
            return Err("its state is another one".into());
        }
        let config = Arc::clone(&self.config);
        self.home = Home::restore(config, Territory::Everything, &bytes)
            .map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl World {
    /// The copy is told what the home was told, and perhaps takes its place.
    pub(super) fn shadow_event(&mut self, entry: &Entry, asked: &Effects) {
        let (Some(home), Some(shadow)) = (&self.home, &mut self.shadow) else {
            return;
        };
        let mut same = shadow.follow(entry, asked);
        if same.is_ok() && self.chance.one_in(SNAPSHOT) {
            same = shadow.copy(home);
            self.report.snapshots += 1;
        }
        match shadow.left.checked_sub(1) {
            Some(left) => shadow.left = left,
            None => shadow.patience = shadow.patience.saturating_sub(1),
        }
        if let Err(text) = same {
            self.shadow = None;
            self.wrong(Violation::Copy(text));
        }
    }

    pub(super) fn take_over_if_due(&mut self) {
        if self.shadow.as_ref().is_some_and(Shadow::is_due) {
            self.take_over();
        }
    }

    /// The home's node dies. The copy takes its place, on a node whose clock shows another time,
    /// and asks the store again for what was not answered.
    fn take_over(&mut self) {
        let Some(shadow) = self.shadow.take() else {
            return;
        };
        self.report.takeovers += 1;
        self.tell(|| "a copy takes over".into());
        // Erasing an account begins when nothing of a dead node is under way any more; one that
        // is going on already has no such guard.
        let strays = !self.is_erasing();
        self.orphan_operations(strays);
        self.died_at = self.now;
        self.life += 1;
        let skew = self.chance.below(2 * SKEW_MS + 1).cast_signed();
        self.skew = skew - SKEW_MS.cast_signed();
        let mut next = Shadow::new(&shadow.config, &mut self.chance);
        let bytes = shadow.home.snapshot();
        match Home::restore(Arc::clone(&next.config), Territory::Everything, &bytes) {
            Ok(home) => next.home = home,
            Err(error) => self.wrong(Violation::Copy(error.to_string())),
        }
        next.operations.clone_from(&shadow.operations);
        next.blobs.clone_from(&shadow.blobs);
        self.home = Some(shadow.home);
        self.shadow = Some(next);
        if self.playing && self.chance.one_in(2) {
            let until = self.now + self.chance.below(OVERLOAD_MS);
            self.store.down_until = self.store.down_until.max(until);
        }
        for (token, op) in shadow.operations {
            self.operate(token, op);
        }
        for (token, op) in shadow.blobs {
            self.ask_blob(Asker::Home(self.life, token), op);
        }
        let until = self.resumable_until();
        self.history.detached_anew(self.now, until);
        self.home_event(Event::Takeover);
        if self.playing && self.chance.one_in(2) {
            let node = 1 + self.chance.below(NODES);
            self.lose_node(node);
        }
    }

    /// A node dies that has connections and not the home.
    fn lose_node(&mut self, node: u64) {
        self.tell(|| format!("node {node} is gone with its pipes"));
        let pipes = self.pipes.keys().filter(|pipe| pipe.node == node);
        for pipe in pipes.copied().collect::<Vec<_>>() {
            let Some(client) = self.lose_pipe(pipe, false) else {
                continue;
            };
            let client = &mut self.clients[client];
            if client.pipe == pipe && client.phase != Phase::Off {
                client.phase = Phase::Broken;
            }
        }
        self.home_event(Event::PipesGone { node });
    }

    /// The home's clock.
    pub(super) fn home_now(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    /// When a session that loses its connection now ends at the latest: the home's clock may stand
    /// for a while, so that it does not go back.
    pub(super) fn resumable_until(&self) -> u64 {
        let skew = match self.cluster {
            Some(_) => 2 * SKEW_MS,
            None => self.skew.unsigned_abs(),
        };
        self.now + u64::from(RESUME_SECONDS) * 1_000 + skew
    }
}
