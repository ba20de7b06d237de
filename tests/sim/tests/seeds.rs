//! The simulation, seed by seed, and proof that it would notice.

#![allow(clippy::print_stdout, reason = "the counts of a run are worth reading")]

use std::time::Instant;

use cirrus_sim::{Bug, Report, Totals, plant, run};

/// Seeds of an ordinary run.
const SEEDS: u64 = 600;
/// Seeds within which a planted bug must show.
const WITHIN: u64 = 500;

#[test]
fn no_seed_shows_what_must_not_be() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    #[expect(
        clippy::disallowed_methods,
        reason = "it is printed, and nothing depends on it"
    )]
    let began = Instant::now();
    let share = |first| move || (first..=SEEDS).step_by(threads as usize).map(run).collect();
    let threads: Vec<_> = (1..=threads)
        .map(|first| std::thread::spawn(share(first)))
        .collect();
    let reports: Vec<Vec<Report>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let seconds = began.elapsed().as_secs_f64();
    let mut totals = Totals::default();
    let mut found = Vec::new();
    for report in reports.iter().flatten() {
        let seed = report.seed;
        let violations = report.violations.iter();
        found.extend(violations.map(|violation| format!("seed {seed}: {violation}")));
        totals.add(report);
    }
    println!("{totals}; {:.0} seeds/s", SEEDS as f64 / seconds);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(
        totals.takeovers() >= SEEDS / 2,
        "a copy takes over in every second run: {totals}"
    );
    assert!(
        totals.segments() >= SEEDS,
        "archives are sealed in most runs: {totals}"
    );
    assert!(
        totals.retracted() >= SEEDS,
        "what was retracted is replaced in most runs: {totals}"
    );
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
        Bug::TrustRefusal,
        Bug::ForgetOrigins,
        Bug::NumberBeforeHold,
        Bug::RowBeforeObject,
        Bug::SealTooFar,
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
