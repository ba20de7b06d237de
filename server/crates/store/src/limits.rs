//! The limits that every backend holds, with their reasons.

pub use cirrus_schema::{MAX_PK, MAX_SK};

/// Largest item in bytes, names of attributes included, by the provider's rule (400 KB).
pub const MAX_ITEM: usize = 400 * 1_024;
/// Most bytes of items that one page of a query looks at (1 MB); the page ends after the item
/// that passes it.
pub const MAX_PAGE: usize = 1_024 * 1_024;
/// Longest name of an attribute in bytes. Names are stored and billed with every item.
pub const MAX_NAME: usize = 7;
/// Most attributes of one item.
pub const MAX_ATTRS: usize = 64;
/// Most keys in one batch get. The provider takes 100 a request: this is ten requests.
pub const MAX_BATCH: usize = 1_000;
/// Longest name of a blob in bytes (S3).
pub const MAX_BLOB_KEY: usize = 1_024;
/// Largest blob in bytes that is put in one piece. S3 would take 5 GB; we never hold that in RAM.
pub const MAX_BLOB: usize = 64 * 1_024 * 1_024;
/// Most names in one page of a blob listing (S3).
pub const MAX_LIST: u32 = 1_000;
/// Longest validity of a presigned URL in seconds (S3: seven days).
pub const MAX_PRESIGN_SECONDS: u64 = 7 * 24 * 3_600;
