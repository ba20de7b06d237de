//! TLS as a test client needs it: any certificate will do unless authorities are given, and what
//! was agreed can be asked.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

/// A connection to `host` that trusts every certificate. `alpn` is the protocol offered, if any.
///
/// # Errors
/// When `host` cannot stand in a handshake.
pub fn connection(
    host: &str,
    alpn: Option<&str>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConnection> {
    let mut config = config(None, versions)?;
    config.alpn_protocols = alpn
        .map(|name| name.as_bytes().to_vec())
        .into_iter()
        .collect();
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("host {host:?}"))?;
    ClientConnection::new(Arc::new(config), name).context("TLS")
}

/// Settings for many connections: servers must show a certificate that the authorities in this PEM
/// file vouch for, or any at all if there is no file.
///
/// # Errors
/// When the file can't be read or holds no certificate.
pub fn config(
    authorities: Option<&Path>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .context("TLS versions")?;
    let config = match authorities {
        Some(file) => config.with_root_certificates(roots(file)?),
        None => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(provider))),
    };
    Ok(config.with_no_client_auth())
}

fn roots(file: &Path) -> Result<RootCertStore> {
    let shown = file.display();
    let certificates = CertificateDer::pem_file_iter(file).with_context(|| format!("{shown}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("{shown} is no PEM"))?;
        // A bundle of many authorities may hold one that this library does not understand.
        roots.add_parsable_certificates([certificate]);
    }
    ensure!(!roots.is_empty(), "{shown} holds no certificate");
    Ok(roots)
}

/// Accepts any certificate, but checks that the server holds its key.
#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
