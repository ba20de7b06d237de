//! The shell on real sockets of the loopback, with a home and a store in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod balanced;
mod client;
mod server;
mod storm;

use std::time::Duration;

use cirrus_c2s::shell::Limits;
use cirrus_c2s::stream::Timeouts;
use cirrus_sasl::Mechanism;

use client::{Client, ENABLE, STARTTLS};
use server::{PASSWORD, Server};

const HEADER: &str = client::HEADER;

#[tokio::test]
async fn starttls_and_every_mechanism() {
    let server = Server::start().await;
    for mechanism in Mechanism::ALL {
        let mut client = Client::starttls(&server).await;
        client.authenticate("ada", PASSWORD, mechanism).await;
        let bound = client.bind(mechanism.name()).await;
        assert!(
            bound.contains(&format!("ada@localhost/{mechanism}")),
            "{bound}"
        );
        client.close().await;
    }
    let counts = server.shell.counts();
    assert_eq!((counts.logins, counts.handshakes_failed), (5, 0));
}

#[tokio::test]
async fn direct_tls_with_and_without_alpn() {
    let server = Server::start().await;
    for alpn in [&["xmpp-client"][..], &[]] {
        let mut client = Client::direct(&server, alpn).await.unwrap();
        client
            .authenticate("ada", PASSWORD, Mechanism::ScramSha256Plus)
            .await;
        assert!(client.bind("x").await.contains("ada@localhost/x"));
    }
    assert!(Client::direct(&server, &["http/1.1"]).await.is_err());
    server.until(|counts| counts.handshakes_failed == 1).await;
}

#[tokio::test]
async fn messages_go_from_one_to_another() {
    let server = Server::start().await;
    let (mut ada, mut bob) = (server.log_in("ada").await, server.log_in("bob").await);
    bob.send("<presence/>").await;
    bob.until("</presence>|<presence").await;
    for n in 0..500 {
        ada.send(&format!(
            "<message to='bob@localhost' type='chat'><body>{n}</body></message>"
        ))
        .await;
    }
    let mut read = String::new();
    while !read.contains("<body>499</body>") {
        read += &bob.read().await;
    }
    let order: Vec<_> = read.match_indices("<body>").collect();
    assert_eq!(order.len(), 500);
    assert!(read.find("<body>7<") < read.find("<body>8<"));
    assert!(read.contains("from='ada@localhost/x'"));
}

/// What is sent in the clear behind `<starttls/>` is not taken for part of the protected stream.
#[tokio::test]
async fn plaintext_behind_starttls_is_discarded() {
    let server = Server::start().await;
    let mut client = Client::plain(&server).await;
    client.send(HEADER).await;
    client.until("</stream:features>").await;
    client.send(&format!("{STARTTLS}{HEADER}<injected/>")).await;
    client.until("<proceed").await;
    let mut client = client.secure(&[]).await.unwrap();
    client.send(HEADER).await;
    let read = client.until("</stream:features>").await;
    assert!(
        read.contains("<mechanisms") && !read.contains("error"),
        "{read}"
    );
}

#[tokio::test]
async fn a_resource_in_use_is_taken_over() {
    let server = Server::start().await;
    let mut first = server.log_in("ada").await;
    let _second = server.log_in("ada").await;
    let read = first.until("</stream:stream>").await;
    assert!(read.contains("<conflict "), "{read}");
    assert_eq!(first.read().await, "", "the connection is closed");
}

#[tokio::test]
async fn a_broken_connection_is_resumed() {
    let server = Server::start().await;
    let (mut ada, mut bob) = (server.log_in("ada").await, server.log_in("bob").await);
    bob.send(ENABLE).await;
    let enabled = bob.until("<enabled").await;
    let id = enabled
        .split("id='")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap()
        .to_owned();
    bob.send("<presence/>").await;
    bob.until("<r xmlns='urn:xmpp:sm:3'/>").await;
    bob.send("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    bob.abort();
    let message = "<message to='bob@localhost/x' type='chat'><body>late</body></message>";
    ada.send(message).await;
    let mut bob = Client::starttls(&server).await;
    bob.authenticate("bob", PASSWORD, Mechanism::ScramSha1)
        .await;
    bob.send(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"
    ))
    .await;
    let read = bob.until("late").await;
    assert!(read.contains(&format!(
        "<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"
    )));
    bob.send("<presence type='unavailable'/>").await;
    let read = bob.until("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    assert!(!read.contains("<error"), "{read}");
}

#[tokio::test]
async fn a_close_is_answered_and_the_connection_closed() {
    let server = Server::start().await;
    let mut client = server.log_in("ada").await;
    client.send(ENABLE).await;
    client.until("<enabled").await;
    client.send("<presence/></stream:stream>").await;
    let read = client.until("</stream:stream>").await;
    assert!(
        read.contains("<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>"),
        "{read}"
    );
    assert_eq!(client.read().await, "");
    server.until(|counts| counts.connections == 0).await;
}

#[tokio::test]
async fn a_shutdown_is_said_and_bounded() {
    let server = Server::start().await;
    let mut clients = vec![
        Client::plain(&server).await,
        Client::starttls(&server).await,
    ];
    clients[0].send(HEADER).await;
    clients[0].until("</stream:features>").await;
    clients.push(server.log_in("ada").await);
    server.shell.stop();
    for client in &mut clients {
        let read = client.until("</stream:stream>").await;
        assert!(read.contains("<system-shutdown "), "{read}");
        assert_eq!(client.read().await, "");
    }
    drop(clients);
    server.ended().await;
}

#[tokio::test]
async fn a_client_that_does_not_log_in_is_closed() {
    let timeouts = Timeouts {
        login_ms: 200,
        ..Timeouts::default()
    };
    let server = Server::with(|settings, _| settings.timeouts = timeouts).await;
    let mut client = Client::starttls(&server).await;
    let read = client.until("</stream:stream>").await;
    assert!(read.contains("<connection-timeout "), "{read}");
    let mut silent = Client::plain(&server).await;
    let read = silent.until("</stream:stream>").await;
    assert!(read.contains("<connection-timeout "), "{read}");
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let handshake = Duration::from_millis(200);
    let server = Server::with(|_, limits| limits.handshake = handshake).await;
    let mut client = Client::plain_to(server.direct).await;
    assert_eq!(client.read().await, "");
    server
        .until(|counts| counts.handshakes_failed == 1 && counts.connections == 0)
        .await;
}

#[tokio::test]
async fn one_connection_too_many_hears_so() {
    let server = Server::with(|_, limits| limits.per_address = 2).await;
    let _held = (Client::plain(&server).await, Client::plain(&server).await);
    let mut third = Client::plain(&server).await;
    let read = third.until("</stream:stream>").await;
    assert!(read.contains("<resource-constraint "), "{read}");
    assert_eq!(server.shell.counts().refused_address, 1);
}

#[tokio::test]
async fn a_sender_past_the_rate_is_slowed_down_and_loses_nothing() {
    let server = Server::with(|_, limits| {
        (limits.stanzas_per_second, limits.stanzas_burst) = (100, 20);
    })
    .await;
    let mut client = server.log_in("ada").await;
    let ping = |n| format!("<iq type='get' id='{n}' to='localhost'><ping xmlns='urn:x'/></iq>");
    let pings: String = (0..60).map(ping).collect();
    client.send(&pings).await;
    let mut answers = 0;
    while answers < 60 {
        answers += client.read().await.matches("<iq ").count();
    }
    assert!(server.shell.counts().throttled > 0);
}

/// A client that asks and asks and never reads.
#[tokio::test]
async fn a_reader_that_is_too_slow_is_closed() {
    let server = Server::with(|_, limits| limits.write_queue_bytes = 65_536).await;
    let mut client = server.log_in("ada").await;
    let body = "a".repeat(8_000);
    let ask = format!("<iq type='get' id='1' to='localhost'><x xmlns='u'>{body}</x></iq>");
    let echo = format!("<message to='ada@localhost/x'><body>{body}</body></message>{ask}");
    while client.try_send(&echo).await {}
    server
        .until(|counts| counts.slow_readers == 1 && counts.connections == 0)
        .await;
}

#[tokio::test]
async fn too_many_failures_put_off_the_next_login() {
    let server = Server::with(|_, limits| limits.failures_per_address_per_minute = 2).await;
    let mut client = Client::starttls(&server).await;
    for _ in 0..2 {
        let read = client.try_plain("ada", "wrong").await;
        assert!(read.contains("<not-authorized/>"), "{read}");
    }
    let read = client.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<temporary-auth-failure/>"), "{read}");
}

#[tokio::test]
async fn accounts_are_registered_up_to_the_limit() {
    let server = Server::with(|settings, limits| {
        settings.features.register = true;
        limits.registrations_per_address_per_hour = 2;
    })
    .await;
    let mut client = Client::starttls(&server).await;
    for (name, answer) in [
        ("new", "<iq type='result' id='r'/>"),
        ("ada", "<conflict "),
        ("third", "<resource-"),
    ] {
        client
            .send(&format!(
                "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}\
                 </username><password>pencil</password></query></iq>"
            ))
            .await;
        let read = client.until("id='r'/>|</iq>").await;
        assert!(read.contains(answer), "{name}: {read}");
    }
    client
        .authenticate("new", "pencil", Mechanism::ScramSha256)
        .await;
    assert!(client.bind("x").await.contains("new@localhost/x"));
}

#[tokio::test]
async fn garbage_ends_a_connection_and_nothing_else() {
    let server = Server::start().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0",
    ] {
        let mut client = Client::plain(&server).await;
        client.send_bytes(garbage).await;
        let read = client.until("</stream:stream>").await;
        assert!(read.contains("<stream:error>"), "{read}");
        let mut client = Client::plain_to(server.direct).await;
        client.send_bytes(garbage).await;
        client.send_bytes(&[0; 600]).await;
    }
    let mut client = server.log_in("ada").await;
    client.send("<presence/>").await;
    client.until("<presence").await;
    assert_eq!(server.shell.counts().crashed, 0);
}

/// The settings of these tests.
fn limits() -> Limits {
    Limits {
        connections: 100,
        unauthenticated: 100,
        per_address: 100,
        accepts_per_second: 100_000,
        accepts_burst: 100_000,
        accepts_late_ms: 5,
        logins_per_second: 100_000,
        logins_burst: 100_000,
        login_wait: Duration::from_secs(10),
        stanzas_per_second: 100_000,
        stanzas_burst: 100_000,
        bytes_per_second: 100_000_000,
        bytes_burst: 100_000_000,
        write_queue_stanzas: 1_024,
        write_queue_bytes: 1_048_576,
        failures_per_address_per_minute: 100,
        failures_per_account_per_minute: 100,
        registrations_per_address_per_hour: 100,
        registrations_per_hour: 100,
        handshake: Duration::from_secs(10),
        linger: Duration::from_secs(2),
    }
}
