//! The simulation, seed by seed, and proof that it would notice.

#![allow(clippy::print_stdout, reason = "the counts of a run are worth reading")]

use std::time::Instant;

use cirrus_sim::{Bug, Totals, plant, run};

/// Seeds of an ordinary run.
const SEEDS: u64 = 300;
/// Seeds within which a planted bug must show.
const WITHIN: u64 = 500;

#[test]
fn no_seed_shows_what_must_not_be() {
    let mut totals = Totals::default();
    let mut found = Vec::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "it is printed, and nothing depends on it"
    )]
    let began = Instant::now();
    for seed in 1..=SEEDS {
        let report = run(seed);
        found.extend(
            report
                .violations
                .iter()
                .map(|violation| format!("seed {seed}: {violation}")),
        );
        totals.add(&report);
    }
    println!(
        "{totals}; {:.0} seeds/s",
        SEEDS as f64 / began.elapsed().as_secs_f64()
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
    let [clients, operations, restarts, faults] = totals.least;
    assert!(
        clients >= 3 && operations >= 200 && restarts >= 1 && faults >= 1,
        "{totals}"
    );
}

#[test]
fn a_seed_is_a_test_case() {
    for seed in [7, 77] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in [
        Bug::AckBeforeDurable,
        Bug::SkipDedupe,
        Bug::ReusePosition,
        Bug::DropPage,
        Bug::CursorBeforeAck,
    ] {
        plant(bug);
        let found = (1..=WITHIN).find_map(|seed| Some((seed, run(seed).violations.pop()?)));
        plant(Bug::None);
        match found {
            Some((seed, violation)) => println!("{bug:?}: seed {seed}: {violation}"),
            None => panic!("{bug:?} was not found within {WITHIN} seeds"),
        }
    }
}
