//! A server's process: waited for, killed, stopped, and started again as it was.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;

/// Longest time for a server to accept its first connection.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for a server to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A server that runs; dropped, it is stopped.
pub struct Running {
    command: Command,
    log: PathBuf,
    child: Child,
    /// Where clients connect.
    pub port: u16,
    /// Its data folder.
    pub data: PathBuf,
}

impl Running {
    pub(crate) fn start(
        mut command: Command,
        port: u16,
        data: PathBuf,
        log: &Path,
    ) -> Result<Running> {
        let output = fs::File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = spawn(&mut command)?;
        let log = log.to_owned();
        let mut running = Running {
            command,
            log,
            child,
            port,
            data,
        };
        running.wait_for_port()?;
        Ok(running)
    }

    /// The root of its process tree.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it cleanly, and waits for its end.
    ///
    /// # Errors
    /// When it neither ends nor can be killed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// As [`Running::stop`], to be started again.
    ///
    /// # Errors
    /// When it neither ends nor can be killed.
    pub fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM);
        let end = now() + STOP_PATIENCE;
        while now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        self.kill()
    }

    /// Kills it (SIGKILL), and waits for its end.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may be gone already, which is as good.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Starts it with the same command, data and port, and waits until the port is open. Nothing
    /// happens while it runs.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub fn start_again(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        self.child = spawn(&mut self.command)?;
        self.wait_for_port()
    }

    fn wait_for_port(&mut self) -> Result<()> {
        let end = now() + START_PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || now() > end {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let (command, port) = (&self.command, self.port);
                bail!("{command:?} does not open port {port}: {ended:?}\n{said}");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process would not hear the request to end.
        self.signal(Signal::CONT);
        // Nothing is left to do about a child that can't be killed.
        let _ = self.end();
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    let context = format!("can't start {command:?}");
    command.spawn().context(context)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the deadline of a wait on a real process"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for another process that can't tell us"
)]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
