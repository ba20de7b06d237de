//! Calls to S3.

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus, LifecycleExpiration,
    LifecycleRule as AwsRule, LifecycleRuleFilter, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};
use cirrus_cloud::{Class, Refusal};
use cirrus_schema::{BucketEncryption, BucketSpec, LifecycleRule, PublicAccess};
use serde_json::{Value, json};

use super::ProvisionError;
use crate::provision::{BucketStep, FoundBucket, FoundRule, Names, Policy};

/// S3.
#[derive(Clone)]
pub(super) struct Buckets {
    client: Client,
    names: Names,
}

/// The region whose buckets carry no location.
const NO_LOCATION: &str = "us-east-1";

impl Buckets {
    pub(super) fn new(sdk: &SdkConfig, endpoint: Option<&str>, names: Names) -> Self {
        let mut builder = aws_sdk_s3::config::Builder::from(sdk);
        let elsewhere = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        let elsewhere = elsewhere
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        // What is not AWS seldom has a host name for each bucket.
        builder.set_force_path_style(Some(elsewhere || endpoint.is_some()));
        // Without one in the configuration, the environment's holds.
        if let Some(endpoint) = endpoint {
            builder.set_endpoint_url(Some(endpoint.to_owned()));
        }
        Self {
            client: Client::from_conf(builder.build()),
            names,
        }
    }

    /// The bucket as it is; `None` if there is none.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<FoundBucket>, ProvisionError> {
        let account = &self.names.account;
        let head = self
            .client
            .head_bucket()
            .bucket(name)
            .expected_bucket_owner(account);
        if let Err(error) = head.send().await {
            let refusal = refused(name, "HeadBucket", &error);
            return match refusal.status {
                Some(404) => Ok(None),
                // It is there, and either not ours or closed to us. Making it tells which.
                Some(301 | 403) => Err(self.whose(name, refusal).await),
                _ => Err(ProvisionError::Call(refusal)),
            };
        }
        self.settings(name)
            .await
            .map(Some)
            .map_err(ProvisionError::Call)
    }

    async fn whose(&self, name: &str, refusal: Refusal) -> ProvisionError {
        match self.create(name).await {
            Err(error @ ProvisionError::Foreign { .. }) => error,
            _ => ProvisionError::Call(Refusal {
                class: Class::Refused,
                ..refusal
            }),
        }
    }

    async fn settings(&self, name: &str) -> Result<FoundBucket, Refusal> {
        Ok(FoundBucket {
            public_access_blocked: self.public_access_blocked(name).await?,
            owner_enforced: self.owner_enforced(name).await?,
            encryption: self.encryption(name).await?,
            policy: self.policy(name).await?,
            versioning: self.versioning(name).await?,
            lifecycle: self.lifecycle(name).await?,
        })
    }

    async fn public_access_blocked(&self, name: &str) -> Result<bool, Refusal> {
        let request = self.client.get_public_access_block().bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let none = "NoSuchPublicAccessBlockConfiguration";
        let output = unless_absent(name, "GetPublicAccessBlock", none, sent)?;
        let block = output.and_then(|o| o.public_access_block_configuration);
        Ok(block.is_some_and(|b| {
            [
                b.block_public_acls,
                b.ignore_public_acls,
                b.block_public_policy,
                b.restrict_public_buckets,
            ]
            .iter()
            .all(|on| *on == Some(true))
        }))
    }

    async fn owner_enforced(&self, name: &str) -> Result<bool, Refusal> {
        let request = self.client.get_bucket_ownership_controls().bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let none = "OwnershipControlsNotFoundError";
        let output = unless_absent(name, "GetBucketOwnershipControls", none, sent)?;
        let rules = output
            .and_then(|o| o.ownership_controls)
            .map(|c| c.rules)
            .unwrap_or_default();
        Ok(rules
            .iter()
            .any(|r| r.object_ownership == ObjectOwnership::BucketOwnerEnforced))
    }

    async fn encryption(&self, name: &str) -> Result<Option<String>, Refusal> {
        let request = self.client.get_bucket_encryption().bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let none = "ServerSideEncryptionConfigurationNotFoundError";
        let output = unless_absent(name, "GetBucketEncryption", none, sent)?;
        let configuration = output.and_then(|o| o.server_side_encryption_configuration);
        let rule = configuration.and_then(|c| c.rules.into_iter().next());
        let default = rule.and_then(|r| r.apply_server_side_encryption_by_default);
        Ok(default.map(|d| d.sse_algorithm.as_str().to_owned()))
    }

    async fn policy(&self, name: &str) -> Result<Policy, Refusal> {
        let request = self.client.get_bucket_policy().bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let output = unless_absent(name, "GetBucketPolicy", "NoSuchBucketPolicy", sent)?;
        Ok(match output.and_then(|o| o.policy) {
            None => Policy::Absent,
            Some(text) if refuses_plain(&text) => Policy::TlsOnly,
            Some(_) => Policy::Other,
        })
    }

    async fn versioning(&self, name: &str) -> Result<bool, Refusal> {
        let request = self.client.get_bucket_versioning().bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let output = sent.map_err(|e| refused(name, "GetBucketVersioning", &e))?;
        Ok(output.status == Some(BucketVersioningStatus::Enabled))
    }

    async fn lifecycle(&self, name: &str) -> Result<Option<Vec<FoundRule>>, Refusal> {
        let request = self
            .client
            .get_bucket_lifecycle_configuration()
            .bucket(name);
        let sent = request
            .expected_bucket_owner(&self.names.account)
            .send()
            .await;
        let (call, none) = (
            "GetBucketLifecycleConfiguration",
            "NoSuchLifecycleConfiguration",
        );
        let output = unless_absent(name, call, none, sent)?;
        let rules = output.and_then(|o| o.rules);
        let days = |n: i32| u32::try_from(n).ok();
        let found = |r: AwsRule| FoundRule {
            id: r.id.unwrap_or_default(),
            enabled: r.status == ExpirationStatus::Enabled,
            expire_days: r.expiration.and_then(|e| e.days).and_then(days),
            abort_multipart_days: r
                .abort_incomplete_multipart_upload
                .and_then(|a| a.days_after_initiation)
                .and_then(days),
        };
        Ok(rules.map(|rules| rules.into_iter().map(found).collect()))
    }

    /// Makes one call.
    pub(super) async fn perform(
        &self,
        name: &str,
        spec: &BucketSpec,
        step: BucketStep,
    ) -> Result<(), ProvisionError> {
        let done = match step {
            BucketStep::Create => return self.create(name).await,
            BucketStep::PublicAccess => self.block_public_access(name, spec).await,
            BucketStep::Ownership => self.enforce_owner(name).await,
            BucketStep::Encryption => self.encrypt(name, spec).await,
            BucketStep::Policy => self.refuse_plain(name).await,
            BucketStep::Lifecycle => self.put_lifecycle(name, spec).await,
        };
        done.map_err(ProvisionError::Call)
    }

    async fn create(&self, name: &str) -> Result<(), ProvisionError> {
        let region = self.names.region.as_str();
        let location = (region != NO_LOCATION).then(|| {
            let constraint = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder()
                .location_constraint(constraint)
                .build()
        });
        let request = self.client.create_bucket().bucket(name);
        let sent = request
            .set_create_bucket_configuration(location)
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let refusal = refused(name, "CreateBucket", &error);
        match refusal.code.as_deref() {
            Some("BucketAlreadyOwnedByYou") => Ok(()),
            Some("BucketAlreadyExists") => {
                let (bucket, account) = (name.to_owned(), self.names.account.clone());
                Err(ProvisionError::Foreign { bucket, account })
            }
            _ => Err(ProvisionError::Call(refusal)),
        }
    }

    async fn block_public_access(&self, name: &str, spec: &BucketSpec) -> Result<(), Refusal> {
        let PublicAccess::Blocked = spec.public_access;
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let request = self.client.put_public_access_block().bucket(name);
        let request = request.expected_bucket_owner(&self.names.account);
        let sent = request
            .public_access_block_configuration(block)
            .send()
            .await;
        sent.map(drop)
            .map_err(|e| refused(name, "PutPublicAccessBlock", &e))
    }

    async fn enforce_owner(&self, name: &str) -> Result<(), Refusal> {
        const CALL: &str = "PutBucketOwnershipControls";
        let rule = OwnershipControlsRule::builder()
            .object_ownership(ObjectOwnership::BucketOwnerEnforced)
            .build()
            .map_err(|e| unbuilt(name, CALL, &e))?;
        let controls = OwnershipControls::builder().rules(rule).build();
        let controls = controls.map_err(|e| unbuilt(name, CALL, &e))?;
        let request = self.client.put_bucket_ownership_controls().bucket(name);
        let request = request.expected_bucket_owner(&self.names.account);
        let sent = request.ownership_controls(controls).send().await;
        sent.map(drop).map_err(|e| refused(name, CALL, &e))
    }

    async fn encrypt(&self, name: &str, spec: &BucketSpec) -> Result<(), Refusal> {
        const CALL: &str = "PutBucketEncryption";
        let algorithm = match spec.encryption {
            BucketEncryption::ProviderKey => ServerSideEncryption::Aes256,
        };
        let default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(algorithm)
            .build();
        let default = default.map_err(|e| unbuilt(name, CALL, &e))?;
        let rule = ServerSideEncryptionRule::builder();
        let rule = rule
            .apply_server_side_encryption_by_default(default)
            .build();
        let configuration = ServerSideEncryptionConfiguration::builder()
            .rules(rule)
            .build();
        let configuration = configuration.map_err(|e| unbuilt(name, CALL, &e))?;
        let request = self.client.put_bucket_encryption().bucket(name);
        let request = request.expected_bucket_owner(&self.names.account);
        let sent = request
            .server_side_encryption_configuration(configuration)
            .send()
            .await;
        sent.map(drop).map_err(|e| refused(name, CALL, &e))
    }

    async fn refuse_plain(&self, name: &str) -> Result<(), Refusal> {
        let policy = tls_only_policy(self.names.partition(), name);
        let request = self.client.put_bucket_policy().bucket(name);
        let request = request.expected_bucket_owner(&self.names.account);
        let sent = request.policy(policy).send().await;
        sent.map(drop)
            .map_err(|e| refused(name, "PutBucketPolicy", &e))
    }

    async fn put_lifecycle(&self, name: &str, spec: &BucketSpec) -> Result<(), Refusal> {
        const CALL: &str = "PutBucketLifecycleConfiguration";
        let rules: Result<Vec<AwsRule>, _> = spec.lifecycle.iter().map(rule).collect();
        let rules = rules.map_err(|e| unbuilt(name, CALL, &e))?;
        let configuration = BucketLifecycleConfiguration::builder()
            .set_rules(Some(rules))
            .build();
        let configuration = configuration.map_err(|e| unbuilt(name, CALL, &e))?;
        let request = self
            .client
            .put_bucket_lifecycle_configuration()
            .bucket(name);
        let request = request.expected_bucket_owner(&self.names.account);
        let sent = request.lifecycle_configuration(configuration).send().await;
        sent.map(drop).map_err(|e| refused(name, CALL, &e))
    }
}

fn rule(rule: &LifecycleRule) -> Result<AwsRule, aws_sdk_s3::error::BuildError> {
    let days = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let expiration = rule
        .expire_days
        .map(|n| LifecycleExpiration::builder().days(days(n)).build());
    let abort = rule.abort_multipart_days.map(|n| {
        AbortIncompleteMultipartUpload::builder()
            .days_after_initiation(days(n))
            .build()
    });
    AwsRule::builder()
        .id(rule.id)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(rule.prefix).build())
        .set_expiration(expiration)
        .set_abort_incomplete_multipart_upload(abort)
        .build()
}

/// A policy that refuses every connection without TLS.
fn tls_only_policy(partition: &str, bucket: &str) -> String {
    let arn = format!("arn:{partition}:s3:::{bucket}");
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "RefuseWithoutTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }],
    })
    .to_string()
}

/// Whether a policy refuses connections without TLS.
fn refuses_plain(policy: &str) -> bool {
    let parsed: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = match &parsed["Statement"] {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    statements.iter().any(|s| {
        let secure = &s["Condition"]["Bool"]["aws:SecureTransport"];
        let off =
            *secure == json!("false") || *secure == json!(false) || *secure == json!(["false"]);
        s["Effect"] == "Deny" && off
    })
}

/// The output; `None` if the error says that there is no such setting.
fn unless_absent<T, E>(
    name: &str,
    call: &'static str,
    absent: &str,
    sent: Result<T, SdkError<E>>,
) -> Result<Option<T>, Refusal>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match sent {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.code() == Some(absent) => Ok(None),
        Err(error) => Err(refused(name, call, &error)),
    }
}

fn refused<E>(name: &str, call: &'static str, error: &SdkError<E>) -> Refusal
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Refusal::of(name, call, error)
}

/// A request that could not be built: a fault of this program.
fn unbuilt(name: &str, call: &'static str, error: &dyn std::error::Error) -> Refusal {
    let (object, message) = (name.to_owned(), error.to_string());
    Refusal {
        object,
        call,
        code: None,
        status: None,
        message,
        class: Class::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let ours = tls_only_policy("aws", "b");
        assert!(refuses_plain(&ours));
        assert!(ours.contains("\"arn:aws:s3:::b/*\""));
        for other in ["", "[]", "{}", r#"{"Statement":{"Effect":"Deny"}}"#] {
            assert!(!refuses_plain(other), "{other}");
        }
        let one = r#"{"Statement":{"Effect":"Deny","Condition":
                     {"Bool":{"aws:SecureTransport":false}}}}"#;
        assert!(refuses_plain(one));
    }
}
