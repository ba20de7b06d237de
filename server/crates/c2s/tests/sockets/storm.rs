//! Many clients at once.

use std::time::Duration;

use cirrus_sasl::Mechanism;

use crate::client::{Client, ENABLE, HEADER};
use crate::server::{PASSWORD, Server};

/// A client that has logged in and has no session yet.
async fn secured(server: &Server, name: &str) -> Client {
    let mut client = Client::starttls(server).await;
    client
        .authenticate(name, PASSWORD, Mechanism::ScramSha1)
        .await;
    client
}

#[tokio::test]
async fn whoever_comes_too_late_is_told_when_to_come_and_whoever_resumes_is_not() {
    let server = Server::with(|_, limits| {
        (limits.logins_per_second, limits.logins_burst) = (1, 1);
        limits.login_wait = Duration::ZERO;
    })
    .await;
    let mut ada = server.log_in("ada").await;
    ada.send(ENABLE).await;
    let enabled = ada.until("<enabled").await;
    let id = enabled.split("id='").nth(1).unwrap();
    let id = id.split('\'').next().unwrap().to_owned();
    ada.abort();

    let mut bob = secured(&server, "bob").await;
    let read = bob.bind("x").await;
    assert!(read.contains("<error type='wait'>"), "{read}");
    assert!(read.contains("<resource-constraint "), "{read}");
    assert!(read.contains("try again in 1 s"), "{read}");

    let mut ada = secured(&server, "ada").await;
    ada.send(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"
    ))
    .await;
    ada.until("<resumed").await;
    // The connection is as good as before, and its next try may be in time.
    while !bob.bind("x").await.contains("bob@localhost/x") {}
    let counts = server.shell.counts();
    assert!(counts.logins_put_off >= 1, "{counts:?}");
    assert_eq!(counts.logins_paced, 0);
}

#[tokio::test]
async fn new_sessions_wait_for_their_turn() {
    let server = Server::with(|_, limits| {
        (limits.logins_per_second, limits.logins_burst) = (20, 1);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(secured(&server, "ada").await);
    }
    let [a, b, c, d] = clients.as_mut_slice() else {
        unreachable!("four clients");
    };
    // They ask at the same time.
    let (a, b, c, d) = tokio::join!(a.bind("r0"), b.bind("r1"), c.bind("r2"), d.bind("r3"));
    for (n, read) in [a, b, c, d].into_iter().enumerate() {
        assert!(read.contains(&format!("ada@localhost/r{n}")), "{read}");
    }
    let counts = server.shell.counts();
    assert!((1..=3).contains(&counts.logins_paced), "{counts:?}");
    assert_eq!(counts.logins_put_off, 0);
}

#[tokio::test]
async fn connections_beyond_the_rate_wait_and_come() {
    let server = Server::with(|_, limits| {
        (limits.accepts_per_second, limits.accepts_burst) = (50, 2);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::plain(&server).await;
        client.send(HEADER).await;
        clients.push(client);
    }
    for client in &mut clients {
        client.until("</stream:features>").await;
    }
    assert!(server.shell.counts().accepts_paced > 0);
}

/// Some are moved to other nodes, of those that can go on there; the others stay.
#[tokio::test]
async fn some_connections_go_where_there_are_fewer() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for n in 0..6 {
        let mut client = secured(&server, "ada").await;
        client.bind(&format!("r{n}")).await;
        if n < 4 {
            client.send(ENABLE).await;
            client.until("<enabled").await;
        }
        clients.push(client);
    }
    server.shell.part(3, Vec::new()).await;
    server
        .until(|counts| counts.moved == 3 && counts.connections == 3)
        .await;
    // Of those that are left one can go.
    server.shell.part(3, Vec::new()).await;
    server
        .until(|counts| counts.moved == 4 && counts.connections == 2)
        .await;
    let mut stays = clients.pop().unwrap();
    stays
        .send("<iq type='get' id='still' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        .await;
    stays.until("id='still'").await;
    for client in clients.iter_mut().take(4) {
        assert_eq!(client.read().await, "", "without a word");
    }
}

/// An operator, the balancer and the service manager have their answers while the store has none.
#[tokio::test]
async fn a_store_that_does_not_answer_keeps_nobody_from_asking_the_node() {
    let server = Server::narrow().await;
    let mut clients = [server.log_in("ada").await, server.log_in("bob").await];
    server.store.hold(true);
    // They talk until nobody takes what they say.
    for n in 0.. {
        let message = "<message to='ada@localhost/x' type='chat'><body>a</body></message>";
        clients[n % 2].send(message).await;
        let census = server.home.census().await.unwrap();
        if census.waiting > 0 {
            break;
        }
        assert!(n < 1_000, "{census:?}");
    }
    assert_eq!(server.home.view().await, Ok(None));
    assert_eq!(server.home.drain(false).await, Ok(false));
    server.store.hold(false);
    clients[0].until("</message>").await;
}
