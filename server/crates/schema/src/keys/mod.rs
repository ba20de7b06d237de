//! The keys of every kind of item, built from an owner.
//!
//! An owner is `host NUL local` (a room: `muchost NUL room`), see `BareJid::owner`. Every
//! partition key starts with one byte that names its kind, so kinds never share a partition, and
//! an owner can't be confused with another that it is a prefix of: partitions are compared whole.
//! In a sort key, a kind letter is followed by NUL and text, or by a big-endian number.
//!
//! A sort key made of a very long address can exceed [`MAX_SK`]; the store refuses it as too
//! large. Accounts are only created with owners up to [`MAX_SK_OWNER`] bytes, so the keys that
//! carry an *own* address always fit.

pub mod accounts;
pub mod archive;
pub mod cluster;
pub mod pubsub;
pub mod rosters;

use crate::TableId;

/// Longest partition key in bytes (DynamoDB).
pub const MAX_PK: usize = 2_048;
/// Longest sort key in bytes (DynamoDB).
pub const MAX_SK: usize = 1_024;
/// Longest owner that fits every sort key in which an owner stands: `owner NUL session-id`.
pub const MAX_SK_OWNER: usize = MAX_SK - 1 - cluster::SESSION_ID;

/// Kind byte of a partition that belongs to one owner, in any table.
pub(crate) const OWNER: u8 = b'u';

/// A full key as plain bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyBytes {
    /// The table.
    pub table: TableId,
    /// Partition key.
    pub pk: Vec<u8>,
    /// Sort key.
    pub sk: Vec<u8>,
}

/// The partition of `owner` in the tables that have one per owner (accounts, rosters, documents,
/// archive, rooms, and in pubsub the list of the owner's nodes).
#[must_use]
pub fn owner_partition(owner: &[u8]) -> Vec<u8> {
    prefixed(OWNER, owner)
}

/// The owner whose partition this is.
#[must_use]
pub fn owner_of_partition(pk: &[u8]) -> Option<&[u8]> {
    pk.strip_prefix(&[OWNER])
}

fn prefixed(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

/// `kind NUL text`.
fn lettered(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + text.len());
    key.extend_from_slice(&[kind, 0]);
    key.extend_from_slice(text);
    key
}

/// The text of `kind NUL text`.
fn text_of(sk: &[u8], kind: u8) -> Option<&str> {
    std::str::from_utf8(sk.strip_prefix(&[kind, 0])?).ok()
}
