//! The server as a child process: found, started, told to stop, waited for.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// The program's name.
pub const PROGRAM: &str = "cirrus-server";

/// Why there is no running server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No such program.
    #[error("{PROGRAM} is neither beside {beside} nor in PATH; give --server PATH")]
    NotFound {
        /// The folder of this program.
        beside: String,
    },
    /// The program cannot be started.
    #[error("{path} cannot be started")]
    Start {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system does not tell about the child.
    #[error("waiting for {PROGRAM} failed")]
    Wait(#[source] io::Error),
}

/// The path of the server: the one given, else beside this program, else in PATH.
///
/// # Errors
/// Where it was looked for.
pub fn find(
    given: Option<&Path>,
    this: Option<&Path>,
    path: Option<&OsStr>,
) -> Result<PathBuf, ServerError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let folder = this.and_then(Path::parent);
    let folders = folder.map(Path::to_owned).into_iter();
    let path = path.map(std::env::split_paths).into_iter().flatten();
    let mut candidates = folders.chain(path).map(|dir| dir.join(PROGRAM));
    let beside = folder.map_or_else(|| "this program".into(), |d| d.display().to_string());
    candidates
        .find(|path| path.is_file())
        .ok_or(ServerError::NotFound { beside })
}

/// What a server can be asked for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To end (SIGTERM).
    Stop,
    /// To read its certificates again (SIGHUP).
    Reload,
}

/// A running server. It is killed if this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `cirrus-server run --config FILE`. It writes where this program writes, and is in
    /// a process group of its own, so that Ctrl-C reaches it once, through us.
    ///
    /// With `this`, the path of this program, it is started through [`become_server`], so that it
    /// ends when this process is killed.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start(program: &Path, config: &Path, this: Option<&Path>) -> Result<Self, ServerError> {
        let path = program.display().to_string();
        let failed = |source| ServerError::Start { path, source };
        // Started through this program, it would fail later and say so only in the log.
        if let Err(error) = check_program(program) {
            return Err(failed(error));
        }
        let mut command = match this {
            Some(this) => {
                let mut command = Command::new(this);
                command.arg("become").arg(program).arg(config);
                command.arg(std::process::id().to_string());
                command
            }
            None => {
                let mut command = Command::new(program);
                command.arg("run").arg("--config").arg(config);
                command
            }
        };
        let command = command
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child })
    }

    /// The id of its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end: its exit code, or 128 + n for signal n.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn ended(&mut self) -> Result<u8, ServerError> {
        self.child
            .wait()
            .await
            .map(exit_code)
            .map_err(ServerError::Wait)
    }

    /// Asks it for something by a signal. Nothing happens if it has ended.
    pub fn ask(&self, what: Ask) {
        let signal = match what {
            Ask::Stop => Signal::TERM,
            Ask::Reload => Signal::HUP,
        };
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may be gone already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, and kills it after `patience`.
    ///
    /// # Errors
    /// When the system does not tell about it.
    pub async fn stop(&mut self, patience: Duration) -> Result<u8, ServerError> {
        self.ask(Ask::Stop);
        match tokio::time::timeout(patience, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.start_kill().map_err(ServerError::Wait)?;
                self.ended().await
            }
        }
    }
}

fn check_program(program: &Path) -> io::Result<()> {
    let executable = std::fs::metadata(program)?.permissions().mode() & 0o111 != 0;
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    executable.then_some(()).ok_or_else(refused)
}

/// Becomes the server: the same process runs its program, and is asked to end (SIGTERM) when
/// `parent`, the process that started it, is gone. Comes back only if that fails.
pub fn become_server(program: &Path, config: &Path, parent: u32) -> ServerError {
    let failed = |source: io::Error| {
        let path = program.display().to_string();
        ServerError::Start { path, source }
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return failed(error.into());
    }
    // It may have been gone before the line above.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now != Some(parent) {
        return failed(io::Error::other(
            "the process that started this one is gone",
        ));
    }
    let mut command = std::process::Command::new(program);
    failed(command.arg("run").arg("--config").arg(config).exec())
}

fn exit_code(status: ExitStatus) -> u8 {
    let signalled = || status.signal().map(|n| 128 + n);
    let code = status.code().or_else(signalled).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join(PROGRAM);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn where_the_server_is() {
        let (beside, in_path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let this = beside.path().join("cirrus-bootstrap");
        let path = Some(in_path.path().as_os_str());
        let look = || find(None, Some(&this), path);
        let error = look().unwrap_err().to_string();
        assert!(
            error.starts_with("cirrus-server is neither beside /"),
            "{error}"
        );
        let second = script(in_path.path(), "");
        assert_eq!(look().unwrap(), second);
        let first = script(beside.path(), "");
        assert_eq!(look().unwrap(), first);
        let given = Path::new("/opt/server");
        assert_eq!(find(Some(given), Some(&this), path).unwrap(), given);
    }

    #[tokio::test]
    async fn its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "test \"$*\" = 'run --config f' && exit 7");
        let mut server = Server::start(&program, Path::new("f"), None).unwrap();
        assert_eq!(server.ended().await.unwrap(), 7);
        server.ask(Ask::Stop);
    }

    #[tokio::test]
    async fn it_is_asked_before_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("up");
        let up = marker.display().to_string();
        let program = script(
            dir.path(),
            &format!("trap 'exit 5' TERM; : > {up}; sleep 60 & wait"),
        );
        let mut server = Server::start(&program, Path::new("f"), None).unwrap();
        while !marker.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.stop(Duration::from_secs(20)).await.unwrap(), 5);
        std::fs::remove_file(&marker).unwrap();
        let program = script(
            dir.path(),
            &format!("trap '' TERM; : > {up}; exec sleep 60"),
        );
        let mut server = Server::start(&program, Path::new("f"), None).unwrap();
        while !marker.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            server.stop(Duration::from_millis(50)).await.unwrap(),
            128 + 9
        );
    }

    #[tokio::test]
    async fn a_program_that_is_none() {
        let error = Server::start(Path::new("/nonexistent"), Path::new("f"), None).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent cannot be started");
    }
}
