//! `cargo xtask <verb>`: see [`xtask::VERBS`].

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

use std::process::ExitCode;

use xtask::run::Run;
use xtask::{VERBS, machine, root, terraform, tidy, tools};

/// Simulates clusters; it is beside this program. Its own tests take the first 100 seeds, this the
/// next 250.
const SIMULATION: &str = "cirrus-sim";
const SEEDS: [&str; 3] = ["cluster", "101", "250"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verb = arguments.first().map_or("help", String::as_str);
    let rest = arguments.get(1..).unwrap_or_default();
    let mut run = Run::new(root());
    match verb {
        "test" => test(&mut run, rest),
        "lint" => lint(&mut run),
        "ci" => {
            lint(&mut run);
            test(&mut run, &[]);
            machine::boot_if_possible(&mut run);
        }
        "tidy" => run.part("tidy", tidy_tree),
        "tools" => run.part("tools", tools::install),
        "boot" => machine::boot(&mut run, rest),
        "image" => machine::image(&mut run),
        "nightly" => machine::nightly(&mut run),
        "terraform" => terraform::run(&mut run, rest),
        "help" | "--help" | "-h" => {
            println!("usage: cargo xtask <verb>\n");
            for (name, help) in VERBS {
                println!("  {name:<11}{help}");
            }
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("cargo xtask: no verb `{other}`; `cargo xtask help` lists them");
            return ExitCode::from(2);
        }
    }
    print!("{}", run.table());
    if run.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What is cheap and needs no running server. Every part runs, so that one push shows all faults.
fn lint(run: &mut Run) {
    run.part("formatting", |run| run.cargo(&["fmt", "--all", "--check"]));
    run.part("tidy and policy", tidy_tree);
    run.part("cargo deny", |run| {
        if !tools::has(&["cargo-deny", "--version"]) {
            return Ok("not installed; the policy was checked above".to_owned());
        }
        run.cargo(&["deny", "check", "bans", "licenses", "sources"])
    });
    run.part("clippy", |run| {
        run.cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    });
    terraform::check(run);
}

/// The test command. `filter` goes to the test binaries, after the ordinary `--`.
fn test(run: &mut Run, filter: &[String]) {
    run.part("tools", tools::install);
    if run.failed() {
        return;
    }
    // All targets in one build: bins, test binaries and their dependencies are then compiled once,
    // with one set of features.
    run.part("build", |run| {
        run.cargo(&["build", "--workspace", "--all-targets", "--locked"])
    });
    if run.failed() {
        return;
    }
    if filter.is_empty() {
        let simulation = run.beside(SIMULATION, &SEEDS);
        run.tests(filter);
        run.finished(
            "simulated clusters: what the tests did not hide",
            simulation,
        );
    } else {
        run.tests(filter);
    }
}

fn tidy_tree(run: &Run) -> Result<String, String> {
    let faults = tidy::check(run.root())?;
    for fault in &faults {
        eprintln!("{fault}");
    }
    match faults.len() {
        0 => Ok(String::new()),
        n => Err(format!("{n} violations")),
    }
}
