//! What a seed decides about its world before anything happens.

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_router::Limits;

use crate::rng::Rng;

/// Seconds that a broken session is kept for its client.
pub const RESUME_SECONDS: u32 = 20;
/// How far a node's clock may be from the true time, milliseconds.
pub const SKEW_MS: u64 = 2_000;
/// Fewest operations of clients in one seed of a cluster.
pub const CLUSTER_OPERATIONS: usize = 500;
/// Machines of an ordinary seed of a cluster.
const MACHINES: usize = 6;
/// Accounts of a cluster that grows, one client each.
const CROWD: usize = 60;
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

/// What happens to one of several nodes, or to all.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// A process dies at once.
    Kill,
    /// A process is suspended, perhaps before what it did last has left.
    Suspend { ms: u64, held: bool },
    /// What a node says (1), what is said to it (2) or both (3) is held up, and perhaps its links
    /// are reset.
    CutOff { ms: u64, way: u8, reset: bool },
    /// A link is reset.
    Reset,
    /// A node hears nobody for so many milliseconds while another joins; all others die meanwhile,
    /// or soon after.
    Bereave { ms: u64 },
    /// A node gives its slots away and leaves, unless that is taken back.
    Drain { back: Option<u64> },
    /// One more node.
    Join,
    /// The store refuses everything for so many milliseconds.
    Outage(u64),
    /// An account is deleted, and created again later; perhaps its home dies meanwhile.
    Erase { account: usize, kill: bool },
}

impl Incident {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kills",
            Self::Suspend { .. } => "suspensions",
            Self::CutOff { way: 3, .. } => "partitions",
            Self::CutOff { .. } => "one-way losses",
            Self::Reset => "link resets",
            Self::Bereave { .. } => "bereavements",
            Self::Drain { .. } => "drains",
            Self::Join => "joins",
            Self::Outage(_) => "outages",
            Self::Erase { .. } => "deletions",
        }
    }
}

/// What is decided about a cluster beforehand.
pub struct Nodes {
    /// Nodes at the beginning.
    pub count: usize,
    /// Machines that there are; nodes come and go on them.
    pub machines: usize,
    pub zones: usize,
    /// Nodes may be lost faster than copies are made, so sessions may be lost.
    pub reckless: bool,
    /// By the number of operations that come before.
    pub incidents: BTreeMap<usize, Vec<Incident>>,
}

/// How often the store misbehaves, of a thousand operations.
#[derive(Clone, Copy, Debug, Default)]
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
    /// Clients retract messages.
    pub retracts: bool,
    pub limits: Limits,
    /// Operations of clients.
    pub operations: usize,
    /// Longest pause of a client between two operations, milliseconds.
    pub pace_ms: u64,
    pub faults: Faults,
    /// By the number of operations that come before.
    pub turns: BTreeMap<usize, Turn>,
    /// Bounds of slots and their copies, of a cluster.
    pub replica: cirrus_replica::Options,
    /// The nodes of a cluster.
    pub nodes: Option<Nodes>,
}

impl Plan {
    /// The plan of a cluster.
    pub fn cluster(rng: &mut Rng) -> Self {
        let mut plan = Self::new(rng);
        plan.turns.clear();
        plan.operations = CLUSTER_OPERATIONS + rng.index(150);
        plan.pace_ms = [500, 1_000, 1_500][rng.index(3)];
        plan.limits.unacked_bytes = Limits::default().unacked_bytes;
        plan.replica.states = [2, 16, 64][rng.index(3)];
        plan.replica.repeat_ms = [1_000, 2_000][rng.index(2)];
        let accounts = plan.users.len();
        let reckless = rng.one_in(5);
        let (count, zones) = (1 + rng.index(4), 1 + rng.index(3));
        let mut incidents = incidents(rng, plan.operations, accounts);
        if count == 1 {
            // No seed is without a change of the view.
            let early = 1 + rng.index(100);
            incidents.entry(early).or_default().push(Incident::Join);
        }
        if reckless && rng.one_in(2) {
            let at = 1 + rng.index(plan.operations - 1);
            let ms = 500 + rng.below(4_000);
            incidents
                .entry(at)
                .or_default()
                .push(Incident::Bereave { ms });
        }
        plan.nodes = Some(Nodes {
            count,
            machines: MACHINES,
            zones,
            reckless,
            incidents,
        });
        plan
    }

    /// The plan of a cluster that grows to so many nodes and shrinks again, in three zones: nothing
    /// goes wrong, and everybody talks.
    pub fn growth(rng: &mut Rng, machines: usize) -> Self {
        let mut plan = Self::new(rng);
        plan.turns.clear();
        plan.operations = usize::MAX / 4;
        plan.pace_ms = 1_000;
        plan.limits.unacked_bytes = Limits::default().unacked_bytes;
        plan.archive = true;
        plan.faults = Faults::default();
        plan.faults.slowest_ms = 40;
        let users =
            (0..CROWD).filter_map(|n| BareJid::parse(&format!("user{n}@{}", DOMAINS[0])).ok());
        plan.users = users.collect();
        let client = |account| Setup {
            account,
            resource: "r0".into(),
            managed: true,
            late: false,
        };
        plan.clients = (0..plan.users.len()).map(client).collect();
        plan.nodes = Some(Nodes {
            count: 1,
            machines,
            zones: 3,
            reckless: false,
            incidents: BTreeMap::new(),
        });
        plan
    }

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
        // So small that most logs are sealed several times.
        if !rng.one_in(3) {
            limits.seal_records = 2 + rng.below(12);
        }
        let mood = rng.below(8);
        let turns = turns(rng, mood, operations, accounts);
        Self {
            users,
            clients,
            archive: !rng.one_in(8),
            retracts: true,
            limits,
            operations,
            pace_ms: [100, 200, 800][rng.index(3)],
            faults: faults(rng, mood),
            turns,
            replica: cirrus_replica::Options::default(),
            nodes: None,
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

/// A few things that happen to nodes, of many kinds.
fn incidents(rng: &mut Rng, operations: usize, accounts: usize) -> BTreeMap<usize, Vec<Incident>> {
    let mut all: BTreeMap<usize, Vec<Incident>> = BTreeMap::new();
    for _ in 0..4 + rng.index(5) {
        let at = 1 + rng.index(operations - 1);
        let some = all.entry(at).or_default();
        some.push(incident(rng, accounts));
        // Now and then one comes right behind another.
        if rng.one_in(3) {
            some.push(incident(rng, accounts));
        }
    }
    all
}

fn incident(rng: &mut Rng, accounts: usize) -> Incident {
    let long = |rng: &mut Rng| match rng.one_in(3) {
        true => 50 + rng.below(550),
        false => 1_000 + rng.below(8_000),
    };
    match rng.below(100) {
        0..20 => Incident::Kill,
        20..34 => Incident::Suspend {
            ms: long(rng),
            held: rng.one_in(2),
        },
        34..54 => Incident::CutOff {
            ms: long(rng),
            way: 1 + rng.index(3) as u8,
            reset: rng.one_in(3),
        },
        54..62 => Incident::Reset,
        62..76 => Incident::Drain {
            back: rng.one_in(4).then(|| rng.below(2_000)),
        },
        76..92 => Incident::Join,
        92..95 => Incident::Outage(500 + rng.below(9_000)),
        _ => Incident::Erase {
            account: rng.index(accounts),
            kill: rng.one_in(2),
        },
    }
}

impl Turn {
    /// Whether the server ends and starts again.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Kill | Self::Stop)
    }
}
