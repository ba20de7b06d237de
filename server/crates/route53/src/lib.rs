//! Challenge records of an authority in hosted zones of Route 53.
//!
//! [`Route53`] finds the public hosted zone that a name is in, puts a TXT record there and waits
//! until all of Amazon's servers have it ([`Dns`]). It makes and deletes no zone, reads no other
//! record, and follows no CNAME: the record's own name must be in a zone of this account.
//!
//! Limits: one record takes as long as its caller says; one call [`CALL`].

mod zone;

use std::error::Error as _;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_route53::Client;
use aws_sdk_route53::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType,
};
use cirrus_acme::{Dns, Done};

/// One call with the SDK's retries.
pub const CALL: Duration = Duration::from_secs(20);
/// One connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The SDK's attempts at one call: an account has five calls a second, all programs together.
const ATTEMPTS: u32 = 5;
/// Seconds that resolvers may keep a challenge's record.
const TTL: i64 = 60;
/// Pauses between two looks at a change: 1 s, 2 s, 4 s, 5 s, 5 s, … A change takes some 30 s.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The region that is asked where none is known; hosted zones belong to none.
const HOME: &str = "us-east-1";

/// Route 53 of one account.
#[derive(Clone, Debug)]
pub struct Route53 {
    client: Client,
    patience: Duration,
}

/// Why a record is not published.
#[derive(Debug, thiserror::Error)]
pub enum Route53Error {
    /// A call failed.
    #[error("{call}: {reason}{}", advice(code.as_deref()))]
    Call {
        /// The call, as AWS names it.
        call: &'static str,
        /// The error's code as AWS names it, if there was an answer.
        code: Option<String>,
        /// What AWS, or the connection, said.
        reason: String,
    },
    /// No zone has the name.
    #[error(
        "no public hosted zone of this account has it (looked for {}); make one, or set \
         acme.challenge to another", .0.join(", ")
    )]
    NoZone(Vec<String>),
    /// Several zones have it, and only one is delegated to.
    #[error("{count} public hosted zones are named {name}; delete those that nobody asks")]
    Zones {
        /// Their name.
        name: String,
        /// How many.
        count: usize,
    },
    /// Not done in time.
    #[error(
        "the change is not on all servers after {0} s; raise acme.record_seconds if that is too few"
    )]
    Late(u64),
    /// A call was not what AWS documents.
    #[error("{0}: the answer makes no sense")]
    Nonsense(&'static str),
}

fn advice(code: Option<&str>) -> &'static str {
    match code {
        Some(code) if code.starts_with("AccessDenied") => {
            " (the role of this machine lacks the permission; docs/CERTIFICATES.md lists them)"
        }
        _ => "",
    }
}

impl Route53 {
    /// With credentials and endpoint of the environment or the instance; a change may take as long
    /// as `patience`. Nothing is called yet.
    pub async fn new(region: Option<&str>, patience: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_timeout(CALL)
            .build();
        let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.unwrap_or(HOME).to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            .load()
            .await;
        Self {
            client: Client::new(&sdk),
            patience,
        }
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), Route53Error> {
        let zone = self.zone(name).await?;
        let change = self
            .change(&zone, ChangeAction::Upsert, name, value)
            .await?;
        let done = tokio::time::timeout(self.patience, self.settled(&change)).await;
        done.unwrap_or(Err(Route53Error::Late(self.patience.as_secs())))?;
        tracing::debug!(record = name, zone, "a challenge's record is published");
        Ok(())
    }

    async fn delete(&self, name: &str, value: &str) -> Result<(), Route53Error> {
        let zone = self.zone(name).await?;
        let deleted = self.change(&zone, ChangeAction::Delete, name, value).await;
        match deleted {
            // It is not there any more, or another one is.
            Err(Route53Error::Call {
                code: Some(code), ..
            }) if code == "InvalidChangeBatch" => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// The id of the zone with the longest name that `name` is in.
    async fn zone(&self, name: &str) -> Result<String, Route53Error> {
        let candidates: Vec<String> = zone::candidates(name).collect();
        for candidate in &candidates {
            const CALL: &str = "ListHostedZonesByName";
            let listed = self.client.list_hosted_zones_by_name();
            let listed = listed.dns_name(candidate).send().await;
            let listed = listed.map_err(|error| failed(CALL, &error))?;
            // The list begins with the zones of this name, if there are any.
            let zones = listed.hosted_zones.iter().map(|zone| zone::Listed {
                id: &zone.id,
                name: &zone.name,
                private: zone.config.as_ref().is_some_and(|it| it.private_zone),
            });
            if let Some(id) = zone::choose(candidate, zones)? {
                return Ok(id.to_owned());
            }
        }
        Err(Route53Error::NoZone(candidates))
    }

    /// Asks for a change; gives its id.
    async fn change(
        &self,
        zone: &str,
        action: ChangeAction,
        name: &str,
        value: &str,
    ) -> Result<String, Route53Error> {
        const CALL: &str = "ChangeResourceRecordSets";
        let nonsense = |_| Route53Error::Nonsense(CALL);
        let text = ResourceRecord::builder().value(format!("\"{value}\""));
        let record = ResourceRecordSet::builder()
            .name(name)
            .r#type(RrType::Txt)
            .ttl(TTL)
            .resource_records(text.build().map_err(nonsense)?)
            .build()
            .map_err(nonsense)?;
        let change = Change::builder().action(action).resource_record_set(record);
        let batch = ChangeBatch::builder().changes(change.build().map_err(nonsense)?);
        let request = self.client.change_resource_record_sets();
        let request = request.hosted_zone_id(zone);
        let request = request.change_batch(batch.build().map_err(nonsense)?);
        let sent = request.send().await.map_err(|error| failed(CALL, &error))?;
        let info = sent.change_info.ok_or(Route53Error::Nonsense(CALL))?;
        Ok(info.id)
    }

    /// Ends when every server has the change.
    async fn settled(&self, id: &str) -> Result<(), Route53Error> {
        const CALL: &str = "GetChange";
        let mut pause = FIRST_PAUSE;
        loop {
            let found = self.client.get_change().id(id).send().await;
            let found = found.map_err(|error| failed(CALL, &error))?;
            let info = found.change_info.ok_or(Route53Error::Nonsense(CALL))?;
            if info.status == ChangeStatus::Insync {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

impl Dns for Route53 {
    fn publish<'a>(&'a self, name: &'a str, value: &'a str) -> Done<'a> {
        Box::pin(async move { self.put(name, value).await.map_err(|e| e.to_string()) })
    }

    fn withdraw<'a>(&'a self, name: &'a str, value: &'a str) -> Done<'a> {
        Box::pin(async move { self.delete(name, value).await.map_err(|e| e.to_string()) })
    }
}

fn failed<E, R>(call: &'static str, error: &SdkError<E, R>) -> Route53Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let code = error.code().map(str::to_owned);
    let reason = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => with_causes(error),
    };
    Route53Error::Call { call, code, reason }
}

/// An error with all its causes: the first says little about a connection.
fn with_causes<E, R>(error: &SdkError<E, R>) -> String
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
