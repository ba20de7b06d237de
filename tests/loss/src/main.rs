//! The loss test as a program.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use cirrus_loss::{Arguments, report, run};
use clap::Parser as _;
use serde_json::Value;

fn main() -> ExitCode {
    match print(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "cirrus-loss: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every run was clean.
fn print(arguments: &Arguments) -> Result<bool> {
    let reports = run(arguments, &say)?;
    let text = if arguments.json() {
        let all: Vec<Value> = reports.iter().map(report::Report::json).collect();
        format!("{}\n", Value::Array(all))
    } else {
        report::table(&reports)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(reports.iter().all(|report| report.judgement.is_clean()))
}

/// Progress, on standard error.
fn say(line: &str) {
    // Progress that can't be shown is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}
