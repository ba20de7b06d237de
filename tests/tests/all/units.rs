//! The programs under a service manager: a script that stands in for systemctl, and a socket that
//! stands in for systemd's ears.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use cirrus_tests::PATIENCE;
use cirrus_tests::process::{binary, free_address};
use cirrus_tests::server::{Options, Server};
use tempfile::TempDir;

const UNIT: &str = "cirrus-server.service";

/// Keeps one server: starts it in the background, stops it and waits for its end, and shows what a
/// file says that the test writes. Each call is written down.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
running() { test -e "$here/pid" && kill -0 "$(cat "$here/pid")" 2>/dev/null; }
case $1 in
  start)
    running && exit 0
    "$SERVER" run --config "$CONFIG" > "$here/log" 2>&1 &
    echo $! > "$here/pid" ;;
  stop)
    running || exit 0
    kill "$(cat "$here/pid")"
    while running; do sleep 0.05; done ;;
  show) cat "$here/shown" 2>/dev/null || echo ActiveState=active ;;
esac
"#;

/// A machine with systemd, as far as systemctl shows it.
struct Machine {
    folder: TempDir,
    c2s: SocketAddr,
    tls: SocketAddr,
}

impl Machine {
    fn new() -> Machine {
        let folder = TempDir::with_prefix("cirrus-unit-").unwrap();
        let systemctl = folder.path().join("systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let (c2s, tls) = (free_address().unwrap(), free_address().unwrap());
        Machine { folder, c2s, tls }
    }

    fn bootstrap(&self, more: &str) -> Output {
        let user_data = format!(
            "domain=localhost\nlisten.c2s={}\nlisten.c2s_tls={}\nlisten.health=127.0.0.1:0\n\
             auth.iterations=4096\n{more}",
            self.c2s, self.tls
        );
        let data = self.folder.path().join("data");
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        let mut command = Command::new(binary("cirrus-bootstrap").unwrap());
        command
            .args([
                "run",
                "--unit",
                UNIT,
                "--no-metadata",
                "--user-data",
                &user_data,
            ])
            .arg("--data-dir")
            .arg(&data)
            .env("PATH", path)
            .env("SERVER", binary("cirrus-server").unwrap())
            .env("CONFIG", data.join("cirrus.yaml"));
        command.output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = self.read("pid");
        if !pid.is_empty() {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

fn expect(output: &Output, code: i32, status: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|l| l.starts_with("CIRRUS-BOOT "))
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with(status), "{text}");
    assert_eq!(output.status.code(), Some(code), "{text}");
}

/// It ends when a stream opens and leaves the server to systemd; a second run changes nothing, and
/// one with other user-data has the server started anew.
#[test]
fn a_unit_is_started_and_left_alone() {
    let machine = Machine::new();
    let first = machine.bootstrap("");
    expect(&first, 0, "CIRRUS-BOOT ok phase=ready code=ok");
    assert!(
        first.stdout.is_empty(),
        "an instance's console is no place for a password"
    );
    TcpStream::connect(machine.c2s).unwrap();
    let server = machine.read("pid");
    expect(
        &machine.bootstrap(""),
        0,
        "CIRRUS-BOOT ok phase=ready code=ok",
    );
    assert_eq!(machine.read("pid"), server);
    let changed = machine.bootstrap("limits.depth=32\n");
    expect(&changed, 0, "CIRRUS-BOOT ok phase=ready code=ok");
    assert_ne!(machine.read("pid"), server);
    TcpStream::connect(machine.c2s).unwrap();
    let calls = machine.read("calls");
    assert!(
        calls.contains(&format!("start --no-block -- {UNIT}")),
        "{calls}"
    );
}

/// What systemd has given up is told with the server's exit code, and is not left half started.
#[test]
fn a_unit_that_fails_is_told() {
    let machine = Machine::new();
    // Nothing listens, and systemd says why.
    let shown = "ActiveState=failed\nSubState=failed\nExecMainCode=1\nExecMainStatus=4\n";
    fs::write(machine.folder.path().join("shown"), shown).unwrap();
    let script = SYSTEMCTL.replace("\"$SERVER\" run", "false");
    fs::write(machine.folder.path().join("systemctl"), script).unwrap();
    let failed = machine.bootstrap("");
    expect(
        &failed,
        61,
        "CIRRUS-BOOT fail phase=ready code=server-exited",
    );
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("exit code 4"), "{text}");
    let calls = machine.read("calls");
    assert!(calls.ends_with(&format!("stop -- {UNIT}\n")), "{calls}");
}

#[test]
fn a_machine_without_systemd_is_told_what_to_do() {
    let machine = Machine::new();
    fs::remove_file(machine.folder.path().join("systemctl")).unwrap();
    let mut command = Command::new(binary("cirrus-bootstrap").unwrap());
    command
        .args([
            "run",
            "--unit",
            UNIT,
            "--no-metadata",
            "--user-data",
            "domain=localhost",
        ])
        .arg("--data-dir")
        .arg(machine.folder.path().join("data"))
        .env("PATH", machine.folder.path());
    let output = command.output().unwrap();
    expect(
        &output,
        60,
        "CIRRUS-BOOT fail phase=start code=server-missing",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("leave --unit out"), "{text}");
}

/// The service manager hears that the server is ready, where it stands, that it lives, and that it
/// stops.
#[test]
fn a_server_tells_its_service_manager() {
    let (mut server, heard) = managed("300000");
    // Ready is the first that it hears, wherever the server stands then.
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "READY=1");
    let wait = |wanted: &str| {
        let next = || heard.recv_timeout(PATIENCE).unwrap();
        // Signs of life go on for ever.
        std::iter::repeat_with(next)
            .take(1_000)
            .find(|word| word.starts_with(wanted))
            .unwrap()
    };
    wait("STATUS=this node serves");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    assert!(server.stop("TERM").unwrap().success());
    let stopping = wait("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
}

/// Where the server stands is told when it changes, not with the next sign of life.
#[test]
fn a_manager_with_a_slow_watchdog_hears_at_once_that_the_server_serves() {
    let (_server, heard) = managed("3600000000");
    let next = || heard.recv_timeout(PATIENCE).unwrap();
    let serves = |word: &String| word == "STATUS=this node serves";
    assert!(std::iter::repeat_with(next).any(|word| serves(&word)));
}

/// A server with a service manager that wants a sign of life in so many microseconds, and what that
/// manager hears.
fn managed(watchdog: &str) -> (Server, mpsc::Receiver<String>) {
    let site = TempDir::with_prefix("cirrus-").unwrap();
    let path = site.path().join("notify");
    let heard = hear(&path);
    let environment = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), watchdog.to_owned()),
    ];
    let server = Server::start_in(site, &Options::new(), environment).unwrap();
    (server, heard)
}

/// The datagrams that come to a socket.
fn hear(path: &Path) -> mpsc::Receiver<String> {
    let socket = UnixDatagram::bind(path).unwrap();
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1_024];
        while let Ok(length) = socket.recv(&mut buffer) {
            let word = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if tell.send(word).is_err() {
                return;
            }
        }
    });
    heard
}
