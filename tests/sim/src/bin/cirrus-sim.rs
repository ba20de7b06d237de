//! Runs seeds of the simulation: `cirrus-sim [FIRST [COUNT]]`, or tells what happens in one:
//! `cirrus-sim trace SEED`; the same of clusters after the word `cluster`. Prints every seed that
//! fails, how far it is (on standard error), and what the runs did in all; exits with 1 when one
//! failed. `cirrus-sim grow [NODES]` grows a cluster from one node to so many and back, and prints
//! what moved and what a node has.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a command-line program"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use cirrus_sim::{Report, Totals, spread};

/// A run allocates and frees all the time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It is said how far a run is whenever so many more seeds are done.
const TOLD_EVERY: usize = 100;

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args().skip(1).collect();
    let first = words.first().map(String::as_str);
    let cluster = first == Some("cluster");
    if first == Some("grow") {
        let most = words.get(1).and_then(|text| text.parse().ok());
        return grow(most.unwrap_or(50));
    }
    if cluster {
        words.remove(0);
    }
    let trace = match cluster {
        true => cirrus_sim::trace_cluster,
        false => cirrus_sim::trace,
    };
    if let [verb, seed] = &words[..]
        && verb == "trace"
        && let Ok(seed) = seed.parse()
    {
        let report = trace(seed, |line| println!("{line}"));
        println!("{report:?}");
        return ExitCode::SUCCESS;
    }
    let mut numbers = words.into_iter().map(|text| text.parse::<u64>());
    let first = numbers.next().and_then(Result::ok).unwrap_or(1);
    let count = numbers.next().and_then(Result::ok).unwrap_or(1);
    let seeds: Vec<u64> = (first..first.saturating_add(count)).collect();
    let run = match cluster {
        true => cirrus_sim::run_cluster,
        false => cirrus_sim::run,
    };
    let (all, done) = (seeds.len(), AtomicUsize::new(0));
    let reports = spread(seeds, |seed| {
        let report = told(run(*seed));
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(TOLD_EVERY) {
            eprintln!("{done} of {all}");
        }
        report
    });
    let mut totals = Totals::default();
    for report in &reports {
        totals.add(report);
    }
    println!("{totals}");
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints at once what a run showed.
fn told(report: Report) -> Report {
    for violation in &report.violations {
        let reckless = if report.reckless { " (reckless)" } else { "" };
        println!("seed {}{reckless}: {violation}", report.seed);
    }
    report
}

fn grow(most: usize) -> ExitCode {
    let growth = cirrus_sim::grow(1, most);
    println!("{growth}");
    if growth.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
