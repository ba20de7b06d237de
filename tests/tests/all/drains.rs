//! Drains that are asked for while the server goes on: refused where nobody else serves, and taken
//! back by the node itself where nobody else does any more.

use cirrus_tests::client::Client;
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::call;
use serde_json::{Value, json};

use crate::cluster::{
    hear, identity, instance_id, resume, say, session, session_of, signal, wait_for,
};

const USER_DATA: &str =
    "domain=localhost\ncluster.silence_ms=1000\ncluster.lease_ms=3000\ncluster.cut_off_ms=5000";

fn started(cloud: &Cloud, n: usize) -> Node {
    let node = Node::launch(cloud, &instance_id(n), USER_DATA).unwrap();
    node.wait_for("code=ok").unwrap();
    node
}

fn drain(node: &Node) -> Value {
    call(&node.control(), &json!({"v": 1, "call": "cluster.drain"})).unwrap()
}

/// What a node's members are, in its own words.
fn states(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter_map(|node| node["state"].as_str()).collect()
}

/// Two nodes share the slots.
fn shared(status: &Value) -> bool {
    status["members"] == 2
        && status["homes"].as_u64() > Some(1_000)
        && status["awaited"] == 0
        && status["leaving"] == 0
        && status["entities_single_copy"] == 0
}

#[test]
fn somebody_always_serves() {
    let cloud = Cloud::start().unwrap();
    let mut first = started(&cloud, 1);
    for name in ["romeo", "juliet"] {
        first.add_account(&identity(name)).unwrap();
    }
    let (mut romeo, _) = session(&first, "romeo");
    let (mut juliet, _) = session(&first, "juliet");
    // Alone, it refuses, and goes on as if nothing had been asked.
    let refused = drain(&first);
    assert_eq!(refused["error"]["code"], "alone", "{refused}");
    wait_for(&first, |status| states(status) == ["serving"]);

    let mut second = started(&cloud, 2);
    wait_for(&first, shared);
    wait_for(&second, shared);
    say(&mut romeo, "juliet", "one");
    hear(&mut juliet, "one");

    // The first gives its slots to the second, which refuses then; and goes.
    let drained = drain(&first);
    assert_eq!(drained["ok"], true, "{drained}");
    let refused = drain(&second);
    assert_eq!(refused["error"]["code"], "alone", "{refused}");
    say(&mut romeo, "juliet", "two");
    hear(&mut juliet, "two");
    signal(second.server().unwrap(), "TERM");
    assert!(second.process().wait().unwrap().success());

    first.wait_for("the drain is taken back").unwrap();
    wait_for(&first, |status| {
        states(status) == ["serving"] && status["homes"] == 4_096
    });
    say(&mut romeo, "juliet", "three");
    hear(&mut juliet, "three");
    let question = json!({"v": 1, "call": "server.status"});
    let status = call(&first.control(), &question).unwrap();
    assert_eq!(status["draining"], false, "{status}");
}

/// Scale to zero, one node after the other: the second stops while a client that can't resume keeps
/// the first.
#[test]
fn sessions_go_on_after_the_last_two_nodes_have_gone() {
    let cloud = Cloud::start().unwrap();
    let user_data = format!("{USER_DATA}\ndrain.deadline_seconds=30");
    let start = |n| {
        let node = Node::launch(&cloud, &instance_id(n), &user_data).unwrap();
        node.wait_for("code=ok").unwrap();
        node
    };
    let (mut first, mut second) = (start(1), start(2));
    for node in [&first, &second] {
        wait_for(node, shared);
    }
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["juliet"]) {
        first.add_account(&identity(name)).unwrap();
    }
    let mut juliet = Client::connect(first.address(), identity("juliet")).unwrap();
    juliet.send("<presence/>").unwrap();
    assert_eq!(juliet.element().unwrap().name, "presence");
    signal(first.server().unwrap(), "TERM");
    first.wait_for("its clients go").unwrap();
    let open = |name: &String| session_of(&second, identity(name));
    let sessions: Vec<(Client, String)> = names.iter().map(open).collect();
    signal(second.server().unwrap(), "TERM");
    let ended = second.process().wait().unwrap();
    assert!(ended.success(), "{}", second.process().log());
    drop(juliet);
    let ended = first.process().wait().unwrap();
    assert!(ended.success(), "{}", first.process().log());
    let third = start(3);
    for (name, (_, id)) in names.iter().zip(&sessions) {
        let mut client = resume(&third, name, (id, 1));
        say(&mut client, name, "one");
        hear(&mut client, "one");
    }
}
