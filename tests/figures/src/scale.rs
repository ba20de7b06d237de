//! What bounds a cluster, on paper: the tables of `docs/SCALE.md`.

use cirrus_cluster::{Member, MemberState, Placement, SLOTS, View};

use crate::cost::{BURST, READ_UNIT};
use crate::day::{ASSUMED, Day, peak};
use crate::document::{self, number, users};
use crate::measured::{BEAT, COPIED_KIB, LOGIN_US, MESSAGE_US, SOCKET_KIB, VIEW_MEMBER};
use crate::plan::Resources;

mod bounds;
mod constants;

const USERS: [f64; 4] = [1e4, 1e5, 1e6, 1e7];

/// Beats of a link in each direction, a second: four in `cluster.silence_ms`.
const BEATS: f64 = 4.0;
/// CPU of a message between nodes against one of one node: assumed, the most that shall be; runs
/// beside other work showed 2.2 to 2.8.
const BETWEEN: f64 = 2.5;
/// MiB of a t4g.small, and the share of them from which on the server is throttled
/// (`MemoryHigh` of its unit).
const NODE_MIB: f64 = 2_048.0;
const MEMORY: f64 = 0.8;
/// What stays of it for the server's own code, caches and the system, MiB: no measurement.
const BASE_MIB: f64 = 200.0;
/// Read units of a login that is not in memory, in the table `archive`.
const LOGIN_READS: f64 = 2.0;
/// `limits.logins_per_second`.
const LOGINS: f64 = 500.0;
const SECONDS_A_DAY: f64 = 86_400.0;

/// DynamoDB: units a second of a table at most, by default, and of a partition.
const TABLE: f64 = 40_000.0;
const PARTITION_READS: f64 = 3_000.0;
const PARTITION_WRITES: f64 = 1_000.0;
/// Write units a second that a new table takes at once.
const NEW_TABLE: f64 = 4_000.0;
/// Bytes of an item at most.
const ITEM: f64 = 409_600.0;
/// Targets of a network load balancer whose zones share them, by default; each target group of a
/// node counts.
const TARGETS: f64 = 500.0;

type Table = Result<String, String>;

/// The table of that name.
///
/// # Errors
/// When there is none, or something that it needs is missing.
pub fn table(name: &str) -> Table {
    let resources = Resources::of_file()?;
    match name {
        "sizes" => sizes(&resources),
        "bounds" => bounds::bounds(&resources),
        "first" => bounds::first(&resources),
        "larger nodes" => larger(&resources),
        "constants" => Ok(constants::table()),
        "slots" => slots(),
        other => Err(format!("no table `{other}`")),
    }
}

/// A cluster for so many users.
#[derive(Debug, Clone, Copy)]
struct Size {
    users: f64,
    sessions: f64,
    nodes: f64,
}

impl Size {
    fn of(users: f64, per_node: f64, least: f64) -> Self {
        let sessions = users * ASSUMED.sessions;
        Self {
            users,
            sessions,
            nodes: (sessions / per_node).ceil().max(least),
        }
    }

    fn a_node(&self) -> f64 {
        self.sessions / self.nodes
    }

    /// Of something that a user does so often a day, how often it is done in the busiest second.
    fn busiest(&self, times: f64) -> f64 {
        self.users * times / SECONDS_A_DAY * peak() * BURST
    }

    /// MiB of a node's sessions, with as many copies.
    fn memory(&self) -> f64 {
        self.a_node() * (COPIED_KIB + SOCKET_KIB) / 1_024.0
    }
}

fn view_reads(nodes: f64) -> f64 {
    nodes * (nodes * VIEW_MEMBER / READ_UNIT).ceil()
}

/// Slots of the node that has most, against the mean.
fn fullest(nodes: usize) -> f64 {
    let member = |number: usize| Member {
        instance: format!("i-{number:017x}"),
        // Spread as random ones are, and the same each time.
        boot: (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        address: String::new(),
        zone: format!("zone-{}", number % 3),
        weight: 1,
        state: MemberState::Serving,
        wire: 9,
        storage: 9,
    };
    let view = View {
        epoch: 1,
        slot_key: [7; 16],
        reached: 0,
        members: (0..nodes).map(member).collect(),
    };
    let mut homes = vec![0_u32; nodes];
    if let Some(placement) = Placement::new(&view) {
        for slot in 0..SLOTS {
            homes[placement.home(slot)] += 1;
        }
    }
    let most = homes.iter().max().copied().unwrap_or(0);
    f64::from(most) * nodes as f64 / f64::from(SLOTS)
}

fn head(first: &str) -> Vec<String> {
    let all = USERS.iter().map(|count| users(*count));
    std::iter::once(first.to_owned()).chain(all).collect()
}

fn row(first: &str, cells: [f64; 4]) -> Vec<String> {
    let cells = cells.map(number);
    std::iter::once(first.to_owned()).chain(cells).collect()
}

fn sizes(resources: &Resources) -> Table {
    let day = Day::of(&ASSUMED)?;
    let all = USERS.map(|it| Size::of(it, resources.sessions_per_node, resources.nodes_min));
    let archive = |it: Size| it.busiest(day.writes);
    let rows = [
        row("sessions, busiest hour", all.map(|it| it.sessions)),
        row("**nodes**", all.map(|it| it.nodes)),
        row("links of a node", all.map(|it| it.nodes - 1.0)),
        row(
            "links in all",
            all.map(|it| it.nodes * (it.nodes - 1.0) / 2.0),
        ),
        row("bytes of the view", all.map(|it| it.nodes * VIEW_MEMBER)),
        row(
            "slots of a node, mean",
            all.map(|it| f64::from(SLOTS) / it.nodes),
        ),
        row(
            "slots of the fullest node against the mean",
            all.map(|it| fullest(it.nodes as usize)),
        ),
        row("users of a slot", all.map(|it| it.users / f64::from(SLOTS))),
        row(
            "beats that a node sends, a second",
            all.map(|it| (it.nodes - 1.0) * BEATS),
        ),
        row(
            "their bytes, a second",
            all.map(|it| (it.nodes - 1.0) * BEATS * BEAT),
        ),
        row("writes of leases, a second", all.map(|it| it.nodes)),
        row(
            "read units of the view, a second",
            all.map(|it| view_reads(it.nodes)),
        ),
        row(
            "messages, busiest second",
            all.map(|it| it.busiest(day.messages)),
        ),
        row("write units, busiest second", all.map(archive)),
        row(
            "their share of a table's quota, %",
            all.map(|it| archive(it) / TABLE * 100.0),
        ),
        row(
            "targets of the balancer",
            all.map(|it| it.nodes * resources.target_groups),
        ),
        row("sessions of a node", all.map(|it| it.a_node())),
        row(
            "memory of a node's sessions and copies, MiB",
            all.map(|it| it.memory()),
        ),
        row(
            "CPU of a node for messages, % of one core",
            all.map(|it| it.busiest(day.messages) / it.nodes * MESSAGE_US * BETWEEN / 1e4),
        ),
        row(
            "seconds until all have logged in anew, as nodes pace it",
            all.map(|it| it.sessions / (LOGINS * it.nodes)),
        ),
        row(
            "the same, by a table's quota of reads",
            all.map(|it| it.sessions * LOGIN_READS / TABLE),
        ),
    ];
    let rows: Vec<_> = rows.into_iter().collect();
    Ok(document::table(&head("users a day"), &rows))
}

fn larger(resources: &Resources) -> Table {
    let day = Day::of(&ASSUMED)?;
    let mut rows = Vec::new();
    for per_node in [resources.sessions_per_node, 40_000.0, 100_000.0] {
        let size = Size::of(1e7, per_node, resources.nodes_min);
        let cpu = size.busiest(day.messages) / size.nodes * MESSAGE_US * BETWEEN / 1e4;
        rows.push(vec![
            number(per_node),
            number(size.nodes),
            number(size.nodes * resources.target_groups),
            number(fullest(size.nodes as usize)),
            number(size.memory() + BASE_MIB),
            number(cpu),
            number(per_node * LOGIN_US / 1e6),
        ]);
    }
    let head = [
        "sessions of a node",
        "nodes",
        "targets",
        "fullest against mean",
        "memory, MiB",
        "CPU for messages, %",
        "CPU seconds to log all in",
    ];
    Ok(document::table(&head.map(str::to_owned), &rows))
}

fn slots() -> Table {
    let counts = [2, 10, 50, 100, 166, 256, 350];
    let head = std::iter::once("nodes".to_owned()).chain(counts.iter().map(ToString::to_string));
    let head: Vec<String> = head.collect();
    let cells = counts.iter().map(|it| number(fullest(*it)));
    let first = "slots of the fullest node against the mean".to_owned();
    let cells: Vec<String> = std::iter::once(first).chain(cells).collect();
    Ok(document::table(&head, &[cells]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balancer_bounds_first_and_then_the_view() {
        let first = bounds::first(&Resources::of_file().unwrap()).unwrap();
        let (balancer, view) = (first.find("targets"), first.find("members"));
        assert!(balancer < view && view.is_some(), "{first}");
    }

    #[test]
    fn few_nodes_share_evenly() {
        assert!(fullest(2) < 1.1 && fullest(256) > 1.5);
    }
}
