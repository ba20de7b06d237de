//! Behind a balancer that says for whom its connections are (PROXY protocol).

use std::time::Duration;

use cirrus_proxy::Balancers;
use cirrus_sasl::{Mechanism, carrier};

use crate::client::{Client, HEADER};
use crate::server::{PASSWORD, Server};

/// Everybody here is one.
fn balancers(within: Duration) -> Balancers {
    let options = cirrus_proxy::Options { most: 300, within };
    Balancers::new(|peer| peer.is_loopback(), options)
}

/// One address may have one connection; the balancer's own is as good as any.
async fn server() -> Server {
    let balancers = balancers(Duration::from_secs(20));
    Server::behind(balancers, |_, limits| limits.per_address = 1).await
}

/// The text form for a client.
fn text(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 1 2\r\n").into_bytes()
}

/// The binary form for a client.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    bytes.extend(client);
    bytes.extend([198, 51, 100, 1, 0, 1, 0, 2]);
    bytes
}

async fn dial(server: &Server, header: &[u8]) -> Client {
    let mut client = Client::plain(server).await;
    client.send_bytes(header).await;
    client
}

#[tokio::test]
async fn clients_count_by_their_own_addresses() {
    let server = server().await;
    let mut clients = Vec::new();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for header in [text("192.0.2.1"), binary([192, 0, 2, 2]), local] {
        let mut client = dial(&server, &header).await;
        client.send(HEADER).await;
        client.until("</stream:features>").await;
        clients.push(client);
    }
    // The balancer has one for itself now, and these two have theirs.
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    for header in [unknown, text("192.0.2.1"), binary([192, 0, 2, 2])] {
        let read = dial(&server, &header).await.until("</stream:stream>").await;
        assert!(read.contains("<resource-constraint "), "{read}");
    }
    let counts = server.shell.counts();
    assert_eq!((counts.proxied, counts.refused_address), (4, 3));
    assert_eq!((counts.proxy_headers_refused, counts.connections), (0, 3));
}

#[tokio::test]
async fn tls_comes_after_the_header() {
    let server = server().await;
    let mut client = Client::plain_to(server.direct).await;
    client.send_bytes(&binary([192, 0, 2, 1])).await;
    let mut client = client.secure(&["xmpp-client"]).await.unwrap();
    client.send(HEADER).await;
    client.until("</stream:features>").await;
    client
        .authenticate("ada", PASSWORD, Mechanism::ScramSha256Plus)
        .await;
    assert!(client.bind("x").await.contains("ada@localhost/x"));
}

#[tokio::test]
async fn failures_are_those_of_the_client() {
    let balancers = balancers(Duration::from_secs(20));
    let server = Server::behind(balancers, |_, limits| {
        limits.failures_per_address_per_minute = 1;
    })
    .await;
    let mut guesses = secured(&server, "192.0.2.1").await;
    let read = guesses.try_plain("ada", "wrong").await;
    assert!(read.contains("<not-authorized/>"), "{read}");
    let read = guesses.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<temporary-auth-failure/>"), "{read}");
    let mut other = secured(&server, "192.0.2.2").await;
    let read = other.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<success "), "{read}");
}

/// A client that has TLS, by its address.
async fn secured(server: &Server, client: &str) -> Client {
    let mut dialled = Client::plain_to(server.direct).await;
    dialled.send_bytes(&text(client)).await;
    let mut client = dialled.secure(&[]).await.unwrap();
    client.send(HEADER).await;
    client.until("</stream:features>").await;
    client
}

/// Ada's account may have six failures a minute.
async fn guarded() -> Server {
    Server::behind(balancers(Duration::from_secs(20)), |settings, limits| {
        settings.features.sasl2 = true;
        settings.features.fast = true;
        settings.max_failures = 100;
        limits.failures_per_account_per_minute = 6;
    })
    .await
}

async fn guess(server: &Server, from: &str, times: usize) {
    let mut guesses = secured(server, from).await;
    for _ in 0..times {
        let read = guesses.try_plain("ada", "wrong").await;
        assert!(read.contains("<not-authorized/>"), "{read}");
    }
}

/// A token that ada does not have.
async fn show_token(client: &mut Client) -> String {
    let (message, _) = cirrus_sasl::token::present("ada", "nobody's", &[]);
    let message = carrier::encode(&message);
    client
        .send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>\
             <initial-response>{message}</initial-response><user-agent id='phone'/>\
             <fast xmlns='urn:xmpp:fast:0'/></authenticate>"
        ))
        .await;
    client.until("</failure>").await
}

#[tokio::test]
async fn tokens_that_do_not_serve_keep_nobody_out_and_are_kept_out_by_nobody() {
    let server = guarded().await;
    for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let mut client = secured(&server, from).await;
        for _ in 0..6 {
            let read = show_token(&mut client).await;
            assert!(read.contains("<not-authorized "), "{read}");
        }
    }
    let mut ada = secured(&server, "192.0.2.9").await;
    let read = ada.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<success "), "{read}");

    for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        guess(&server, from, 2).await;
    }
    let mut client = secured(&server, "192.0.2.4").await;
    let read = client.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<temporary-auth-failure/>"), "{read}");
    let read = show_token(&mut client).await;
    assert!(read.contains("<not-authorized "), "looked at: {read}");
}

#[tokio::test]
async fn one_address_that_guesses_does_not_keep_the_owner_out() {
    let server = guarded().await;
    guess(&server, "192.0.2.1", 20).await;
    let mut ada = secured(&server, "192.0.2.9").await;
    let read = ada.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<success "), "{read}");
}

#[tokio::test]
async fn many_that_guess_do_not_keep_the_owner_out_where_she_was_before() {
    let server = guarded().await;
    let mut ada = secured(&server, "192.0.2.9").await;
    ada.authenticate("ada", PASSWORD, Mechanism::ScramSha256)
        .await;
    assert!(ada.bind("x").await.contains("ada@localhost/x"));
    for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        guess(&server, from, 2).await;
    }
    let mut stranger = secured(&server, "192.0.2.4").await;
    let read = stranger.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<temporary-auth-failure/>"), "{read}");
    let mut ada = secured(&server, "192.0.2.9").await;
    let read = ada.try_plain("ada", PASSWORD).await;
    assert!(read.contains("<success "), "{read}");
}

#[tokio::test]
async fn a_balancer_without_a_header_is_closed() {
    let server = server().await;
    for sent in [HEADER.as_bytes(), b"PROXY TCP4 nowhere\r\n"] {
        let mut client = dial(&server, sent).await;
        assert_eq!(client.read().await, "");
    }
    server
        .until(|counts| counts.proxy_headers_refused == 2 && counts.connections == 0)
        .await;
}

#[tokio::test]
async fn a_header_has_its_time() {
    let balancers = balancers(Duration::from_millis(200));
    let server = Server::behind(balancers, |_, _| {}).await;
    let mut client = dial(&server, b"PROXY TCP4 ").await;
    assert_eq!(client.read().await, "");
    server
        .until(|counts| counts.proxy_headers_refused == 1 && counts.connections == 0)
        .await;
}

#[tokio::test]
async fn nobody_waits_for_a_header_when_the_server_stops() {
    let server = server().await;
    let mut silent = Client::plain(&server).await;
    server.until(|counts| counts.connections == 1).await;
    server.shell.stop();
    assert_eq!(silent.read().await, "");
    server.ended().await;
}

#[tokio::test]
async fn from_others_a_header_is_refused() {
    let server = Server::start().await;
    for header in [text("192.0.2.1"), binary([192, 0, 2, 1])] {
        let mut client = dial(&server, &header).await;
        client.send(HEADER).await;
        let read = client.until("</stream:stream>").await;
        assert!(read.contains("<stream:error>"), "{read}");
        assert!(!read.contains("<stream:features"), "{read}");
        let mut client = Client::plain_to(server.direct).await;
        client.send_bytes(&header).await;
        assert!(client.secure(&[]).await.is_err());
    }
    assert_eq!(server.shell.counts().proxied, 0);
}
