//! Nodes of two adjacent formats: a cluster is updated, and taken back, while people talk.

use cirrus_tests::client::Client;
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::call;
use serde_json::{Value, json};

use crate::cluster::{hear, identity, instance_id, resume, say, session, wait_for};

const USER_DATA: &str =
    "domain=localhost\ncluster.silence_ms=2000\ncluster.lease_ms=5000\ncluster.cut_off_ms=10000";
/// The two formats of this version.
const OLD: u64 = 9;
const NEW: u64 = 10;

/// A node that is about to start; one of the older format does what the version before did.
fn launch(cloud: &Cloud, n: usize, format: u64) -> Node {
    let user_data = format!("{USER_DATA}\ncluster.hold_format={}", format == OLD);
    Node::launch(cloud, &instance_id(n), &user_data).unwrap()
}

fn started(cloud: &Cloud, n: usize, format: u64) -> Node {
    let node = launch(cloud, n, format);
    node.wait_for("code=ok").unwrap();
    node
}

/// So many nodes write that format, and everything has its copy.
fn settled(node: &Node, members: usize, format: u64) {
    wait_for(node, |status| {
        status["members"] == members
            && status["format"] == format
            && status["awaited"] == 0
            && status["leaving"] == 0
            && (members == 1 || status["entities_single_copy"] == 0)
    });
}

fn stop(mut node: Node) {
    node.process().signal("TERM").unwrap();
    assert!(node.process().wait().unwrap().success());
}

fn talk(romeo: &mut Client, juliet: &mut Client, text: &str) {
    say(romeo, "juliet", text);
    hear(juliet, text);
    say(juliet, "romeo", text);
    hear(romeo, text);
}

#[test]
fn a_cluster_is_updated_and_taken_back_while_people_talk() {
    let cloud = Cloud::start().unwrap();
    let mut old = started(&cloud, 1, OLD);
    let new = started(&cloud, 2, NEW);
    settled(&old, 2, OLD);
    for name in ["romeo", "juliet"] {
        old.add_account(&identity(name)).unwrap();
    }
    let (mut romeo, romeo_id) = session(&old, "romeo");
    let (mut juliet, juliet_id) = session(&new, "juliet");
    talk(&mut romeo, &mut juliet, "one");
    wait_for(&old, |status| {
        let nodes = status["nodes"].as_array();
        let says = |newest: u64| {
            let about = |node: &Value| node["about"]["formats"] == json!([OLD, newest]);
            nodes.is_some_and(|nodes| nodes.iter().any(about))
        };
        says(OLD) && says(NEW)
    });

    // It is taken back: the new node goes, and one of the version before comes.
    let other = started(&cloud, 3, OLD);
    settled(&new, 3, OLD);
    stop(new);
    settled(&old, 2, OLD);
    // Her own presence, and a message.
    let mut juliet_there = resume(&other, "juliet", (&juliet_id, 2));
    drop(juliet);
    talk(&mut romeo, &mut juliet_there, "two");

    // It is tried again, to the end.
    let last = started(&cloud, 4, NEW);
    settled(&last, 3, OLD);
    stop(old);
    stop(other);
    settled(&last, 1, NEW);
    let mut romeo = resume(&last, "romeo", (&romeo_id, 3));
    let mut juliet = resume(&last, "juliet", (&juliet_id, 3));
    talk(&mut romeo, &mut juliet, "three");

    // Now it is too late to go back.
    let late = launch(&cloud, 5, OLD);
    let question = json!({"v": 1, "call": "server.status"});
    let line = late.wait_for("writes format 10").unwrap();
    assert!(line.contains("this one reads 9 to 9"), "{line}");
    let status = call(&late.control(), &question).unwrap();
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("does not go back"), "{status}");
    talk(&mut romeo, &mut juliet, "four");
    settled(&last, 1, NEW);
}
