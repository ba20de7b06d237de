//! What a load balancer and a monitoring system are told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::process::Process;
use cirrus_tests::server::{Options, Server};

/// Where a server says that it can be asked.
fn address(process: &Process) -> SocketAddr {
    let found = |line: &str| {
        let start = line.find('{')?;
        let fields: serde_json::Value = serde_json::from_str(&line[start..]).ok()?;
        let it = fields["message"] == "health and metrics";
        it.then(|| fields["address"].as_str()?.parse().ok())?
    };
    process.wait_for("the address of health", found).unwrap()
}

/// Status line and body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn a_serving_node_is_healthy_and_counts() {
    let mut server = Server::start(&Options::new()).unwrap();
    let health = address(server.process());
    let (status, body) = get(health, "/health");
    assert_eq!(
        (&*status, &*body),
        ("HTTP/1.1 200 OK", "this node serves\n")
    );

    let romeo = Identity::new("romeo@localhost", "wherefore").unwrap();
    server.add_account(&romeo).unwrap();
    let romeo = Client::connect(server.address(), romeo).unwrap();
    let (_, metrics) = get(health, "/metrics");
    for line in [
        "cirrus_serving 1",
        "cirrus_logins_total 1",
        "cirrus_sessions{state=\"attached\"} 1",
        "cirrus_store_requests_total{place=\"accounts\",request=\"put\"} ",
        "# EOF",
    ] {
        let there = metrics.lines().any(|there| there.starts_with(line));
        assert!(there, "{line} in\n{metrics}");
    }
    drop(romeo);
}

#[test]
fn a_node_that_stands_by_is_not_healthy() {
    let cloud = Cloud::start().unwrap();
    let mut first = Node::start(&cloud, "i-0000000000000000a", "domain=localhost").unwrap();
    let mut second =
        Node::start_standby(&cloud, "i-0000000000000000b", "domain=localhost").unwrap();
    let health = address(second.process());
    let (status, body) = get(health, "/health");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.starts_with("standby: i-0000000000000000a"), "{body}");
    first.process().kill().unwrap();
    second.wait_for("\"message\":\"ready\"").unwrap();
    assert_eq!(get(health, "/health").0, "HTTP/1.1 200 OK");
}
