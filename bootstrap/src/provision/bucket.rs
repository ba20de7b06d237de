//! One bucket: what it needs now.

use cirrus_schema::{BucketEncryption, BucketSpec, LifecycleRule, PublicAccess};

use super::{Decision, Differences, switch};

/// A bucket as it is at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBucket {
    /// All four blocks of public access are on.
    pub public_access_blocked: bool,
    /// ACLs are off.
    pub owner_enforced: bool,
    /// The algorithm of default encryption.
    pub encryption: Option<String>,
    /// Its policy.
    pub policy: Policy,
    /// Old versions are kept.
    pub versioning: bool,
    /// Lifecycle rules; `None` if it has no lifecycle configuration.
    pub lifecycle: Option<Vec<FoundRule>>,
}

/// What a bucket's policy says about connections without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// There is no policy.
    Absent,
    /// It refuses them.
    TlsOnly,
    /// It does not.
    Other,
}

/// A lifecycle rule as it is at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// Its name.
    pub id: String,
    /// It is switched on.
    pub enabled: bool,
    /// Days until objects are removed.
    pub expire_days: Option<u32>,
    /// Days until unfinished uploads are removed.
    pub abort_multipart_days: Option<u32>,
}

/// A call that a bucket needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketStep {
    /// CreateBucket.
    Create,
    /// PutPublicAccessBlock.
    PublicAccess,
    /// PutBucketOwnershipControls.
    Ownership,
    /// PutBucketEncryption.
    Encryption,
    /// PutBucketPolicy.
    Policy,
    /// PutBucketLifecycleConfiguration: the last setting.
    Lifecycle,
}

impl BucketStep {
    /// What the call does, for the progress.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Create => "making it",
            Self::PublicAccess => "blocking public access",
            Self::Ownership => "switching ACLs off",
            Self::Encryption => "switching encryption on",
            Self::Policy => "refusing access without TLS",
            Self::Lifecycle => "setting its lifecycle",
        }
    }
}

/// What a bucket needs now.
pub(super) fn decide(
    name: &str,
    spec: &BucketSpec,
    found: Option<&FoundBucket>,
) -> Decision<BucketStep> {
    let Some(found) = found else {
        return Decision::Do(vec![BucketStep::Create]);
    };
    if found.lifecycle.is_none() {
        return Decision::Do(unfinished(spec, found));
    }
    Decision::Ready(drift(name, spec, found))
}

/// A policy that is there is somebody's: it is not replaced.
fn unfinished(spec: &BucketSpec, found: &FoundBucket) -> Vec<BucketStep> {
    let PublicAccess::Blocked = spec.public_access;
    let BucketEncryption::ProviderKey = spec.encryption;
    let all = [
        (BucketStep::PublicAccess, !found.public_access_blocked),
        (
            BucketStep::Ownership,
            spec.owner_enforced && !found.owner_enforced,
        ),
        (BucketStep::Encryption, found.encryption.is_none()),
        (
            BucketStep::Policy,
            spec.tls_only && found.policy == Policy::Absent,
        ),
        (BucketStep::Lifecycle, true),
    ];
    all.into_iter()
        .filter(|(_, needed)| *needed)
        .map(|(step, _)| step)
        .collect()
}

fn drift(name: &str, spec: &BucketSpec, found: &FoundBucket) -> Vec<super::Drift> {
    let mut d = Differences::of(name);
    let PublicAccess::Blocked = spec.public_access;
    let blocked = |yes| if yes { "blocked" } else { "not blocked" };
    d.compare(
        "public access",
        blocked(true),
        blocked(found.public_access_blocked),
    );
    d.compare(
        "ACLs off",
        switch(spec.owner_enforced),
        switch(found.owner_enforced),
    );
    let BucketEncryption::ProviderKey = spec.encryption;
    // A customer's key (aws:kms) is the operator's choice.
    let encrypted = |yes| if yes { "on" } else { "off" };
    d.compare(
        "encryption",
        encrypted(true),
        encrypted(found.encryption.is_some()),
    );
    let tls = |yes| if yes { "refused" } else { "allowed" };
    let refused = found.policy == Policy::TlsOnly;
    d.compare("access without TLS", tls(spec.tls_only), tls(refused));
    d.compare(
        "versioning",
        switch(spec.versioning),
        switch(found.versioning),
    );
    for rule in spec.lifecycle {
        let has = found
            .lifecycle
            .iter()
            .flatten()
            .find(|r| r.id == rule.id && r.enabled);
        let field = format!("lifecycle rule {}", rule.id);
        d.compare(&field, &expected_words(rule), &found_words(has));
    }
    d.drift
}

fn expected_words(rule: &LifecycleRule) -> String {
    words(rule.expire_days, rule.abort_multipart_days)
}

fn found_words(rule: Option<&FoundRule>) -> String {
    let rule = rule.map(|r| words(r.expire_days, r.abort_multipart_days));
    rule.unwrap_or_else(|| "absent".to_owned())
}

fn words(expire: Option<u32>, abort: Option<u32>) -> String {
    let expire = expire.map(|days| format!("expire after {days} days"));
    let abort = abort.map(|days| format!("abort uploads after {days} days"));
    let all: Vec<String> = expire.into_iter().chain(abort).collect();
    if all.is_empty() {
        "nothing".to_owned()
    } else {
        all.join(", ")
    }
}
