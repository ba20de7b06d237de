//! Runs seeds of the simulation: `cirrus-sim [FIRST [COUNT]]`, or tells what happens in one:
//! `cirrus-sim trace SEED`; the same of clusters after the word `cluster`. Prints every seed that
//! fails, and what the runs did in all; exits with 1 when one failed.

#![allow(clippy::print_stdout, reason = "it is a command-line program")]

use std::process::ExitCode;

use cirrus_sim::Totals;

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args().skip(1).collect();
    let cluster = words.first().is_some_and(|word| word == "cluster");
    if cluster {
        words.remove(0);
    }
    let run = |seed| match cluster {
        true => cirrus_sim::run_cluster(seed),
        false => cirrus_sim::run(seed),
    };
    let trace = |seed, tell| match cluster {
        true => cirrus_sim::trace_cluster(seed, tell),
        false => cirrus_sim::trace(seed, tell),
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
    let mut totals = Totals::default();
    for seed in first..first.saturating_add(count) {
        let report = run(seed);
        for violation in &report.violations {
            let reckless = if report.reckless { " (reckless)" } else { "" };
            println!("seed {seed}{reckless}: {violation}");
        }
        totals.add(&report);
    }
    println!("{totals}");
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
