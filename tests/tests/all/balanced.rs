//! A server behind a balancer that says for whom its connections are.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::{Balancer, Doors};
use cirrus_tests::server::{Options, Server};

use crate::health;

#[test]
fn clients_come_through_a_balancer_that_names_them_and_not_past_it() {
    if !Balancer::is_installed() {
        eprintln!("skipped: no haproxy on this machine, and it could not be installed");
        return;
    }
    let networks = ("listen.proxy_networks", "[127.0.0.0/8]");
    let options = [networks].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut server = Server::start(&Options::from(options)).unwrap();
    let romeo = Identity::new("romeo@localhost", "wherefore").unwrap();
    server.add_account(&romeo).unwrap();
    let doors = Doors {
        c2s: server.address(),
        c2s_tls: server.tls_address(),
        health: health::address(server.process()),
    };
    let balancer = Balancer::start_telling(&[doors]).unwrap();
    let mut romeo = Client::connect(balancer.address(), romeo).unwrap();
    romeo.send("<presence/>").unwrap();
    assert_eq!(romeo.element().unwrap().name, "presence");

    let mut past = TcpStream::connect(doors.c2s).unwrap();
    past.write_all(b"<stream:stream>").unwrap();
    // It is closed, or reset as what was sent is not read.
    assert_eq!(past.read(&mut [0; 1]).unwrap_or(0), 0);
    let (_, metrics) = health::get(doors.health, "/metrics");
    let is = |line: &str| metrics.lines().any(|there| there == line);
    assert!(is("cirrus_proxy_headers_refused_total 1"), "{metrics}");
    assert!(!is("cirrus_connections_proxied_total 0"), "{metrics}");
}
