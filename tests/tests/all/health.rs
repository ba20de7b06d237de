//! What a load balancer and a monitoring system are told.

use std::net::SocketAddr;

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::process::Process;
use cirrus_tests::server::{Options, Server, page};

/// Where a server says that it can be asked.
pub(crate) fn address(process: &Process) -> SocketAddr {
    let found = |line: &str| {
        let start = line.find('{')?;
        let fields: serde_json::Value = serde_json::from_str(&line[start..]).ok()?;
        let it = fields["message"] == "health and metrics";
        it.then(|| fields["address"].as_str()?.parse().ok())?
    };
    process.wait_for("the address of health", found).unwrap()
}

/// Status line and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    page(address, path).unwrap()
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
