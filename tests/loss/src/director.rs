//! One run: clients, load, faults, and the end, in stages.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cirrus_peers::{Running, Signal};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::machine::Stage;
use crate::client::shell::{Client, Shared};
use crate::judge::Judgement;
use crate::ledger::{At, Ledger, recipients_of_missing};
use crate::report::{Report, Wait};
use crate::script::{Action, Reader, Step, Verb};

/// How often something is looked at that can't tell when it changes.
const LOOK: Duration = Duration::from_millis(50);
/// How often a command of `until` is tried.
const POLL: Duration = Duration::from_millis(200);
/// Longest time for a command of the script.
const COMMAND: Duration = Duration::from_secs(120);
/// Longest time for all to log in and make friends, and as much more for each account.
const SETUP: Duration = Duration::from_secs(60);
const SETUP_EACH: Duration = Duration::from_millis(50);
/// Longest time for a last presence to reach everybody, and as much more for each account: all of
/// them show one at the same moment.
const NEWS: Duration = Duration::from_secs(10);
const NEWS_EACH: Duration = Duration::from_millis(10);
/// Longest time for the archive to be read.
const ARCHIVE: Duration = Duration::from_secs(60);
/// Longest time for all to end their streams.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    /// The load lasts so long at least.
    pub(crate) time: Duration,
    /// So many messages are sent at least.
    pub(crate) messages: u64,
    /// Longest time for everything to settle after the load.
    pub(crate) drain: Duration,
    /// The load and the faults last so long at most.
    pub(crate) limit: Duration,
}

/// Directs one run.
pub(crate) struct Director<'a> {
    /// What the clients share.
    pub(crate) shared: Arc<Shared>,
    /// The server that was started here.
    pub(crate) server: Option<&'a mut Running>,
    /// How long it is.
    pub(crate) length: Length,
    /// The lines of the script, as they come.
    pub(crate) lines: mpsc::Receiver<String>,
    /// Shows progress.
    pub(crate) say: &'a dyn Fn(&str),
}

impl Director<'_> {
    /// Runs all stages and judges. The server is started and stopped on this thread.
    pub(crate) fn run(
        mut self,
        runtime: &Runtime,
        name: &str,
        clients: Vec<Client>,
    ) -> Result<Report> {
        let (stage, stages) = watch::channel(Stage::Setup);
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn_on(client.run(stages.clone()), runtime.handle());
        }
        let outcome = runtime.block_on(self.stages(name, &stage));
        let complaints = self.shared.complaints();
        for (complaint, times) in complaints {
            (self.say)(&format!("{times} times: {complaint}"));
        }
        stage.send_replace(Stage::Done);
        runtime.block_on(async {
            let ended = timeout(GOODBYE, async {
                while tasks.join_next().await.is_some() {}
            });
            if ended.await.is_err() {
                (self.say)("some streams did not end in time");
            }
        });
        outcome
    }

    async fn stages(&mut self, name: &str, stage: &watch::Sender<Stage>) -> Result<Report> {
        let accounts = self.shared.ledger().people.len();
        let each = |time: Duration| time * u32::try_from(accounts).unwrap_or(u32::MAX);
        let (patience, news) = (SETUP + each(SETUP_EACH), NEWS + each(NEWS_EACH));
        let all_ready = |ledger: &Ledger| ledger.people.iter().all(|person| person.ready);
        if self.wait(patience, all_ready).await.is_none() {
            let ready = |ledger: &Ledger| ledger.people.iter().filter(|it| it.ready).count();
            let (ready, complaints) = (ready(&self.shared.ledger()), self.shared.complaints());
            bail!(
                "only {ready} of {accounts} accounts are ready after {patience:?}: {complaints:?}"
            );
        }
        (self.say)(&format!("{accounts} accounts are ready"));
        stage.send_replace(Stage::Load);
        let began = self.shared.now();
        let limit = self.length.limit;
        let loaded = timeout(limit, self.load(began)).await;
        let waits = loaded.with_context(|| format!("the load did not end within {limit:?}"))??;
        let now = self.shared.now();
        self.shared.ledger().end(now);
        let load_seconds = seconds(now - began);

        stage.send_replace(Stage::Settle);
        let settled = self.wait(self.length.drain, Ledger::is_settled).await;
        (self.say)(&match settled {
            Some(time) => format!("settled after {time:.1} s"),
            None => format!("not settled after {:?}", self.length.drain),
        });
        // Clients hear of the stage later: their presences before it are not the last ones.
        let presences = |ledger: &Ledger| -> Vec<u32> {
            ledger.people.iter().map(|person| person.presence).collect()
        };
        let before = presences(&self.shared.ledger());
        stage.send_replace(Stage::Greeting);
        self.wait(news, |ledger| {
            let mut now = presences(ledger).into_iter().zip(&before);
            now.all(|(now, before)| now > *before) && ledger.is_settled() && views_are_right(ledger)
        })
        .await;
        let missing = recipients_of_missing(&self.shared.ledger());
        if !missing.is_empty() {
            stage.send_replace(Stage::Archive);
            let read = |ledger: &Ledger| {
                let person = |account: &u32| ledger.people.get(*account as usize);
                missing
                    .iter()
                    .filter_map(person)
                    .all(|person| person.archive_read)
            };
            self.wait(ARCHIVE, read).await;
        }
        let mut judgement = Judgement::of(&self.shared.ledger());
        judgement.judge_views(&self.shared.ledger());
        stage.send_replace(Stage::Farewell);
        let leavers = self.shared.group.max(1) as usize;
        self.wait(news, |ledger| {
            let mut leavers = ledger.people.iter().step_by(leavers);
            leavers.all(|person| person.left) && views_are_right(ledger)
        })
        .await;
        judgement.judge_views(&self.shared.ledger());
        Ok(Report::new(
            name,
            judgement,
            &self.shared.ledger(),
            load_seconds,
            settled,
            waits,
        ))
    }

    /// Sends until the script is over and enough was sent.
    async fn load(&mut self, began: At) -> Result<Vec<Wait>> {
        let mut waits = Vec::new();
        let mut reader = Reader::default();
        while let Some(line) = self.lines.recv().await {
            for step in reader.line(&line)? {
                self.step(began, step, &mut waits).await?;
            }
        }
        reader.end()?;
        loop {
            let sent = self.shared.ledger().sent;
            let lasted = self.shared.now() - began;
            if sent >= self.length.messages && u128::from(lasted) >= self.length.time.as_micros() {
                return Ok(waits);
            }
            sleep(LOOK).await;
        }
    }

    async fn step(&mut self, began: At, step: Step, waits: &mut Vec<Wait>) -> Result<()> {
        if let Some(at) = step.at {
            let lasted = Duration::from_micros(self.shared.now() - began);
            sleep(at.saturating_sub(lasted)).await;
        }
        let now = self.shared.now();
        let at = seconds(now - began);
        match step.action {
            Action::Wait(time) => sleep(time).await,
            Action::Begin(name) => {
                (self.say)(&format!("{at:.1} s into the load: {name}"));
                self.shared.ledger().begin(&name, now);
            }
            Action::End => self.shared.ledger().end(now),
            Action::Run(command) => {
                let output = self.shell(&command).await?;
                ensure!(output.0, "`{command}` failed: {}", output.1);
            }
            Action::Until {
                expected,
                within,
                command,
            } => {
                let until = self.until(&expected, &command);
                let waited = timeout(within, until).await;
                let waited = waited
                    .with_context(|| format!("`{command}`: no {expected:?} within {within:?}"))??;
                (self.say)(&format!(
                    "waited {waited:.2} s for {expected:?} of `{command}`"
                ));
                waits.push(Wait {
                    command,
                    at,
                    seconds: waited,
                });
            }
            Action::Server(verb) => self.server(verb)?,
        }
        Ok(())
    }

    /// Seconds until a command prints what is expected.
    async fn until(&self, expected: &str, command: &str) -> Result<f64> {
        let began = self.shared.now();
        loop {
            let (_, printed) = self.shell(command).await?;
            if printed.trim() == expected {
                return Ok(seconds(self.shared.now() - began));
            }
            sleep(POLL).await;
        }
    }

    /// Runs a command; whether it succeeded, and what it printed.
    async fn shell(&self, command: &str) -> Result<(bool, String)> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).kill_on_drop(true);
        shell.stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(server) = &self.server {
            shell.env("SERVER_PID", server.pid().to_string());
            shell.env("SERVER_PORT", server.port.to_string());
        }
        let child = shell.spawn().context("no shell sh")?;
        let output = timeout(COMMAND, child.wait_with_output()).await;
        let output =
            output.with_context(|| format!("`{command}` takes longer than {COMMAND:?}"))??;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success(), printed))
    }

    fn server(&mut self, verb: Verb) -> Result<()> {
        let server = self.server.as_deref_mut();
        let server = server.context("`server:` needs a server that --start has started")?;
        match verb {
            Verb::Kill => server.kill(),
            Verb::Stop => server.end(),
            Verb::Start => server.start_again(),
            Verb::Pause => {
                server.signal(Signal::STOP);
                Ok(())
            }
            Verb::Continue => {
                server.signal(Signal::CONT);
                Ok(())
            }
        }
    }

    /// Waits until the ledger is so; the seconds that took.
    async fn wait(&self, patience: Duration, so: impl Fn(&Ledger) -> bool) -> Option<f64> {
        let began = self.shared.now();
        loop {
            if so(&self.shared.ledger()) {
                return Some(seconds(self.shared.now() - began));
            }
            if u128::from(self.shared.now() - began) > patience.as_micros() {
                return None;
            }
            sleep(LOOK).await;
        }
    }
}

fn views_are_right(ledger: &Ledger) -> bool {
    ledger.views().all(|view| view.shown == view.truth)
}

fn seconds(time: At) -> f64 {
    time as f64 / 1e6
}
