//! What is measured in which order: runs are interleaved over the servers, each stage on a fresh
//! start.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cirrus_peers::{Lab, PASSWORD, Running, Server};
use clap::ValueEnum;

use crate::fleet::Fleet;
use crate::link;
use crate::load::{self, Outcome, SESSIONS, closed, idle, login, paced};
use crate::session::{Dialect, Login, Shared};
use crate::sys;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measure {
    /// Memory of idle sessions.
    Idle,
    /// The closed loop.
    Closed,
    /// The closed loop with stream management.
    ClosedSm,
    /// The paced load.
    Paced,
    /// Logins.
    Login,
}

impl Measure {
    /// Fresh memory first; the login storm, which leaves most garbage behind, last.
    const ORDER: [Measure; 5] = [
        Measure::Idle,
        Measure::Closed,
        Measure::ClosedSm,
        Measure::Paced,
        Measure::Login,
    ];

    fn applies(self, server: &dyn Server, archive: bool) -> bool {
        let touches_archive = !matches!(self, Measure::Idle | Measure::Login);
        let has = server.is_xmpp() || (!archive && self != Measure::ClosedSm);
        has && (touches_archive || !archive)
    }
}

/// What was asked for.
pub(crate) struct Request {
    pub(crate) measures: Vec<Measure>,
    /// Archive off, on, or both.
    pub(crate) archive: Vec<bool>,
    pub(crate) runs: usize,
    pub(crate) window: Duration,
    pub(crate) deadline: Duration,
}

/// One cell of the result: server, archive, measure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) server: &'static str,
    pub(crate) archive: bool,
    pub(crate) measure: Measure,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let archive = if self.archive {
            "archive on"
        } else {
            "archive off"
        };
        write!(f, "{}, {archive}, {:?}", self.server, self.measure)
    }
}

/// All outcomes, and what did not happen.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) outcomes: BTreeMap<Cell, Vec<Outcome>>,
    pub(crate) notes: Vec<String>,
}

/// Runs the whole plan.
pub(crate) fn run(
    request: &Request,
    servers: &mut [Box<dyn Server>],
    lab: &Lab,
    say: &dyn Fn(&str),
) -> Result<Results> {
    let start = sys::now();
    let config = link::client_config()?;
    let mut shared = Vec::new();
    for server in servers.iter_mut() {
        say(&format!("{}: creating accounts", server.name()));
        server
            .prepare(lab)
            .with_context(|| format!("{}: preparation", server.name()))?;
        shared.push(Some(Shared::new(config.clone(), PASSWORD)));
    }
    let mut bench = Bench {
        request,
        lab,
        say,
        results: Results::default(),
        run: 0,
    };
    for round in 0..request.runs {
        for archive in &request.archive {
            for turn in 0..servers.len() {
                let index = (turn + round) % servers.len();
                let server = servers[index].as_ref();
                if sys::now() - start > request.deadline.as_nanos() as u64 {
                    let name = server.name();
                    let note = format!("out of time: {name} was left out in run {}", round + 1);
                    bench.results.notes.push(note);
                    continue;
                }
                let keys = shared[index].take().context("a stage lost its keys")?;
                shared[index] = Some(bench.stage(server, *archive, keys, &config)?);
            }
        }
    }
    Ok(bench.results)
}

struct Bench<'a> {
    request: &'a Request,
    lab: &'a Lab,
    say: &'a dyn Fn(&str),
    results: Results,
    /// Numbers every message load, so that a late message of an earlier one is told apart.
    run: u32,
}

impl Bench<'_> {
    /// One start of one server, and all measures that apply. Gives the key cache back.
    fn stage(
        &mut self,
        server: &dyn Server,
        archive: bool,
        mut shared: Shared,
        config: &std::sync::Arc<rustls::ClientConfig>,
    ) -> Result<Shared> {
        let wanted: Vec<Measure> = Measure::ORDER
            .into_iter()
            .filter(|measure| self.request.measures.contains(measure))
            .filter(|measure| measure.applies(server, archive))
            .collect();
        if wanted.is_empty() {
            return Ok(shared);
        }
        let running = server.start(self.lab, archive)?;
        for measure in wanted {
            let cell = Cell {
                server: server.name(),
                archive,
                measure,
            };
            let mut fleet = Fleet::new(&[running.port], shared)?;
            let outcome = self.measure(&mut fleet, server, &running, measure);
            let failed = outcome.is_err();
            let outcome = outcome.unwrap_or_else(|error| Outcome {
                faults: vec![format!("failed: {error:#}")],
                ..Outcome::default()
            });
            (self.say)(&format!("{cell}: {outcome}"));
            self.results.outcomes.entry(cell).or_default().push(outcome);
            shared = if failed {
                Shared::new(config.clone(), PASSWORD)
            } else {
                fleet.into_shared()
            };
        }
        running.stop()?;
        Ok(shared)
    }

    fn measure(
        &mut self,
        fleet: &mut Fleet,
        server: &dyn Server,
        running: &Running,
        measure: Measure,
    ) -> Result<Outcome> {
        self.run += 1;
        let (run, pid, window) = (self.run, running.pid(), self.request.window);
        let dialect = |stream_management, presence| match server.is_xmpp() {
            true => Dialect::Xmpp(Login {
                stream_management,
                presence,
            }),
            false => Dialect::Raw,
        };
        match measure {
            Measure::Idle => return idle::run(fleet, pid, dialect(false, true)),
            Measure::Login => return login::run(fleet, &[pid], window, dialect(false, false)),
            _ => {}
        }
        let stream_management = measure == Measure::ClosedSm;
        fleet.open(0..SESSIONS, dialect(stream_management, true))?;
        load::quiet(fleet, Duration::from_millis(300))?;
        let before = sys::folder_bytes(&running.data);
        let mut outcome = match measure {
            // Twice as long: its percentiles need the messages, its CPU the ticks.
            Measure::Paced => paced::run(fleet, &[pid], run, paced::PACE, 2 * window),
            _ => closed::run(fleet, &[pid], run, window, stream_management),
        }?;
        let growth = sys::folder_bytes(&running.data).saturating_sub(before);
        outcome.stored = Some(growth as f64 / outcome.delivered.max(1) as f64);
        Ok(outcome)
    }
}
