//! A real process under test: started, watched by what it prints, and gone when the test ends.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{PATIENCE, deadline_in, left};

/// Lines of output kept for a failing test.
const KEPT_LINES: usize = 400;

/// A child process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    dropped: usize,
    open: usize,
}

impl Process {
    /// Starts a command with its output captured and its input open.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Process> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            Output::follow(&output, stdout);
            Output::follow(&output, stderr);
        }
        Ok(Process {
            name: name.to_owned(),
            child,
            output,
            patience: PATIENCE,
        })
    }

    /// The same process, waited for longer or shorter than others.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Process {
        self.patience = patience;
        self
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its input.
    ///
    /// # Errors
    /// When it does not read any more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.ok_or_else(|| anyhow!("{} has no input", self.name))?;
        writeln!(input, "{line}").with_context(|| format!("telling {} {line:?}", self.name))
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for a line for which `found` gives something. Lines already printed count.
    ///
    /// # Errors
    /// When the output ends or time is up before.
    pub fn wait_for<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait_after(0, what, found).map(|(_, value)| value)
    }

    /// As [`Process::wait_for`], for lines from the one of number `from` on. Gives the number of
    /// the line after the one found, too.
    ///
    /// # Errors
    /// When the output ends or time is up before.
    pub fn wait_after<T>(
        &self,
        from: usize,
        what: &str,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<(usize, T)> {
        let until = deadline_in(self.patience);
        let mut state = self.output.lock();
        let mut next = from;
        loop {
            let skip = next.saturating_sub(state.dropped);
            let lines = state.lines.iter().enumerate().skip(skip);
            let hit = lines
                .into_iter()
                .find_map(|(at, line)| Some((at, found(line)?)));
            if let Some((at, value)) = hit {
                return Ok((state.dropped + at + 1, value));
            }
            next = state.dropped + state.lines.len();
            let rest = left(until);
            if state.open == 0 || rest.is_zero() {
                drop(state);
                bail!("{} did not print {what}:\n{}", self.name, self.log());
            }
            let woken = self.output.changed.wait_timeout(state, rest);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The lines it has printed, as far as they are kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.iter().cloned().collect()
    }

    /// What it has printed, the last lines.
    #[must_use]
    pub fn log(&self) -> String {
        let state = self.output.lock();
        let lines: Vec<&str> = state.lines.iter().map(String::as_str).collect();
        format!("{}\n(end of what {} printed)", lines.join("\n"), self.name)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal by its name, as in `TERM`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status()?;
        ensure!(
            status.success(),
            "no signal {name} to {}: {status}",
            self.name
        );
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let until = deadline_in(self.patience);
        let mut state = self.output.lock();
        // Its output ends with it: that is what can be waited for with a deadline.
        while state.open > 0 {
            let rest = left(until);
            if rest.is_zero() {
                drop(state);
                bail!("{} did not end in time:\n{}", self.name, self.log());
            }
            let woken = self.output.changed.wait_timeout(state, rest);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        Ok(self.child.wait()?)
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(output: &Arc<Output>, from: impl Read + Send + 'static) {
        let output = Arc::clone(output);
        thread::spawn(move || {
            let mut lines = BufReader::new(from).split(b'\n').map_while(Result::ok);
            loop {
                let line = lines.next();
                let mut state = output.lock();
                match &line {
                    Some(line) => state
                        .lines
                        .push_back(String::from_utf8_lossy(line).into_owned()),
                    None => state.open -= 1,
                }
                if state.lines.len() > KEPT_LINES {
                    state.lines.pop_front();
                    state.dropped += 1;
                }
                drop(state);
                output.changed.notify_all();
                if line.is_none() {
                    return;
                }
            }
        });
    }
}

/// The path of one of the project's binaries, built beside the test that runs.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Programs are beside each other; those of tests are in a folder below.
    let mut beside = test.ancestors().skip(1).take(2).map(|it| it.join(name));
    let missing = || anyhow!("{name} is not built; `cargo xtask test` builds it");
    beside.find(|path| path.exists()).ok_or_else(missing)
}

/// An address of this machine on which nobody listens at the moment, never given twice by one
/// process. Its port is below those that the system gives to outgoing connections: one of these
/// could take it before whoever asked for it listens.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    const FIRST: u32 = 15_000;
    const PORTS: u32 = 17_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin at different places.
    let start = std::process::id().wrapping_mul(1_009);
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of {FIRST} to {} is free", FIRST + PORTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_line_is_waited_for_and_the_end_too() {
        let mut process = shell("echo one; echo two=7 >&2; exit 3");
        let seven = process.wait_for("two", |line| line.strip_prefix("two=").map(str::to_owned));
        assert_eq!(seven.unwrap(), "7");
        assert_eq!(process.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn output_that_ends_without_the_line_is_an_error_that_shows_it() {
        let process = shell("echo something else");
        let error = process
            .wait_for("it", |line| (line == "it").then_some(()))
            .unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("exec sleep 600");
        let id = process.id();
        drop(process);
        let alive = Command::new("kill")
            .args(["-0", &id.to_string()])
            .status()
            .unwrap();
        assert!(!alive.success());
    }

    #[test]
    fn a_signal_ends_it() {
        let mut process = shell("exec sleep 600");
        process.signal("KILL").unwrap();
        assert!(process.wait().unwrap().code().is_none());
    }
}
