//! Certificates the server makes itself, for a start without any and for laptops.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use time::OffsetDateTime;

use crate::certificate::{Certificate, DAY_S};
use crate::name::HostName;
use crate::server::PemFiles;
use crate::{Clock, TlsError};

/// Ten years: whoever has accepted it once should not be asked again.
const VALID_S: i64 = 3650 * DAY_S;
/// One that ends within a month is replaced.
const RENEW_S: i64 = 30 * DAY_S;
/// Longest common name (RFC 5280, appendix A: `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// The host's certificate in `folder`, made anew where it is missing, broken, near its end or for
/// another name. Certificate and key are one file, so they always belong together.
pub(crate) fn load_or_make(
    host: &str,
    folder: &Path,
    clock: &Clock,
    provider: &CryptoProvider,
) -> Result<Certificate, TlsError> {
    let name = HostName::parse(host)?;
    let path = folder.join(format!("{}.pem", name.file_stem()));
    let files = PemFiles {
        chain: path.clone(),
        key: path.clone(),
    };
    let now_s = i64::try_from(clock() / 1000).unwrap_or(i64::MAX);
    match Certificate::load(host, &files, provider) {
        Ok(found) if serves(&found, now_s) => {
            // Ours: nobody else has a reason to read it.
            protect(&path)?;
            return Certificate::load(host, &files, provider);
        }
        Ok(found) => tracing::info!(certificate = %found, "replacing a self-signed certificate"),
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        // Not ours to overwrite: a wrong owner is the likeliest cause.
        Err(error @ TlsError::Read { .. }) => return Err(error),
        Err(error) => tracing::warn!(%error, "replacing a broken self-signed certificate"),
    }
    let pem = make(host, &name, now_s)?;
    store(folder, &path, pem.as_bytes())?;
    Certificate::load(host, &files, provider)
}

fn serves(certificate: &Certificate, now_s: i64) -> bool {
    certificate.covers_host
        && certificate.not_before <= now_s
        && now_s < certificate.not_after - RENEW_S
}

/// Key and certificate in PEM.
fn make(host: &str, name: &HostName, now_s: i64) -> Result<String, TlsError> {
    let fail = |reason: String| TlsError::Generate {
        host: host.to_owned(),
        reason,
    };
    let at = |unix_s: i64| {
        OffsetDateTime::from_unix_timestamp(unix_s).map_err(|error| fail(error.to_string()))
    };
    let mut params = CertificateParams::default();
    params.not_before = at(now_s.saturating_sub(DAY_S))?;
    params.not_after = at(now_s.saturating_add(VALID_S))?;
    params.distinguished_name = DistinguishedName::new();
    if name.ascii.len() <= MAX_COMMON_NAME {
        params
            .distinguished_name
            .push(DnType::CommonName, name.ascii.as_str());
    }
    params.subject_alt_names = vec![match &name.name {
        ServerName::IpAddress(address) => SanType::IpAddress((*address).into()),
        _ => SanType::DnsName(
            name.ascii
                .as_str()
                .try_into()
                .map_err(|error: rcgen::Error| fail(error.to_string()))?,
        ),
    }];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| fail(error.to_string()))?;
    let certificate = params
        .self_signed(&key)
        .map_err(|error| fail(error.to_string()))?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Writes beside the old file and renames, so that a reader finds one whole file or the other.
fn store(folder: &Path, path: &Path, pem: &[u8]) -> Result<(), TlsError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Write { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(fail(folder))?;
    // The number keeps two processes that start at once from writing into one file.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail(&temporary))?;
    // The file may be one that a crash left behind, with other permissions.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(fail(&temporary))?;
    file.write_all(pem)
        .and_then(|()| file.sync_all())
        .map_err(fail(&temporary))?;
    fs::rename(&temporary, path).map_err(fail(path))
}

fn protect(path: &Path) -> Result<(), TlsError> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}
