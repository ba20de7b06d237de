//! Tables in DynamoDB and blobs in S3, through the AWS SDK.
//!
//! Endpoint, region and credentials come from the environment as the SDK finds them, retries are
//! the SDK's standard ones, bounded by [`AwsOptions`]. Nothing is created here: tables and buckets
//! that are missing are errors.
//!
//! Limits: a request ends by the deadline at the latest, batches included.

mod convert;
mod dynamo;
mod error;
mod expression;
mod s3;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

pub use dynamo::DynamoTable;
pub use s3::S3Blob;

/// How the backends on AWS name and ask for things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsOptions {
    /// Prefix of the names of tables and buckets.
    pub prefix: String,
    /// [`bucket_tag`](cirrus_schema::bucket_tag) of prefix, account and region.
    pub bucket_tag: String,
    /// The account that must own the buckets; `None` = not checked.
    pub account: Option<String>,
    /// Most times that one request is tried.
    pub attempts: u32,
    /// Time for one try to connect.
    pub connect_timeout: Duration,
    /// Time for one try.
    pub attempt_timeout: Duration,
    /// Time for a request with all its tries.
    pub deadline: Duration,
    /// Time for a blob request with all its tries: bodies may be large.
    pub blob_deadline: Duration,
    /// The bucket's name is part of the path, not of the host name: for endpoints other than AWS.
    pub path_style: bool,
}

impl AwsOptions {
    /// The defaults: 4 tries of 2 s within 8 s, blobs within 30 s.
    #[must_use]
    pub fn new(prefix: impl Into<String>, bucket_tag: impl Into<String>) -> AwsOptions {
        AwsOptions {
            prefix: prefix.into(),
            bucket_tag: bucket_tag.into(),
            account: None,
            attempts: 4,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(8),
            blob_deadline: Duration::from_secs(30),
            path_style: false,
        }
    }

    /// The SDK's standard retries. The first pause is short, since a client waits at the other
    /// end; the SDK adds jitter.
    fn retries(&self) -> RetryConfig {
        RetryConfig::standard()
            .with_max_attempts(self.attempts.max(1))
            .with_initial_backoff(Duration::from_millis(50))
            .with_max_backoff(Duration::from_secs(1))
    }

    fn timeouts(&self, attempt: Duration, deadline: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .operation_attempt_timeout(attempt)
            .operation_timeout(deadline)
            .build()
    }
}

/// The version of the SDK's defaults that was tested. It changes by an edit here, never by itself.
#[must_use]
pub fn behavior_version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Configuration as the SDK finds it: environment, profile, instance metadata. A region or an
/// endpoint given here goes before what is found.
pub async fn load_config(region: Option<String>, endpoint: Option<&str>) -> SdkConfig {
    let mut loader = aws_config::defaults(behavior_version());
    if let Some(region) = region {
        loader = loader.region(aws_config::Region::new(region));
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}
