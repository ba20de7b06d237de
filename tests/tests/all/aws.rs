//! The real programs with nothing but an environment that points at the emulated AWS.

use std::process::Command;

use cirrus_tests::client::{Client, Identity, Received};
use cirrus_tests::dialogue::parse;
use cirrus_tests::dialogue::play::{Stage as _, play};
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::xml::Event;
use tempfile::TempDir;

use crate::{clients, cluster};

const FIRST: &str = "i-0000000000000000a";
const SECOND: &str = "i-0000000000000000b";
const USER_DATA: &str = "domain=localhost";

/// Tables and buckets appear; a second run changes nothing and says so; a server that starts again
/// on the same tables knows everything, also one on another instance.
#[test]
fn tables_and_buckets_appear_once() {
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, FIRST, "domain=example.com").unwrap();
    let made = node.wait_for("made ").unwrap();
    for object in [
        "example.com-accounts",
        "example.com-archive",
        "-data",
        "-uploads",
        "-logs",
    ] {
        assert!(made.contains(object), "{object} in {made:?}");
    }
    let romeo = Identity::new("romeo@example.com", "wherefore").unwrap();
    node.add_account(&romeo).unwrap();
    Client::connect(node.address(), romeo.clone()).unwrap();
    node.restart("TERM").unwrap();
    let log = node.process().log();
    assert!(
        log.contains("10 tables and buckets exist, nothing changed"),
        "{log}"
    );
    Client::connect(node.address(), romeo.clone()).unwrap();

    drop(node);
    let other = Node::launch(&cloud, SECOND, "domain=example.com").unwrap();
    other.wait_for("\"message\":\"ready\"").unwrap();
    Client::connect(other.address(), romeo).unwrap();
}

#[test]
fn two_clients_meet_and_chat_on_dynamodb() {
    let cloud = Cloud::start().unwrap();
    let folder = TempDir::with_prefix("clients-").unwrap();
    let mut node = Node::start(&cloud, FIRST, USER_DATA).unwrap();
    clients::add_accounts(&mut node);
    clients::meet_and_chat(&mut node, folder.path());
}

#[test]
fn what_dynamodb_acknowledged_survives_the_death_of_the_server() {
    let cloud = Cloud::start().unwrap();
    let folder = TempDir::with_prefix("clients-").unwrap();
    let mut node = Node::start(&cloud, FIRST, USER_DATA).unwrap();
    clients::add_accounts(&mut node);
    clients::survive_a_death(&mut node, folder.path());
}

/// Both finish provisioning, and they are one cluster: an account made on one logs in on the other,
/// which has all of it when the first is killed.
#[test]
fn two_at_once_become_one_cluster() {
    let cloud = Cloud::start().unwrap();
    let nodes = [FIRST, SECOND].map(|id| Node::launch(&cloud, id, USER_DATA).unwrap());
    for node in &nodes {
        node.wait_for("code=ok").unwrap();
    }
    let [mut first, second] = nodes;
    let romeo = Identity::new("romeo@localhost", "wherefore").unwrap();
    first.add_account(&romeo).unwrap();
    Client::connect(second.address(), romeo.clone()).unwrap();
    first.process().kill().unwrap();
    Client::connect(second.address(), romeo).unwrap();
}

/// A server that was suspended for longer than its lease acknowledges nothing when it wakes,
/// whether the node that has taken over was there before or came up meanwhile.
#[test]
fn a_server_that_slept_too_long_acknowledges_nothing() {
    for before in [true, false] {
        let cloud = Cloud::start().unwrap();
        let mut sleeper = Node::start(&cloud, FIRST, USER_DATA).unwrap();
        clients::add_accounts(&mut sleeper);
        let identity = Identity::new("romeo@localhost", "wherefore").unwrap();
        let mut romeo = Client::connect(sleeper.address(), identity).unwrap();
        romeo.send("<enable xmlns='urn:xmpp:sm:3'/>").unwrap();
        assert_eq!(romeo.element().unwrap().name, "enabled");
        let early = before.then(|| Node::start(&cloud, SECOND, USER_DATA).unwrap());
        let server = sleeper.server().unwrap();
        signal(server, "STOP");
        let next = early.unwrap_or_else(|| Node::launch(&cloud, SECOND, USER_DATA).unwrap());
        next.wait_for("\"message\":\"ready\"").unwrap();
        cluster::wait_for(&next, |status| status["members"] == 1);
        romeo
            .send("<message to='juliet@localhost'><body>too late</body></message><r xmlns='urn:xmpp:sm:3'/>")
            .unwrap();
        signal(server, "CONT");
        // Whatever else it says before the connection ends.
        while let Ok(Received::Event(event)) = romeo.receive_all() {
            assert_ne!(event, Event::Close, "it does not say good-bye either");
            let Event::Element(node) = event else {
                continue;
            };
            let unhandled = node.name == "a" && node.attr("h") == Some("0");
            assert!(unhandled || node.name == "r", "{node:?}");
        }
        sleeper.wait_for("must not serve any more").unwrap();
        let identity = Identity::new("juliet@localhost", "lies").unwrap();
        let mut juliet = Client::connect(next.address(), identity).unwrap();
        juliet
            .send("<presence/><iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
            .unwrap();
        let mut names = vec![];
        while names.last().is_none_or(|name| name != "iq") {
            names.push(juliet.element().unwrap().name);
        }
        assert_eq!(
            names,
            ["presence", "iq"],
            "what was not acknowledged was not taken"
        );
    }
}

/// A setting that somebody changed is reported, and left alone.
#[test]
fn drift_is_reported() {
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, FIRST, USER_DATA).unwrap();
    let made = node.wait_for("-data: ready").unwrap();
    let bucket = made
        .split(' ')
        .find_map(|word| word.strip_suffix("-data:"))
        .unwrap();
    cloud.version_bucket(&format!("{bucket}-data")).unwrap();
    node.restart("TERM").unwrap();
    let drift = node.wait_for("left alone").unwrap();
    assert!(
        drift.contains("-data: versioning is on, the schema says off"),
        "{drift}"
    );
}

/// The dialogues in which the store has a part, on DynamoDB and S3.
#[test]
fn dialogues_on_dynamodb() {
    let cloud = Cloud::start().unwrap();
    for name in [
        "account-queries",
        "message-delivery",
        "offline",
        "offline-killed",
        "offline-limit",
        "offline-restart",
        "roster",
        "roster-versions",
        "sm-expired",
        "sm-resume",
        "subscription-cancelled",
        "subscription-offline",
        "subscription-preapproved",
        "subscription-removed",
    ] {
        let path = crate::dialogues::folder().join(format!("{name}.xmpp"));
        let dialogue = parse::dialogue(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let options = dialogue
            .options
            .iter()
            .map(|(option, value)| format!("{option}={value}"));
        // Each has tables of its own.
        let lines = [USER_DATA.to_owned(), format!("store.prefix={name}")];
        let user_data: Vec<String> = lines.into_iter().chain(options).collect();
        let mut node = Node::start(&cloud, FIRST, &user_data.join("\n")).unwrap();
        if let Err(error) = play(&dialogue, &mut node) {
            panic!("{}: {error:#}\n\n{}", path.display(), node.process().log());
        }
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(status.unwrap().success());
}
