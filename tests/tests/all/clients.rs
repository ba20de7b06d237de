//! Clients that others have written, over real sockets.

use std::path::Path;
use std::process::Command;

use cirrus_tests::agent::{Agent, Library};
use cirrus_tests::client::Identity;
use cirrus_tests::dialogue::play::Stage;
use cirrus_tests::process::Process;
use cirrus_tests::server::{Options, Server};
use tempfile::TempDir;

const ROMEO: &str = "romeo@localhost";
const JULIET: &str = "juliet@localhost";

#[test]
fn two_clients_meet_and_chat() {
    let (mut server, folder) = server(&Options::new());
    meet_and_chat(&mut server, folder.path());
}

#[test]
fn what_was_acknowledged_survives_the_death_of_the_server() {
    let (mut server, folder) = server(&Options::new());
    survive_a_death(&mut server, folder.path());
}

/// Log in over STARTTLS with SCRAM, add each other, see presence, chat; one goes away and gets
/// what was sent meanwhile, in order, once.
pub fn meet_and_chat(server: &mut dyn Stage, folder: &Path) {
    let mut romeo = Agent::start(Library::Slixmpp, ROMEO, "wherefore", folder).unwrap();
    let mut juliet = Agent::start(Library::Aioxmpp, JULIET, "lies", folder).unwrap();
    let session = romeo.connect(server.address()).unwrap();
    assert!(
        session["mechanism"]
            .as_str()
            .unwrap()
            .starts_with("SCRAM-SHA-"),
        "{session}"
    );
    assert_eq!(session["tls"], "TLSv1.3");
    juliet.connect(server.address()).unwrap();

    romeo.tell(&["add", JULIET]).unwrap();
    let both = |event: &serde_json::Value| event["subscription"] == "both";
    romeo
        .wait("contact", |event| event["jid"] == JULIET && both(event))
        .unwrap();
    juliet
        .wait("contact", |event| event["jid"] == ROMEO && both(event))
        .unwrap();

    romeo
        .say(JULIET, "what light through yonder window breaks?")
        .unwrap();
    let heard = juliet
        .wait_for_message("what light through yonder window breaks?")
        .unwrap();
    assert_eq!(heard["delayed"], false, "{heard}");
    juliet.say(ROMEO, "ay me").unwrap();
    romeo.wait_for_message("ay me").unwrap();

    juliet.tell(&["disconnect"]).unwrap();
    juliet.wait("disconnected", |_| true).unwrap();
    romeo
        .wait("presence", |event| {
            event["type"] == "unavailable" && event["sender"].as_str().unwrap().starts_with(JULIET)
        })
        .unwrap();
    let lines = ["she speaks", "o, speak again", "bright angel"];
    for line in lines {
        romeo.say(JULIET, line).unwrap();
    }
    juliet.connect(server.address()).unwrap();
    for line in lines {
        let heard = juliet.wait_for_message(line).unwrap();
        assert_eq!(heard["delayed"], true, "{heard}");
    }
    romeo.say(JULIET, "adieu").unwrap();
    juliet.wait_for_message("adieu").unwrap();
    let all = [
        &["what light through yonder window breaks?"],
        &lines[..],
        &["adieu"],
    ]
    .concat();
    assert_eq!(juliet.messages(), all);
}

/// The server is killed right after the sender has its acknowledgement: the message is there,
/// once.
pub fn survive_a_death(server: &mut dyn Stage, folder: &Path) {
    let mut romeo = Agent::start(Library::Slixmpp, ROMEO, "wherefore", folder).unwrap();
    romeo.connect(server.address()).unwrap();
    romeo.say(JULIET, "love goes toward love").unwrap();
    server.restart("KILL").unwrap();
    drop(romeo);

    let mut juliet = Agent::start(Library::Slixmpp, JULIET, "lies", folder).unwrap();
    juliet.connect(server.address()).unwrap();
    juliet.wait_for_message("love goes toward love").unwrap();
    juliet.tell(&["disconnect"]).unwrap();
    juliet.wait("disconnected", |_| true).unwrap();
    juliet.connect(server.address()).unwrap();
    let mut romeo = Agent::start(Library::Aioxmpp, ROMEO, "wherefore", folder).unwrap();
    romeo.connect(server.address()).unwrap();
    romeo.say(JULIET, "good night").unwrap();
    juliet.wait_for_message("good night").unwrap();
    assert_eq!(juliet.messages(), ["love goes toward love", "good night"]);
}

#[test]
fn a_client_pages_through_its_archive() {
    let (mut server, folder) = server(&Options::new());
    page_through_the_archive(&mut server, folder.path());
}

/// What was said is there from either end, also of what was said while one was away.
pub fn page_through_the_archive(server: &mut dyn Stage, folder: &Path) {
    let mut romeo = Agent::start(Library::Slixmpp, ROMEO, "wherefore", folder).unwrap();
    romeo.connect(server.address()).unwrap();
    let lines = [
        "she speaks",
        "o, speak again",
        "bright angel",
        "ay me",
        "adieu",
    ];
    for line in lines {
        romeo.say(JULIET, line).unwrap();
    }
    server.restart("KILL").unwrap();
    let mut juliet = Agent::start(Library::Slixmpp, JULIET, "lies", folder).unwrap();
    juliet.connect(server.address()).unwrap();
    juliet.wait_for_message("adieu").unwrap();
    let mut history = |with: &str, order: &str| {
        juliet.tell(&["history", with, order]).unwrap();
        let found = juliet.wait("history", |_| true).unwrap();
        let said = found["said"].as_array().unwrap().iter();
        let said = said.map(|line| line.as_str().unwrap().to_owned());
        said.collect::<Vec<_>>()
    };
    assert_eq!(history(ROMEO, ""), lines);
    let reversed: Vec<_> = lines.into_iter().rev().collect();
    assert_eq!(history(ROMEO, "reverse"), reversed);
    assert!(history("nurse@localhost", "").is_empty());
}

/// A client that knows only PLAIN, where that is allowed.
#[test]
fn a_command_line_client_sends_a_message() {
    let options = [("auth.plain".to_owned(), "true".to_owned())].into();
    let (server, folder) = server(&options);
    let mut juliet = Agent::start(Library::Slixmpp, JULIET, "lies", folder.path()).unwrap();
    juliet.connect(server.address()).unwrap();
    let settings = folder.path().join("sendxmpprc");
    let address = server.address();
    let text = format!("username: {ROMEO}\npassword: wherefore\njserver: {address}\n");
    std::fs::write(&settings, text).unwrap();
    make_private(&settings);
    let mut command = Command::new("go-sendxmpp");
    command
        .arg("--no-tls-verify")
        .arg("--file")
        .arg(&settings)
        .arg(JULIET);
    let mut romeo = Process::start("go-sendxmpp", &mut command).unwrap();
    romeo.say("it is the east").unwrap();
    romeo.end_input();
    let heard = juliet.wait("message", |_| true).unwrap();
    assert_eq!(heard["body"].as_str().unwrap().trim(), "it is the east");
    assert!(
        heard["sender"].as_str().unwrap().starts_with(ROMEO),
        "{heard}"
    );
    assert!(romeo.wait().unwrap().success(), "{}", romeo.log());
}

/// A server with two accounts, and a folder for the clients' files.
fn server(options: &Options) -> (Server, TempDir) {
    let mut server = Server::start(options).unwrap();
    add_accounts(&mut server);
    (server, TempDir::with_prefix("clients-").unwrap())
}

/// The accounts of the two.
pub fn add_accounts(server: &mut dyn Stage) {
    for (jid, password) in [(ROMEO, "wherefore"), (JULIET, "lies")] {
        let identity = Identity::new(jid, password).unwrap();
        server.add_account(&identity).unwrap();
    }
}

/// The client refuses a file with a password that others can read.
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
