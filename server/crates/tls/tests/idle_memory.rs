//! What a connection holds while nobody speaks. A binary of its own, so that other tests do not
//! disturb the figure.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the fixtures of a test fail by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use cirrus_tls::{HostTls, MinVersion, Options, ServerTls, TicketSecrets};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

const HOST: &str = "example.com";
const NOW_S: u64 = 1_800_000_000;
const CONNECTIONS: usize = 2000;
/// Of the 24 KiB that an idle session may cost in all. Measured: 7.8 KB, of which 4 KiB are the
/// receive buffer of rustls, 1.2 KB its connection, the rest keys and queues.
const BUDGET_BYTES: usize = 10 * 1024;

#[derive(Debug)]
struct Standstill;

impl TimeProvider for Standstill {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW_S)))
    }
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// A server's end after a handshake, a message each way, and a read that waits. The pipe itself is
/// dropped: a socket's buffers are the kernel's.
async fn idle(server: &ServerTls, client: &Arc<ClientConfig>) -> ServerConnection {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let name = ServerName::try_from(HOST).unwrap();
    let connect = TlsConnector::from(Arc::clone(client)).connect(name, far);
    let (secured, stream) = tokio::join!(server.accept_direct(near), connect);
    let (mut secured, mut stream) = (secured.unwrap(), stream.unwrap());
    let message = vec![b'x'; 3000];
    let mut received = vec![0; message.len()];
    stream.write_all(&message).await.unwrap();
    stream.flush().await.unwrap();
    secured.stream.read_exact(&mut received).await.unwrap();
    secured.stream.write_all(&message).await.unwrap();
    secured.stream.flush().await.unwrap();
    stream.read_exact(&mut received).await.unwrap();
    let mut byte = [0];
    let waiting = tokio::select! {
        biased;
        read = secured.stream.read(&mut byte) => panic!("nothing was sent: {read:?}"),
        () = std::future::ready(()) => true,
    };
    assert!(waiting);
    secured.stream.into_inner().1
}

#[tokio::test]
async fn an_idle_connection_stays_within_its_budget() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = ServerTls::build(Options {
        hosts: vec![HostTls {
            host: HOST.to_owned(),
            files: None,
        }],
        folder: Some(folder.path().to_owned()),
        min_version: MinVersion::V12,
        tickets: Some(TicketSecrets {
            current: [1; 32],
            other: None,
        }),
        clock: Arc::new(|| NOW_S * 1000),
    })
    .unwrap();
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(folder.path().join("example.com.pem")).unwrap();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_details(provider, Arc::new(Standstill))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);

    // Warm up: allocator, statics, caches.
    for _ in 0..50 {
        idle(&server, &client).await;
    }
    let before = resident();
    let mut held = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        held.push(Box::new(idle(&server, &client).await));
    }
    let each = resident().saturating_sub(before) / held.len();
    println!("an idle TLS connection holds {each} bytes");
    assert!(each < BUDGET_BYTES, "{each} bytes");
}
