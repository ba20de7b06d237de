//! The AWS services that a boot asks beyond its tables and buckets: Parameter Store, Secrets
//! Manager, an object in S3, the instance's autoscaling group, the instance's tags, CloudWatch.
//!
//! Calls and their refusals only: what they mean for the boot is decided elsewhere. Every call is
//! bounded by [`CALL`]. It is a crate of its own so that the SDK of EC2, which takes minutes to
//! compile, is compiled for nothing else.

mod group;
mod metrics;
mod refusal;
mod tag;
mod values;

use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_config::imds;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

pub use group::{Member, TerminateHook};
pub use metrics::Datum;
pub use refusal::{Class, Refusal};
pub use values::Fetched;

/// One call with the SDK's retries.
pub const CALL: Duration = Duration::from_secs(20);
/// One connection, and one answer of the instance metadata: a machine that has just started, and is
/// small, may need more than the SDK's second for it.
const CONNECT: Duration = Duration::from_secs(3);
/// The SDK's attempts at one call.
const ATTEMPTS: u32 = 3;

/// Credentials and endpoints of the environment or the instance, for one region.
pub async fn sdk(region: &str) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(CALL)
        .build();
    let metadata = imds::Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(CONNECT);
    let region = Region::new(region.to_owned());
    let credentials = DefaultCredentialsChain::builder()
        .region(region.clone())
        .imds_client(metadata.build())
        .build();
    let credentials = credentials.await;
    let cache = IdentityCache::lazy().load_timeout(CALL).build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(region)
        .credentials_provider(credentials)
        .identity_cache(cache)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts)
        .load()
        .await
}

/// The services of one region.
#[derive(Clone, Debug)]
pub struct Cloud {
    sdk: SdkConfig,
}

impl Cloud {
    /// For a region; nothing is called yet.
    pub async fn new(region: &str) -> Self {
        Self {
            sdk: sdk(region).await,
        }
    }
}
