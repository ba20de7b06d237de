//! `certfiles`: files with certificates and keys in any order, which ejabberd sorts by itself.
//!
//! The files are named in the user-data and are on the machine, if at all: so what is in them is
//! found out when the file is read, and one that is not there is no error. The server makes a
//! certificate for a domain that has none, and that is noted.

use std::io;
use std::path::{Path, PathBuf};

use cirrus_config::{Certificate, Domain};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::pattern;
use crate::user_data::{Note, UserData};

/// A file that is listed, or a pattern of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertFile {
    /// The line that names it.
    pub(crate) line: u64,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// What a file has in it.
struct Found {
    path: PathBuf,
    /// Names of the first certificate, if there is one.
    names: Option<Vec<String>>,
    /// How many certificates there are.
    certificates: usize,
    /// Whether another certificate belongs to the first.
    issued: bool,
    key: bool,
}

/// Names the certificates of the domains from the files that an ejabberd.yml lists. `read` reads
/// a file, and `names` a folder; what they say about one that they cannot read is noted.
pub(crate) fn take_certificates(
    data: &mut UserData,
    file: &str,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    names: impl Fn(&Path) -> io::Result<Vec<String>>,
) {
    let mut found = Vec::new();
    let files = expanded(data, file, names);
    for CertFile { line, path } in &files {
        let what = match read(path) {
            Ok(bytes) => {
                let one = sort(path, &bytes);
                if one.names.is_some() || one.key {
                    found.push(one);
                    continue;
                }
                "has neither a certificate nor a key in it".to_owned()
            }
            Err(error) => format!("not taken over: {error}"),
        };
        let text = format!("certfiles: {}: {what}", path.display());
        data.notes.push(Note::new(file, *line, text));
    }
    let line = data.certfiles.first().map_or(0, |first| first.line);
    for domain in &data.given.config.domains {
        match certificate(domain, &found) {
            Ok((certificate, whole)) => {
                let chain = certificate.chain.display();
                if !whole {
                    let text = format!(
                        "certfiles: {domain}: {chain} has the host's certificate alone; clients \
                         need in the same file what is between it and a root"
                    );
                    data.notes.push(Note::new(file, line, text));
                }
                data.given.config.tls.certificates.push(certificate);
            }
            Err(_) if data.certfiles.is_empty() => {}
            Err(what) => {
                let text = format!("certfiles: {domain}: {what}; the server makes one itself");
                data.notes.push(Note::new(file, line, text));
            }
        }
    }
    if !data.given.config.tls.certificates.is_empty() {
        for path in ["tls", "tls.certificates"] {
            data.given.paths.insert(path.to_owned());
        }
    }
}

/// The files that are listed, patterns replaced by what they fit.
fn expanded(
    data: &mut UserData,
    file: &str,
    names: impl Fn(&Path) -> io::Result<Vec<String>>,
) -> Vec<CertFile> {
    let mut files = Vec::new();
    for listed in &data.certfiles {
        let line = listed.line;
        let path = listed
            .path
            .to_str()
            .filter(|path| pattern::is_pattern(path));
        let Some(path) = path else {
            files.push(listed.clone());
            continue;
        };
        match pattern::expand(&listed.path, &names) {
            Ok(paths) => files.extend(paths.into_iter().map(|path| CertFile { line, path })),
            Err(what) => {
                let text = format!("certfiles: {path}: {what}");
                data.notes.push(Note::new(file, line, text));
            }
        }
    }
    files
}

/// The certificate of a domain, with the key that belongs to it: that in the same file, else
/// that in the same folder, else the only one; and whether its issuers are there. Of several files
/// with this name in the first certificate it is the one with the longest chain.
fn certificate(domain: &Domain, found: &[Found]) -> Result<(Certificate, bool), &'static str> {
    let host = domain.to_ascii();
    let named = |one: &&Found| {
        let mut names = one.names.iter().flatten();
        names.any(|name| covers(name, &host))
    };
    let chain = found.iter().rev().filter(named);
    let chain = chain.max_by_key(|one| one.certificates);
    let chain = chain.ok_or("no certificate here has this name")?;
    let keys: Vec<&Found> = found.iter().filter(|one| one.key).collect();
    let beside = || {
        let folder = chain.path.parent();
        keys.iter().find(|one| one.path.parent() == folder).copied()
    };
    let only = || keys.first().copied().filter(|_| keys.len() == 1);
    let key = Some(chain)
        .filter(|one| one.key)
        .or_else(beside)
        .or_else(only);
    let key = key.ok_or("its certificate has no key here")?;
    let certificate = Certificate {
        host: domain.clone(),
        chain: chain.path.clone(),
        key: key.path.clone(),
    };
    Ok((certificate, !chain.issued || chain.certificates > 1))
}

fn sort(path: &Path, bytes: &[u8]) -> Found {
    let mut found = Found {
        path: path.to_owned(),
        names: None,
        certificates: 0,
        issued: false,
        key: false,
    };
    for pem in Pem::iter_from_buffer(bytes).flatten() {
        match pem.label.as_str() {
            "CERTIFICATE" => {
                found.certificates += 1;
                if found.names.is_none() {
                    (found.names, found.issued) =
                        (Some(names(&pem.contents)), issued(&pem.contents));
                }
            }
            label if label.ends_with("PRIVATE KEY") => found.key = true,
            _ => {}
        }
    }
    found
}

/// Whether a certificate has another issuer than itself.
fn issued(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, it)| it.issuer() != it.subject())
}

/// The DNS names of a certificate.
fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether a name of a certificate is this host, or a wildcard for it (RFC 6125 6.4.3).
fn covers(name: &str, host: &str) -> bool {
    let parent = host.split_once('.').map(|(_, parent)| parent);
    name == host
        || name
            .strip_prefix("*.")
            .is_some_and(|rest| Some(rest) == parent)
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn names_and_wildcards() {
        assert!(covers("example.org", "example.org"));
        assert!(covers("*.example.org", "chat.example.org"));
        assert!(!covers("*.example.org", "example.org"));
        assert!(!covers("*.example.org", "a.chat.example.org"));
        assert!(!covers("example.org", "example.com"));
    }
}
