//! Nodes that clients reach at addresses of their own, without a balancer: DNS leads to them, and
//! whoever has to move is told where.

use std::process::Command;
use std::sync::PoisonError;

use cirrus_tests::client::{Client, Identity, Received};
use cirrus_tests::elastic::Doors;
use cirrus_tests::emulated::cloud::Node;
use cirrus_tests::process::binary;
use cirrus_tests::server::call;
use cirrus_tests::xml::Event;
use serde_json::{Value, json};

use crate::cluster::{ONE, resume_at, wait_for};
use crate::elastic::{Pair, USER_DATA};
use crate::rebalance::metric;

const CLIENTS: usize = 8;
/// Namespace of stream errors.
const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
const PING: &str = "<iq type='get' id='here' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";

struct Session {
    name: String,
    id: String,
    client: Client,
}

fn identity(name: &str) -> Identity {
    Identity::new(&format!("{name}@localhost/r"), "wherefore").unwrap()
}

/// A session that can be resumed, and where it had best be.
fn begin(doors: &Doors, name: String) -> (Session, Option<String>) {
    let mut client = Client::connect(doors.c2s, identity(&name)).unwrap();
    client
        .send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        .unwrap();
    let enabled = client.element().unwrap();
    let id = enabled.attr("id").unwrap().to_owned();
    let location = enabled.attr("location").map(str::to_owned);
    (Session { name, id, client }, location)
}

impl Session {
    /// Where the client is sent, unless it is to stay.
    fn is_sent(&mut self) -> Option<String> {
        // One that was sent away reads why even if it can't write any more.
        let _ = self.client.send(PING);
        let error = loop {
            let element = self.client.element().unwrap();
            if element.attr("id") == Some("here") {
                return None;
            }
            if element.name == "error" {
                break element;
            }
        };
        let told = error.child("see-other-host", STREAMS).unwrap();
        let host = told.text();
        while !matches!(
            self.client.receive().unwrap(),
            Received::Event(Event::Close) | Received::End
        ) {}
        Some(host)
    }

    /// Where the client is sent, sooner or later.
    fn is_sent_away(&mut self) -> String {
        loop {
            if let Some(host) = self.is_sent() {
                return host;
            }
        }
    }

    /// Does what it was told.
    fn goes_to(self, address: &str) -> Session {
        let Session { name, id, client } = self;
        let h = client.acks.received;
        let client = resume_at(address.parse().unwrap(), identity(&name), (&id, h));
        Session { name, id, client }
    }
}

/// The targets of the records for STARTTLS, as the node's command prints them.
fn ports(node: &Node) -> Vec<String> {
    let mut command = Command::new(binary("cirrus-server").unwrap());
    command
        .args(["cluster", "dns", "--control"])
        .arg(node.control());
    let printed = command.output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    let starts = "_xmpp-client._tcp.localhost. 60 IN SRV 0 1 ";
    let lines = text.lines().filter_map(|line| line.strip_prefix(starts));
    lines.map(str::to_owned).collect()
}

#[test]
fn who_has_to_move_is_told_where() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new();
    let user_data = format!(
        "{USER_DATA}\ncluster.public_address=auto\nrebalance.settle_seconds=1\n\
         rebalance.at_least=1"
    );
    let [one, two] = pair.doors;
    let (there, lines) = (two.c2s.to_string(), |n: usize| {
        let doors = pair.doors[n - 1];
        let instance = crate::cluster::instance_id(n);
        format!("{} {instance}.xmpp.localhost.", doors.c2s.port())
    });
    let mut first = pair.launch(1, &user_data);
    first.wait_for("code=ok").unwrap();
    Pair::add(&mut first, (0..=CLIENTS).map(|n| format!("a{n}")));
    let begun = (0..CLIENTS).map(|n| begin(&one, format!("a{n}")));
    let (sessions, told): (Vec<_>, Vec<_>) = begun.unzip();
    assert!(told.iter().all(Option::is_none), "there is no other node");
    assert_eq!(ports(&first), [lines(1)]);

    // A node comes, and half of the clients are sent there.
    let second = pair.launch(2, &user_data);
    second.wait_for("code=ok").unwrap();
    let moved = || metric(&one, "cirrus_clients_moved_total");
    wait_for(&first, |_| moved() >= CLIENTS / 2);
    assert_eq!(ports(&first), [lines(1), lines(2)]);
    let mut kept = Vec::new();
    let mut gone = Vec::new();
    for mut session in sessions {
        match session.is_sent() {
            Some(host) => {
                assert_eq!(host, there);
                gone.push(session.goes_to(&host));
            }
            None => kept.push(session),
        }
    }
    assert_eq!((kept.len(), gone.len()), (CLIENTS / 2, CLIENTS / 2));

    // Whoever comes now hears where to resume.
    let (latest, location) = begin(&one, format!("a{CLIENTS}"));
    assert_eq!(location.as_ref(), Some(&there));
    kept.push(latest);

    // The first one goes.
    let draining = call(&first.control(), &json!({"v": 1, "call": "cluster.drain"}));
    assert_eq!(draining.unwrap()["ok"], true);
    wait_for(&first, |status: &Value| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["weight"] == 0)
    });
    assert_eq!(ports(&second), [lines(2)]);
    let stop = json!({"v": 1, "call": "server.stop"});
    assert_eq!(call(&first.control(), &stop).unwrap()["ok"], true);
    for mut session in kept {
        let host = session.is_sent_away();
        assert_eq!(host, there);
        gone.push(session.goes_to(&host));
    }
    // Every session is the one that it was.
    for session in &mut gone {
        session.client.send(PING).unwrap();
        let answer = session.client.element().unwrap();
        assert_eq!(answer.attr("id"), Some("here"), "{answer}");
    }
    first.process().wait().unwrap();
}
