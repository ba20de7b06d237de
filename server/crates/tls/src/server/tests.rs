use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::accept::Secured;
use crate::binding::EXPORTER_LABEL;

const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 60 * 60 * 1000;
const A: &str = "a.example";
const B: &str = "b.example";

/// A folder, a clock that tests move, and hosts with self-signed certificates.
struct Fixture {
    folder: TempDir,
    now: Arc<AtomicU64>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            folder: TempDir::new().unwrap(),
            now: Arc::new(AtomicU64::new(NOW_MS)),
        }
    }

    fn options(&self, hosts: &[&str]) -> Options {
        let now = Arc::clone(&self.now);
        Options {
            hosts: hosts
                .iter()
                .map(|&host| HostTls {
                    host: host.to_owned(),
                    files: None,
                })
                .collect(),
            folder: Some(self.folder.path().join("tls")),
            min_version: MinVersion::V12,
            tickets: Some(TicketSecrets {
                current: [7; 32],
                other: None,
            }),
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
        }
    }

    fn server(&self, hosts: &[&str]) -> ServerTls {
        ServerTls::build(self.options(hosts)).unwrap()
    }

    fn file(&self, host: &str) -> PathBuf {
        self.folder.path().join("tls").join(format!("{host}.pem"))
    }

    /// A client that trusts what `server` has now and keeps tickets.
    fn client(
        &self,
        server: &ServerTls,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in server.certificates() {
            roots.add(certificate.key.cert[0].clone()).unwrap();
        }
        let now = Arc::clone(&self.now);
        let time = Time(Arc::new(move || now.load(Ordering::Relaxed)));
        let provider = Arc::new(default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(time))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::store(Arc::new(Blind::default()));
        config
    }
}

/// What an authority would issue: here by another server of the same host.
fn issued(host: &str) -> IssuedPem {
    let other = Fixture::new();
    other.server(&[host]);
    let pem = fs::read(other.file(host)).unwrap();
    IssuedPem {
        chain: pem.clone(),
        key: pem,
    }
}

#[test]
fn an_issued_certificate_is_used_until_there_is_another() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A, B]);
    let prints = || {
        server
            .certificates()
            .iter()
            .map(|it| it.fingerprint())
            .collect::<Vec<_>>()
    };
    let before = prints();
    let pem = issued(B);
    assert!(server.install(B, pem.clone()).unwrap());
    let after = prints();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert!(
        !server.install(B, pem.clone()).unwrap(),
        "the same once more"
    );
    server.reload().unwrap();
    assert_eq!(prints(), after, "a reload keeps it");

    let broken = IssuedPem {
        key: issued(B).key,
        ..pem.clone()
    };
    assert!(matches!(
        server.install(B, broken),
        Err(TlsError::Mismatch { .. })
    ));
    assert_eq!(prints(), after, "a fault changes nothing");
    assert!(matches!(
        server.install("c.example", pem),
        Err(TlsError::UnknownHost { .. })
    ));
}

/// Keeps sessions without regard to the host, as a hostile or careless client might.
#[derive(Debug)]
struct Blind(ClientSessionMemoryCache);

impl Default for Blind {
    fn default() -> Blind {
        Blind(ClientSessionMemoryCache::new(8))
    }
}

fn any() -> ServerName<'static> {
    ServerName::try_from("any.example").unwrap()
}

impl ClientSessionStore for Blind {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}

type Pair = (Secured<DuplexStream>, ClientStream<DuplexStream>);

enum How {
    Direct,
    StartTls(&'static str),
}

/// A handshake, then a byte each way, so that the client has its ticket.
async fn connect(
    server: &ServerTls,
    how: How,
    client: &ClientConfig,
    name: &'static str,
) -> Result<Pair, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(client.clone()));
    let accept = async {
        match how {
            How::Direct => server.accept_direct(near).await,
            How::StartTls(host) => server.accept_starttls(near, host).await,
        }
    };
    let name = ServerName::try_from(name).unwrap();
    let (secured, stream) = tokio::join!(accept, connector.connect(name, far));
    // The side that refuses knows why; the other sees an alert.
    let (mut secured, mut stream) = match (secured, stream) {
        (Ok(secured), Ok(stream)) => (secured, stream),
        (secured, stream) => {
            return Err(format!(
                "server: {:?}; client: {:?}",
                secured.err(),
                stream.err()
            ));
        }
    };
    speak(&mut secured, &mut stream).await;
    Ok((secured, stream))
}

async fn speak(secured: &mut Secured<DuplexStream>, stream: &mut ClientStream<DuplexStream>) {
    secured.stream.write_all(b"s").await.unwrap();
    secured.stream.flush().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b's');
    stream.write_all(b"c").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(secured.stream.read_u8().await.unwrap(), b'c');
}

fn seen(stream: &ClientStream<DuplexStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test]
async fn both_ends_have_the_same_bindings() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    for (version, name) in [(&TLS13, "TLSv1.3"), (&TLS12, "TLSv1.2")] {
        let client = fixture.client(&server, version);
        for resumed in [false, true] {
            let (secured, stream) = connect(&server, How::Direct, &client, A).await.unwrap();
            assert_eq!(secured.summary().version, name);
            assert_eq!(secured.summary().resumed, resumed);
            let bindings = secured.bindings();
            let wanted = digest::digest(&digest::SHA256, &seen(&stream));
            assert_eq!(bindings.server_end_point.as_deref(), Some(wanted.as_ref()));
            let (_, connection) = stream.get_ref();
            let exported = connection
                .export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))
                .unwrap();
            let exported = (name == "TLSv1.3").then(|| exported.to_vec());
            assert_eq!(bindings.exporter, exported);
        }
    }
    assert!(!format!("{server:?}").contains("[7, 7"));
}

#[tokio::test]
async fn exporters_differ_between_connections() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    let client = fixture.client(&server, &TLS13);
    let (first, _one) = connect(&server, How::Direct, &client, A).await.unwrap();
    let (second, _two) = connect(&server, How::Direct, &client, A).await.unwrap();
    assert!(second.summary().resumed);
    assert_ne!(first.bindings().exporter, second.bindings().exporter);
    assert_eq!(
        format!("{:?}", first.bindings()),
        "Bindings { exporter: true, server_end_point: true }"
    );
}

#[tokio::test]
async fn direct_tls_goes_by_the_indicated_name() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A, B, "m\u{fc}nchen.example", "127.0.0.1"]);
    let client = fixture.client(&server, &TLS13);
    let host = |name| {
        let (server, client) = (&server, &client);
        async move {
            let (secured, _) = connect(server, How::Direct, client, name).await?;
            Ok::<_, String>(secured.certificate.host.clone())
        }
    };
    assert_eq!(host(A).await.unwrap(), A);
    assert_eq!(host(B).await.unwrap(), B);
    assert_eq!(
        host("xn--mnchen-3ya.example").await.unwrap(),
        "m\u{fc}nchen.example"
    );
    // An unknown name gets the first certificate, and a client that checks refuses that.
    let refused = host("c.example").await.unwrap_err();
    assert!(
        refused.contains("client: Some(") && refused.contains("NotValidForName"),
        "{refused}"
    );
    assert_eq!(
        server
            .host_for_sni(Some("B.EXAMPLE"))
            .unwrap()
            .certificate
            .host,
        B
    );
    // Addresses are not indicated (RFC 6066, section 3).
    assert_eq!(server.host_for_sni(None).unwrap().certificate.host, A);
}

#[tokio::test]
async fn starttls_goes_by_the_stream() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A, B, "m\u{fc}nchen.example", "[::1]"]);
    let client = fixture.client(&server, &TLS13);
    for (host, name) in [
        (B, B),
        ("m\u{fc}nchen.example", "xn--mnchen-3ya.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("[::1]", "::1"),
    ] {
        connect(&server, How::StartTls(host), &client, name)
            .await
            .expect(host);
    }
    let (near, _far) = tokio::io::duplex(64);
    let refused = server.accept_starttls(near, "c.example").await.unwrap_err();
    assert!(matches!(refused, TlsError::UnknownHost { .. }), "{refused}");
}

#[tokio::test]
async fn direct_tls_speaks_xmpp_only() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    let with = |protocols: &[&str]| {
        let mut client = fixture.client(&server, &TLS13);
        client.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        client
    };
    let both = with(&["h2", "xmpp-client"]);
    let (secured, _stream) = connect(&server, How::Direct, &both, A).await.unwrap();
    assert_eq!(
        secured.stream.get_ref().1.alpn_protocol(),
        Some(ALPN_CLIENT)
    );
    let refused = connect(&server, How::Direct, &with(&["http/1.1"]), A)
        .await
        .unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    connect(&server, How::StartTls(A), &both, A).await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"<?xml version='1.0'?><stream:stream>")
        .await
        .unwrap();
    let refused = server.accept_direct(near).await.unwrap_err();
    assert!(matches!(refused, TlsError::Handshake(_)), "{refused}");
}

#[tokio::test]
async fn the_oldest_version_is_an_option() {
    let fixture = Fixture::new();
    let options = Options {
        min_version: MinVersion::V13,
        ..fixture.options(&[A])
    };
    let server = ServerTls::build(options).unwrap();
    connect(&server, How::Direct, &fixture.client(&server, &TLS13), A)
        .await
        .unwrap();
    let old = fixture.client(&server, &TLS12);
    let refused = connect(&server, How::Direct, &old, A).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn a_ticket_is_good_on_every_node() {
    let fixture = Fixture::new();
    let one = fixture.server(&[A]);
    let two = fixture.server(&[A]);
    for version in [&TLS13, &TLS12] {
        let client = fixture.client(&one, version);
        let resumed = async |server, how| {
            connect(server, how, &client, A)
                .await
                .unwrap()
                .0
                .summary()
                .resumed
        };
        assert!(!resumed(&one, How::Direct).await);
        assert!(resumed(&two, How::Direct).await);
        assert!(resumed(&one, How::StartTls(A)).await, "whatever the port");
        fixture.now.fetch_add(HOUR_MS * 5, Ordering::Relaxed);
        assert!(resumed(&two, How::Direct).await);
        fixture.now.fetch_add(HOUR_MS * 13, Ordering::Relaxed);
        assert!(!resumed(&two, How::Direct).await, "its key is gone");
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_nothing_else() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A, B]);
    for version in [&TLS13, &TLS12] {
        let resumed = async |server, client, name| {
            connect(server, How::Direct, client, name)
                .await
                .unwrap()
                .0
                .summary()
                .resumed
        };
        let client = fixture.client(&server, version);
        assert!(!resumed(&server, &client, A).await);
        assert!(!resumed(&server, &client, B).await, "another host");
        let other_secret = TicketSecrets {
            current: [8; 32],
            other: None,
        };
        let options = Options {
            tickets: Some(other_secret.clone()),
            ..fixture.options(&[A, B])
        };
        let other = ServerTls::build(options).unwrap();
        assert!(!resumed(&other, &client, B).await, "another secret");
        let off = ServerTls::build(Options {
            tickets: None,
            ..fixture.options(&[A, B])
        })
        .unwrap();
        assert!(!resumed(&off, &client, B).await, "tickets are off");
        off.set_ticket_secrets(other_secret);
        assert!(!resumed(&off, &client, B).await, "and stay off");
    }
}

#[tokio::test]
async fn replaced_secrets_have_a_generation_of_grace() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    let client = fixture.client(&server, &TLS13);
    let resumed = async || {
        connect(&server, How::Direct, &client, A)
            .await
            .unwrap()
            .0
            .summary()
            .resumed
    };
    assert!(!resumed().await);
    let secrets = |current, other| TicketSecrets {
        current: [current; 32],
        other,
    };
    server.set_ticket_secrets(secrets(8, Some([7; 32])));
    assert!(resumed().await);
    server.set_ticket_secrets(secrets(9, None));
    assert!(!resumed().await);
}

#[tokio::test]
async fn a_reload_changes_new_handshakes_only() {
    let fixture = Fixture::new();
    let server = fixture.server(&[A]);
    let client = fixture.client(&server, &TLS13);
    let (mut standing, mut standing_client) =
        connect(&server, How::Direct, &client, A).await.unwrap();
    let before = server.certificates()[0].fingerprint();
    assert!(!server.reload_if_changed().unwrap());

    fs::remove_file(fixture.file(A)).unwrap();
    assert!(server.reload_if_changed().unwrap());
    assert_ne!(server.certificates()[0].fingerprint(), before);
    assert!(!server.reload_if_changed().unwrap());

    speak(&mut standing, &mut standing_client).await;
    assert_eq!(
        standing.certificate.fingerprint(),
        before,
        "bindings stay those of the handshake"
    );

    // The client trusts both, and has a ticket that was made under the old certificate.
    let mut trusting = fixture.client(&server, &TLS13);
    trusting.resumption = client.resumption.clone();
    let (secured, stream) = connect(&server, How::Direct, &trusting, A).await.unwrap();
    assert!(
        !secured.summary().resumed,
        "a ticket dies with its certificate"
    );
    let wanted = digest::digest(&digest::SHA256, &seen(&stream));
    assert_eq!(
        secured.bindings().server_end_point.as_deref(),
        Some(wanted.as_ref())
    );

    server.reload().unwrap();
    let (secured, _stream) = connect(&server, How::Direct, &trusting, A).await.unwrap();
    assert!(
        secured.summary().resumed,
        "a reload of the same certificate keeps tickets"
    );
}

#[tokio::test]
async fn a_failed_reload_changes_nothing() {
    let fixture = Fixture::new();
    let made = fixture.server(&[A]);
    let own = fixture.folder.path().join("own.pem");
    fs::copy(fixture.file(A), &own).unwrap();
    let files = PemFiles {
        chain: own.clone(),
        key: own.clone(),
    };
    let mut options = fixture.options(&[A]);
    options.hosts[0].files = Some(files);
    let server = ServerTls::build(options).unwrap();
    fs::write(&own, "-----BEGIN CERTIFICATE-----\nhalf a file").unwrap();
    let refused = server.reload_if_changed().unwrap_err();
    assert!(refused.to_string().contains("own.pem"), "{refused}");
    assert_eq!(
        server.certificates()[0].fingerprint(),
        made.certificates()[0].fingerprint()
    );
    connect(&server, How::Direct, &fixture.client(&made, &TLS13), A)
        .await
        .unwrap();
    assert!(
        server.reload_if_changed().is_err(),
        "said again until it is mended"
    );
    fs::copy(fixture.file(A), &own).unwrap();
    assert!(server.reload_if_changed().unwrap());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn self_signed_certificates_are_kept_and_private() {
    let fixture = Fixture::new();
    let fingerprints = |hosts: &[&str]| {
        let certificates = fixture.server(hosts).certificates();
        certificates
            .iter()
            .map(|it| it.fingerprint())
            .collect::<Vec<_>>()
    };
    let first = fingerprints(&[A]);
    assert_eq!(mode(&fixture.file(A)), 0o600);
    assert_eq!(mode(&fixture.folder.path().join("tls")), 0o700);
    assert_eq!(fingerprints(&[A]), first);
    let both = fingerprints(&[A, B]);
    assert_eq!(
        both[0], first[0],
        "a new host does not change the certificates of others"
    );
    fs::set_permissions(fixture.file(A), fs::Permissions::from_mode(0o644)).unwrap();
    let certificates = fixture.server(&[A]).certificates();
    assert_eq!(certificates[0].fingerprint(), first[0]);
    assert_eq!(certificates[0].remarks(NOW_MS), [""; 0]);
    assert_eq!(mode(&fixture.file(A)), 0o600);
    let names: Vec<_> = fs::read_dir(fixture.folder.path().join("tls"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
}

#[test]
fn self_signed_certificates_are_replaced_when_they_no_longer_serve() {
    let fixture = Fixture::new();
    let fingerprint = || fixture.server(&[A]).certificates()[0].fingerprint();
    let first = fingerprint();
    fs::write(fixture.file(A), "not PEM").unwrap();
    let second = fingerprint();
    assert_ne!(first, second);
    fixture.server(&[B]);
    fs::copy(fixture.file(B), fixture.file(A)).unwrap();
    let third = fixture.server(&[A]).certificates().remove(0);
    assert!(third.covers_host);
    assert_eq!(third.names, [A]);
    let days = |days: u64| HOUR_MS * 24 * days;
    fixture
        .now
        .store(NOW_MS + days(3650 - 31), Ordering::Relaxed);
    assert_eq!(fingerprint(), third.fingerprint());
    fixture
        .now
        .store(NOW_MS + days(3650 - 29), Ordering::Relaxed);
    assert_ne!(fingerprint(), third.fingerprint());
}

#[test]
fn hosts_are_needed_and_checked() {
    let fixture = Fixture::new();
    let build = |hosts: &[&str]| ServerTls::build(fixture.options(hosts)).unwrap_err();
    assert!(matches!(build(&[]), TlsError::NoHosts));
    assert!(matches!(
        build(&["../etc/passwd"]),
        TlsError::BadHost { .. }
    ));
    let file = fixture.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let options = Options {
        folder: Some(file.join("below")),
        ..fixture.options(&[A])
    };
    let refused = ServerTls::build(options).unwrap_err().to_string();
    assert!(refused.contains("file/below"), "{refused}");
    let options = Options {
        folder: None,
        ..fixture.options(&[A])
    };
    assert!(matches!(
        ServerTls::build(options).unwrap_err(),
        TlsError::NoFiles { .. }
    ));
}
