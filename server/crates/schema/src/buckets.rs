//! The three buckets and the settings each must have.

use serde::{Deserialize, Serialize};

/// A bucket, by its role; [`crate::bucket_name`] gives its name at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BucketId {
    /// Archive segments, documents, pubsub items: read and written by the server only.
    Data,
    /// Files that users send each other by presigned URLs.
    Uploads,
    /// Rendered room logs: the only bucket that an operator may choose to serve directly.
    Logs,
}

impl BucketId {
    /// Every bucket.
    pub const ALL: [BucketId; 3] = [BucketId::Data, BucketId::Uploads, BucketId::Logs];

    /// The last part of the bucket's name, unique among buckets.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BucketId::Data => "data",
            BucketId::Uploads => "uploads",
            BucketId::Logs => "logs",
        }
    }

    /// The bucket with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<BucketId> {
        BucketId::ALL.into_iter().find(|b| b.name() == name)
    }

    /// What the bucket must look like.
    #[must_use]
    pub const fn spec(self) -> &'static BucketSpec {
        match self {
            BucketId::Data => &BUCKETS[0],
            BucketId::Uploads => &BUCKETS[1],
            BucketId::Logs => &BUCKETS[2],
        }
    }
}

/// Encryption at rest of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketEncryption {
    /// With keys that the provider keeps (S3 `AES256`). A configured customer key replaces it.
    ProviderKey,
}

/// Whether a bucket may ever be read without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicAccess {
    /// All four public access blocks are on (ACLs and policies, new and existing).
    Blocked,
}

/// A rule by which the provider removes objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Name of the rule, unique in its bucket.
    pub id: &'static str,
    /// Objects whose key starts with this; empty = all.
    pub prefix: &'static str,
    /// Objects are removed this many days after they were written.
    pub expire_days: Option<u32>,
    /// Unfinished multipart uploads are removed after this many days.
    pub abort_multipart_days: Option<u32>,
}

/// What one bucket must look like at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSpec {
    /// Which bucket.
    pub id: BucketId,
    /// Encryption at rest.
    pub encryption: BucketEncryption,
    /// Access without credentials.
    pub public_access: PublicAccess,
    /// ACLs are off: everything in the bucket belongs to its owner (`BucketOwnerEnforced`).
    pub owner_enforced: bool,
    /// The bucket's policy refuses requests without TLS.
    pub tls_only: bool,
    /// Old versions are kept. Off: a blob is never overwritten, its name is random or a hash.
    pub versioning: bool,
    /// Rules of removal.
    pub lifecycle: &'static [LifecycleRule],
}

/// Uploads are removed after this many days unless the configuration says otherwise.
const UPLOAD_DAYS: u32 = 30;
/// Nothing of ours takes longer than minutes to upload; a day is generous and cheap.
const ABORT_DAYS: u32 = 1;

const ABORT: LifecycleRule = LifecycleRule {
    id: "abort-unfinished",
    prefix: "",
    expire_days: None,
    abort_multipart_days: Some(ABORT_DAYS),
};

const fn bucket(id: BucketId, lifecycle: &'static [LifecycleRule]) -> BucketSpec {
    BucketSpec {
        id,
        encryption: BucketEncryption::ProviderKey,
        public_access: PublicAccess::Blocked,
        owner_enforced: true,
        tls_only: true,
        versioning: false,
        lifecycle,
    }
}

/// Every bucket that must exist, in the order of [`BucketId::ALL`].
pub const BUCKETS: [BucketSpec; 3] = [
    bucket(BucketId::Data, &[ABORT]),
    bucket(
        BucketId::Uploads,
        &[
            ABORT,
            LifecycleRule {
                id: "expire-uploads",
                prefix: "",
                expire_days: Some(UPLOAD_DAYS),
                abort_multipart_days: None,
            },
        ],
    ),
    bucket(BucketId::Logs, &[ABORT]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_and_names_agree() {
        for (spec, id) in BUCKETS.iter().zip(BucketId::ALL) {
            assert_eq!(spec.id, id);
            assert_eq!(id.spec(), spec);
            assert_eq!(BucketId::from_name(id.name()), Some(id));
        }
        assert_eq!(BucketId::from_name("bucket"), None);
    }
}
