//! The commands as an operator types them, against a server with a store in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_cirrus-server");

struct Server {
    child: Child,
    config: PathBuf,
    /// What it says after `ready`.
    log: BufReader<std::process::ChildStderr>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = configure(folder.path());
        let mut child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"message\":\"ready\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        }
        Self {
            child,
            config,
            log,
            _folder: folder,
        }
    }

    fn user(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(BINARY)
            .arg("user")
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that is refused before it asks for a password doesn't read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn signal(&mut self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(folder: &std::path::Path) -> PathBuf {
    let config = folder.join("cirrus.yml");
    let place = folder.display();
    let text = format!(
        "domains: [localhost, example.com]\n\
         store: {{ backend: memory }}\n\
         listen: {{ c2s: ['127.0.0.1:0'], c2s_tls: ['127.0.0.1:0'], health: '127.0.0.1:0', control: {place}/control }}\n\
         tls: {{ folder: {place}/tls }}\n\
         auth: {{ iterations: 4096 }}\n"
    );
    std::fs::write(&config, text).unwrap();
    config
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Exit code and what was said.
#[track_caller]
fn check(output: &Output, code: i32, out: &str, err: &str) {
    let said = (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    );
    assert_eq!(said, (Some(code), out, err));
}

#[test]
fn accounts_are_made_changed_listed_and_removed() {
    let server = Server::start();
    check(&server.user(&["list"], ""), 0, "", "");
    check(
        &server.user(&["add", "Ada@localhost"], "s3cret\n"),
        0,
        "",
        "",
    );
    check(
        &server.user(&["add", "bob@example.com"], "s3cret"),
        0,
        "",
        "",
    );
    check(
        &server.user(&["list"], ""),
        0,
        "ada@localhost\nbob@example.com\n",
        "",
    );
    check(
        &server.user(&["list", "example.com"], ""),
        0,
        "bob@example.com\n",
        "",
    );
    check(
        &server.user(&["passwd", "ada@localhost"], "another\n"),
        0,
        "",
        "",
    );
    check(&server.user(&["delete", "ada@localhost"], ""), 0, "", "");
    check(&server.user(&["list", "localhost"], ""), 0, "", "");
    let gone = "cirrus-server: ada@localhost does not exist\n";
    check(
        &server.user(&["passwd", "ada@localhost"], "x\n"),
        1,
        "",
        gone,
    );
    check(&server.user(&["delete", "ada@localhost"], ""), 1, "", gone);
}

#[test]
fn refusals_say_what_is_wrong() {
    let server = Server::start();
    server.user(&["add", "ada@localhost"], "s3cret\n");
    let table: [(&[&str], &str, &str); 7] = [
        (
            &["add", "ada@localhost"],
            "x\n",
            "ada@localhost exists already",
        ),
        (
            &["add", "localhost"],
            "x\n",
            "`localhost` is not a user: an account is called user@host",
        ),
        (
            &["add", "ada@example.net"],
            "x\n",
            "`example.net` is not served here; this server is localhost, example.com",
        ),
        (
            &["add", "eve@localhost"],
            "",
            "no password was given: type one, or write it to standard input",
        ),
        (
            &["add", "eve@localhost"],
            "a\u{7}b\n",
            "the password contains characters that SASLprep (RFC 4013) forbids, such as control \
             characters",
        ),
        (
            &["list", "example.net"],
            "",
            "`example.net` is not served here; this server is localhost, example.com",
        ),
        (
            &["passwd", "eve@localhost"],
            "x\n",
            "eve@localhost does not exist",
        ),
    ];
    for (arguments, input, refusal) in table {
        let output = server.user(arguments, input);
        check(&output, 1, "", &format!("cirrus-server: {refusal}\n"));
    }
    let output = server.user(&["add", "a@b@localhost"], "x\n");
    assert!(text(&output.stderr).starts_with("cirrus-server: `a@b@localhost` is not a user: "));
    check(&server.user(&["list"], ""), 0, "ada@localhost\n", "");
}

#[test]
fn a_signal_ends_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        server.signal(signal);
        let status = server.child.wait().unwrap();
        assert_eq!(status.code(), Some(0));
        let rest: Vec<_> = (&mut server.log).lines().map(Result::unwrap).collect();
        assert!(
            rest.iter()
                .any(|line| line.contains("\"message\":\"stopped\"")),
            "{rest:?}"
        );
        assert!(!server.config.with_file_name("control").exists());
        let output = server.user(&["list"], "");
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains("cirrus-server run --config"));
    }
}

#[test]
fn a_second_server_is_refused() {
    let server = Server::start();
    let second = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(&server.config)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("a server is already running"));
    check(&server.user(&["list"], ""), 0, "", "");
}

#[test]
fn a_configuration_is_checked_without_being_used() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path());
    let run = |config: &PathBuf| {
        Command::new(BINARY)
            .args(["check", "-c"])
            .arg(config)
            .output()
    };
    let good = format!("{}: no fault found\n", config.display());
    check(&run(&config).unwrap(), 0, &good, "");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was made"
    );

    std::fs::write(&config, "domains: [localhost]\nlimits: { deph: 3 }\n").unwrap();
    let output = run(&config).unwrap();
    assert_eq!(output.status.code(), Some(4));
    let error = text(&output.stderr);
    assert!(
        error.contains("cirrus.yml:2:") && error.contains("depth"),
        "{error}"
    );

    let output = run(&folder.path().join("absent.yml")).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output.stderr).contains("absent.yml"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_password_is_no_argument() {
    let output = Command::new(BINARY)
        .args(["user", "add", "a@localhost", "s3cret"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
