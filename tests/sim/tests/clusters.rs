//! Simulated clusters, seed by seed, and proof that the simulation would notice.

#![allow(clippy::print_stdout, reason = "the counts of a run are worth reading")]

use cirrus_sim::cluster::{Bug, plant};
use cirrus_sim::{Totals, run_cluster, spread};

/// Seeds of an ordinary run; `cargo xtask test` runs the ones after these.
const SEEDS: u64 = 100;
/// Seeds within which a planted bug must show.
const WITHIN: u64 = 500;

#[test]
fn no_seed_of_a_cluster_shows_what_must_not_be() {
    let count = std::env::var("CIRRUS_SIM_SEEDS").ok();
    let count = count.map_or(SEEDS, |count| count.parse().unwrap());
    let reports = spread((1..=count).collect(), |seed| run_cluster(*seed));
    let mut totals = Totals::default();
    let mut found = Vec::new();
    for report in &reports {
        let seed = report.seed;
        let violations = report.violations.iter();
        found.extend(violations.map(|violation| format!("seed {seed}: {violation}")));
        totals.add(report);
    }
    println!("{totals}");
    assert!(found.is_empty(), "{}", found.join("\n"));
    let [clients, operations, _, faults] = totals.least;
    let [happened, views] = totals.least_nodes;
    assert!(
        clients >= 3 && operations >= 500 && happened + faults >= 3 && views >= 2,
        "{totals}"
    );
}

#[test]
fn a_seed_of_a_cluster_is_a_test_case() {
    assert_eq!(run_cluster(7), run_cluster(7));
}

#[test]
#[ignore = "takes minutes; cargo xtask nightly runs it"]
fn every_bug_planted_in_a_cluster_is_found() {
    // Each with a seed that is known to find it, which is tried first.
    let bugs = vec![
        (Bug::OutputBeforeCopy, 3),
        (Bug::StaleEpoch, 85),
        (Bug::SkipPrev, 1),
        (Bug::TakeTwice, 1),
        (Bug::RetireUnasked, 104),
        (Bug::ForgetHeard, 99),
        (Bug::ForgetPending, 1),
        (Bug::LeaseNotAwaited, 2),
        (Bug::DrainEndsEarly, 3),
        (Bug::ViewBackwards, 7),
    ];
    let found = spread(bugs, |(bug, known)| {
        plant(*bug);
        let seeds = std::iter::once(*known).chain(1..=WITHIN);
        let found = seeds.map(run_cluster).find(|it| !it.violations.is_empty());
        plant(Bug::None);
        if let Some(report) = &found {
            println!("{bug:?}: seed {}: {}", report.seed, report.violations[0]);
        }
        (*bug, found.is_some())
    });
    for (bug, found) in found {
        assert!(found, "{bug:?} was not found in {WITHIN} seeds");
    }
}
