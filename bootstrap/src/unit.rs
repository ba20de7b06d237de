//! The server as a unit of systemd, through `systemctl`: started, watched, stopped.
//!
//! Starting is not waited for: that a stream opens says more than that systemd has seen a process.

use std::io;
use std::time::Duration;

use tokio::process::Command;

/// One call of `systemctl` that answers at once.
const CALL: Duration = Duration::from_secs(20);
/// Stopping waits for the server's drain; systemd kills it at the unit's own deadline before this.
const STOP: Duration = Duration::from_secs(7_500);

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// No such program, or it cannot be run.
    #[error("systemctl cannot be run; without systemd, leave --unit out")]
    Systemctl(#[source] io::Error),
    /// It said no.
    #[error("systemctl {verb} {unit}: {said}")]
    Refused {
        /// What was asked for.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// Its words.
        said: String,
    },
    /// It said nothing.
    #[error("systemctl {verb} {unit} did not end within {seconds} s")]
    Silent {
        /// What was asked for.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// How long it had.
        seconds: u64,
    },
}

/// What systemd says about a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// It ended and systemd does not start it again.
    pub failed: bool,
    /// It ended and systemd starts it again.
    pub restarting: bool,
    /// Its last exit code, 128 + n for signal n.
    pub exit: u8,
}

/// A unit of systemd.
#[derive(Clone, Debug)]
pub struct Unit {
    name: String,
}

impl Unit {
    /// The unit of this name.
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for it to be started; nothing happens if it runs.
    ///
    /// # Errors
    /// systemd's words.
    pub async fn start(&self) -> Result<(), UnitError> {
        // A unit that failed too often would be refused otherwise.
        self.call("reset-failed", &[], CALL).await.ok();
        self.call("start", &["--no-block"], CALL).await.map(drop)
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// systemd's words.
    pub async fn stop(&self) -> Result<(), UnitError> {
        self.call("stop", &[], STOP).await.map(drop)
    }

    /// What it does.
    ///
    /// # Errors
    /// systemd's words.
    pub async fn state(&self) -> Result<UnitState, UnitError> {
        let wanted = ["--property=ActiveState,SubState,ExecMainStatus,ExecMainCode"];
        self.call("show", &wanted, CALL).await.map(|t| parse(&t))
    }

    async fn call(
        &self,
        verb: &'static str,
        options: &[&str],
        patience: Duration,
    ) -> Result<String, UnitError> {
        let unit = || self.name.clone();
        let mut command = Command::new("systemctl");
        command.arg(verb).args(options).arg("--").arg(&self.name);
        let output = command.kill_on_drop(true).output();
        let Ok(output) = tokio::time::timeout(patience, output).await else {
            let (unit, seconds) = (unit(), patience.as_secs());
            return Err(UnitError::Silent {
                verb,
                unit,
                seconds,
            });
        };
        let output = output.map_err(UnitError::Systemctl)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let (unit, said) = (
            unit(),
            if said.is_empty() {
                output.status.to_string()
            } else {
                said
            },
        );
        Err(UnitError::Refused { verb, unit, said })
    }
}

/// Reads `systemctl show`.
fn parse(text: &str) -> UnitState {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map_or("", |(_, v)| v)
    };
    // CLD_EXITED is 1; what is above it is a signal.
    let signal = value("ExecMainCode").parse().unwrap_or(0u8) > 1;
    let status: u8 = value("ExecMainStatus").parse().unwrap_or(255);
    UnitState {
        failed: value("ActiveState") == "failed",
        restarting: value("SubState") == "auto-restart",
        exit: if signal {
            status.saturating_add(128)
        } else {
            status
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_shows() {
        let show = |active, sub, code, status| {
            parse(&format!(
                "ExecMainCode={code}\nExecMainStatus={status}\nActiveState={active}\nSubState={sub}\n"
            ))
        };
        assert_eq!(show("active", "running", 0, 0), UnitState::default());
        let gone = show("failed", "failed", 1, 4);
        assert_eq!((gone.failed, gone.restarting, gone.exit), (true, false, 4));
        let killed = show("activating", "auto-restart", 2, 9);
        assert_eq!(
            (killed.failed, killed.restarting, killed.exit),
            (false, true, 137)
        );
    }
}
