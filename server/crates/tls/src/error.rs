//! What can go wrong, naming the file or host and what to do about it.

use std::io;
use std::path::PathBuf;

/// A certificate that cannot be used, or a handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file could not be read.
    #[error("cannot read {path}: {source}; the file must exist and the server's user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A PEM file is larger than any certificate.
    #[error("{path} has more than {limit} bytes; is it a PEM file?")]
    TooBig {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file with no certificate in it.
    #[error("{path} contains no certificate; it must have a 'BEGIN CERTIFICATE' block")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file with no private key in it.
    #[error(
        "{path} contains no private key; it must have a 'BEGIN PRIVATE KEY' block without a \
         passphrase"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Broken PEM.
    #[error("{path} is not readable as PEM: {reason}; write it again")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is broken; nothing of the content.
        reason: String,
    },
    /// A certificate that is not X.509.
    #[error("{path} has a certificate that cannot be parsed: {reason}; issue it again")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is broken.
        reason: String,
    },
    /// A private key of a kind that cannot be used.
    #[error("{path} has a private key that cannot be used: {reason}; use ECDSA P-256 or RSA 2048")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong; nothing of the content.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the key in {key} does not belong to the first certificate in {chain}; put the host's \
         own certificate first and use its key"
    )]
    Mismatch {
        /// File of the certificates.
        chain: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A self-signed certificate could not be stored.
    #[error("cannot write {path}: {source}; the folder must belong to the server's user")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a certificate for {host}: {reason}")]
    Generate {
        /// The host.
        host: String,
        /// What the generator said.
        reason: String,
    },
    /// A host without certificate files where none may be made.
    #[error("{host} has no certificate; give its files, or allow self-signed certificates")]
    NoFiles {
        /// The host.
        host: String,
    },
    /// A host that is neither a domain name nor an address.
    #[error("{host} is not a domain name or an address, so no certificate can be for it")]
    BadHost {
        /// The host.
        host: String,
    },
    /// The list of hosts is empty.
    #[error("there is no host to have a certificate for; name at least one domain")]
    NoHosts,
    /// A host that this server does not have.
    #[error("{host} is not a host of this server")]
    UnknownHost {
        /// The host.
        host: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS settings: {0}")]
    Settings(#[source] rustls::Error),
    /// The connection was an authority's question, which its handshake has answered.
    #[error("a certificate authority asked about {name}")]
    Asked {
        /// The name it asked about.
        name: String,
    },
    /// A handshake failed: mostly the peer's doing.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
}
