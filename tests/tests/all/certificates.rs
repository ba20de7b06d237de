//! Certificates from an authority: the real server, and Let's Encrypt's test server.

use std::net::SocketAddr;

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::acme::Authority;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::emulated::route53::Route53;
use cirrus_tests::process::free_address;
use cirrus_tests::server::{Options, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOST: &str = "chat.example.com";
/// A port on which nobody is.
const NOBODY: u16 = 1;

fn options(directory: &str, roots: &str, http: &str) -> Options {
    [
        ("domains", format!("[{HOST}]")),
        ("acme.enabled", "true".to_owned()),
        ("acme.directory", format!("'{directory}'")),
        ("acme.roots", format!("'{roots}'")),
        ("acme.contact", "operator@example.com".to_owned()),
        ("acme.retry_seconds", "1".to_owned()),
        ("listen.acme_http", format!("'{http}'")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn client(server: &Server) -> Client {
    client_at(server.address())
}

fn client_at(address: SocketAddr) -> Client {
    Client::connect(address, romeo()).unwrap()
}

fn romeo() -> Identity {
    Identity::new(&format!("romeo@{HOST}"), "wherefore").unwrap()
}

/// Whether the certificate that a client saw is one of the authority.
fn is_issued(client: &Client) -> bool {
    let chain = client.tls().unwrap().peer_certificates().unwrap();
    let issuer = b"Pebble Intermediate";
    chain[0].windows(issuer.len()).any(|part| part == issuer)
}

fn wait(server: &mut Server, message: &str) -> Value {
    wait_for(server, message, "")
}

/// Waits for a log line with this message, and these words anywhere in it.
fn wait_for(server: &mut Server, message: &str, words: &str) -> Value {
    let found = |line: &str| {
        let fields: Value = serde_json::from_str(line).ok()?;
        (fields["message"] == message && line.contains(words)).then_some(fields)
    };
    server.process().wait_for(message, found).unwrap()
}

fn certificates(server: &Server) -> Value {
    let status = server
        .call(&json!({ "v": 1, "call": "server.status" }))
        .unwrap();
    status["certificates"].clone()
}

/// A client that was there before sees nothing of it; one that comes after sees the new chain; a
/// restart uses it from the first connection on and orders nothing.
#[test]
fn a_server_gets_its_certificate_by_http() {
    let http = free_address().unwrap();
    let authority = Authority::start(http.port(), NOBODY).unwrap();
    let roots = authority.roots().display().to_string();
    let mut server =
        Server::start(&options(&authority.directory(), &roots, &http.to_string())).unwrap();
    server
        .add_user(&format!("romeo@{HOST}"), "wherefore")
        .unwrap();
    let mut early = client(&server);
    wait(&mut server, "the authority has issued a certificate");
    let mut late = client(&server);
    assert!(is_issued(&late));
    early
        .send("<iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    assert_eq!(early.element().unwrap().attr("id"), Some("p1"));
    late.disconnect().unwrap();
    assert_eq!(certificates(&server)[0]["self_signed"], false);
    // How many orders it took depends on the nonces that were refused.
    let issued = authority.issued();

    server.restart("TERM").unwrap();
    assert!(is_issued(&client(&server)));
    wait(&mut server, "certificate in use");
    assert_eq!(authority.issued(), issued, "it was ordered again");
    let log = server.process().log();
    assert!(
        !log.contains("PRIVATE KEY") && !log.contains("BEGIN CERT"),
        "{log}"
    );
}

/// The authority asks the port of clients that begin with TLS; nothing else is needed.
#[test]
fn a_server_gets_its_certificate_by_handshake() {
    let direct = free_address().unwrap();
    let authority = Authority::start(NOBODY, direct.port()).unwrap();
    let roots = authority.roots().display().to_string();
    let mut given = options(&authority.directory(), &roots, "127.0.0.1:0");
    given.insert("acme.challenge".into(), "tls-alpn-01".into());
    given.insert("listen.c2s_tls".into(), format!("['{direct}']"));
    let mut server = Server::start(&given).unwrap();
    server
        .add_user(&format!("romeo@{HOST}"), "wherefore")
        .unwrap();
    wait(&mut server, "the authority has issued a certificate");
    assert!(is_issued(&client(&server)));
}

/// The server serves all the same, with a certificate of its own, and says what is wrong; when the
/// authority can reach it, it gets its certificate.
#[test]
fn an_authority_that_cannot_ask_leaves_the_self_signed_certificate() {
    let (asked, listening) = (free_address().unwrap(), free_address().unwrap());
    let authority = Authority::start(asked.port(), NOBODY).unwrap();
    let roots = authority.roots().display().to_string();
    let given = options(&authority.directory(), &roots, &listening.to_string());
    let mut server = Server::start(&given).unwrap();
    server
        .add_user(&format!("romeo@{HOST}"), "wherefore")
        .unwrap();
    // It may have refused too many nonces before.
    let words = "could not confirm chat.example.com by http-01";
    wait_for(&mut server, "no new certificate", words);
    wait(&mut server, "DNS record to set");
    assert!(!is_issued(&client(&server)));
    assert_eq!(certificates(&server)[0]["self_signed"], true);

    let folder = server.into_folder("TERM").unwrap();
    let given = options(&authority.directory(), &roots, &asked.to_string());
    let mut server = Server::start_in(folder, &given, Vec::new()).unwrap();
    wait(&mut server, "the authority has issued a certificate");
    assert!(is_issued(&client(&server)));
}

#[test]
fn an_authority_that_is_not_there_is_named() {
    let (http, nobody) = (free_address().unwrap(), free_address().unwrap());
    let folder = TempDir::with_prefix("roots-").unwrap();
    let roots = folder.path().join("none.pem").display().to_string();
    let directory = format!("https://{nobody}/dir");
    let mut server = Server::start(&options(&directory, &roots, &http.to_string())).unwrap();
    let said = wait(&mut server, "no new certificate");
    assert!(
        said["error"].as_str().unwrap().contains(&directory),
        "{said}"
    );
    server
        .add_user(&format!("romeo@{HOST}"), "wherefore")
        .unwrap();
    assert!(!is_issued(&client(&server)));
}

/// A record in the zone with the longest name that fits, waited for, and taken away again. That
/// self-signed certificates are not wanted holds for domains that no authority is asked for.
#[test]
fn a_server_gets_its_certificate_by_a_record() {
    let route53 = Route53::start(&["com", "example.com", "other.chat.example.com"]).unwrap();
    let authority = Authority::start_with_names(route53.names()).unwrap();
    let roots = authority.roots().display().to_string();
    let mut given = options(&authority.directory(), &roots, "127.0.0.1:0");
    given.insert("acme.challenge".into(), "dns-01".into());
    given.insert("tls.self_signed".into(), "false".into());
    let folder = TempDir::with_prefix("cirrus-").unwrap();
    let mut server = Server::start_in(folder, &given, route53.environment()).unwrap();
    server
        .add_user(&format!("romeo@{HOST}"), "wherefore")
        .unwrap();
    wait(&mut server, "the authority has issued a certificate");
    assert!(is_issued(&client(&server)));
    // How many orders it took depends on the nonces that were refused.
    let seen = route53.seen();
    let name = format!("_acme-challenge.{HOST}.");
    assert!(
        !seen.is_empty() && seen.iter().all(|it| *it == name),
        "{seen:?}"
    );
    assert_eq!(route53.records(), [""; 0], "it is left over");

    // The log says each day how long it lasts; the first time at the start.
    server.restart("TERM").unwrap();
    let said = wait_for(&mut server, "certificate", HOST);
    assert_eq!(said["self_signed"], false, "{said}");
    assert!(said["days_left"].as_u64().unwrap() > 300, "{said}");
}

/// What is missing is named, and the server serves with a certificate of its own.
#[test]
fn a_record_that_cannot_be_written_is_named() {
    for (zone, denied, words) in [
        (
            "example.org",
            None,
            "the record _acme-challenge.chat.example.com can't be published: no public hosted \
             zone of this account has it (looked for chat.example.com, example.com)",
        ),
        (
            "example.com",
            Some("ChangeResourceRecordSets"),
            "ChangeResourceRecordSets: AccessDenied: User: node is not authorized to perform: \
             route53:ChangeResourceRecordSets (the role of this machine lacks the permission",
        ),
    ] {
        let route53 = Route53::start(&[zone]).unwrap();
        if let Some(call) = denied {
            route53.deny(call);
        }
        let authority = Authority::start_with_names(route53.names()).unwrap();
        let roots = authority.roots().display().to_string();
        let mut given = options(&authority.directory(), &roots, "127.0.0.1:0");
        given.insert("acme.challenge".into(), "dns-01".into());
        let folder = TempDir::with_prefix("cirrus-").unwrap();
        let mut server = Server::start_in(folder, &given, route53.environment()).unwrap();
        wait_for(&mut server, "no new certificate", words);
        assert_eq!(certificates(&server)[0]["self_signed"], true);
    }
}

/// A domain that no authority certifies is an error where self-signed certificates are not wanted.
#[test]
fn without_files_and_authority_there_is_an_error() {
    let given: Options = [("domains", "[192.0.2.1]"), ("acme.enabled", "true")]
        .into_iter()
        .chain([("tls.self_signed", "false")])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let error = Server::start(&given).unwrap_err().to_string();
    assert!(
        error.contains("192.0.2.1 has no certificate; give its files"),
        "{error}"
    );
}

/// The certificate that one node got is what the next one shows. The authority is gone by then.
#[test]
fn another_node_uses_the_certificate_that_is_there() {
    let cloud = Cloud::start().unwrap();
    let http = free_address().unwrap();
    let authority = Authority::start(http.port(), NOBODY).unwrap();
    let user_data = format!(
        "domain={HOST}\nacme.directory={}\nacme.roots={}\nacme.retry_seconds=1\n\
         listen.acme_http={http}",
        authority.directory(),
        authority.roots().display(),
    );
    let mut first = Node::start(&cloud, "i-0000000000000000a", &user_data).unwrap();
    first.add_account(&romeo()).unwrap();
    first
        .wait_for("the authority has issued a certificate")
        .unwrap();
    assert!(is_issued(&client_at(first.address())));
    first.process().signal("TERM").unwrap();
    first.process().wait().unwrap();
    drop((first, authority));

    let second = Node::start(&cloud, "i-0000000000000000b", &user_data).unwrap();
    assert!(is_issued(&client_at(second.address())));
    let said = second.wait_for("\"message\":\"certificate\"").unwrap();
    assert!(said.contains("\"self_signed\":false"), "{said}");
}
