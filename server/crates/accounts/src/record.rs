//! The credentials row: what is stored of an account, and how.

use std::fmt;

use cirrus_jid::BareJid;
use cirrus_sasl::{Hash, StoredKey};
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_store::{Attrs, Item, Key};

use crate::AccountError;

/// Format written today. Golden files in `golden/` hold one example of each that was ever written.
const FORMAT: u64 = 1;

/// Attributes of the credentials row.
mod name {
    pub(super) const FORMAT: &str = "v";
    pub(super) const CREATED: &str = "c";
    pub(super) const DISABLED: &str = "d";
    /// The archive position that an erased account of this name has left; read by the archive.
    pub(super) const FLOOR: &str = "f";
    pub(super) const MIN_GENERATION: &str = "g";
    /// Keys for SHA-256.
    pub(super) const KEY_SHA256: &str = "k";
    /// Keys for SHA-1, the legacy.
    pub(super) const KEY_SHA1: &str = "l";
    /// Deletion has begun: when, Unix milliseconds. Older versions wrote 1.
    pub(super) const DELETING: &str = "x";
}

/// An account as [`Accounts::load`](crate::Accounts::load) finds it. `Debug` shows no keys.
#[derive(Clone)]
pub struct Account {
    /// Whose.
    pub jid: BareJid,
    /// Keys, at most one per hash, strongest first.
    pub credentials: Vec<StoredKey>,
    /// It may not log in.
    pub disabled: bool,
    /// When its deletion has begun or was tried again, Unix milliseconds; it counts as absent for
    /// everybody but those who delete.
    pub(crate) deleting: Option<u64>,
    /// When it was created, Unix milliseconds.
    pub created_ms: u64,
    /// Tokens of an older generation are void.
    pub min_generation: u64,
    /// The archive's positions start above this one.
    pub floor: u64,
    /// Version of the credentials row.
    pub(crate) version: u64,
    /// All rows of the account's partition, raw; from the credentials row the keys are removed.
    pub rows: Vec<Item>,
}

impl Account {
    /// An account with these keys, not yet stored.
    pub fn new(jid: &BareJid, credentials: Vec<StoredKey>, created_ms: u64, floor: u64) -> Account {
        Account {
            jid: jid.clone(),
            credentials,
            disabled: false,
            deleting: None,
            created_ms,
            min_generation: 0,
            floor,
            version: 1,
            rows: Vec::new(),
        }
    }

    /// The key for a hash.
    pub fn key(&self, hash: Hash) -> Option<&StoredKey> {
        self.credentials.iter().find(|key| key.hash == hash)
    }

    /// The credentials row.
    pub(crate) fn item(&self) -> Item {
        let mut attrs = Attrs::new()
            .with(name::FORMAT, FORMAT)
            .with(name::CREATED, self.created_ms);
        let mut set = |name, number: u64| {
            attrs.set_opt(name, (number > 0).then_some(number));
        };
        set(name::DISABLED, self.disabled.into());
        set(name::DELETING, self.deleting.unwrap_or(0));
        set(name::FLOOR, self.floor);
        set(name::MIN_GENERATION, self.min_generation);
        for key in &self.credentials {
            attrs.set(key_name(key.hash), key.encode());
        }
        Item::new(row_key(&self.jid), attrs).versioned(self.version)
    }

    /// Reads the credentials row.
    pub(crate) fn read(jid: &BareJid, item: &Item) -> Result<Account, AccountError> {
        let corrupt = |reason| AccountError::Corrupt {
            jid: jid.clone(),
            reason,
        };
        match item.attrs.get_n(name::FORMAT) {
            Some(1) => {}
            Some(_) => return Err(corrupt("written by a newer version")),
            None => return Err(corrupt("no format number")),
        }
        let mut credentials = Vec::new();
        for hash in Hash::ALL {
            let Some(bytes) = item.attrs.get_b(key_name(hash)) else {
                continue;
            };
            let key = StoredKey::decode(bytes).map_err(|source| AccountError::Keys {
                what: format!("{} keys of {jid}", hash.name()),
                source,
            })?;
            if key.hash != hash {
                return Err(corrupt("keys under another hash's name"));
            }
            credentials.push(key);
        }
        let number = |name| item.attrs.get_n(name).unwrap_or(0);
        Ok(Account {
            jid: jid.clone(),
            credentials,
            disabled: number(name::DISABLED) > 0,
            deleting: Some(number(name::DELETING)).filter(|since| *since > 0),
            created_ms: number(name::CREATED),
            min_generation: number(name::MIN_GENERATION),
            floor: number(name::FLOOR),
            version: item.version,
            rows: Vec::new(),
        })
    }

    /// Reads a whole partition; `None` without a credentials row.
    pub(crate) fn read_all(
        jid: &BareJid,
        mut rows: Vec<Item>,
    ) -> Result<Option<Account>, AccountError> {
        let credentials = |row: &&mut Item| Row::parse(&row.key.sk) == Some(Row::Credentials);
        let Some(row) = rows.iter_mut().find(credentials) else {
            return Ok(None);
        };
        let mut account = Account::read(jid, row)?;
        // The rows travel on to parts that have no use for keys, and that print what they get.
        for hash in Hash::ALL {
            row.attrs.remove(key_name(hash));
        }
        account.rows = rows;
        Ok(Some(account))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("jid", &self.jid.as_str())
            .field("disabled", &self.disabled)
            .field("created_ms", &self.created_ms)
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

/// Where the credentials row is.
pub(crate) fn row_key(jid: &BareJid) -> Key {
    accounts::key(&jid.owner(), Row::Credentials).into()
}

fn key_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => name::KEY_SHA256,
        Hash::Sha1 => name::KEY_SHA1,
    }
}

#[cfg(test)]
mod tests {
    use cirrus_sasl::Password;
    use cirrus_store::Value;

    use super::*;

    fn jid() -> BareJid {
        BareJid::parse("juliet@example.com").unwrap()
    }

    /// `name N number` or `name B hexadecimal`, one attribute a line.
    fn parse(text: &str) -> Attrs {
        let mut attrs = Attrs::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            let value = words.next().unwrap();
            match kind {
                "N" => attrs.set(name, value.parse::<u64>().unwrap()),
                _ => attrs.set(name, unhex(value)),
            };
        }
        attrs
    }

    fn print(attrs: &Attrs) -> String {
        let line = |(name, value): (&str, &Value)| match value {
            Value::N(number) => format!("{name} N {number}\n"),
            Value::B(bytes) => format!("{name} B {}\n", hex(bytes)),
            Value::S(text) => format!("{name} S {text}\n"),
        };
        attrs.iter().map(line).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let pairs = text
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let golden = include_str!("../golden/credentials.v1.txt");
        let item = Item::new(row_key(&jid()), parse(golden)).versioned(7);
        let account = Account::read(&jid(), &item).unwrap();
        let password = Password::prepare("pencil").unwrap();
        assert_eq!(account.credentials.len(), 2);
        assert!(
            account
                .credentials
                .iter()
                .all(|key| key.verify(&password).unwrap())
        );
        assert!(account.disabled && account.deleting == Some(1));
        assert_eq!(account.created_ms, 1_800_000_000_000);
        assert_eq!(
            (account.min_generation, account.floor, account.version),
            (3, 41, 7)
        );
        let written = account.item();
        assert_eq!(
            print(&written.attrs),
            golden,
            "version 1 is what is written today"
        );
        assert_eq!(written, item);
    }

    #[test]
    fn rows_that_make_no_sense_are_refused() {
        let good = parse(include_str!("../golden/credentials.v1.txt"));
        let read = |change: &dyn Fn(&mut Attrs)| {
            let mut attrs = good.clone();
            change(&mut attrs);
            let item = Item::new(row_key(&jid()), attrs);
            Account::read(&jid(), &item)
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        let newer = read(&|attrs| {
            attrs.set("v", 2);
        });
        assert_eq!(
            newer,
            "account row of juliet@example.com: written by a newer version"
        );
        assert!(read(&|attrs| drop(attrs.remove("v"))).contains("no format number"));
        let swapped = read(&|attrs| {
            let key = attrs.get_b("k").unwrap().clone();
            attrs.set("l", key);
        });
        assert!(swapped.contains("another hash"), "{swapped}");
        let cut = read(&|attrs| {
            attrs.set("k", vec![1, 2]);
        });
        assert_eq!(
            cut,
            "SHA-256 keys of juliet@example.com: stored key: cut short"
        );
    }

    #[test]
    fn keys_are_in_no_row_that_is_passed_on() {
        let mut account = Account::new(&jid(), Vec::new(), 5, 0);
        for hash in Hash::ALL {
            let password = Password::prepare("pencil").unwrap();
            let key = cirrus_sasl::derive(hash, &password, &[1; 16], 4096).unwrap();
            account.credentials.push(key);
        }
        let found = Account::read_all(&jid(), vec![account.item()])
            .unwrap()
            .unwrap();
        assert_eq!(found.credentials.len(), 2);
        assert_eq!(print(&found.rows[0].attrs), "c N 5\nv N 1\n");
        let printed = format!("{found:?}");
        assert!(
            printed.starts_with("Account { jid: \"juliet@example.com\""),
            "{printed}"
        );
        assert!(!printed.contains("credentials"), "{printed}");
    }
}
