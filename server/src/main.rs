//! The XMPP server: parse the configuration, build the parts, run, drain.
//!
//! It knows nothing of EC2: what a cloud adds is `cirrus-bootstrap`'s.

mod certificates;
mod cli;
mod cluster;
mod control;
mod dns;
mod joining;
mod load;
mod logging;
mod metrics;
mod notify;
mod parking;
mod parts;
mod password;
mod run;
mod service;
mod shared_keys;
mod stores;
mod sweep;
mod users;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use control::client::ClientError;
use users::UserError;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Refused or failed.
const FAILED: u8 = 1;
/// No server is running.
const NOT_RUNNING: u8 = 3;
/// The configuration is wrong.
const CONFIGURATION: u8 = 4;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => match load::load(&options.config) {
            Ok(config) => {
                logging::start(&config.log);
                match run::run(&config) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        tracing::error!(%error, "the server can't run");
                        ExitCode::from(FAILED)
                    }
                }
            }
            Err(error) => fail(&error, CONFIGURATION),
        },
        Command::Check(options) => match load::load(&options.config) {
            Ok(_) => say(&format!("{}: no fault found", options.config.display())),
            Err(error) => fail(&error, CONFIGURATION),
        },
        Command::Cluster(cluster) => match cluster::run(cluster) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = match &error {
                    UserError::Client(ClientError::NotRunning(_)) => NOT_RUNNING,
                    UserError::Config(_) => CONFIGURATION,
                    _ => FAILED,
                };
                fail(&error, code)
            }
        },
        Command::User(user) => match users::run(user) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = match &error {
                    UserError::Client(ClientError::NotRunning(_)) => NOT_RUNNING,
                    UserError::Config(_) => CONFIGURATION,
                    _ => FAILED,
                };
                fail(&error, code)
            }
        },
    }
}

fn say(words: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{words}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    // Where nobody hears it, the exit code still says it.
    let _ = writeln!(std::io::stderr(), "cirrus-server: {error}");
    ExitCode::from(code)
}
