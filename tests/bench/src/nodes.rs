//! What a message costs when it goes through several nodes, beside one node, and how long it takes,
//! beside a bare relay.
//!
//! Nodes are launched as the tests launch them, with the emulated DynamoDB; the archive is off, so
//! that the emulator has no part in a message. All nodes share one CPU: their CPU time is summed,
//! and none can hide behind another's idle core. The two sessions of a pair are on different nodes.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cirrus_peers::{HOST, PASSWORD, account};
use cirrus_tests::client::Identity;
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::{call, page};
use clap::Args;
use serde_json::json;

use crate::fleet::Fleet;
use crate::link;
use crate::load::idle::{ACCOUNTS, MEASURED};
use crate::load::{self, Outcome, SESSIONS, closed, paced};
use crate::relay;
use crate::session::{Dialect, Login, Shared};
use crate::sys;

/// Messages a second whose time is taken.
const PACE: u64 = 200;
/// Longest time for slots and copies to be where they belong.
const SETTLE: Duration = Duration::from_secs(60);

/// Accounts, where memory is measured.
const MOST: u32 = ACCOUNTS + MEASURED;

/// What to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of nodes; the first is what the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    nodes: Vec<u8>,
    /// Interleaved runs
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Length of a measured window; the paced load takes twice that
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Also measure the memory of idle sessions
    #[arg(long)]
    memory: bool,
    /// The nodes' CPU
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The generator's CPU, and the emulator's
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
}

/// One number of nodes in one run.
struct Taken {
    nodes: u8,
    /// At saturation.
    closed: Outcome,
    /// At [`PACE`].
    paced: Outcome,
    /// What an idle session takes on all nodes together, KiB.
    idle: Option<f64>,
    /// How often each of [`STAGES`] was gone through for a message at saturation.
    stages: Vec<f64>,
}

/// What a message goes through, as all nodes count it together: the name, and the samples of a
/// metric that begin so.
const STAGES: [(&str, &str); 7] = [
    ("events at homes", "cirrus_events_total{at=\"home\"}"),
    ("at copies", "cirrus_events_total{at=\"copy\"}"),
    (
        "frames: entries",
        "cirrus_link_frames_sent_total{kind=\"entry\"}",
    ),
    (
        "messages",
        "cirrus_link_frames_sent_total{kind=\"message\"}",
    ),
    ("acks", "cirrus_link_frames_sent_total{kind=\"acks\"}"),
    ("others", "cirrus_link_frames_sent_total{kind=\"other\"}"),
    ("bytes of frames", "cirrus_link_bytes_sent_total"),
];

/// Measures, and prints a table.
pub(crate) fn run(arguments: &Arguments, say: &dyn Fn(&str)) -> Result<String> {
    let window = Duration::from_secs_f64(arguments.seconds);
    let (mut taken, mut relays) = (Vec::new(), Vec::new());
    for run in 0..arguments.runs {
        let times = relay::measure(arguments.server_cpu, arguments.generator_cpu, PACE, window)?;
        say(&format!(
            "relay: {:.3} ms p50, {:.3} ms p99",
            times.0, times.1
        ));
        relays.push(times);
        for nodes in &arguments.nodes {
            let one = measure(arguments, *nodes, run, window)
                .with_context(|| format!("{nodes} nodes"))?;
            say(&format!("{nodes} nodes, saturated: {}", one.closed));
            say(&format!("{nodes} nodes, {PACE}/s: {}", one.paced));
            if let Some(idle) = one.idle {
                say(&format!("{nodes} nodes, an idle session: {idle:.1} KiB"));
            }
            taken.push(one);
        }
    }
    Ok(table(arguments, &taken, &relays))
}

fn measure(arguments: &Arguments, nodes: u8, run: u32, window: Duration) -> Result<Taken> {
    sys::pin_self(arguments.generator_cpu)?;
    let cloud = Cloud::start()?;
    // What is started now inherits the CPU.
    sys::pin_self(arguments.server_cpu)?;
    let started = (1..=nodes)
        .map(|n| launch(&cloud, n))
        .collect::<Result<Vec<_>>>()?;
    sys::pin_self(arguments.generator_cpu)?;
    for node in &started {
        node.wait_for("code=ok")?;
    }
    let mut first = started.into_iter();
    let mut leader = first.next().context("no node")?;
    let accounts = if arguments.memory { MOST } else { SESSIONS };
    for user in 0..accounts {
        leader.add_account(&Identity::new(
            &format!("{}@{HOST}", account(user)),
            PASSWORD,
        )?)?;
    }
    let all: Vec<Node> = std::iter::once(leader).chain(first).collect();
    settle(&all)?;
    let servers = all.iter().map(Node::server).collect::<Result<Vec<_>>>()?;
    let ports: Vec<u16> = all.iter().map(|node| node.address().port()).collect();
    let mut fleet = Fleet::new(&ports, Shared::new(link::client_config()?, PASSWORD))?;
    let dialect = Dialect::Xmpp(Login {
        stream_management: false,
        presence: true,
    });
    fleet.open(0..SESSIONS, dialect)?;
    load::quiet(&mut fleet, Duration::from_millis(300))?;
    let number = 2 * run;
    let paced = paced::run(&mut fleet, &servers, number, PACE, 2 * window)?;
    let before = counted(&all)?;
    let closed = closed::run(&mut fleet, &servers, number + 1, window, false)?;
    let after = counted(&all)?;
    let idle = arguments
        .memory
        .then(|| idle(&mut fleet, &servers, dialect));
    let idle = idle.transpose()?;
    fleet.close_all();
    for outcome in [&paced, &closed] {
        if !outcome.faults.is_empty() {
            bail!("{}", outcome.faults.join(", "));
        }
    }
    Ok(Taken {
        nodes,
        stages: before
            .iter()
            .zip(after)
            .map(|(before, after)| (after - before) / closed.delivered as f64)
            .collect(),
        closed,
        paced,
        idle,
    })
}

/// What more sessions add to all nodes, each, with their copies.
fn idle(fleet: &mut Fleet, servers: &[u32], dialect: Dialect) -> Result<f64> {
    let all = || servers.iter().map(|server| sys::memory(*server));
    let sum = || -> Result<f64> { all().map(|memory| Ok(memory?.pss)).sum() };
    // Those first: with them comes what is there once, as connections to the store.
    fleet.open(SESSIONS..ACCOUNTS, dialect)?;
    load::quiet(fleet, load::idle::SETTLE)?;
    let before = sum()?;
    fleet.open(ACCOUNTS..MOST, dialect)?;
    load::quiet(fleet, load::idle::SETTLE)?;
    Ok((sum()? - before) / f64::from(MEASURED))
}

/// What all nodes have counted of each of [`STAGES`].
fn counted(nodes: &[Node]) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; STAGES.len()];
    for node in nodes {
        let (_, metrics) = page(node.health(), "/metrics")?;
        for (sum, (_, sample)) in sums.iter_mut().zip(STAGES) {
            let line = metrics.lines().find(|line| line.starts_with(sample));
            let value = line.and_then(|line| line.rsplit(' ').next());
            let value = value.with_context(|| format!("{sample} is not among the metrics"))?;
            *sum += value.parse::<f64>()?;
        }
    }
    Ok(sums)
}

fn launch(cloud: &Cloud, number: u8) -> Result<Node> {
    let user_data = format!(
        "domain={HOST}\narchive.enabled=false\nlog.level=warn\n\
         store.slow_ms=60000\nstore.deadline_ms=60000\n\
         limits.stanzas_per_second=1000000\nlimits.stanzas_burst=10000000\n\
         limits.bytes_per_second=1073741824\nlimits.bytes_burst=1073741824\n\
         limits.accepts_per_second=1000000\nlimits.logins_per_second=1000000\n\
         rebalance.enabled=false"
    );
    Node::launch(cloud, &format!("i-{number:017x}"), &user_data)
}

/// Waits until every slot is where it belongs, with its copy.
fn settle(nodes: &[Node]) -> Result<()> {
    let end = sys::now() + u64::try_from(SETTLE.as_nanos())?;
    for node in nodes {
        loop {
            let status = call(&node.control(), &json!({"v": 1, "call": "cluster.status"}))?;
            let alone = nodes.len() == 1;
            let calm = status["members"] == nodes.len()
                && status["awaited"] == 0
                && status["leaving"] == 0
                && (alone || status["entities_single_copy"] == 0);
            if calm {
                break;
            }
            if sys::now() > end {
                bail!("the cluster does not settle: {status}");
            }
            pause();
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// The median over runs.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(arguments: &Arguments, taken: &[Taken], relays: &[(f64, f64)]) -> String {
    let of = |nodes: u8, figure: &dyn Fn(&Taken) -> Option<f64>| {
        let all = taken.iter().filter(|it| it.nodes == nodes);
        median(all.filter_map(figure).collect())
    };
    let mut text = format!(
        "| nodes | messages/s | CPU for a message, us | user, system | beside {} | p50, p99 at \
         {PACE}/s, ms | p99 beside the relay |\n|---|---|---|---|---|---|---|\n",
        arguments.nodes.first().copied().unwrap_or_default()
    );
    let (p50, p99) = (
        median(relays.iter().map(|it| it.0).collect()),
        median(relays.iter().map(|it| it.1).collect()),
    );
    let base = arguments
        .nodes
        .first()
        .map(|nodes| of(*nodes, &|it| it.closed.cpu));
    for nodes in &arguments.nodes {
        let cpu = of(*nodes, &|it| it.closed.cpu);
        let late = of(*nodes, &|it| it.paced.p99);
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {nodes} | {:.0} | {cpu:.1} | {:.1}, {:.1} | {:.2} x | {:.3}, {late:.3} | {:.2} x |",
            of(*nodes, &|it| it.closed.rate),
            of(*nodes, &|it| it.closed.user),
            of(*nodes, &|it| Some(it.closed.cpu? - it.closed.user?)),
            cpu / base.unwrap_or(f64::NAN),
            of(*nodes, &|it| it.paced.p50),
            late / p99,
        );
    }
    let _ = writeln!(text, "| relay | | | | | {p50:.3}, {p99:.3} | 1 x |");
    text += "\n| nodes, for each message |";
    text.extend(STAGES.map(|(name, _)| format!(" {name} |")));
    text += "\n|---|---|---|---|---|---|---|---|\n";
    for nodes in &arguments.nodes {
        let _ = write!(text, "| {nodes} |");
        for stage in 0..STAGES.len() {
            let times = of(*nodes, &|it| it.stages.get(stage).copied());
            let _ = write!(text, " {times:.2} |");
        }
        text.push('\n');
    }
    for nodes in arguments.nodes.iter().filter(|_| arguments.memory) {
        let idle = of(*nodes, &|it| it.idle);
        let _ = writeln!(
            text,
            "\nAn idle session, {nodes} nodes together: {idle:.1} KiB"
        );
    }
    text
}
