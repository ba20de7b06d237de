//! One host's certificate: read, checked, described.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::TlsError;
use crate::binding::server_end_point;
use crate::name::HostName;
use crate::server::PemFiles;

/// Largest PEM file read: room for a chain of a hundred certificates.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// A certificate that ends sooner than this is remarked upon.
const SOON_S: i64 = 14 * DAY_S;
pub(crate) const DAY_S: i64 = 24 * 60 * 60;
/// Permissions that let others read a key, or its group change it: the group may be the server's.
const OTHERS: u32 = 0o037;

/// A host's certificate in use.
#[derive(Debug)]
pub struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) sha256: [u8; 32],
    pub(crate) end_point: Option<Vec<u8>>,
    /// The host it is for.
    pub host: String,
    /// The file it came from.
    pub path: PathBuf,
    /// The names it is valid for: domains and addresses.
    pub names: Vec<String>,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// Issuer and subject are the same.
    pub self_signed: bool,
    /// It is valid for [`Certificate::host`].
    pub covers_host: bool,
    /// The key file, where others than its owner may read it.
    loose_key: Option<PathBuf>,
}

impl Certificate {
    /// Reads and checks the certificate of `host`. One that is out of date or for another name is
    /// taken all the same, as it is better than none: see [`Certificate::remarks`].
    pub(crate) fn load(
        host: &str,
        files: &PemFiles,
        provider: &CryptoProvider,
    ) -> Result<Certificate, TlsError> {
        let chain = read(&files.chain)?;
        let key = read(&files.key)?;
        let loose = key.mode & OTHERS != 0;
        let found = Certificate::parse(host, files, (&chain.bytes, &key.bytes), provider)?;
        Ok(Certificate {
            loose_key: loose.then(|| files.key.clone()),
            ..found
        })
    }

    /// Checks a certificate of `host` whose chain and key are these PEM texts. `files` says in
    /// errors where they are from.
    pub(crate) fn parse(
        host: &str,
        files: &PemFiles,
        (chain, key): (&[u8], &[u8]),
        provider: &CryptoProvider,
    ) -> Result<Certificate, TlsError> {
        let name = HostName::parse(host)?;
        let chain = parse_chain(&files.chain, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey {
                path: files.key.clone(),
            },
            error => TlsError::Pem {
                path: files.key.clone(),
                reason: error.to_string(),
            },
        })?;
        let leaf = chain
            .first()
            .cloned()
            .unwrap_or_else(|| CertificateDer::from_slice(&[]));
        let bad = |reason: String| TlsError::Certificate {
            path: files.chain.clone(),
            reason,
        };
        let parsed = ParsedCertificate::try_from(&leaf).map_err(|error| bad(error.to_string()))?;
        let (_, x509) = X509Certificate::from_der(&leaf).map_err(|error| bad(error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                chain: files.chain.clone(),
                key: files.key.clone(),
            },
            error => TlsError::Key {
                path: files.key.clone(),
                reason: error.to_string(),
            },
        })?;
        Ok(Certificate {
            key: Arc::new(key),
            sha256: sha256(&leaf),
            end_point: server_end_point(&leaf, &x509),
            host: host.to_owned(),
            path: files.chain.clone(),
            names: names(&x509),
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            self_signed: x509.issuer() == x509.subject(),
            covers_host: verify_server_name(&parsed, &name.name).is_ok(),
            loose_key: None,
        })
    }

    /// Whole days until its end; 0 once it is over.
    pub fn days_left(&self, now_ms: u64) -> u64 {
        let end_s = u64::try_from(self.not_after).unwrap_or_default();
        end_s.saturating_sub(now_ms / 1_000) / DAY_S.unsigned_abs()
    }

    /// What an operator should know about it at `now_ms`, with the remedy; usually nothing.
    pub fn remarks(&self, now_ms: u64) -> Vec<String> {
        let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let path = self.path.display();
        let mut remarks = Vec::new();
        if now > self.not_after {
            remarks.push(format!(
                "{path} expired on {}: clients refuse it; renew it",
                date(self.not_after)
            ));
        } else if now + SOON_S > self.not_after {
            let days = (self.not_after - now) / DAY_S;
            remarks.push(format!(
                "{path} expires on {}, in {days} days; renew it",
                date(self.not_after)
            ));
        }
        if now < self.not_before {
            remarks.push(format!(
                "{path} is valid from {} only; check the machine's clock",
                date(self.not_before)
            ));
        }
        if !self.covers_host {
            remarks.push(format!(
                "{path} is not valid for {}: clients refuse it; issue one with that name",
                self.host
            ));
        }
        if let Some(key) = &self.loose_key {
            let key = key.display();
            remarks.push(format!("{key} can be read by others: chmod g-w,o= {key}"));
        }
        remarks
    }

    /// SHA-256 of the certificate in hexadecimal, as clients show it.
    pub fn fingerprint(&self) -> String {
        use std::fmt::Write as _;
        self.sha256
            .iter()
            .fold(String::with_capacity(64), |mut out, byte| {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
                out
            })
    }
}

/// One line for a log: host, file, names, dates, fingerprint.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} certificate {} for {}, valid until {}, SHA-256 {}",
            self.host,
            if self.self_signed {
                "self-signed"
            } else {
                "issued"
            },
            self.path.display(),
            self.names.join(" "),
            date(self.not_after),
            self.fingerprint(),
        )
    }
}

/// A file's content and permissions.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

pub(crate) fn read(path: &Path) -> Result<Content, TlsError> {
    let fail = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(TlsError::TooBig {
            path: path.to_owned(),
            limit: MAX_PEM_BYTES,
        });
    }
    Ok(Content { bytes, mode })
}

fn parse_chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn date(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|time| {
            time.format(format_description!("[year]-[month]-[day]"))
                .ok()
        })
        .unwrap_or_else(|| "an unknown day".to_owned())
}

#[cfg(test)]
mod tests;
