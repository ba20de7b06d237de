//! Several nodes on the same tables: sessions outlive the node that held them.

use std::time::Duration;

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::call;
use serde_json::{Value, json};

const USER_DATA: &str = "domain=localhost";

struct Cluster {
    nodes: Vec<Node>,
    _cloud: Cloud,
}

impl Cluster {
    fn start(count: usize) -> Self {
        let cloud = Cloud::start().unwrap();
        let id = |n| format!("i-{n:017x}");
        let launch = |n| Node::launch(&cloud, &id(n), USER_DATA).unwrap();
        let nodes: Vec<Node> = (1..=count).map(launch).collect();
        for node in &nodes {
            node.wait_for("code=ok").unwrap();
        }
        let cluster = Self {
            nodes,
            _cloud: cloud,
        };
        cluster.settled(count);
        cluster
    }

    /// Waits until every node knows of so many, and everything is where it should be, with a copy.
    fn settled(&self, members: usize) {
        for node in &self.nodes {
            let settled = |status: &Value| {
                status["members"] == members
                    && status["awaited"] == 0
                    && status["leaving"] == 0
                    && status["entities_single_copy"] == 0
            };
            wait_for(node, settled);
        }
    }

    /// Kills the server of a node as nothing else could. It is a member no more.
    fn kill(&mut self, n: usize) -> Node {
        let mut node = self.nodes.remove(n);
        let server = node.server().unwrap().to_string();
        let killed = std::process::Command::new("kill")
            .args(["-KILL", &server])
            .status();
        assert!(killed.unwrap().success());
        node.process().wait().unwrap();
        node
    }
}

/// Asks a node about the cluster until that holds.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause is between two questions, not for two things to meet"
)]
pub(crate) fn wait_for(node: &Node, holds: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..600 {
        if let Ok(status) = call(&node.control(), &json!({"v": 1, "call": "cluster.status"})) {
            if holds(&status) {
                return;
            }
            last = status;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never came to that: {last}");
}

fn identity(name: &str) -> Identity {
    let password = if name == "romeo" { "wherefore" } else { "lies" };
    Identity::new(&format!("{name}@localhost"), password).unwrap()
}

/// A session that can be resumed: the client, and what to resume it with.
fn session(node: &Node, name: &str) -> (Client, String) {
    let mut client = Client::connect(node.address(), identity(name)).unwrap();
    client
        .send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        .unwrap();
    let enabled = client.element().unwrap();
    assert_eq!(enabled.name, "enabled");
    let id = enabled.attr("id").unwrap().to_owned();
    client.send("<presence/>").unwrap();
    assert_eq!(client.element().unwrap().name, "presence");
    (client, id)
}

/// Resumes on another node, having handled `h` stanzas.
fn resume(node: &Node, name: &str, (id, h): (&str, u32)) -> Client {
    let mut client = Client::dial(node.address(), identity(name)).unwrap();
    client.open_stream().unwrap();
    client.start_tls().unwrap();
    client.open_stream().unwrap();
    client.authenticate().unwrap();
    client.open_stream().unwrap();
    client
        .send(format!(
            "<resume xmlns='urn:xmpp:sm:3' h='{h}' previd='{id}'/>"
        ))
        .unwrap();
    assert_eq!(client.element().unwrap().name, "resumed");
    client
}

fn say(client: &mut Client, to: &str, text: &str) {
    let message = format!("<message type='chat' to='{to}@localhost'><body>{text}</body></message>");
    client.send(message).unwrap();
}

fn hear(client: &mut Client, text: &str) {
    let heard = client.element().unwrap();
    assert_eq!(heard.name, "message", "{heard:?}");
    assert!(format!("{heard:?}").contains(text), "{heard:?}");
}

#[test]
fn a_session_goes_on_on_another_node_when_its_own_is_killed() {
    let mut cluster = Cluster::start(3);
    for name in ["romeo", "juliet"] {
        cluster.nodes[0].add_account(&identity(name)).unwrap();
    }
    let (mut romeo, id) = session(&cluster.nodes[0], "romeo");
    let (mut juliet, _) = session(&cluster.nodes[1], "juliet");
    say(&mut romeo, "juliet", "one");
    hear(&mut juliet, "one");
    say(&mut juliet, "romeo", "two");
    hear(&mut romeo, "two");
    cluster.settled(3);
    let _dead = cluster.kill(0);
    say(&mut juliet, "romeo", "three");
    // He has handled his own presence and a message.
    let mut romeo = resume(&cluster.nodes[1], "romeo", (&id, 2));
    hear(&mut romeo, "three");
    say(&mut romeo, "juliet", "four");
    hear(&mut juliet, "four");
    cluster.settled(2);
}
