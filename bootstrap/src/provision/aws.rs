//! The calls to DynamoDB and S3, and what their refusals mean.

mod buckets;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use cirrus_cloud::{Class, Refusal};
use cirrus_config::Config;
use cirrus_schema::{BUCKETS, TABLES};
use tokio::task::JoinSet;

use super::{Decision, Names, Report};
use crate::code::Code;
use buckets::Buckets;
use tables::Tables;

/// How long one object may take, retries included. A table takes some 10 s, a bucket 1 s.
const DEADLINE: Duration = Duration::from_secs(300);
/// Pauses between looks: 250 ms, 500 ms, 1 s, 2 s, 2 s, …
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Why provisioning failed.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// AWS refused a call, or never did it.
    #[error("{0}")]
    Call(Refusal),
    /// The bucket's name is taken.
    #[error(
        "the bucket {bucket} belongs to another AWS account than {account}; \
         set store.prefix to another name, or store.account to the account that owns it"
    )]
    Foreign {
        /// The bucket.
        bucket: String,
        /// The account that should own it.
        account: String,
    },
    /// A table cannot be used.
    #[error("the table {table} exists, but {why}; set store.prefix to another name")]
    Incompatible {
        /// The table.
        table: String,
        /// Why.
        why: String,
    },
    /// Not done in time.
    #[error("{object} was not ready within {} s: {last}", DEADLINE.as_secs())]
    Late {
        /// The table or bucket.
        object: String,
        /// What it was doing.
        last: String,
    },
    /// The configuration lacks region or account.
    #[error("store.region and store.account are needed")]
    Incomplete,
    /// A task of this program failed.
    #[error("a task failed")]
    Task(#[source] tokio::task::JoinError),
}

impl ProvisionError {
    /// The class of the outcome.
    pub fn code(&self) -> Code {
        match self {
            Self::Call(refusal) if refusal.is_of_clock() => Code::ClockWrong,
            Self::Call(refusal) if refusal.class == Class::Refused => Code::AwsRefused,
            Self::Call(_) | Self::Late { .. } => Code::AwsUnavailable,
            Self::Foreign { .. } => Code::BucketForeign,
            Self::Incompatible { .. } => Code::TableIncompatible,
            Self::Incomplete => Code::ConfigImpossible,
            Self::Task(_) => Code::Internal,
        }
    }
}

/// Hears what happens to an object: `(object, what)`.
pub type Progress = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The clients and the names.
#[derive(Clone)]
pub struct Provisioner {
    names: Names,
    tables: Tables,
    buckets: Buckets,
}

impl Provisioner {
    /// Clients for a configuration. Credentials, and endpoints that the configuration does not
    /// name, come from the environment or the instance.
    ///
    /// # Errors
    /// When the configuration lacks region or account.
    pub async fn new(config: &Config) -> Result<Self, ProvisionError> {
        let names = Names::of(config).ok_or(ProvisionError::Incomplete)?;
        let sdk = cirrus_cloud::sdk(&names.region).await;
        Ok(Self::from_sdk(config, names, &sdk))
    }

    fn from_sdk(config: &Config, names: Names, sdk: &SdkConfig) -> Self {
        let tables = Tables::new(sdk, config.store.dynamodb_endpoint.as_deref());
        let buckets = Buckets::new(sdk, config.store.s3_endpoint.as_deref(), names.clone());
        Self {
            names,
            tables,
            buckets,
        }
    }

    /// Makes what is missing and waits until all of it can be used.
    ///
    /// # Errors
    /// The first object that could not be had.
    pub async fn provision(&self, progress: &Progress) -> Result<Report, ProvisionError> {
        let mut tasks = JoinSet::new();
        for spec in &TABLES {
            let (this, progress) = (self.clone(), Arc::clone(progress));
            let name = self.names.table(spec.id);
            tasks.spawn(async move {
                within_deadline(&name, |last| this.make_table(&name, spec, &progress, last)).await
            });
        }
        for spec in &BUCKETS {
            let (this, progress) = (self.clone(), Arc::clone(progress));
            let name = self.names.bucket(spec.id);
            tasks.spawn(async move {
                within_deadline(&name, |last| this.make_bucket(&name, spec, &progress, last)).await
            });
        }
        let mut report = Report::default();
        while let Some(done) = tasks.join_next().await {
            report.add(done.map_err(ProvisionError::Task)??);
        }
        report.sort();
        Ok(report)
    }

    /// What [`Provisioner::provision`] would do: one line for each object, then the drift.
    ///
    /// # Errors
    /// The first object that could not be looked at.
    pub async fn plan(&self) -> Result<Vec<String>, ProvisionError> {
        let mut lines = Vec::new();
        let mut drift = Vec::new();
        for spec in &TABLES {
            let name = self.names.table(spec.id);
            let found = self
                .tables
                .describe(&name)
                .await
                .map_err(ProvisionError::Call)?;
            let decision = super::table::decide(&name, spec, found.as_ref());
            lines.push(format!(
                "table  {name}: {}",
                planned(decision, found.is_some(), &mut drift)
            ));
        }
        for spec in &BUCKETS {
            let name = self.names.bucket(spec.id);
            let found = self.buckets.describe(&name).await?;
            let decision = super::bucket::decide(&name, spec, found.as_ref());
            lines.push(format!(
                "bucket {name}: {}",
                planned(decision, found.is_some(), &mut drift)
            ));
        }
        lines.extend(drift.iter().map(|d: &super::Drift| format!("drift  {d}")));
        Ok(lines)
    }

    async fn make_table(
        &self,
        name: &str,
        spec: &'static cirrus_schema::TableSpec,
        progress: &Progress,
        last: Last,
    ) -> Result<Report, ProvisionError> {
        let mut work = Work::new(name, progress, last);
        loop {
            let found = match self.tables.describe(name).await {
                Ok(found) => found,
                Err(refusal) => {
                    work.again(refusal).await?;
                    continue;
                }
            };
            match super::table::decide(name, spec, found.as_ref()) {
                Decision::Ready(drift) => return Ok(work.done(drift)),
                Decision::Wait(what) => work.wait(what).await,
                Decision::Incompatible(why) => {
                    let table = name.to_owned();
                    return Err(ProvisionError::Incompatible { table, why });
                }
                Decision::Do(steps) => {
                    for step in steps {
                        work.say(step.words());
                        match self.tables.perform(name, spec, step).await {
                            Ok(()) => work.made(step == super::TableStep::Create),
                            Err(refusal) => {
                                work.again(refusal).await?;
                                break;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn make_bucket(
        &self,
        name: &str,
        spec: &'static cirrus_schema::BucketSpec,
        progress: &Progress,
        last: Last,
    ) -> Result<Report, ProvisionError> {
        let mut work = Work::new(name, progress, last);
        loop {
            let found = match self.buckets.describe(name).await {
                Ok(found) => found,
                Err(ProvisionError::Call(refusal)) => {
                    work.again(refusal).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match super::bucket::decide(name, spec, found.as_ref()) {
                Decision::Ready(drift) => return Ok(work.done(drift)),
                Decision::Wait(what) => work.wait(what).await,
                Decision::Incompatible(why) => {
                    let table = name.to_owned();
                    return Err(ProvisionError::Incompatible { table, why });
                }
                Decision::Do(steps) => {
                    for step in steps {
                        work.say(step.words());
                        match self.buckets.perform(name, spec, step).await {
                            Ok(()) => work.made(step == super::BucketStep::Create),
                            Err(ProvisionError::Call(refusal)) => {
                                work.again(refusal).await?;
                                break;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
    }
}

fn planned<S>(decision: Decision<S>, exists: bool, drift: &mut Vec<super::Drift>) -> String {
    match decision {
        Decision::Do(_) if exists => "was begun and would be finished".into(),
        Decision::Do(_) => "would be made".into(),
        Decision::Wait(what) => what.into(),
        Decision::Incompatible(why) => format!("cannot be used: {why}"),
        Decision::Ready(differences) => {
            drift.extend(differences);
            "exists".into()
        }
    }
}

/// What an object was doing last, for the message when time is up.
type Last = Arc<std::sync::Mutex<String>>;

async fn within_deadline<F>(
    name: &str,
    make: impl FnOnce(Last) -> F,
) -> Result<Report, ProvisionError>
where
    F: Future<Output = Result<Report, ProvisionError>>,
{
    let last = Last::default();
    let made = tokio::time::timeout(DEADLINE, make(Arc::clone(&last))).await;
    made.unwrap_or_else(|_| {
        let last = last.lock().map(|l| l.clone()).unwrap_or_default();
        Err(ProvisionError::Late {
            object: name.to_owned(),
            last,
        })
    })
}

/// The work on one object so far.
struct Work<'a> {
    name: &'a str,
    progress: &'a Progress,
    last: Last,
    pause: Duration,
    created: bool,
    touched: bool,
}

impl<'a> Work<'a> {
    fn new(name: &'a str, progress: &'a Progress, last: Last) -> Self {
        let (pause, created, touched) = (FIRST_PAUSE, false, false);
        Self {
            name,
            progress,
            last,
            pause,
            created,
            touched,
        }
    }

    fn say(&self, what: &str) {
        if let Ok(mut last) = self.last.lock() {
            what.clone_into(&mut last);
        }
        (self.progress)(self.name, what);
    }

    /// A call succeeded.
    fn made(&mut self, created: bool) {
        self.created |= created;
        self.touched = true;
        self.pause = FIRST_PAUSE;
    }

    async fn wait(&mut self, what: &str) {
        self.say(what);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    /// A call failed: wait and look again, or give up.
    async fn again(&mut self, refusal: Refusal) -> Result<(), ProvisionError> {
        match refusal.class {
            Class::Refused => Err(ProvisionError::Call(refusal)),
            Class::Again => {
                self.wait(&refusal.to_string()).await;
                Ok(())
            }
        }
    }

    fn done(self, drift: Vec<super::Drift>) -> Report {
        self.say("ready");
        let name = vec![self.name.to_owned()];
        let mut report = Report {
            drift,
            ..Report::default()
        };
        match (self.created, self.touched) {
            (true, _) => report.created = name,
            (false, true) => report.finished = name,
            (false, false) => report.unchanged = name,
        }
        report
    }
}
