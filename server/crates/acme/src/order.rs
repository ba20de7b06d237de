//! One order, from the account to the certificate.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use cirrus_store::Table;
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::challenge::{Answer, Method};
use crate::record;
use crate::task::Around;
use crate::{AcmeError, Validity};

/// Longest order, the time of records apart. The renewal of the lease goes on meanwhile.
pub const ORDER_SECONDS: u64 = 300;
/// How long the authority may take to ask its question, and to issue: two of these and the
/// requests around them fit in an order.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL of the authority's directory.
    pub directory: String,
    /// The root that its address is checked against; the system's if absent.
    pub roots: Option<PathBuf>,
    /// Where it may write to.
    pub contact: Option<String>,
    /// The challenge.
    pub method: Method,
    /// Seconds that one record may take until it is published, where the challenge is one.
    pub record_seconds: u64,
}

/// What an order brings: PEM.
pub(crate) struct Issued {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Asks for a certificate for these names.
pub(crate) async fn order(
    settings: &Settings,
    table: &dyn Table,
    around: &Around,
    names: &[String],
) -> Result<Issued, AcmeError> {
    let seconds = match settings.method {
        Method::Dns01(_) => ORDER_SECONDS + settings.record_seconds * names.len() as u64,
        Method::Http01 | Method::TlsAlpn01 => ORDER_SECONDS,
    };
    let mut laid = Vec::new();
    let whole = place(settings, table, around, names, &mut laid);
    let result = match tokio::time::timeout(Duration::from_secs(seconds), whole).await {
        Ok(result) => result,
        Err(_) => Err(AcmeError::Timeout(seconds)),
    };
    for answer in &laid {
        answer.take_away(table).await;
    }
    result
}

async fn place(
    settings: &Settings,
    table: &dyn Table,
    around: &Around,
    names: &[String],
    laid: &mut Vec<Answer>,
) -> Result<Issued, AcmeError> {
    let failed = |source| AcmeError::Authority {
        directory: settings.directory.clone(),
        source,
    };
    let account = account(settings, table, around).await?;
    let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account
        .new_order(&NewOrder::new(&identifiers))
        .await
        .map_err(failed)?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let method = &settings.method;
        let mut challenge =
            authorization
                .challenge(method.kind())
                .ok_or_else(|| AcmeError::NotOffered {
                    name: name.clone(),
                    method: method.name(),
                })?;
        let answer = method.answer(&name, &challenge.token, &challenge.key_authorization());
        laid.push(answer);
        if let Some(answer) = laid.last() {
            answer.lay(table, around).await?;
        }
        challenge.set_ready().await.map_err(failed)?;
    }
    let ready = order.poll_ready(&POLL).await;
    match ready {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        Err(error) if order.state().status != OrderStatus::Invalid => return Err(failed(error)),
        said => {
            let silent = "it did not say why".to_owned();
            let reason = said.err().map_or(silent, |error| words(&error));
            return Err(unconfirmed(&mut order, &settings.method, names, reason).await);
        }
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(request)?;
    order
        .finalize_csr(&signing_request(names, &key)?)
        .await
        .map_err(failed)?;
    let chain = order.poll_certificate(&POLL).await.map_err(failed)?;
    check(&chain, &key)?;
    Ok(Issued {
        chain: chain.into_bytes(),
        key: key.serialize_pem().into_bytes(),
    })
}

/// The account that all nodes use, made if there is none.
async fn account(
    settings: &Settings,
    table: &dyn Table,
    around: &Around,
) -> Result<Account, AcmeError> {
    let directory = &settings.directory;
    let failed = |source| AcmeError::Authority {
        directory: directory.clone(),
        source,
    };
    if record::account(table, directory).await?.is_none() {
        let contact = settings.contact.iter().map(|it| format!("mailto:{it}"));
        let contact: Vec<String> = contact.collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (_, made) = builder(settings)?
            .create(&new, directory.clone(), None)
            .await
            .map_err(failed)?;
        let made = serde_json::to_vec(&made).map_err(|error| failed(error.into()))?;
        record::keep_account(table, directory, &made, around.nonce()).await?;
    }
    let corrupt = || AcmeError::Corrupt {
        what: format!("the account with {directory}"),
    };
    let kept = record::account(table, directory).await?;
    let kept = kept.ok_or_else(corrupt)?;
    // The parser's error could quote the key.
    let credentials: AccountCredentials = serde_json::from_slice(&kept).map_err(|_| corrupt())?;
    let account = builder(settings)?.from_credentials(credentials).await;
    account.map_err(failed)
}

fn builder(settings: &Settings) -> Result<AccountBuilder, AcmeError> {
    let made = match &settings.roots {
        Some(path) => Account::builder_with_root(path),
        None => Account::builder(),
    };
    made.map_err(|source| AcmeError::Authority {
        directory: settings.directory.clone(),
        source,
    })
}

/// Which name the authority could not confirm, and why.
async fn unconfirmed(
    order: &mut Order,
    method: &Method,
    names: &[String],
    reason: String,
) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // An order knows how its authorizations began, not how they ended.
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let problem = state.challenges.iter().find_map(|it| it.error.clone());
        if let Some(problem) = problem {
            return AcmeError::Unconfirmed {
                name: state.identifier().to_string(),
                method: method.name(),
                reason: problem.to_string(),
                remedy: method.remedy(),
            };
        }
    }
    AcmeError::Unconfirmed {
        name: names.join(", "),
        method: method.name(),
        reason,
        remedy: method.remedy(),
    }
}

fn signing_request(names: &[String], key: &KeyPair) -> Result<Vec<u8>, AcmeError> {
    let mut params = CertificateParams::new(names).map_err(request)?;
    params.distinguished_name = DistinguishedName::new();
    let made = params.serialize_request(key).map_err(request)?;
    Ok(made.der().to_vec())
}

fn request(error: rcgen::Error) -> AcmeError {
    AcmeError::Request(error.to_string())
}

/// Whether the certificate is for our key: one that is not would stop every node that reads it.
fn check(chain: &str, key: &KeyPair) -> Result<(), AcmeError> {
    let unusable = |why: &str| AcmeError::Unusable(why.to_owned());
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes())
        .map_err(|error| unusable(&error.to_string()))?;
    let (_, leaf) =
        X509Certificate::from_der(&leaf).map_err(|error| unusable(&error.to_string()))?;
    if leaf.public_key().raw != key.subject_public_key_info() {
        return Err(unusable("it is for another key"));
    }
    Ok(())
}

/// How long a PEM chain is good for.
pub(crate) fn validity(chain: &[u8]) -> Option<Validity> {
    let leaf = CertificateDer::from_pem_slice(chain).ok()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    let ms = |seconds: i64| {
        u64::try_from(seconds)
            .unwrap_or_default()
            .saturating_mul(1_000)
    };
    Some(Validity {
        not_before_ms: ms(leaf.validity().not_before.timestamp()),
        not_after_ms: ms(leaf.validity().not_after.timestamp()),
    })
}

/// Whether the first certificate of a chain has all these names.
pub(crate) fn has_names(chain: &[u8], names: &[String]) -> bool {
    let Ok(leaf) = CertificateDer::from_pem_slice(chain) else {
        return false;
    };
    let Ok((_, leaf)) = X509Certificate::from_der(&leaf) else {
        return false;
    };
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return false;
    };
    let there = |wanted: &String| {
        let mut all = extension.value.general_names.iter();
        all.any(
            |name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(wanted)),
        )
    };
    names.iter().all(there)
}

/// An authority's error with all its causes: the first says little about a connection.
pub(crate) fn words(error: &instant_acme::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing into a String can't fail.
        let _ = write!(words, ": {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that came after the certificate has its name in the next one.
    #[test]
    fn a_certificate_has_all_names_or_not() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let held = names(&["example.com", "conference.example.com"]);
        let issued = rcgen::generate_simple_self_signed(held).unwrap();
        let chain = issued.cert.pem().into_bytes();
        for (wanted, expected) in [
            (names(&["example.com"]), true),
            (names(&["conference.example.com", "example.com"]), true),
            (names(&["example.com", "pubsub.example.com"]), false),
        ] {
            assert_eq!(has_names(&chain, &wanted), expected, "{wanted:?}");
        }
        assert!(!has_names(b"", &names(&["example.com"])));
    }
}
