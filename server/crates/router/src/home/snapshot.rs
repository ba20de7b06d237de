//! A home as bytes: everything but its configuration.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Home, HomeConfig, Territory, Work};
use crate::codec::{self, CodecError};
use crate::user::User;

#[derive(Serialize)]
struct Written<'a> {
    users: Vec<&'a User>,
    work: &'a Work,
    entry: u64,
    clock: u64,
    started_ms: u64,
    stopping: bool,
}

#[derive(Deserialize)]
struct Read {
    users: Vec<User>,
    work: Work,
    entry: u64,
    clock: u64,
    started_ms: u64,
    stopping: bool,
}

impl Home {
    /// Its state, between two events. Homes of equal state have equal snapshots. Operations that
    /// the store has not answered are known by their tokens only: whoever gives a snapshot away
    /// gives those effects with it. In the newest format.
    pub fn snapshot(&self) -> Vec<u8> {
        // The newest has everything.
        self.snapshot_in(codec::FORMAT).unwrap_or_default()
    }

    /// The same, in that format.
    ///
    /// # Errors
    /// [`CodecError::Newer`]: something is in it that the format does not have.
    pub fn snapshot_in(&self, format: u8) -> Result<Vec<u8>, CodecError> {
        let mut users: Vec<_> = self.users.values().collect();
        users.sort_unstable_by(|a, b| a.jid.cmp(&b.jid));
        let written = Written {
            users,
            work: &self.work,
            entry: self.entry,
            clock: self.clock,
            started_ms: self.started_ms,
            stopping: self.stopping,
        };
        codec::encode(format, &written)
    }

    /// The home of that state. Bounds and features are those of the configuration, which has to be
    /// the same on all nodes.
    ///
    /// # Errors
    /// [`CodecError`]
    pub fn restore(
        config: Arc<HomeConfig>,
        territory: Territory,
        bytes: &[u8],
    ) -> Result<Self, CodecError> {
        let read: Read = codec::decode("a home's state", bytes)?;
        let mut home = Self::new(config, territory);
        for mut user in read.users {
            user.set_limits(&home.config.limits);
            let timer = user.timer.map(|at| (at, user.jid.clone()));
            home.timers.extend(timer);
            home.users.insert(user.jid.clone(), user);
        }
        home.work = read.work;
        let parked = home.work.parked.deadlines();
        let parked: Vec<_> = parked.map(|(at, jid)| (at, jid.clone())).collect();
        home.timers.extend(parked);
        home.entry = read.entry;
        home.clock = read.clock;
        home.started_ms = read.started_ms;
        home.stopping = read.stopping;
        Ok(home)
    }

    /// The time of its last event, Unix milliseconds.
    pub fn clock(&self) -> u64 {
        self.clock
    }
}
