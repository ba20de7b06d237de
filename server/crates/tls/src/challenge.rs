//! The handshake by which a certificate authority sees that a name is ours (TLS-ALPN-01, RFC 8737).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::TlsError;

/// The protocol that an authority offers, and nobody else.
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The SHA-256 of a key authorization, if there is one.
pub type Proof<'a> = Pin<Box<dyn Future<Output = Option<[u8; 32]>> + Send + 'a>>;

/// Knows the answers to an authority's questions.
pub trait Proofs: Send + Sync {
    /// The answer for a name in A-labels, if it is being asked for.
    fn proof<'a>(&'a self, name: &'a str) -> Proof<'a>;
}

impl fmt::Debug for dyn Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proofs")
    }
}

/// TLS for one such handshake: a certificate for the name that carries the proof.
pub(crate) fn config(
    name: &str,
    proof: &[u8; 32],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let fail = |reason: String| TlsError::Generate {
        host: name.to_owned(),
        reason,
    };
    let mut params = CertificateParams::new([name.to_owned()]).map_err(|e| fail(e.to_string()))?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(proof)];
    let key =
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| fail(e.to_string()))?;
    let certificate = params.self_signed(&key).map_err(|e| fail(e.to_string()))?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signs = provider.key_provider.load_private_key(der);
    // `CertifiedKey::from_der` would refuse the critical extension that this is all about.
    let chain = vec![certificate.der().clone()];
    let key = CertifiedKey::new(chain, signs.map_err(TlsError::Settings)?);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN_ACME.to_vec()];
    Ok(Arc::new(config))
}
