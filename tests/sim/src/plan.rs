//! What a seed decides about its world before anything happens.

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_router::Limits;

use crate::rng::Rng;

/// Seconds that a broken session is kept for its client.
pub const RESUME_SECONDS: u32 = 20;
/// How far a node's clock may be from the true time, milliseconds.
pub const SKEW_MS: u64 = 2_000;
/// Fewest operations of clients in one seed.
pub const OPERATIONS: usize = 200;
/// The domains of the simulated server; a seed uses one or two.
pub const DOMAINS: [&str; 2] = ["example.com", "example.net"];

/// One client of the plan.
pub struct Setup {
    pub account: usize,
    pub resource: String,
    /// It uses stream management.
    pub managed: bool,
    /// It enables stream management some time after it became available.
    pub late: bool,
}

/// What happens to the server after so many operations of clients.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// It dies at once.
    Kill,
    /// It stops in order.
    Stop,
    /// The store refuses everything for so many milliseconds.
    Outage(u64),
    /// The account is deleted, and created again later.
    Erase(usize),
}

/// How often the store misbehaves, of a thousand operations.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Refused, nothing changed.
    pub throttled: u64,
    /// Carried out, and the answer lost.
    pub lost: u64,
    /// Not carried out, and nobody says so.
    pub vanished: u64,
    /// Longest time that an operation takes, milliseconds.
    pub slowest_ms: u64,
}

/// Everything that is decided beforehand.
pub struct Plan {
    pub users: Vec<BareJid>,
    pub clients: Vec<Setup>,
    /// Every message is archived; otherwise only what waits for somebody who is offline.
    pub archive: bool,
    pub limits: Limits,
    /// Operations of clients.
    pub operations: usize,
    /// Longest pause of a client between two operations, milliseconds.
    pub pace_ms: u64,
    pub faults: Faults,
    /// By the number of operations that come before.
    pub turns: BTreeMap<usize, Turn>,
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let domains = if rng.one_in(3) { 2 } else { 1 };
        let accounts = 3 + rng.index(3);
        let users = (0..accounts).filter_map(|n| {
            let domain = DOMAINS[n % domains];
            BareJid::parse(&format!("user{n}@{domain}")).ok()
        });
        let users: Vec<_> = users.collect();
        let mut clients = Vec::new();
        for account in 0..users.len() {
            // Now and then two clients fight for one resource.
            let rivals = rng.one_in(8);
            for n in 0..=rng.index(2) {
                let managed = !rng.one_in(5);
                clients.push(Setup {
                    account,
                    resource: format!("r{}", if rivals { 0 } else { n }),
                    managed,
                    late: managed && rng.one_in(6),
                });
            }
        }
        let operations = OPERATIONS + rng.index(150);
        let mut limits = Limits {
            resume_seconds: RESUME_SECONDS,
            entity_idle_ms: [200, 1_000, 5_000][rng.index(3)],
            spool_page: [1, 2, 4, 16][rng.index(4)],
            ..Limits::default()
        };
        if rng.one_in(5) {
            limits.unacked_bytes = 2_048;
        }
        if rng.one_in(10) {
            limits.offline_messages = 8;
        }
        let mood = rng.below(8);
        let turns = turns(rng, mood, operations, accounts);
        Self {
            users,
            clients,
            archive: !rng.one_in(8),
            limits,
            operations,
            pace_ms: [100, 200, 800][rng.index(3)],
            faults: faults(rng, mood),
            turns,
        }
    }
}

fn faults(rng: &mut Rng, mood: u64) -> Faults {
    let slowest_ms = [40, 40, 400][rng.index(3)];
    let (throttled, lost, vanished) = match mood {
        0 => (5, 5, 2),
        1 => (300, 30, 30),
        2 => (50, 150, 100),
        _ => (30, 20, 10),
    };
    Faults {
        throttled,
        lost,
        vanished,
        slowest_ms,
    }
}

fn turns(rng: &mut Rng, mood: u64, operations: usize, accounts: usize) -> BTreeMap<usize, Turn> {
    let mut turns = BTreeMap::new();
    let ends = match mood {
        3 => 4 + rng.index(6),
        _ => 1 + rng.index(2),
    };
    if mood == 4 {
        for _ in 0..2 {
            let outage = Turn::Outage(2_000 + rng.below(25_000));
            turns.insert(1 + rng.index(operations - 1), outage);
        }
    }
    if rng.one_in(4) {
        let erase = Turn::Erase(rng.index(accounts));
        turns.insert(1 + rng.index(operations - 1), erase);
    }
    while turns.values().filter(|turn| turn.is_end()).count() < ends {
        let end = if rng.one_in(3) {
            Turn::Stop
        } else {
            Turn::Kill
        };
        turns.insert(1 + rng.index(operations - 1), end);
    }
    turns
}

impl Turn {
    /// Whether the server ends and starts again.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Kill | Self::Stop)
    }
}
