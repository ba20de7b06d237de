//! The boot as a pure machine: what comes after what, and how it ends.
//!
//! Events in, effects out; the clock is an argument. The shell performs the phase that
//! [`Effect::Enter`] names and answers with one event. Whatever happens, exactly one
//! [`Effect::Status`] comes out, and the last effect of all is [`Effect::Exit`].

use std::fmt;

use crate::code::Code;

/// A step of the boot. Each can be repeated without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Find the user-data and who this machine is.
    Discover,
    /// Recognise and read the user-data.
    Parse,
    /// Settle what was left open, and check that it can work here.
    Validate,
    /// Make the tables and buckets, or the folder, that are missing.
    Provision,
    /// Make what nobody should have to choose.
    Secrets,
    /// Write the server's configuration.
    Render,
    /// Start the server.
    Start,
    /// Wait until an XMPP stream opens.
    Ready,
}

impl Phase {
    /// The phase in the status line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Parse => "parse",
            Self::Validate => "validate",
            Self::Provision => "provision",
            Self::Secrets => "secrets",
            Self::Render => "render",
            Self::Start => "start",
            Self::Ready => "ready",
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Everything, then stay until the server ends.
    Run,
    /// Everything, then end: the server is a unit of systemd.
    Launch,
    /// Read and check only.
    Check,
    /// Say what `run` would make.
    Plan,
    /// Print the server's configuration.
    Render,
}

impl Command {
    /// The phases of the command, in order.
    pub const fn phases(self) -> &'static [Phase] {
        use Phase::{Discover, Parse, Provision, Ready, Render, Secrets, Start, Validate};
        match self {
            Self::Run | Self::Launch => &[
                Discover, Parse, Validate, Provision, Secrets, Render, Start, Ready,
            ],
            Self::Check => &[Discover, Parse, Validate],
            Self::Plan => &[Discover, Parse, Validate, Provision],
            Self::Render => &[Discover, Parse, Validate, Render],
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The phase is done; one line says what it did.
    Done(String),
    /// The phase failed.
    Failed(Code, String),
    /// The operator or the system wants it to end.
    Interrupted,
    /// The server ended with this exit code (128 + n for signal n).
    ServerEnded(u8),
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Perform a phase and answer with an event.
    Enter(Phase),
    /// Log one line about a phase and how long it took, in milliseconds.
    Log(Phase, u64, String),
    /// Print the one status line.
    Status(Status),
    /// Tell AWS how the boot went, if this machine is an instance. The boot does not wait for it,
    /// except before it ends.
    Report(Report),
    /// Stay until the server ends; pass signals on; answer with [`Event::ServerEnded`].
    Serve,
    /// Stop the server if it runs, and wait for it.
    StopServer,
    /// End the process.
    Exit(u8),
}

/// How a boot went, as AWS hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The node serves.
    Ready,
    /// It failed: in this phase, with this outcome.
    Failed(Phase, Code),
}

impl Report {
    /// The result of the autoscaling group's launch hook.
    pub const fn hook_result(&self) -> &'static str {
        match self {
            Self::Ready => "CONTINUE",
            Self::Failed(..) => "ABANDON",
        }
    }

    /// The value of the instance's tag.
    pub fn tag(&self) -> String {
        match self {
            Self::Ready => "ok".to_owned(),
            Self::Failed(phase, code) => format!("fail phase={} code={code}", phase.name()),
        }
    }
}

/// The one line that every boot prints, whatever happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How far it came.
    pub phase: Phase,
    /// How it ended.
    pub code: Code,
    /// Milliseconds since the boot began.
    pub millis: u64,
    /// Why, if it failed.
    pub message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.code.exit() == 0 { "ok" } else { "fail" };
        let (phase, seconds) = (self.phase.name(), self.millis as f64 / 1000.0);
        write!(
            f,
            "CIRRUS-BOOT {word} phase={phase} code={} seconds={seconds:.3}",
            self.code
        )?;
        if self.message.is_empty() {
            return Ok(());
        }
        let first = self.message.lines().next().unwrap_or_default();
        let line: String = first.chars().take(MESSAGE).collect();
        write!(f, " message={line:?}")
    }
}

/// Characters of the message in the status line; the log has all of it.
const MESSAGE: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the phase with this index.
    In(usize),
    /// The server runs and the status line is out.
    Serving,
    Over,
}

/// The boot.
#[derive(Debug)]
pub struct Boot {
    command: Command,
    state: State,
    began_ms: u64,
    entered_ms: u64,
    /// The status line is out.
    told: bool,
}

impl Boot {
    /// Begins a boot.
    pub fn new(command: Command, now_ms: u64) -> (Self, Vec<Effect>) {
        let state = State::In(0);
        let boot = Self {
            command,
            state,
            began_ms: now_ms,
            entered_ms: now_ms,
            told: false,
        };
        (boot, vec![Effect::Enter(command.phases()[0])])
    }

    /// The phase the boot is in, or came to.
    pub fn phase(&self) -> Phase {
        let phases = self.command.phases();
        match self.state {
            State::In(i) => phases[i],
            State::Serving | State::Over => phases[phases.len() - 1],
        }
    }

    /// Takes an event.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        match (self.state, event) {
            (State::In(i), Event::Done(line)) => self.done(i, line, now_ms),
            (State::In(_), Event::Failed(code, why)) => self.fail(code, why, code.exit(), now_ms),
            (State::In(_), Event::Interrupted) if self.told => {
                self.state = State::Over;
                vec![Effect::StopServer, Effect::Exit(0)]
            }
            (State::In(_), Event::Interrupted) => {
                let code = Code::Interrupted;
                self.fail(code, "a signal ended the boot".into(), code.exit(), now_ms)
            }
            (State::In(_), Event::ServerEnded(exit)) if self.told => {
                self.state = State::Over;
                vec![Effect::Exit(exit)]
            }
            (State::In(_), Event::ServerEnded(exit)) => {
                let why = format!("cirrus-server ended with exit code {exit}; its log says why");
                let code = Code::ServerExited;
                self.fail(code, why, code.exit(), now_ms)
            }
            (State::Serving, Event::ServerEnded(exit)) => {
                self.state = State::Over;
                vec![Effect::Exit(exit)]
            }
            // Only the server's end matters now; signals have been passed on.
            (State::Serving, _) => vec![Effect::Serve],
            (State::Over, _) => Vec::new(),
        }
    }

    fn done(&mut self, i: usize, line: String, now_ms: u64) -> Vec<Effect> {
        let phases = self.command.phases();
        let log = Effect::Log(phases[i], now_ms.saturating_sub(self.entered_ms), line);
        self.entered_ms = now_ms;
        if let Some(next) = phases.get(i + 1) {
            self.state = State::In(i + 1);
            return vec![log, Effect::Enter(*next)];
        }
        let mut out = vec![log];
        out.extend(self.tell(Code::Ok, String::new(), now_ms));
        if self.command == Command::Run {
            self.state = State::Serving;
            out.push(Effect::Serve);
        } else {
            self.state = State::Over;
            out.push(Effect::Exit(Code::Ok.exit()));
        }
        out
    }

    fn fail(&mut self, code: Code, why: String, exit: u8, now_ms: u64) -> Vec<Effect> {
        let phase = self.phase();
        let millis = now_ms.saturating_sub(self.entered_ms);
        let mut out = vec![Effect::Log(phase, millis, why.clone())];
        if phase >= Phase::Start {
            out.push(Effect::StopServer);
        }
        out.extend(self.tell(code, why, now_ms));
        self.state = State::Over;
        out.push(Effect::Exit(exit));
        out
    }

    /// The status line, and the report of a boot; once.
    fn tell(&mut self, code: Code, message: String, now_ms: u64) -> Vec<Effect> {
        if std::mem::replace(&mut self.told, true) {
            return Vec::new();
        }
        let phase = self.phase();
        let mut out = vec![Effect::Status(Status {
            phase,
            code,
            millis: now_ms.saturating_sub(self.began_ms),
            message,
        })];
        if matches!(self.command, Command::Run | Command::Launch) {
            out.push(Effect::Report(match code {
                Code::Ok => Report::Ready,
                code => Report::Failed(phase, code),
            }));
        }
        out
    }
}

#[cfg(test)]
mod tests;
