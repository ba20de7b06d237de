//! A third-party client in a process of its own, which does what it is told line by line and
//! reports events as JSON. The scripts are in `tests/clients`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::Process;

/// A client library that an agent stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// slixmpp, Python.
    Slixmpp,
    /// aioxmpp, Python.
    Aioxmpp,
}

/// A running client.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// For each kind of event, the number of the line behind the last one waited for.
    seen: BTreeMap<String, usize>,
}

impl Agent {
    /// Starts the client of a user. `folder` is for its password.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(library: Library, jid: &str, password: &str, folder: &Path) -> Result<Agent> {
        let script = match library {
            Library::Slixmpp => "slixmpp_agent.py",
            Library::Aioxmpp => "aioxmpp_agent.py",
        };
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let password_file = folder.join(format!("{jid}.password"));
        std::fs::write(&password_file, password).context("the password file")?;
        let mut command = Command::new(python()?);
        command
            .args(["-W", "ignore"])
            .arg(tests.join("clients").join(script));
        command.arg(jid).arg(password_file);
        let process = Process::start(&format!("{library:?} as {jid}"), &mut command)?;
        let mut agent = Agent {
            process,
            seen: BTreeMap::new(),
        };
        agent.wait("ready", |_| true)?;
        Ok(agent)
    }

    /// Logs in and waits for the session; its event.
    ///
    /// # Errors
    /// When it is not let in.
    pub fn connect(&mut self, address: SocketAddr) -> Result<Value> {
        let port = address.port().to_string();
        self.tell(&["connect", &address.ip().to_string(), &port])?;
        self.wait("session", |_| true)
    }

    /// Says something to somebody and waits until the server has acknowledged it.
    ///
    /// # Errors
    /// When it does not.
    pub fn say(&mut self, to: &str, text: &str) -> Result<()> {
        self.tell(&["say", to, text])?;
        let said = self.wait("said", |_| true)?;
        self.wait("acked", |event| event["id"] == said["id"])
            .map(drop)
    }

    /// Gives a command with its arguments.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn tell(&mut self, words: &[&str]) -> Result<()> {
        self.process.say(&words.join("\t"))
    }

    /// Waits for an event after those of its kind already waited for.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let from = self.seen.get(name).copied().unwrap_or(0);
        let (seen, event) = self.process.wait_after(from, name, |line| {
            parse(line).filter(|event| event["event"] == name && wanted(event))
        })?;
        self.seen.insert(name.to_owned(), seen);
        Ok(event)
    }

    /// Waits for a message with this text.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_for_message(&mut self, text: &str) -> Result<Value> {
        self.wait("message", |event| event["body"] == text)
    }

    /// The texts of all messages so far.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let events = self
            .process
            .lines()
            .into_iter()
            .filter_map(|line| parse(&line));
        let messages = events.filter(|event| event["event"] == "message");
        messages
            .filter_map(|event| Some(event["body"].as_str()?.to_owned()))
            .collect()
    }
}

/// The interpreter of the environment that the test command makes.
///
/// # Errors
/// When it is not there.
pub fn python() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    ensure!(
        path.exists(),
        "{} is not there; `cargo xtask tools` makes it",
        path.display()
    );
    Ok(path)
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}
