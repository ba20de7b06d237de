//! Logins in one round trip: with a token, a resource or a session that goes on, and what is left
//! when the token is of no use.

use cirrus_tests::client::sasl2::Token;
use cirrus_tests::client::{BIND2, Client, Identity, SASL, SM};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::server::{Options, Server};
use cirrus_tests::xml::Node;
use serde_json::json;

const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>phone</tag>\
    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";
const BOUND: &str = "HT-SHA-256-EXPR";

fn identity(name: &str) -> Identity {
    Identity::new(&format!("{name}@localhost"), "wherefore").unwrap()
}

fn server() -> Server {
    let server = Server::start(&Options::new()).unwrap();
    for name in ["juliet", "romeo"] {
        server
            .add_user(&format!("{name}@localhost"), "wherefore")
            .unwrap();
    }
    server
}

/// A connection of juliet under TLS, on which nothing was said yet.
fn secured(server: &Server) -> Client {
    let mut client = Client::dial(server.address(), identity("juliet")).unwrap();
    client.open_stream().unwrap();
    client.start_tls().unwrap();
    client
}

/// Logs in with the password, binds, and gets a token.
fn first_login(server: &Server, mechanism: &str) -> (Client, Node, Token) {
    let mut client = secured(server);
    client.open_stream().unwrap();
    let request = format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>");
    let success = client
        .login_by_password(&format!("{AGENT}{BIND}{request}"))
        .unwrap();
    let token = Token::of(&success, mechanism).expect("a token");
    (client, success, token)
}

fn session(success: &Node) -> String {
    let bound = success.child("bound", BIND2).expect("bound");
    let enabled = bound.child("enabled", SM).expect("enabled");
    enabled.attr("id").unwrap().to_owned()
}

fn is_refused(outcome: &Node, condition: &str) -> bool {
    outcome.name == "failure" && outcome.child(condition, SASL).is_some()
}

#[test]
fn a_token_a_resource_and_a_session_that_goes_on_take_one_round_trip() {
    let mut server = server();
    let mut romeo = Client::connect(server.address(), identity("romeo")).unwrap();
    let (mut phone, success, token) = first_login(&server, BOUND);
    let id = session(&success);
    phone.send("<presence/>").unwrap();
    phone.element().unwrap();
    let received = phone.acks.received;
    phone.break_off();
    romeo
        .send("<message to='juliet@localhost' type='chat' id='m'><body>soft</body></message>")
        .unwrap();
    romeo
        .send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    romeo.element().unwrap();

    // Resumed.
    let mut phone = secured(&server);
    let before = phone.round_trips;
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' h='{received}' previd='{id}'/>");
    let more = format!("{AGENT}{BIND}{FAST}{resume}");
    let success = phone.login_by_token(&token, &more).unwrap();
    assert!(success.child("resumed", SM).is_some(), "{success}");
    assert!(success.child("bound", BIND2).is_none(), "{success}");
    let message = phone.element().unwrap();
    assert_eq!(message.attr("id"), Some("m"), "{message}");
    let taken = phone.round_trips - before;
    println!("token, resumption and what was missed: {taken} round trip after TLS");
    assert_eq!(taken, 1);
    phone.disconnect().unwrap();

    // Nothing to resume; also after the server has come anew.
    server.restart("TERM").unwrap();
    let mut phone = secured(&server);
    let before = phone.round_trips;
    let success = phone.login_by_token(&token, &more).unwrap();
    assert!(success.child("failed", SM).is_some(), "{success}");
    assert!(!session(&success).is_empty());
    let taken = phone.round_trips - before;
    println!("token and a new session: {taken} round trip after TLS");
    assert_eq!(taken, 1);
    phone.send("<presence/>").unwrap();
    phone.element().unwrap();
}

#[test]
fn a_token_is_for_its_client_its_mechanism_and_its_connection() {
    let server = server();
    let (_, _, token) = first_login(&server, BOUND);
    let show = format!("{AGENT}{FAST}");

    // What was said on one connection is worth nothing on another.
    let mut overheard = secured(&server);
    let said = overheard.authenticate_by_token(&token, &show).unwrap();
    assert_eq!(
        overheard.login_by_token(&token, &show).unwrap().name,
        "success"
    );
    let mut other = secured(&server);
    other.open_stream().unwrap();
    other.send(&said).unwrap();
    let outcome = other.element().unwrap();
    assert!(is_refused(&outcome, "not-authorized"), "{outcome}");
    // The password still serves, on the same stream.
    let outcome = other.login_by_password(AGENT).unwrap();
    assert_eq!(outcome.name, "success");

    let unbound = Token {
        mechanism: "HT-SHA-256-NONE".into(),
        ..token.clone()
    };
    let outcome = secured(&server).login_by_token(&unbound, &show).unwrap();
    assert!(is_refused(&outcome, "not-authorized"), "{outcome}");
    let elsewhere = format!("<user-agent id='other'/>{FAST}");
    let outcome = secured(&server).login_by_token(&token, &elsewhere).unwrap();
    assert!(is_refused(&outcome, "not-authorized"), "{outcome}");
}

#[test]
fn a_token_ends_when_its_client_says_so_and_with_the_password() {
    let server = server();
    let (_, _, token) = first_login(&server, "HT-SHA-256-NONE");
    let invalidate = FAST.replace("/>", " invalidate='true'/>");
    let log_out = format!("{AGENT}{invalidate}");
    let outcome = secured(&server).login_by_token(&token, &log_out).unwrap();
    assert_eq!(outcome.name, "success");
    let show = format!("{AGENT}{FAST}");
    let outcome = secured(&server).login_by_token(&token, &show).unwrap();
    assert!(is_refused(&outcome, "not-authorized"), "{outcome}");

    let (_, _, token) = first_login(&server, "HT-SHA-256-NONE");
    let change = json!({"v": 1, "call": "user.passwd", "jid": "juliet@localhost",
        "password": "no longer"});
    assert_eq!(server.call(&change).unwrap()["ok"], true);
    let outcome = secured(&server).login_by_token(&token, &show).unwrap();
    assert!(is_refused(&outcome, "credentials-expired"), "{outcome}");
}
