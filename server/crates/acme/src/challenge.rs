//! The answers to an authority's questions, laid down before it asks and taken away after.

use std::sync::Arc;

use cirrus_store::Table;
use instant_acme::{ChallengeType, KeyAuthorization};

use crate::AcmeError;
use crate::dns::{Dns, record_name};
use crate::record::{self, Question};
use crate::task::Around;

/// How the authority sees that a name is ours.
#[derive(Debug, Clone)]
pub enum Method {
    /// By a question to port 80.
    Http01,
    /// By a handshake on port 443.
    TlsAlpn01,
    /// By a record in the domain's zone.
    Dns01(Arc<dyn Dns>),
}

impl Method {
    /// Its name in RFC 8555.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01(_) => "dns-01",
        }
    }

    /// What is to be in order for the authority to find the answer.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Http01 => "port 80 of the name must lead to this server from the outside",
            Self::TlsAlpn01 => "port 443 of the name must lead to this server from the outside",
            Self::Dns01(_) => "the name's zone must be the one that the registry delegates to",
        }
    }

    pub(crate) fn kind(&self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Self::Dns01(_) => ChallengeType::Dns01,
        }
    }

    /// The answer about a name.
    pub(crate) fn answer(&self, name: &str, token: &str, proof: &KeyAuthorization) -> Answer {
        match self {
            Self::Http01 => Answer::Row(About::Token(token.to_owned()), proof.as_str().to_owned()),
            Self::TlsAlpn01 => Answer::Row(About::Name(name.to_owned()), proof.as_str().to_owned()),
            Self::Dns01(dns) => Answer::Record {
                dns: Arc::clone(dns),
                name: record_name(name),
                value: proof.dns_value(),
            },
        }
    }
}

/// An answer, and where it lies.
pub(crate) enum Answer {
    /// A row of the table, from which every node answers.
    Row(About, String),
    /// A record in the domain's zone.
    Record {
        dns: Arc<dyn Dns>,
        name: String,
        value: String,
    },
}

/// What a row is found by.
pub(crate) enum About {
    Token(String),
    Name(String),
}

impl About {
    fn question(&self) -> Question<'_> {
        match self {
            Self::Token(token) => Question::Http(token),
            Self::Name(name) => Question::Tls(name),
        }
    }
}

impl Answer {
    /// Lays it where it is asked for.
    pub(crate) async fn lay(&self, table: &dyn Table, around: &Around) -> Result<(), AcmeError> {
        match self {
            Self::Row(about, proof) => {
                let when = ((around.wall)(), around.nonce());
                record::prepare(table, about.question(), proof, when).await
            }
            Self::Record { dns, name, value } => {
                dns.publish(name, value)
                    .await
                    .map_err(|reason| AcmeError::Record {
                        name: name.clone(),
                        reason,
                    })
            }
        }
    }

    /// Takes it away.
    pub(crate) async fn take_away(&self, table: &dyn Table) {
        match self {
            Self::Row(about, _) => record::withdraw(table, about.question()).await,
            Self::Record { dns, name, value } => {
                if let Err(error) = dns.withdraw(name, value).await {
                    // The next order for this name puts its own in its place.
                    tracing::warn!(record = name, error, "a challenge's record is left over");
                }
            }
        }
    }
}
