//! Nodes that come, and clients that are to come to them without anybody noticing.

use std::sync::PoisonError;
use std::time::Instant;

use cirrus_tests::elastic::{Balancer, Doors, publish};
use serde_json::Value;

use crate::cluster::{ONE, wait_for};
use crate::elastic::{Ends, Front, Pair, nothing_happened, over, talk};
use crate::health;

const SESSIONS: usize = 60;
/// Seconds between two rounds.
const SETTLE: usize = 2;
/// Rounds in which nobody is moved any more.
const ROUNDS: usize = 3;

/// How many connections each node has, as one node hears it; the first is its own.
fn spread(status: &Value) -> Vec<u64> {
    let nodes = status["nodes"].as_array();
    let all = nodes.into_iter().flatten();
    all.filter_map(|node| node["connections"].as_u64())
        .collect()
}

/// The number of a metric of a node.
pub(crate) fn metric(doors: &Doors, name: &str) -> usize {
    let (_, metrics) = health::get(doors.health, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in\n{metrics}"))
        .trim()
        .parse()
        .unwrap()
}

/// Sixty clients talk on one node; then there is a second one.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it took is what `--nocapture` is for"
)]
fn clients_come_to_a_node_that_is_new() {
    if !Balancer::is_installed() {
        eprintln!("skipped: no haproxy on this machine, and it could not be installed");
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new();
    let (doors, folder) = (&pair.doors, pair.folder.path());
    let front = Front::new(doors);
    let user_data = format!(
        "{}\nrebalance.settle_seconds={SETTLE}\nrebalance.per_second=20",
        front.user_data()
    );
    let mut first = pair.launch(1, &user_data);
    first.wait_for("code=ok").unwrap();
    Pair::add(&mut first, (0..SESSIONS).map(|n| format!("a{n}")));
    if let Some(file) = front.records() {
        publish(&first.control(), &file).unwrap();
    }
    let arguments = talk("a{}", (SESSIONS, SESSIONS), &front, folder);
    std::thread::scope(|scope| {
        let _ends = Ends(folder);
        let run = scope.spawn(|| cirrus_loss::run(&arguments, &|_| {}));
        let all = SESSIONS as u64;
        wait_for(&first, |status| spread(status) == [all]);
        let second = pair.launch(2, &user_data);
        second.wait_for("code=ok").unwrap();
        let begun = Instant::now();
        wait_for(&first, |status| {
            let counts = spread(status);
            let most = counts.iter().max().copied().unwrap_or(all);
            let even = counts.len() == 2 && counts.iter().sum::<u64>() == all;
            even && most * 10 <= all * 6 && status["clients_moving"] == 0
        });
        let seconds = begun.elapsed().as_secs_f64();
        let moved = metric(&doors[0], "cirrus_clients_moved_total");
        // While they talk on for some more rounds, each says one message a second, there is no
        // reason to move anybody.
        let received = || metric(&doors[1], "cirrus_stanzas_received_total");
        let some_rounds = received() + ROUNDS * SETTLE * SESSIONS / 2;
        wait_for(&first, |_| received() >= some_rounds);
        assert_eq!(metric(&doors[0], "cirrus_clients_moved_total"), moved);
        assert_eq!(metric(&doors[1], "cirrus_clients_moved_total"), 0);
        assert!(
            (SESSIONS * 4 / 10..=SESSIONS / 2).contains(&moved),
            "{moved}"
        );
        over("a{}", folder);
        let reports = run.join().unwrap().unwrap();
        println!("{moved} clients moved, {seconds:.1} s after the node was ready");
        nothing_happened(&reports);
        let sessions = &reports[0].sessions;
        assert_eq!(
            sessions.broke, moved as u64,
            "nobody else lost a connection"
        );
        assert_eq!(sessions.resume_failed, 0);
    });
}
