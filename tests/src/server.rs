//! A `cirrus-server` of one test: its own folder, its own ports, its own store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PATIENCE;
use crate::client::Identity;
use crate::dialogue::play::Stage;
use crate::process::{Process, binary};

/// Options of a configuration, by dotted name, with their values as YAML.
pub type Options = BTreeMap<String, String>;

/// A running server. It is killed, and its folder deleted, when this is dropped.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    environment: Vec<(String, String)>,
    process: Process,
    address: SocketAddr,
    tls_address: SocketAddr,
}

impl Server {
    /// Starts a server for `localhost` on an empty embedded store; `options` come on top of what
    /// a test needs.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(options: &Options) -> Result<Server> {
        Server::start_in(TempDir::with_prefix("cirrus-")?, options, Vec::new())
    }

    /// As [`Server::start`], in a folder that may hold the store of an earlier one, and with
    /// further environment variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_in(
        folder: TempDir,
        options: &Options,
        environment: Vec<(String, String)>,
    ) -> Result<Server> {
        let mut all = defaults(folder.path());
        all.extend(options.clone());
        std::fs::write(config_path(folder.path()), yaml(&all))?;
        let (process, address, tls_address) = run(folder.path(), &environment)?;
        Ok(Server {
            folder,
            environment,
            process,
            address,
            tls_address,
        })
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        config_path(self.folder.path())
    }

    /// The folder with everything the server keeps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// As [`call`], on this server's socket.
    ///
    /// # Errors
    /// When there is no answer, or it is not JSON.
    pub fn call(&self, request: &Value) -> Result<Value> {
        call(&self.control(), request)
    }

    /// As [`control_line`], on this server's socket.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn control_line(&self, request: &[u8]) -> Result<String> {
        control_line(&self.control(), request)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn add_user(&self, jid: &str, password: &str) -> Result<()> {
        let call = json!({ "v": 1, "call": "user.add", "jid": jid, "password": password });
        let answer = self.call(&call)?;
        ensure!(answer["ok"] == true, "the server refused: {answer}");
        Ok(())
    }

    /// Stops the server by a signal and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, signal: &str) -> Result<ExitStatus> {
        self.process.signal(signal)?;
        self.process.wait()
    }

    /// Starts the process again after [`Server::stop`], on the same folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        let (process, address, tls_address) = run(self.folder.path(), &self.environment)?;
        (self.process, self.address, self.tls_address) = (process, address, tls_address);
        Ok(())
    }

    /// Stops the server, unless it has ended, and leaves its folder.
    ///
    /// # Errors
    /// When it does not end.
    pub fn into_folder(mut self, signal: &str) -> Result<TempDir> {
        if self.process.runs()? {
            self.stop(signal)?;
        }
        let Server { folder, .. } = self;
        Ok(folder)
    }
}

impl Stage for Server {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn tls_address(&self) -> SocketAddr {
        self.tls_address
    }

    fn add_account(&mut self, identity: &Identity) -> Result<()> {
        self.add_user(&identity.bare(), &identity.password)
    }

    fn restart(&mut self, signal: &str) -> Result<()> {
        let status = self.stop(signal)?;
        ensure!(
            signal != "TERM" || status.success(),
            "SIGTERM ended the server with {status}"
        );
        self.start_again()
    }
}

/// A page of health or metrics: status line and body.
///
/// # Errors
/// When there is no answer.
pub fn page(address: SocketAddr, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}

/// Sends one request over a control socket; the answer whatever it says.
///
/// # Errors
/// When there is no answer, or it is not JSON.
pub fn call(socket: &Path, request: &Value) -> Result<Value> {
    let answer = control_line(socket, request.to_string().as_bytes())?;
    serde_json::from_str(&answer).with_context(|| format!("the answer {answer:?}"))
}

/// Sends one line over a control socket and gives the line that comes back; empty when the server
/// closes instead.
///
/// # Errors
/// When the socket cannot be used.
pub fn control_line(socket: &Path, request: &[u8]) -> Result<String> {
    let mut socket = UnixStream::connect(socket).context("the control socket")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A server that refuses early may close before it has read all of it.
    let _ = socket
        .write_all(request)
        .and_then(|()| socket.write_all(b"\n"));
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    Ok(answer)
}

/// Starts the process and learns from what it logs where it listens and when it is ready.
fn run(
    folder: &Path,
    environment: &[(String, String)],
) -> Result<(Process, SocketAddr, SocketAddr)> {
    let mut command = Command::new(binary("cirrus-server")?);
    command.args(["run", "--config"]).arg(config_path(folder));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let process = Process::start("cirrus-server", &mut command)?;
    let message = |line: &str| -> Option<Value> { serde_json::from_str(line).ok() };
    process.wait_for("«ready»", |line| {
        message(line)
            .filter(|fields| fields["message"] == "ready")
            .map(drop)
    })?;
    let listening = |direct_tls: bool| {
        process.wait_for("where it listens", |line| {
            let fields = message(line)?;
            let it = fields["message"] == "listening" && fields["direct_tls"] == direct_tls;
            it.then(|| fields["address"].as_str()?.parse().ok())?
        })
    };
    let (address, tls_address) = (listening(false)?, listening(true)?);
    Ok((process, address, tls_address))
}

fn config_path(folder: &Path) -> PathBuf {
    folder.join("cirrus.yml")
}

fn defaults(folder: &Path) -> Options {
    let path = |name: &str| format!("'{}'", folder.join(name).display());
    [
        ("domains", "[localhost]".to_owned()),
        ("store.path", path("store")),
        ("tls.folder", path("tls")),
        ("listen.c2s", "['127.0.0.1:0']".to_owned()),
        ("listen.c2s_tls", "['127.0.0.1:0']".to_owned()),
        ("listen.health", "'127.0.0.1:0'".to_owned()),
        ("listen.control", path("control.sock")),
        // The least that is allowed: a test is not to wait for derivations.
        ("auth.iterations", "4096".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Dotted names as nested YAML. The map is sorted, so what belongs together stands together.
fn yaml(options: &Options) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (name, value) in options {
        let parts: Vec<&str> = name.split('.').collect();
        let Some((last, sections)) = parts.split_last() else {
            continue;
        };
        let same = open
            .iter()
            .zip(sections)
            .take_while(|(a, b)| a == b)
            .count();
        open.truncate(same);
        for section in sections.iter().skip(same) {
            let _ = writeln!(text, "{}{section}:", "  ".repeat(open.len()));
            open.push(section);
        }
        let _ = writeln!(text, "{}{last}: {value}", "  ".repeat(open.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_names_become_nested_yaml() {
        let options = [
            ("a.b", "1"),
            ("a.c.d", "2"),
            ("a.c.e", "[3]"),
            ("f", "4"),
            ("g.b", "5"),
        ];
        let options = options
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let expected = "a:\n  b: 1\n  c:\n    d: 2\n    e: [3]\nf: 4\ng:\n  b: 5\n";
        assert_eq!(yaml(&options), expected);
    }
}
