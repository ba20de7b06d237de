//! The shell around the boot: performs the phases, passes signals on, prints.

mod discover;
mod fetch;
mod launch;
mod perform;
mod report;
mod watch;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArgs;
use crate::code::Code;
use crate::greeting::{FirstAccount, greeting};
use crate::metadata::Identity;
use crate::phases::{Boot, Command, Effect, Event, Phase, Status};
use crate::reference::Resolved;
use crate::server::{self, PROGRAM, Server};
use crate::site::Site;

pub use watch::watch;

/// A phase that failed: which outcome it is, and a sentence.
#[derive(Debug)]
struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// With all causes of an error in one sentence.
    fn of(code: Code, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { code, message }
    }
}

/// What the phases have found out and made so far.
struct Shell {
    command: Command,
    args: RunArgs,
    /// The user-data and where it came from.
    source: Option<(Vec<u8>, String)>,
    identity: Option<Identity>,
    user_data: Option<Resolved>,
    site: Option<Site>,
    program: Option<PathBuf>,
    password: Option<String>,
    account: FirstAccount,
    server: Option<Server>,
    /// The configuration was not there before, or was another.
    rendered: bool,
    reporting: Option<report::Reporting>,
}

/// Performs a command. Gives the exit code of the process.
pub async fn run(command: Command, args: RunArgs) -> u8 {
    let mut shell = Shell {
        command,
        args,
        source: None,
        identity: None,
        user_data: None,
        site: None,
        program: None,
        password: None,
        account: FirstAccount::None,
        server: None,
        rendered: false,
        reporting: None,
    };
    match Signals::new() {
        Ok(signals) => shell.drive(command, signals).await,
        Err(error) => {
            say(&format!("signals cannot be received: {error}"));
            Code::Internal.exit()
        }
    }
}

/// Prints the status line of a command line that is wrong.
pub fn tell_usage(why: &str) {
    let (phase, code, millis, message) = (Phase::Discover, Code::Usage, 0, why.to_owned());
    let status = Status {
        phase,
        code,
        millis,
        message,
    };
    print_err(&format!("{status}\n"));
}

impl Shell {
    async fn drive(&mut self, command: Command, mut signals: Signals) -> u8 {
        let clock = Clock::start();
        let (mut boot, effects) = Boot::new(command, clock.millis());
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Enter(phase) => {
                    let event = tokio::select! {
                        event = self.perform(phase) => event,
                        () = signals.end() => Event::Interrupted,
                    };
                    effects.extend(boot.step(event, clock.millis()));
                }
                Effect::Serve => {
                    self.greet();
                    let event = self.serve(&mut signals).await;
                    effects.extend(boot.step(event, clock.millis()));
                }
                Effect::StopServer => self.stop_server().await,
                Effect::Log(phase, millis, line) => log(phase, millis, &line),
                Effect::Status(status) => print_err(&format!("{status}\n")),
                Effect::Report(report) => self.report(report),
                Effect::Exit(code) => {
                    self.reported(&mut signals).await;
                    return code;
                }
            }
        }
        Code::Internal.exit()
    }

    fn greet(&self) {
        if let Some(site) = &self.site {
            let path = std::env::var_os("PATH");
            let folder = self.program.as_deref().and_then(Path::parent);
            let folders = path.iter().flat_map(std::env::split_paths);
            let in_path = folders.into_iter().any(|dir| Some(dir.as_path()) == folder);
            let server = self.program.as_ref().filter(|_| !in_path);
            let server = server.map_or_else(|| PROGRAM.into(), |p| p.display().to_string());
            print_out(&greeting(site, &self.account, &server));
        }
    }

    /// Stays until the server ends. Signals are passed on.
    async fn serve(&mut self, signals: &mut Signals) -> Event {
        let Some(server) = &mut self.server else {
            return Event::ServerEnded(Code::Internal.exit());
        };
        loop {
            let asked = tokio::select! {
                ended = server.ended() => return told(ended),
                asked = signals.next() => asked,
            };
            match asked {
                Asked::End => {
                    say("stopping the server");
                    server.ask(server::Ask::Stop);
                }
                Asked::Reload => server.ask(server::Ask::Reload),
            }
        }
    }

    async fn stop_server(&mut self) {
        if let Some(unit) = self.unit() {
            if let Err(error) = unit.stop().await {
                say(&Failure::of(Code::Internal, &error).message);
            }
            return;
        }
        let patience = self
            .site
            .as_ref()
            .map_or(60, |s| s.config.drain.deadline_seconds);
        // The server gives up by itself at its deadline; this is for one that hangs.
        let patience = std::time::Duration::from_secs(patience + 5);
        if let Some(server) = &mut self.server
            && let Err(error) = server.stop(patience).await
        {
            say(&error.to_string());
        }
    }
}

/// Says how the server ended.
fn told(ended: Result<u8, server::ServerError>) -> Event {
    match ended {
        Ok(code) => {
            say(&format!("the server ended with exit code {code}"));
            Event::ServerEnded(code)
        }
        Err(error) => {
            say(&error.to_string());
            Event::ServerEnded(Code::Internal.exit())
        }
    }
}

/// The signals that are heard.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To end.
    End,
    /// To read certificates again. From a terminal that closes, the same signal asks to end.
    Reload,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hang_up.recv() => {
                if io::stdin().is_terminal() { Asked::End } else { Asked::Reload }
            }
        }
    }

    async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}

/// Milliseconds since the start of the process, more or less.
struct Clock(Instant);

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell's clock; the boot gets it as numbers"
    )]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn log(phase: Phase, millis: u64, line: &str) {
    let seconds = millis as f64 / 1000.0;
    say(&format!("{}: {line} ({seconds:.2} s)", phase.name()));
}

fn say(line: &str) {
    print_err(&format!("cirrus-bootstrap: {line}\n"));
}

/// Nobody may listen any more: that is no reason to end.
fn print_err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn print_out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether someone watches.
fn on_terminal() -> bool {
    io::stderr().is_terminal()
}
