//! Runs seeds of the simulation: `cirrus-sim [FIRST [COUNT]]`, or tells what happens in one:
//! `cirrus-sim trace SEED`. Prints every seed that fails, and
//! what the runs did in all; exits with 1 when one failed.

#![allow(clippy::print_stdout, reason = "it is a command-line program")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [verb, seed] = &words[..]
        && verb == "trace"
        && let Ok(seed) = seed.parse()
    {
        let report = cirrus_sim::trace(seed, |line| println!("{line}"));
        println!("{report:?}");
        return ExitCode::SUCCESS;
    }
    let mut arguments = words.into_iter().map(|text| text.parse::<u64>());
    let first = arguments.next().and_then(Result::ok).unwrap_or(1);
    let count = arguments.next().and_then(Result::ok).unwrap_or(1);
    let mut failed = 0;
    let (mut messages, mut accepted, mut restarts, mut faults, mut resumes) = (0, 0, 0, 0, 0);
    for seed in first..first.saturating_add(count) {
        let report = cirrus_sim::run(seed);
        messages += report.messages;
        accepted += report.accepted;
        restarts += report.restarts;
        faults += report.faults;
        resumes += report.resumes;
        for violation in &report.violations {
            println!("seed {seed}: {violation}");
        }
        failed += u64::from(!report.violations.is_empty());
    }
    println!(
        "{count} seeds, {failed} failed; {messages} messages, {accepted} acknowledged, \
         {resumes} resumes, {restarts} restarts, {faults} store faults"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
