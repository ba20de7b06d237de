//! The trait of blob stores.

use std::{fmt, ops::Range, time::Duration};

use bytes::Bytes;
use cirrus_schema::BucketId;
use serde::{Deserialize, Serialize};

use crate::{BoxFuture, Place, StoreError};

/// Where a blob is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobKey {
    /// The bucket.
    pub bucket: BucketId,
    /// The name in the bucket: parts separated by `/`, none of them empty, `.` or `..`; at most
    /// [`MAX_BLOB_KEY`](crate::limits::MAX_BLOB_KEY) bytes, no control characters.
    pub name: String,
}

impl BlobKey {
    /// A key from its parts.
    #[must_use]
    pub fn new(bucket: BucketId, name: impl Into<String>) -> BlobKey {
        BlobKey {
            bucket,
            name: name.into(),
        }
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bucket.name(), self.name.escape_debug())
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One request to a blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobOp {
    /// Writes a blob in place of one of that name. Readers see the old or the new one, whole.
    Put {
        /// Where.
        at: BlobKey,
        /// What.
        #[serde(with = "crate::raw")]
        body: Bytes,
        /// Its media type, for blobs that a browser may fetch.
        content_type: Option<String>,
    },
    /// Writes a blob unless there is one of that name.
    PutIfAbsent {
        /// Where.
        at: BlobKey,
        /// What.
        #[serde(with = "crate::raw")]
        body: Bytes,
    },
    /// Reads a blob or a part of it.
    Get {
        /// Which.
        at: BlobKey,
        /// Bytes of it; what lies beyond its end is left out. `None` = all.
        range: Option<Range<u64>>,
    },
    /// Removes a blob; removing an absent one succeeds.
    Delete {
        /// Which.
        at: BlobKey,
    },
    /// Lists names in bytewise order. For dumps and repairs, not on a user's path.
    List {
        /// The bucket.
        bucket: BucketId,
        /// What the names start with.
        prefix: String,
        /// The name after which the page starts.
        after: Option<String>,
        /// Most names in the page, up to [`MAX_LIST`](crate::limits::MAX_LIST).
        limit: u32,
    },
}

/// The kind of a blob request, as the provider bills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobKind {
    /// [`BlobOp::Put`] and [`BlobOp::PutIfAbsent`].
    Put,
    /// [`BlobOp::Get`].
    Get,
    /// [`BlobOp::Delete`].
    Delete,
    /// [`BlobOp::List`].
    List,
}

impl BlobKind {
    /// Every kind.
    pub const ALL: [BlobKind; 4] = [
        BlobKind::Put,
        BlobKind::Get,
        BlobKind::Delete,
        BlobKind::List,
    ];

    /// A short name for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BlobKind::Put => "put_object",
            BlobKind::Get => "get_object",
            BlobKind::Delete => "delete_object",
            BlobKind::List => "list_objects",
        }
    }
}

impl BlobOp {
    /// The kind of the request.
    #[must_use]
    pub fn kind(&self) -> BlobKind {
        match self {
            BlobOp::Put { .. } | BlobOp::PutIfAbsent { .. } => BlobKind::Put,
            BlobOp::Get { .. } => BlobKind::Get,
            BlobOp::Delete { .. } => BlobKind::Delete,
            BlobOp::List { .. } => BlobKind::List,
        }
    }

    /// The bucket that the request is for.
    #[must_use]
    pub fn bucket(&self) -> BucketId {
        match self {
            BlobOp::Put { at, .. }
            | BlobOp::PutIfAbsent { at, .. }
            | BlobOp::Get { at, .. }
            | BlobOp::Delete { at } => at.bucket,
            BlobOp::List { bucket, .. } => *bucket,
        }
    }

    /// What an error of this request is about.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Blob(match self {
            BlobOp::Put { at, .. }
            | BlobOp::PutIfAbsent { at, .. }
            | BlobOp::Get { at, .. }
            | BlobOp::Delete { at } => at.clone(),
            BlobOp::List { bucket, prefix, .. } => BlobKey::new(*bucket, prefix.clone()),
        })
    }
}

/// A blob in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobEntry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was written, Unix milliseconds, where that is known.
    pub modified: Option<u64>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlobPage {
    /// Blobs in bytewise order of names.
    pub blobs: Vec<BlobEntry>,
    /// The name to continue after; `None` = this was the last page.
    pub next: Option<String>,
}

/// What a blob request did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobOutcome {
    /// The blob is written, and durable. `false`: there was one already (put-if-absent only).
    Put(bool),
    /// The blob or the part asked for; `None` = there is no such blob.
    Body(#[serde(with = "crate::raw")] Option<Bytes>),
    /// The blob is gone.
    Deleted,
    /// A page of names.
    Page(BlobPage),
}

/// What a presigned URL allows whoever has it to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presign {
    /// To read the blob.
    Get,
    /// To write the blob once with exactly this length and media type.
    Put {
        /// Length in bytes.
        length: u64,
        /// Media type.
        content_type: String,
    },
}

/// Objects under a key; see the crate's head.
pub trait Blob: Send + Sync {
    /// Carries out one request.
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>>;

    /// A URL by which a stranger can read or write one blob for some time; `None` = this backend
    /// has no address of its own, and the server must carry the bytes.
    fn presign(
        &self,
        at: BlobKey,
        what: Presign,
        valid: Duration,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>>;
}

/// The requests as functions.
impl dyn Blob + '_ {
    /// [`BlobOp::Put`] without media type.
    ///
    /// # Errors
    /// As [`Blob::apply`].
    pub async fn put(&self, at: BlobKey, body: Bytes) -> Result<(), StoreError> {
        self.apply(BlobOp::Put {
            at,
            body,
            content_type: None,
        })
        .await
        .map(drop)
    }

    /// [`BlobOp::PutIfAbsent`]: whether it was absent.
    ///
    /// # Errors
    /// As [`Blob::apply`].
    pub async fn put_if_absent(&self, at: BlobKey, body: Bytes) -> Result<bool, StoreError> {
        let outcome = self.apply(BlobOp::PutIfAbsent { at, body }).await?;
        Ok(matches!(outcome, BlobOutcome::Put(true)))
    }

    /// [`BlobOp::Get`].
    ///
    /// # Errors
    /// As [`Blob::apply`].
    pub async fn get(
        &self,
        at: BlobKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.apply(BlobOp::Get { at, range }).await? {
            BlobOutcome::Body(body) => Ok(body),
            _ => Ok(None),
        }
    }

    /// [`BlobOp::Delete`].
    ///
    /// # Errors
    /// As [`Blob::apply`].
    pub async fn delete(&self, at: BlobKey) -> Result<(), StoreError> {
        self.apply(BlobOp::Delete { at }).await.map(drop)
    }

    /// [`BlobOp::List`].
    ///
    /// # Errors
    /// As [`Blob::apply`].
    pub async fn list(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<String>,
        limit: u32,
    ) -> Result<BlobPage, StoreError> {
        match self
            .apply(BlobOp::List {
                bucket,
                prefix: prefix.to_owned(),
                after,
                limit,
            })
            .await?
        {
            BlobOutcome::Page(page) => Ok(page),
            _ => Ok(BlobPage::default()),
        }
    }
}
