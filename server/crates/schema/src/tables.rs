//! The seven tables and the settings each must have.

use serde::{Deserialize, Serialize};

/// Name of the partition key attribute of every table; its type is [`KeyType::Binary`].
pub const ATTR_PK: &str = "pk";
/// Name of the sort key attribute of every table; its type is [`KeyType::Binary`].
pub const ATTR_SK: &str = "sk";
/// Name of the attribute with the second (Unix time, a number) from which an item is expired.
pub const ATTR_EXPIRES: &str = "exp";
/// Name of the attribute with a mutable item's version (a number above 0).
pub const ATTR_VERSION: &str = "e";
/// Name of the attribute with the 16-byte nonce of the put that wrote the item.
pub const ATTR_NONCE: &str = "_";
/// Name of the attribute with an item's format. It belongs to whoever encodes the item.
pub const ATTR_FORMAT: &str = "v";

/// A table, by its role; [`crate::table_name`] gives its name at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TableId {
    /// Credentials, tokens, last activity, per-user settings, and the directory of a host.
    Accounts,
    /// Contacts, pending subscriptions, blocking list, groups.
    Rosters,
    /// vCards, private XML, privacy lists, upload quota.
    Documents,
    /// Nodes and items of pubsub and PEP.
    Pubsub,
    /// Configuration and affiliations of rooms.
    Rooms,
    /// The message log of each user and room.
    Archive,
    /// View, leases, keys, certificates, parked sessions.
    Cluster,
}

impl TableId {
    /// Every table, in the order of SCHEMA numbers.
    pub const ALL: [TableId; 7] = [
        TableId::Accounts,
        TableId::Rosters,
        TableId::Documents,
        TableId::Pubsub,
        TableId::Rooms,
        TableId::Archive,
        TableId::Cluster,
    ];

    /// The last part of the table's name, unique among tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TableId::Accounts => "accounts",
            TableId::Rosters => "rosters",
            TableId::Documents => "documents",
            TableId::Pubsub => "pubsub",
            TableId::Rooms => "rooms",
            TableId::Archive => "archive",
            TableId::Cluster => "cluster",
        }
    }

    /// The table with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<TableId> {
        TableId::ALL.into_iter().find(|t| t.name() == name)
    }

    /// A small number that is stable for ever: embedded backends store it in their keys.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            TableId::Accounts => 1,
            TableId::Rosters => 2,
            TableId::Documents => 3,
            TableId::Pubsub => 4,
            TableId::Rooms => 5,
            TableId::Archive => 6,
            TableId::Cluster => 7,
        }
    }

    /// The table with this [`number`](Self::number).
    #[must_use]
    pub fn from_number(number: u8) -> Option<TableId> {
        TableId::ALL.into_iter().find(|t| t.number() == number)
    }

    /// What the table must look like.
    #[must_use]
    pub const fn spec(self) -> &'static TableSpec {
        &TABLES[self.number() as usize - 1]
    }
}

/// The type of a key attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// Bytes, sorted bytewise (DynamoDB type `B`).
    Binary,
}

/// How a table is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// Per request (DynamoDB `PAY_PER_REQUEST`).
    OnDemand,
}

/// Encryption at rest of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableEncryption {
    /// With a key that the provider owns: always on, nothing to create or to pay. A configured
    /// customer key replaces it.
    ProviderKey,
}

/// What one table must look like at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Which table.
    pub id: TableId,
    /// Name and type of the partition key attribute.
    pub partition_key: (&'static str, KeyType),
    /// Name and type of the sort key attribute.
    pub sort_key: (&'static str, KeyType),
    /// The attribute by which the provider removes expired items (Unix seconds).
    pub ttl_attribute: &'static str,
    /// How it is billed.
    pub billing: Billing,
    /// Encryption at rest.
    pub encryption: TableEncryption,
    /// Continuous backups with restore to any second of the last 35 days.
    pub point_in_time_recovery: bool,
    /// The provider refuses to delete the table until this is switched off.
    pub deletion_protection: bool,
}

const fn table(id: TableId) -> TableSpec {
    TableSpec {
        id,
        partition_key: (ATTR_PK, KeyType::Binary),
        sort_key: (ATTR_SK, KeyType::Binary),
        ttl_attribute: ATTR_EXPIRES,
        billing: Billing::OnDemand,
        encryption: TableEncryption::ProviderKey,
        point_in_time_recovery: true,
        deletion_protection: true,
    }
}

/// Every table that must exist, in the order of [`TableId::ALL`].
pub const TABLES: [TableSpec; 7] = [
    table(TableId::Accounts),
    table(TableId::Rosters),
    table(TableId::Documents),
    table(TableId::Pubsub),
    table(TableId::Rooms),
    table(TableId::Archive),
    table(TableId::Cluster),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_names_and_numbers_agree() {
        for (spec, id) in TABLES.iter().zip(TableId::ALL) {
            assert_eq!(spec.id, id);
            assert_eq!(id.spec(), spec);
            assert_eq!(TableId::from_name(id.name()), Some(id));
            assert_eq!(TableId::from_number(id.number()), Some(id));
        }
        assert_eq!(TableId::from_name("tables"), None);
        assert_eq!(TableId::from_number(0), None);
    }
}
