//! What must exist in storage, as data: tables, buckets, their settings, the shape of every key.
//!
//! This crate is read by the server (which keys to read and write) and by bootstrap (what to
//! create). It does no I/O, knows no client of any provider and depends on nothing.
//!
//! Limits: a partition key has at most [`MAX_PK`] bytes and a sort key at most [`MAX_SK`] (the
//! provider's limits, held by every backend); table prefixes are checked by [`check_prefix`].

mod buckets;
pub mod keys;
mod names;
mod tables;

pub use buckets::{BUCKETS, BucketEncryption, BucketId, BucketSpec, LifecycleRule, PublicAccess};
pub use keys::{KeyBytes, MAX_PK, MAX_SK, MAX_SK_OWNER};
pub use names::{
    MAX_PREFIX, MIN_PREFIX, PrefixError, bucket_name, bucket_tag, bucket_tag_input, check_prefix,
    table_name,
};
pub use tables::{
    ATTR_EXPIRES, ATTR_FORMAT, ATTR_NONCE, ATTR_PK, ATTR_SK, ATTR_VERSION, Billing, KeyType,
    TABLES, TableEncryption, TableId, TableSpec,
};
