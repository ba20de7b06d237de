//! Rows of the table `cluster`: the account with the authority, certificates, challenges.
//!
//! Format 1 of each. `acme` / directory URL: `k` = credentials (JSON). `cert` / domain: `c` = chain
//! (PEM), `k` = private key (PEM). `challenge` / token, or `alpn:` and name: `r` = the key
//! authorization; expires.

use std::collections::HashMap;
use std::fmt;

use cirrus_schema::KeyBytes;
use cirrus_schema::keys::cluster;
use cirrus_store::{Attrs, Condition, Item, SkRange, StoreError, Table};

use crate::AcmeError;

const FORMAT: u64 = 1;
/// How long the answer to a challenge is kept: an order is over long before.
const CHALLENGE_KEEP_S: u64 = 60 * 60;
/// Longest token that is looked up; authorities use some 43 characters.
const MAX_TOKEN: usize = 256;

/// A domain's certificate as the table has it.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// PEM, the domain's own first.
    pub chain: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
    /// Version of the row.
    pub version: u64,
}

impl fmt::Debug for CertificateRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRecord")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A domain's certificate, if there is one.
///
/// # Errors
/// [`AcmeError::Store`], [`AcmeError::Corrupt`].
pub async fn find(table: &dyn Table, host: &str) -> Result<Option<CertificateRecord>, AcmeError> {
    let Some(item) = table.get(cluster::certificate(host)).await? else {
        return Ok(None);
    };
    let read = || {
        (item.attrs.get_n("v")? == FORMAT).then_some(())?;
        Some(CertificateRecord {
            chain: item.attrs.get_b("c")?.to_vec(),
            key: item.attrs.get_b("k")?.to_vec(),
            version: item.version,
        })
    };
    let corrupt = || AcmeError::Corrupt {
        what: format!("the certificate of {host}"),
    };
    read().map(Some).ok_or_else(corrupt)
}

/// The item of a certificate.
pub(crate) fn item(host: &str, record: &CertificateRecord) -> Item {
    let attrs = Attrs::new()
        .with("v", FORMAT)
        .with("c", &record.chain[..])
        .with("k", &record.key[..]);
    Item::new(cluster::certificate(host), attrs).versioned(record.version)
}

/// Stores a certificate in the place of the one that was read.
pub(crate) async fn replace(
    table: &dyn Table,
    host: &str,
    old: Option<u64>,
    new: &CertificateRecord,
    nonce: u128,
) -> Result<(), AcmeError> {
    let condition = old.map_or(Condition::Absent, Condition::Version);
    Ok(table.put(item(host, new), condition, nonce).await?)
}

/// The account's credentials with that authority.
pub(crate) async fn account(
    table: &dyn Table,
    directory: &str,
) -> Result<Option<Vec<u8>>, AcmeError> {
    let Some(item) = table.get(cluster::acme(directory)).await? else {
        return Ok(None);
    };
    let key = || item.attrs.get_b("k").map(|key| key.to_vec());
    let known = item.attrs.get_n("v") == Some(FORMAT);
    let corrupt = || AcmeError::Corrupt {
        what: format!("the account with {directory}"),
    };
    known.then(key).flatten().map(Some).ok_or_else(corrupt)
}

/// Keeps a new account, unless another node has made one meanwhile: then that one counts.
pub(crate) async fn keep_account(
    table: &dyn Table,
    directory: &str,
    credentials: &[u8],
    nonce: u128,
) -> Result<(), AcmeError> {
    let item = account_item(directory, credentials);
    match table.put(item, Condition::Absent, nonce).await {
        Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn account_item(directory: &str, credentials: &[u8]) -> Item {
    let attrs = Attrs::new().with("v", FORMAT).with("k", credentials);
    Item::new(cluster::acme(directory), attrs)
}

/// The row that an authority's question is answered from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question<'a> {
    /// HTTP-01, by token.
    Http(&'a str),
    /// TLS-ALPN-01, by name.
    Tls(&'a str),
}

impl Question<'_> {
    /// Whether an authority may ask so.
    pub(crate) fn is_sound(self) -> bool {
        match self {
            Self::Http(token) => {
                !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(is_base64url)
            }
            Self::Tls(_) => true,
        }
    }

    pub(crate) fn key(self) -> KeyBytes {
        match self {
            Self::Http(token) => cluster::challenge(token),
            // No token has a colon.
            Self::Tls(name) => cluster::challenge(&format!("alpn:{name}")),
        }
    }
}

/// Lays an answer down where every node finds it.
pub(crate) async fn prepare(
    table: &dyn Table,
    question: Question<'_>,
    answer: &str,
    (wall_ms, nonce): (u64, u128),
) -> Result<(), AcmeError> {
    let item = challenge_item(question, answer, wall_ms);
    Ok(table.put(item, Condition::Any, nonce).await?)
}

fn challenge_item(question: Question<'_>, answer: &str, wall_ms: u64) -> Item {
    let attrs = Attrs::new().with("v", FORMAT).with("r", answer);
    Item::new(question.key(), attrs).expiring(wall_ms / 1_000 + CHALLENGE_KEEP_S)
}

/// All answers, by the sort keys of their questions: none, but while an order is under way.
pub(crate) async fn answers(table: &dyn Table) -> Result<HashMap<Vec<u8>, String>, AcmeError> {
    let KeyBytes { table: id, pk, .. } = cluster::challenge("");
    let items = table.query_all(id, pk, SkRange::All).await?;
    let known = |item: &Item| item.attrs.get_n("v") == Some(FORMAT);
    let answer = |item: Item| {
        let answer = item.attrs.get_s("r")?.to_owned();
        Some((item.key.sk.to_vec(), answer))
    };
    Ok(items.into_iter().filter(known).filter_map(answer).collect())
}

/// Takes an answer away after its order.
pub(crate) async fn withdraw(table: &dyn Table, question: Question<'_>) {
    if let Err(error) = table.delete(question.key(), Condition::Any).await {
        // It expires by itself.
        tracing::debug!(%error, "the answer to a challenge stays for an hour");
    }
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cirrus_store::MemoryTable;

    use super::*;

    const NOW_MS: u64 = 1_795_488_480_000;

    fn certificate() -> CertificateRecord {
        CertificateRecord {
            chain: b"chain".to_vec(),
            key: b"key".to_vec(),
            version: 7,
        }
    }

    /// `golden/rows.v1.txt` holds what version 1 wrote; it stays readable for ever.
    #[test]
    fn version_1_is_what_is_written_today() {
        let rows = [
            item("example.com", &certificate()),
            account_item("https://ca.example/dir", b"{}"),
            challenge_item(Question::Http("token"), "token.print", NOW_MS),
            challenge_item(Question::Tls("example.com"), "token.print", NOW_MS),
        ];
        let print = |item: &Item| {
            let expires = item
                .expires
                .map_or_else(String::new, |at| format!(" expires={at}"));
            format!(
                "{} e={}{expires} {:?}\n",
                item.key, item.version, item.attrs
            )
        };
        let text: String = rows.iter().map(print).collect();
        assert_eq!(text, include_str!("../golden/rows.v1.txt"));
    }

    #[tokio::test]
    async fn a_certificate_replaces_only_the_one_that_was_read() {
        let memory = MemoryTable::new(Arc::new(|| NOW_MS));
        let table: &dyn Table = &memory;
        let first = certificate();
        replace(table, "example.com", None, &first, 1)
            .await
            .unwrap();
        assert_eq!(
            find(table, "example.com").await.unwrap(),
            Some(first.clone())
        );
        let second = CertificateRecord {
            version: 8,
            ..first
        };
        for (old, takes) in [(None, false), (Some(6), false), (Some(7), true)] {
            let result = replace(table, "example.com", old, &second, 2).await;
            assert_eq!(result.is_ok(), takes, "{old:?}");
        }
        assert!(!format!("{second:?}").contains("key"), "{second:?}");
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused_by_name() {
        let memory = MemoryTable::new(Arc::new(|| NOW_MS));
        let table: &dyn Table = &memory;
        let mut newer = item("example.com", &certificate());
        newer.attrs.set("v", 2u64);
        table.put(newer, Condition::Any, 1).await.unwrap();
        let error = find(table, "example.com").await.unwrap_err().to_string();
        assert!(error.contains("example.com"), "{error}");
    }
}
