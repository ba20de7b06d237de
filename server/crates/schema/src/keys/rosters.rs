//! Table `rosters`: contacts, pending requests, blocked addresses and groups of an owner.

use super::{KeyBytes, lettered, owner_partition, prefixed, text_of};
use crate::TableId;

const GROUP: u8 = b'g';

/// A row of an owner's partition, by its sort key. Addresses are in their normalised text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row<'a> {
    /// `c NUL bare-jid`: a contact, or the tombstone of one.
    Contact(&'a str),
    /// `p NUL bare-jid`: a subscription request that waits for the owner's answer.
    Pending(&'a str),
    /// `b NUL jid`: a blocked address.
    Blocked(&'a str),
    /// `g NUL group`: membership in a shared group.
    Group(&'a str),
}

impl<'a> Row<'a> {
    /// The sort key of the row.
    #[must_use]
    pub fn sk(self) -> Vec<u8> {
        let (kind, text) = match self {
            Row::Contact(text) => (b'c', text),
            Row::Pending(text) => (b'p', text),
            Row::Blocked(text) => (b'b', text),
            Row::Group(text) => (b'g', text),
        };
        lettered(kind, text.as_bytes())
    }

    /// The row with this sort key; `None` for a kind this version doesn't know.
    #[must_use]
    pub fn parse(sk: &'a [u8]) -> Option<Row<'a>> {
        match sk.first()? {
            b'c' => text_of(sk, b'c').map(Row::Contact),
            b'p' => text_of(sk, b'p').map(Row::Pending),
            b'b' => text_of(sk, b'b').map(Row::Blocked),
            b'g' => text_of(sk, b'g').map(Row::Group),
            _ => None,
        }
    }
}

/// All rows of an owner.
#[must_use]
pub fn partition(owner: &[u8]) -> Vec<u8> {
    owner_partition(owner)
}

/// One row of an owner.
#[must_use]
pub fn key(owner: &[u8], row: Row<'_>) -> KeyBytes {
    KeyBytes {
        table: TableId::Rosters,
        pk: partition(owner),
        sk: row.sk(),
    }
}

/// A row of a shared group's own partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRow<'a> {
    /// `m`: the group's description.
    Meta,
    /// `u NUL local`: a member.
    Member(&'a str),
}

impl<'a> GroupRow<'a> {
    /// The sort key of the row.
    #[must_use]
    pub fn sk(self) -> Vec<u8> {
        match self {
            GroupRow::Meta => b"m".to_vec(),
            GroupRow::Member(local) => lettered(b'u', local.as_bytes()),
        }
    }

    /// The row with this sort key.
    #[must_use]
    pub fn parse(sk: &'a [u8]) -> Option<GroupRow<'a>> {
        if sk == b"m" {
            Some(GroupRow::Meta)
        } else {
            text_of(sk, b'u').map(GroupRow::Member)
        }
    }
}

/// All rows of a shared group: `host NUL group`.
#[must_use]
pub fn group_partition(host: &str, group: &str) -> Vec<u8> {
    prefixed(GROUP, &[host.as_bytes(), group.as_bytes()].join(&0))
}

/// One row of a shared group.
#[must_use]
pub fn group_key(host: &str, group: &str, row: GroupRow<'_>) -> KeyBytes {
    KeyBytes {
        table: TableId::Rosters,
        pk: group_partition(host, group),
        sk: row.sk(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        for row in [
            Row::Contact("a@b"),
            Row::Pending("a@b"),
            Row::Blocked("b/r"),
            Row::Group("x y"),
        ] {
            assert_eq!(Row::parse(&row.sk()), Some(row));
        }
        for unknown in [&b"x\0a"[..], b"", b"c", b"c\0\xff"] {
            assert_eq!(Row::parse(unknown), None);
        }
        for row in [GroupRow::Meta, GroupRow::Member("bob")] {
            assert_eq!(GroupRow::parse(&row.sk()), Some(row));
        }
    }

    #[test]
    fn bytes_of_keys() {
        let contact = key(b"example.com\0bob", Row::Contact("eve@example.net"));
        assert_eq!(contact.pk, b"uexample.com\0bob");
        assert_eq!(contact.sk, b"c\0eve@example.net");
        assert_eq!(group_partition("h", "g"), b"gh\0g");
    }
}
