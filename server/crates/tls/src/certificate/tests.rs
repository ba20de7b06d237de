use std::fs;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;

const NOW_S: i64 = 1_800_000_000;
const NOW_MS: u64 = 1_800_000_000_000;

/// A folder with `chain.pem` and `key.pem` for these names.
fn issued(names: &[&str], days: i64) -> (TempDir, PemFiles) {
    let folder = TempDir::new().unwrap();
    let files = PemFiles {
        chain: folder.path().join("chain.pem"),
        key: folder.path().join("key.pem"),
    };
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW_S - DAY_S).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW_S + days * DAY_S).unwrap();
    fs::write(&files.chain, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, files)
}

fn load(host: &str, files: &PemFiles) -> Result<Certificate, TlsError> {
    Certificate::load(host, files, &default_provider())
}

#[test]
fn a_good_certificate_is_described_and_not_remarked_upon() {
    let (_folder, files) = issued(&["example.com", "chat.example.com", "192.0.2.7"], 90);
    let certificate = load("example.com", &files).unwrap();
    assert_eq!(
        certificate.names,
        ["example.com", "chat.example.com", "192.0.2.7"]
    );
    assert!(certificate.covers_host && certificate.self_signed);
    assert_eq!(certificate.remarks(NOW_MS), [""; 0]);
    let line = certificate.to_string();
    let chain = files.chain.display();
    let start = format!(
        "example.com: self-signed certificate {chain} for example.com chat.example.com 192.0.2.7, \
         valid until 2027-04-15, SHA-256 "
    );
    assert!(line.starts_with(&start), "{line}");
    assert!(line.ends_with(&certificate.fingerprint()));
    assert_eq!(certificate.fingerprint().len(), 64);
}

#[test]
fn what_an_operator_should_do_is_said() {
    let (_folder, files) = issued(&["*.example.com"], 10);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let remarks_at = |host, now_ms| load(host, &files).unwrap().remarks(now_ms).join("\n");
    let said = remarks_at("example.com", NOW_MS);
    assert!(
        said.contains("expires on 2027-01-25, in 10 days; renew it"),
        "{said}"
    );
    assert!(said.contains("is not valid for example.com"), "{said}");
    assert!(
        said.contains(&format!("chmod g-w,o= {}", files.key.display())),
        "{said}"
    );
    // The server may have it by its group.
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(!remarks_at("chat.example.com", NOW_MS).contains("chmod"));
    assert!(!remarks_at("chat.example.com", NOW_MS).contains("not valid for"));
    assert!(remarks_at("chat.example.com", NOW_MS * 2).contains("expired on 2027-01-25"));
    assert!(remarks_at("chat.example.com", 0).contains("valid from 2027-01-14 only"));
}

#[test]
fn faults_name_the_file_and_the_remedy() {
    let (folder, files) = issued(&["example.com"], 90);
    let (_other, others) = issued(&["example.com"], 90);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty.pem"), "").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    fs::write(path("broken.pem"), broken).unwrap();
    fs::write(path("cut.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::write(
        path("huge.pem"),
        vec![b'\n'; usize::try_from(MAX_PEM_BYTES).unwrap() + 1],
    )
    .unwrap();
    let text = |chain: &Path, key: &Path| {
        let files = PemFiles {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        load("example.com", &files).unwrap_err().to_string()
    };
    for (chain, key, file, wanted) in [
        (
            path("none.pem"),
            files.key.clone(),
            path("none.pem"),
            "the file must exist",
        ),
        (
            files.chain.clone(),
            path("none.pem"),
            path("none.pem"),
            "the file must exist",
        ),
        (
            path("empty.pem"),
            files.key.clone(),
            path("empty.pem"),
            "'BEGIN CERTIFICATE'",
        ),
        (
            path("broken.pem"),
            files.key.clone(),
            path("broken.pem"),
            "issue it again",
        ),
        (
            path("cut.pem"),
            files.key.clone(),
            path("cut.pem"),
            "write it again",
        ),
        (
            path("huge.pem"),
            files.key.clone(),
            path("huge.pem"),
            "is it a PEM file?",
        ),
        (
            files.chain.clone(),
            path("empty.pem"),
            path("empty.pem"),
            "'BEGIN PRIVATE KEY'",
        ),
        (
            files.chain.clone(),
            files.chain.clone(),
            files.chain.clone(),
            "'BEGIN PRIVATE KEY'",
        ),
        (
            files.chain.clone(),
            others.key.clone(),
            others.key.clone(),
            "does not belong to",
        ),
    ] {
        let text = text(&chain, &key);
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains(&file.display().to_string()), "{text}");
    }
}
