//! Cirrus beside ejabberd and prosody: the same load on the same machine, one core for the server,
//! one for this.
//!
//! It starts the servers itself, from their Debian packages and with configurations of its own in a
//! folder that is removed at the end, and touches none that runs already. It does not measure
//! networks, rooms or several nodes. Every message is numbered; a run in which one is lost or
//! doubled does not count. A whole run ends within `--minutes` and a stage.

mod fleet;
mod forwarder;
mod link;
mod load;
mod nodes;
mod plan;
mod poller;
mod relay;
mod report;
mod scram;
mod session;
mod sys;
mod wire;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use cirrus_peers::cirrus::Store;
use cirrus_peers::prosody::{ArchiveStore, Backend, Prosody};
use cirrus_peers::{Lab, Server, cirrus, ejabberd};
use plan::{Measure, Request};

/// Open files that the largest load and its server need.
const FILES: u64 = 4_096;

/// Measures Cirrus beside ejabberd and prosody, or several nodes beside one, and prints tables.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: BenchArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Measures several nodes beside one, and beside a bare relay
    Nodes(nodes::Arguments),
    /// One process of the bare relay, started by the bench itself.
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        to: u16,
    },
    /// The bare forwarder, started by the bench itself.
    #[command(hide = true)]
    Forward {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        certificate: PathBuf,
        #[arg(long)]
        key: PathBuf,
    },
}

#[derive(Args)]
struct BenchArguments {
    /// Servers to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "cirrus,ejabberd,prosody,limit"
    )]
    servers: Vec<Name>,
    /// Only these measures
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Archive off, on, or both
    #[arg(long, value_delimiter = ',', default_value = "off,on")]
    archive: Vec<Switch>,
    /// Interleaved runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Length of a measured window; the paced load takes twice that
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// No stage begins after this time
    #[arg(long, default_value_t = 11.0)]
    minutes: f64,
    /// The servers' CPU
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The generator's CPU
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// Where the servers' data folders are made: a real disk, else fsync costs nothing
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keeps the servers' folders
    #[arg(long)]
    keep: bool,
    /// Writes the tables to a file too; in a document, between its two markers
    #[arg(long)]
    out: Option<PathBuf>,
    /// The program cirrus-server; the one beside this program if absent
    #[arg(long)]
    cirrus: Option<PathBuf>,
    /// Cirrus's store
    #[arg(long, default_value = "embedded")]
    cirrus_store: Store,
    /// Prosody's network backend
    #[arg(long, default_value = "epoll")]
    prosody_backend: Backend,
    /// Prosody's archive store
    #[arg(long, default_value = "internal")]
    prosody_archive: ArchiveStore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Cirrus,
    Ejabberd,
    Prosody,
    /// The bare forwarder
    Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    Off,
    On,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Forward {
            port,
            certificate,
            key,
        }) => forwarder::serve(port, &certificate, &key),
        Some(Command::Relay { port, to }) => relay::serve(port, to),
        Some(Command::Nodes(arguments)) => {
            sys::raise_file_limit(FILES)?;
            let text = nodes::run(&arguments, &say)?;
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(())
        }
        None => bench(&arguments.bench),
    }
}

fn bench(arguments: &BenchArguments) -> Result<()> {
    let start = sys::now();
    sys::raise_file_limit(FILES)?;
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut folder = tempfile::Builder::new()
        .prefix("cirrus-bench-")
        .tempdir_in(&parent)?;
    folder.disable_cleanup(arguments.keep);
    let lab = Lab::new(
        folder.path(),
        Some(arguments.server_cpu),
        load::idle::ACCOUNTS,
    )?;
    let mut servers = arguments
        .servers
        .iter()
        .map(|name| make(*name, arguments))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<&'static str> = servers.iter().map(|server| server.name()).collect();
    let descriptions = servers
        .iter()
        .map(|server| server.description())
        .collect::<Result<Vec<_>>>()?;
    let machine = sys::machine(folder.path())?;
    sys::pin_self(arguments.generator_cpu)?;
    let results = plan::run(&request(arguments), &mut servers, &lab, &say)?;
    let minutes = (sys::now() - start) as f64 / 60e9;
    let machine = format!(
        "{machine}; server on CPU {}, generator on CPU {}; {} runs, {minutes:.1} min",
        arguments.server_cpu, arguments.generator_cpu, arguments.runs
    );
    let text = report::markdown(&results, &names, &machine, &descriptions);
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = &arguments.out {
        let context = || format!("can't write {}", path.display());
        let document = match std::fs::read_to_string(path) {
            Ok(document) => report::into_document(&document, &text),
            Err(_) => text,
        };
        std::fs::write(path, document).with_context(context)?;
    }
    Ok(())
}

fn make(name: Name, arguments: &BenchArguments) -> Result<Box<dyn Server>> {
    Ok(match name {
        Name::Cirrus => Box::new(cirrus::Cirrus::new(
            arguments.cirrus.clone(),
            arguments.cirrus_store,
        )?),
        Name::Ejabberd => Box::new(ejabberd::Ejabberd::default()),
        Name::Prosody => Box::new(Prosody::new(
            arguments.prosody_backend,
            arguments.prosody_archive,
        )),
        Name::Limit => Box::new(forwarder::Forwarder),
    })
}

fn request(arguments: &BenchArguments) -> Request {
    let measures = match arguments.only.as_slice() {
        [] => Measure::value_variants().to_vec(),
        only => only.to_vec(),
    };
    Request {
        measures,
        archive: arguments
            .archive
            .iter()
            .map(|switch| *switch == Switch::On)
            .collect(),
        runs: arguments.runs,
        window: Duration::from_secs_f64(arguments.seconds),
        deadline: Duration::from_secs_f64(arguments.minutes * 60.0),
    }
}

/// Progress, on standard error.
fn say(line: &str) {
    let seconds = sys::now() / 1_000_000_000;
    // Progress that can't be shown is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{seconds:>4} s  {line}");
}
