//! A loss test from outside: it speaks XMPP and nothing else, and counts what servers lose, double,
//! reorder or show wrongly while they are killed, stopped, restarted or cut off.
//!
//! Many accounts exchange numbered messages, pings and changes of presence, and leave, break off
//! and come back by themselves. Faults are commands in a script; what they do to which server is
//! not known here. Lost is what was acknowledged to its sender and never seen by its recipient,
//! over the stream or in the archive. What the clients do and what is concluded are pure; sockets,
//! clock and processes are in `client::shell` and `director`. A run is bounded in time, whatever
//! happens.

mod arguments;
mod client;
mod director;
pub mod judge;
pub mod ledger;
mod mark;
mod names;
pub mod report;
pub mod rng;
mod script;
mod under_way;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use cirrus_client::tls;
use cirrus_peers::cirrus::{Cirrus, Store};
use cirrus_peers::ejabberd::Ejabberd;
use cirrus_peers::prosody::{ArchiveStore, Backend, Prosody};
use cirrus_peers::{HOST, Lab, PASSWORD, Running, Server};
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

pub use arguments::Arguments;
use arguments::Name;
use client::login::Identity;
use client::machine::{Machine, Settings};
use client::servers::{Found, Route, Servers};
use client::shell::{Client, Shared};
use director::{Director, Length};
use ledger::Ledger;
use names::{Names, RESOURCE, contacts};
use report::Report;
use rng::Rng;

/// Lines of a script that wait to be done.
const LINES: usize = 64;

/// Runs what the arguments say: once, or once for each server that is to be started. Progress is
/// given to `say`, line by line.
///
/// # Errors
/// When a run comes to nothing: a server doesn't start, accounts can't log in, the script fails.
pub fn run(arguments: &Arguments, say: &dyn Fn(&str)) -> Result<Vec<Report>> {
    if arguments.start.is_empty() {
        let target = Target::given(arguments)?;
        return Ok(vec![once(arguments, "servers", &target, None, say)?]);
    }
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut folder = tempfile::Builder::new()
        .prefix("cirrus-loss-")
        .tempdir_in(&parent)?;
    folder.disable_cleanup(arguments.keep);
    let lab = Lab::new(folder.path(), None, arguments.accounts)?;
    let mut reports = Vec::new();
    for name in &arguments.start {
        let mut server = server(*name, arguments)?;
        let name = server.name();
        say(&format!("{name}: {}", server.description()?));
        server.prepare(&lab)?;
        let mut running = server.start(&lab, !arguments.without_archive)?;
        let target = Target {
            found: Found::At(vec![format!("127.0.0.1:{}", running.port)]),
            names: Names::new("u{}", HOST)?,
            password: PASSWORD.to_owned(),
            authorities: Some(lab.certificate.clone()),
        };
        reports.push(once(arguments, name, &target, Some(&mut running), say)?);
        running.stop()?;
    }
    Ok(reports)
}

/// Where the clients connect, and as whom.
struct Target {
    found: Found,
    names: Names,
    password: String,
    authorities: Option<std::path::PathBuf>,
}

impl Target {
    fn given(arguments: &Arguments) -> Result<Target> {
        let file = arguments.password_file.as_deref();
        Ok(Target {
            found: match &arguments.records {
                Some(file) => Found::By(file.clone()),
                None => Found::At(arguments.servers.clone()),
            },
            names: Names::new(&arguments.users, &arguments.domain)?,
            password: password(file.context("--password-file is missing")?)?,
            authorities: (!arguments.insecure).then(|| arguments.authorities.clone()),
        })
    }
}

fn once(
    arguments: &Arguments,
    name: &str,
    target: &Target,
    server: Option<&mut Running>,
    say: &dyn Fn(&str),
) -> Result<Report> {
    let tls = tls::config(target.authorities.as_deref(), rustls::ALL_VERSIONS)?;
    let managed = arguments.managed();
    let friends = |account| contacts(account, arguments.group, arguments.accounts);
    let host = &target.names.host;
    let shared = Arc::new(Shared::new(
        Ledger::new(&managed, friends),
        TlsConnector::from(Arc::new(tls)),
        Servers::new(target.found.clone()),
        ServerName::try_from(host.clone()).with_context(|| format!("the domain {host:?}"))?,
        arguments.group,
        arguments.silence,
    ));
    let settings = Arc::new(Settings {
        run: run_number()?,
        names: target.names.clone(),
        means: arguments.means(),
        away: arguments.away,
        silence: arguments.silence,
        unacknowledged: arguments.unacknowledged,
    });
    let clients = managed.iter().zip(0..).map(|(managed, account)| {
        let identity = Identity {
            user: target.names.user(account),
            host: host.clone(),
            password: target.password.clone(),
            resource: RESOURCE.to_owned(),
            managed: *managed,
        };
        let rng = Rng::new(arguments.seed, account);
        let route = Route::new(account as usize, Rng::new(!arguments.seed, account));
        let settings = Arc::clone(&settings);
        let who = (account, arguments.begins(account));
        let machine = Machine::new(who, identity, &friends(account), settings, rng);
        Client::new(account, machine, route, Arc::clone(&shared))
    });
    let clients = clients.collect();
    let director = Director {
        shared,
        server,
        length: Length {
            time: arguments.time,
            messages: arguments.messages,
            drain: arguments.drain,
            limit: arguments.limit,
        },
        lines: lines(arguments.faults.as_deref())?,
        say,
    };
    let runtime = Runtime::new().context("no runtime")?;
    let report = director.run(&runtime, name, clients);
    runtime.shutdown_background();
    report
}

fn server(name: Name, arguments: &Arguments) -> Result<Box<dyn Server>> {
    Ok(match name {
        Name::Cirrus => Box::new(Cirrus::new(arguments.cirrus.clone(), Store::Embedded)?),
        Name::Ejabberd => Box::new(Ejabberd::default()),
        Name::Prosody => Box::new(Prosody::new(Backend::Epoll, ArchiveStore::Internal)),
    })
}

fn password(file: &Path) -> Result<String> {
    let context = || format!("the password file {}", file.display());
    let text = fs::read_to_string(file).with_context(context)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("{} is empty", context()),
    }
}

/// The lines of the script, as they come. Without one there are none.
fn lines(file: Option<&Path>) -> Result<mpsc::Receiver<String>> {
    let (sender, lines) = mpsc::channel(LINES);
    let Some(file) = file else {
        return Ok(lines);
    };
    let reader: Box<dyn std::io::Read + Send> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let context = || format!("the script {}", file.display());
        Box::new(fs::File::open(file).with_context(context)?)
    };
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a number that no earlier run had"
)]
fn run_number() -> Result<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    Ok(u32::from_le_bytes(bytes))
}
