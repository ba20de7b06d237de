//! A lone server that is stopped in order: the sessions of its clients go on when one is there again,
//! whichever it is.

use std::net::SocketAddr;

use cirrus_tests::client::{Client, Identity, Received};
use cirrus_tests::dialogue::play::Stage;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::{Options, Server};

use crate::cluster::resume_at;

fn identity(name: &str) -> Identity {
    Identity::new(&format!("{name}@localhost/r"), "wherefore").unwrap()
}

fn connect(address: SocketAddr, name: &str) -> Client {
    Client::connect(address, identity(name)).unwrap()
}

/// A session that can be resumed, available: the client, and what to resume it with.
fn resumable(address: SocketAddr, name: &str) -> (Client, String) {
    let mut client = connect(address, name);
    client
        .send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        .unwrap();
    let enabled = client.element().unwrap();
    let id = enabled.attr("id").unwrap().to_owned();
    client.send("<presence/>").unwrap();
    client.element().unwrap();
    (client, id)
}

/// Says something to juliet, and waits until it is handled.
fn tell(client: &mut Client, id: &str) {
    client
        .send(format!(
            "<message to='juliet@localhost' type='chat' id='{id}'><body>{id}</body></message>\
             <iq type='get' id='p{id}' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"
        ))
        .unwrap();
    while client.element().unwrap().attr("id") != Some(&format!("p{id}")) {}
}

/// The ids of the messages that come before the answer to a ping.
fn messages(client: &mut Client) -> Vec<String> {
    client
        .send("<iq type='get' id='end' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    let mut ids = Vec::new();
    loop {
        let element = client.element().unwrap();
        let id = element.attr("id").unwrap_or_default().to_owned();
        match element.name.as_str() {
            "iq" if id == "end" => return ids,
            "message" => ids.push(id),
            _ => {}
        }
    }
}

/// What a session had not acknowledged, what comes while its client is away, and what comes after.
fn goes_on(mut stop_and_start: impl FnMut(), address: impl Fn() -> SocketAddr) {
    let mut romeo = connect(address(), "romeo");
    let (mut juliet, id) = resumable(address(), "juliet");
    juliet.acks.answering = false;
    tell(&mut romeo, "a");
    tell(&mut romeo, "b");
    assert_eq!(juliet.element().unwrap().attr("id"), Some("a"));
    let received = juliet.acks.received;
    stop_and_start();
    // The connection ended without a word: the session has not.
    while let Ok(received) = juliet.receive() {
        match received {
            Received::End => break,
            Received::Event(event) => assert!(!event.to_string().contains("error"), "{event}"),
        }
    }
    let mut romeo = connect(address(), "romeo");
    tell(&mut romeo, "c");
    let mut juliet = resume_at(address(), identity("juliet"), (&id, received));
    assert_eq!(messages(&mut juliet), ["b", "c"]);
    tell(&mut romeo, "d");
    assert_eq!(messages(&mut juliet), ["d"]);
    // What a client that leaves has not acknowledged is not its own.
    let h = juliet.acks.received;
    juliet
        .send(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"))
        .unwrap();
    juliet.disconnect().unwrap();
    // Nothing of it is left for anybody else.
    let mut juliet = connect(address(), "juliet");
    juliet.send("<presence/>").unwrap();
    assert!(messages(&mut juliet).is_empty());
}

#[test]
fn sessions_go_on_in_another_process() {
    let server = std::cell::RefCell::new(Server::start(&Options::new()).unwrap());
    for name in ["juliet", "romeo"] {
        let jid = format!("{name}@localhost");
        server.borrow().add_user(&jid, "wherefore").unwrap();
    }
    goes_on(
        || server.borrow_mut().restart("TERM").unwrap(),
        || server.borrow().address(),
    );
}

/// Scale to zero and back: nothing is left of the first instance but its tables.
#[test]
fn sessions_go_on_on_another_instance() {
    let cloud = Cloud::start().unwrap();
    let start = |id| Node::start(&cloud, id, "domain=localhost").unwrap();
    let node = std::cell::RefCell::new(start("i-0000000000000000a"));
    for name in ["juliet", "romeo"] {
        node.borrow_mut().add_account(&identity(name)).unwrap();
    }
    let replace = || {
        let mut node = node.borrow_mut();
        node.process().signal("TERM").unwrap();
        assert!(node.process().wait().unwrap().success());
        *node = start("i-0000000000000000b");
    };
    goes_on(replace, || node.borrow().address());
}
