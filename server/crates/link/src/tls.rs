//! TLS of links: 1.3 only, a certificate made at start, and no trust in anybody's certificate, as
//! the hello inside binds the connection to the cluster key.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::error::{LinkError, Lost};
use crate::hello::EXPORTER_BYTES;

const ALPN: &[u8] = b"cirrus-link";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-cirrus-link";
/// In the certificates and in the handshake; it means nothing.
const NAME: &str = "cirrus-link";

/// Both ends of handshakes.
pub(crate) struct LinkTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl LinkTls {
    /// Makes key and certificate anew.
    pub(crate) fn build() -> Result<LinkTls, LinkError> {
        let provider = Arc::new(default_provider());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(LinkTls {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<Secret, Lost> {
        Secret::of(self.acceptor.accept(socket).await?.into())
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> Result<Secret, Lost> {
        let name = ServerName::try_from(NAME).map_err(|_| Lost::Protocol)?;
        Secret::of(self.connector.connect(name, socket).await?.into())
    }
}

/// A connection that nobody reads along, with somebody not yet known.
pub(crate) struct Secret {
    pub(crate) stream: TlsStream<TcpStream>,
    /// Equal at both ends of this connection, and at no other.
    pub(crate) exporter: [u8; EXPORTER_BYTES],
}

impl Secret {
    fn of(stream: TlsStream<TcpStream>) -> Result<Secret, Lost> {
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(Lost::Protocol);
        }
        let exporter = match &stream {
            TlsStream::Client(it) => {
                let (_, connection) = it.get_ref();
                connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(&[]))
            }
            TlsStream::Server(it) => {
                let (_, connection) = it.get_ref();
                connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(&[]))
            }
        };
        let exporter = exporter.map_err(|_| Lost::Protocol)?;
        Ok(Secret { stream, exporter })
    }
}

/// Accepts each certificate whose key the other side has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("links are TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
