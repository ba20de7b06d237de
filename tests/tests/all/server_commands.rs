//! `cirrus-server` as its operator uses it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cirrus_tests::client::{Client, Identity, Received};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::process::{Process, binary};
use cirrus_tests::server::{Options, Server};
use cirrus_tests::xml::{Event, STREAM};

const JULIET: &str = "juliet@localhost";

#[test]
fn accounts_are_made_changed_listed_and_removed() {
    let server = Server::start(&Options::new()).unwrap();
    let config = server.config();
    let user = |words: &[&str], password: &str| {
        let mut arguments = vec!["user"];
        arguments.extend(words);
        run(&arguments, &config, password)
    };
    expect(&user(&["list"], ""), 0, "");
    expect(&user(&["add", JULIET], "lies\n"), 0, "");
    expect(&user(&["add", "romeo@localhost"], "wherefore\n"), 0, "");
    let listed = user(&["list"], "");
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "juliet@localhost\nromeo@localhost\n"
    );
    assert_eq!(user(&["list", "localhost"], "").stdout, listed.stdout);

    // Refusals: it is there already, it is not there, it is no user here, no password was given.
    expect(&user(&["add", JULIET], "other\n"), 1, "exists");
    expect(
        &user(&["passwd", "rosaline@localhost"], "fair\n"),
        1,
        "rosaline@localhost",
    );
    expect(
        &user(&["delete", "rosaline@localhost"], ""),
        1,
        "rosaline@localhost",
    );
    expect(
        &user(&["add", "juliet@elsewhere.example"], "x\n"),
        1,
        "elsewhere.example",
    );
    expect(&user(&["add", "localhost"], "x\n"), 1, "localhost");
    expect(&user(&["add", "nurse@localhost"], ""), 1, "password");
    assert_eq!(user(&["list"], "").stdout, listed.stdout);

    let log_in = |password: &str| {
        let identity = Identity::new(JULIET, password).unwrap();
        Client::connect(server.address(), identity)
    };
    let mut first = log_in("lies").unwrap();
    expect(&user(&["passwd", JULIET], "truth\n"), 0, "");
    assert!(log_in("lies").is_err());
    log_in("truth").unwrap();
    // Who is logged in stays; who is deleted does not.
    first
        .send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    assert_eq!(first.element().unwrap().attr("id"), Some("p"));
    expect(&user(&["delete", JULIET], ""), 0, "");
    assert!(log_in("truth").is_err());
    assert_ends(&mut first);
    let listed = user(&["list"], "");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "romeo@localhost\n");
}

#[test]
fn without_a_server_the_user_commands_say_so() {
    let mut server = Server::start(&Options::new()).unwrap();
    let config = server.config();
    assert!(server.stop("TERM").unwrap().success());
    expect(&run(&["user", "list"], &config, ""), 3, "control.sock");
}

#[test]
fn a_configuration_is_checked_with_line_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cirrus.yml");
    std::fs::write(&config, "domains: [example.com]\n").unwrap();
    expect(&run(&["check"], &config, ""), 0, "");
    std::fs::write(
        &config,
        "domains: [example.com]\nlimits:\n  stanza_byte: 1\n",
    )
    .unwrap();
    let refused = run(&["check"], &config, "");
    expect(&refused, 4, "cirrus.yml:3:3");
    expect(&refused, 4, "limits.stanza_bytes");
    // The server itself refuses it in the same way, and so does a file that is not there.
    expect(&run(&["run"], &config, ""), 4, "limits.stanza_bytes");
    expect(
        &run(&["check"], &folder.path().join("none.yml"), ""),
        4,
        "none.yml",
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "something was written"
    );
}

#[test]
fn sigterm_ends_streams_cleanly() {
    let mut server = Server::start(&Options::new()).unwrap();
    server.add_user(JULIET, "lies").unwrap();
    let identity = Identity::new(JULIET, "lies").unwrap();
    let mut client = Client::connect(server.address(), identity).unwrap();
    server.process().signal("TERM").unwrap();
    let error = client.element().unwrap();
    assert!(error.is("error", STREAM), "{error}");
    let streams = "urn:ietf:params:xml:ns:xmpp-streams";
    assert!(error.child("system-shutdown", streams).is_some(), "{error}");
    assert_eq!(client.receive().unwrap(), Received::Event(Event::Close));
    assert_eq!(client.receive().unwrap(), Received::End);
    let status = server.process().wait().unwrap();
    assert!(status.success(), "{status}\n{}", server.process().log());
    assert!(!server.control().exists());
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_serves_on() {
    let server = Server::start(&Options::new()).unwrap();
    server.add_user(JULIET, "lies").unwrap();
    let mut command = Command::new(binary("cirrus-server").unwrap());
    command.args(["run", "--config"]).arg(server.config());
    let mut second = Process::start("the second server", &mut command).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1), "{}", second.log());
    let identity = Identity::new(JULIET, "lies").unwrap();
    Client::connect(server.address(), identity).unwrap();
}

/// Runs a command to its end; one that hangs is ended, with code 124.
fn run(words: &[&str], config: &Path, input: &str) -> Output {
    let mut command = Command::new("timeout");
    command.arg("60").arg(binary("cirrus-server").unwrap());
    command.args(words).arg("--config").arg(config);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Not every command reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn expect(output: &Output, code: i32, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(said.contains(text), "{text:?} is not in {said:?}");
}

fn assert_ends(client: &mut Client) {
    while client.receive().unwrap() != Received::End {}
}
