//! A client that says what it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cirrus_sasl::client::{self, ClientBinding};
use cirrus_sasl::{BindingKind, ChannelBinding, Mechanism, Password, carrier};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::Server;

pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream to='localhost' \
    version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
pub(crate) const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub(crate) const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    /// Before TLS.
    socket: Option<TcpStream>,
    exporter: Vec<u8>,
    /// Read and not looked for yet.
    pending: String,
}

impl Client {
    /// A connection that has said nothing yet.
    pub(crate) async fn plain(server: &Server) -> Self {
        Self::plain_to(server.plain).await
    }

    pub(crate) async fn plain_to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let stream = Box::new(tokio::io::empty());
        Self {
            stream,
            socket: Some(socket),
            exporter: Vec::new(),
            pending: String::new(),
        }
    }

    /// A connection with TLS and the features after it.
    pub(crate) async fn starttls(server: &Server) -> Self {
        let mut client = Self::plain(server).await;
        client.send(HEADER).await;
        client.until("</stream:features>").await;
        client.send(STARTTLS).await;
        client.until("<proceed").await;
        let mut client = client.secure(&[]).await.unwrap();
        client.send(HEADER).await;
        client.until("</stream:features>").await;
        client
    }

    /// A connection that begins with TLS, and the features after it.
    pub(crate) async fn direct(server: &Server, alpn: &[&str]) -> io::Result<Self> {
        let mut client = Self::plain_to(server.direct).await.secure(alpn).await?;
        client.send(HEADER).await;
        client.until("</stream:features>").await;
        Ok(client)
    }

    /// Starts TLS.
    pub(crate) async fn secure(self, alpn: &[&str]) -> io::Result<Self> {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let socket = self.socket.unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]))
            .unwrap();
        Ok(Self {
            stream: Box::new(stream),
            socket: None,
            exporter: exporter.to_vec(),
            pending: String::new(),
        })
    }

    fn stream(&mut self) -> &mut (dyn Stream + 'static) {
        match &mut self.socket {
            Some(socket) => socket,
            None => &mut *self.stream,
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).await.unwrap();
        self.stream().flush().await.unwrap();
    }

    /// Sends if the server still takes it.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        self.stream().write_all(text.as_bytes()).await.is_ok()
    }

    /// What comes next; empty at the end.
    pub(crate) async fn read(&mut self) -> String {
        if !self.pending.is_empty() {
            return std::mem::take(&mut self.pending);
        }
        let mut buffer = vec![0; 65_536];
        let read = tokio::time::timeout(PATIENCE, self.stream().read(&mut buffer)).await;
        // Whoever closes without saying so at the level of TLS has closed all the same.
        let read = read.unwrap().unwrap_or(0);
        buffer.truncate(read);
        String::from_utf8(buffer).unwrap()
    }

    /// Reads until the text, or the first of several that `|` separates, has come whole with the
    /// rest of its tag.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut read = std::mem::take(&mut self.pending);
        loop {
            let end = wanted
                .split('|')
                .filter_map(|wanted| Some(read.find(wanted)? + wanted.len()))
                .min()
                .and_then(|at| match read[..at].ends_with('>') {
                    true => Some(at),
                    false => read[at..].find('>').map(|more| at + more + 1),
                });
            if let Some(end) = end {
                self.pending = read.split_off(end);
                return read;
            }
            let more = self.read().await;
            assert!(!more.is_empty(), "closed before {wanted}: {read}");
            read += &more;
        }
    }

    /// Logs in, up to the features after it.
    pub(crate) async fn authenticate(&mut self, user: &str, password: &str, with: Mechanism) {
        let read = match with.hash() {
            None => self.try_plain(user, password).await,
            Some(_) => self.scram(user, password, with).await,
        };
        assert!(read.contains("<success"), "{read}");
        self.send(HEADER).await;
        self.until("</stream:features>").await;
    }

    pub(crate) async fn try_plain(&mut self, user: &str, password: &str) -> String {
        let password = Password::prepare(password).unwrap();
        let data = carrier::encode(&client::plain("", user, &password));
        self.send(&format!(
            "<auth xmlns='{SASL}' mechanism='PLAIN'>{data}</auth>"
        ))
        .await;
        self.until("<success|</failure>").await
    }

    async fn scram(&mut self, user: &str, password: &str, with: Mechanism) -> String {
        let password = Password::prepare(password).unwrap();
        let hash = with.hash().unwrap();
        let mut client = client::Client::new(hash, user, password, "a-nonce-of-the-client");
        if with.is_plus() {
            let data = self.exporter.clone();
            let binding = ChannelBinding {
                kind: BindingKind::TlsExporter,
                data,
            };
            client = client.binding(ClientBinding::Bound(binding));
        }
        let first = carrier::encode(&client.first());
        self.send(&format!(
            "<auth xmlns='{SASL}' mechanism='{with}'>{first}</auth>"
        ))
        .await;
        let challenge = self.until("</challenge>").await;
        let challenge = challenge
            .split('>')
            .nth(1)
            .unwrap()
            .strip_suffix("</challenge")
            .unwrap();
        let answer = client
            .respond(&carrier::decode(challenge).unwrap())
            .unwrap();
        let answer = carrier::encode(&answer);
        self.send(&format!("<response xmlns='{SASL}'>{answer}</response>"))
            .await;
        let read = self.until("</success>|</failure>").await;
        if let Some(data) = read
            .split('>')
            .nth(1)
            .and_then(|it| it.strip_suffix("</success"))
        {
            client.finish(&carrier::decode(data).unwrap()).unwrap();
        }
        read
    }

    /// Binds a resource; the answer.
    pub(crate) async fn bind(&mut self, resource: &str) -> String {
        self.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>{resource}</resource></bind>\
             </iq>"
        ))
        .await;
        self.until("</iq>").await
    }

    /// Ends the stream and waits for the other end to do so.
    pub(crate) async fn close(mut self) {
        self.send("</stream:stream>").await;
        self.until("</stream:stream>").await;
    }

    /// Breaks the connection.
    pub(crate) fn abort(self) {
        drop(self);
    }
}

/// Takes any certificate: these tests are not about them.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
