//! Drains that are asked for while the server goes on: refused where nobody else serves, and taken
//! back by the node itself where nobody else does any more.

use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::call;
use serde_json::{Value, json};

use crate::cluster::{hear, identity, instance_id, say, session, signal, wait_for};

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
    let shared = |status: &Value| {
        status["members"] == 2
            && status["homes"].as_u64() > Some(1_000)
            && status["awaited"] == 0
            && status["leaving"] == 0
            && status["entities_single_copy"] == 0
    };
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
