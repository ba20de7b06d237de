//! TLS sessions that go on on another node.

use std::sync::Arc;

use cirrus_tests::client::sasl2::Token;
use cirrus_tests::client::{Client, Identity, tls};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>";

/// A connection to the port where TLS comes first, with the tickets that the client has.
fn secured(node: &Node, config: &Arc<ClientConfig>) -> Client {
    let identity = Identity::new("juliet@localhost", "wherefore").unwrap();
    let mut client = Client::dial(node.tls_address(), identity).unwrap();
    let host = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), host).unwrap();
    client.handshake_of(connection).unwrap();
    client
}

fn kind(client: &Client) -> Option<HandshakeKind> {
    client.tls().unwrap().handshake_kind()
}

/// And with it a login by token that is bound to the connection: the binding is the new
/// connection's own.
#[test]
fn a_ticket_of_one_node_opens_on_another() {
    let cloud = Cloud::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (chain, key) = (
        folder.path().join("chain.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&chain, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let user_data = format!(
        "domain=localhost\ntls.certificates=[{{host: localhost, chain: {}, key: {}}}]",
        chain.display(),
        key.display()
    );
    let start = |id| Node::start(&cloud, id, &user_data).unwrap();
    let mut first = start("i-0000000000000000a");
    let second = start("i-0000000000000000b");
    let identity = Identity::new("juliet@localhost", "wherefore").unwrap();
    first.add_account(&identity).unwrap();

    let config = Arc::new(tls::config(None, rustls::ALL_VERSIONS).unwrap());
    let mut client = secured(&first, &config);
    assert_eq!(kind(&client), Some(HandshakeKind::Full));
    client.open_stream().unwrap();
    let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
    let success = client
        .login_by_password(&format!("{AGENT}{request}"))
        .unwrap();
    let token = Token::of(&success, "HT-SHA-256-EXPR").expect("a token");
    client.disconnect().unwrap();

    for node in [&second, &first] {
        let mut client = secured(node, &config);
        assert_eq!(kind(&client), Some(HandshakeKind::Resumed));
        let show = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0'/>");
        let success = client.login_by_token(&token, &show).unwrap();
        assert_eq!(success.name, "success", "{success}");
        client.disconnect().unwrap();
    }
}
