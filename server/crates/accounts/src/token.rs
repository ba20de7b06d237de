//! The rows `f`: the tokens that a client may show instead of a password (XEP-0484).
//!
//! A token is not stored: it is derived from a key of the deployment, the account and a random
//! nonce, and the nonce is in the row. A client has at most two: the one that it uses, and a newer
//! one that it may not have got.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_sasl::{Token, TokenMechanism, TokenProof};
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_store::{Attrs, Item, Key};

use crate::{Account, AccountError};

/// Format written today. Golden files in `golden/` hold one example of each that was ever written.
const FORMAT: u64 = 1;
/// How long a row outlives its tokens, seconds, so that their client can be told what is wrong.
const MOURNING_S: u64 = 7 * 24 * 60 * 60;
/// A token is replaced when this part of its life has passed: 1/2.
const DUE: u64 = 2;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 16;
/// Bytes of a slot: mechanism, when issued, when it ends, generation of the account, nonce.
const SLOT_BYTES: usize = 1 + 3 * 8 + NONCE_BYTES;

/// Attributes of a row.
mod name {
    pub(super) const FORMAT: &str = "v";
    /// The slot of the token that the client uses.
    pub(super) const CURRENT: &str = "c";
    /// The slot of the one that it was given after that.
    pub(super) const NEW: &str = "n";
}

/// How tokens are made.
#[derive(Clone)]
pub struct TokenOptions {
    /// What they are derived from, the same on every node. Whoever has it and the table has all
    /// tokens.
    pub key: [u8; 32],
    /// How long one can be used, milliseconds.
    pub lifetime_ms: u64,
    /// Clients of one account that have tokens; the one whose tokens end first makes room.
    pub clients: usize,
}

impl std::fmt::Debug for TokenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenOptions")
            .field("lifetime_ms", &self.lifetime_ms)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

/// A token for a client to keep.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// When it can't be used any more, Unix milliseconds.
    pub expires_ms: u64,
}

/// What a row knows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) mechanism: TokenMechanism,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: u64,
    /// The account's least generation when it was issued: void when that has risen.
    pub(crate) generation: u64,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// The tokens of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) current: Option<Slot>,
    pub(crate) new: Option<Slot>,
    /// Version of the row; 0: there is none.
    pub(crate) version: u64,
}

/// Which token a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Current(Slot),
    New(Slot),
}

impl Shown {
    pub(crate) fn slot(&self) -> &Slot {
        match self {
            Self::Current(slot) | Self::New(slot) => slot,
        }
    }
}

impl Slot {
    /// The token itself. That it names the account's beginning makes it worthless for a later
    /// account of the same name.
    pub(crate) fn token(&self, key: &[u8; 32], account: &Account, client: &str) -> Token {
        let parts: [&[u8]; 5] = [
            &account.jid.owner(),
            &account.created_ms.to_be_bytes(),
            client.as_bytes(),
            self.mechanism.name().as_bytes(),
            &self.nonce,
        ];
        Token::derive(key, &parts)
    }

    /// Whether it could be used at `now`, if the client has it.
    pub(crate) fn is_good(&self, account: &Account, now: u64) -> bool {
        now < self.expires_ms && self.generation >= account.min_generation
    }

    /// Whether the client should have another one.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let life = self.expires_ms.saturating_sub(self.issued_ms);
        now >= self.issued_ms.saturating_add(life / DUE)
    }

    fn encode(&self) -> Vec<u8> {
        let mechanism = match self.mechanism {
            TokenMechanism::Exporter => 1,
            TokenMechanism::EndPoint => 2,
            TokenMechanism::Unbound => 3,
        };
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.push(mechanism);
        for number in [self.issued_ms, self.expires_ms, self.generation] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.nonce);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Slot> {
        let (&mechanism, rest) = bytes.split_first()?;
        let (numbers, nonce) = rest.split_at_checked(3 * 8)?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        Some(Slot {
            mechanism: match mechanism {
                1 => TokenMechanism::Exporter,
                2 => TokenMechanism::EndPoint,
                3 => TokenMechanism::Unbound,
                _ => return None,
            },
            issued_ms: numbers.next()?,
            expires_ms: numbers.next()?,
            generation: numbers.next()?,
            nonce: nonce.try_into().ok()?,
        })
    }
}

impl Tokens {
    /// The tokens of a client, as the account's rows have them.
    pub(crate) fn of(account: &Account, client: &str) -> Result<Tokens, AccountError> {
        let sk = Row::Fast(client).sk();
        let row = account.rows.iter().find(|row| row.key.sk == sk);
        row.map_or_else(
            || Ok(Tokens::default()),
            |row| Tokens::read(&account.jid, row),
        )
    }

    pub(crate) fn read(jid: &BareJid, row: &Item) -> Result<Tokens, AccountError> {
        let corrupt = |reason| AccountError::Corrupt {
            jid: jid.clone(),
            reason,
        };
        match row.attrs.get_n(name::FORMAT) {
            Some(FORMAT) => {}
            Some(_) => return Err(corrupt("a token written by a newer version")),
            None => return Err(corrupt("a token without a format number")),
        }
        let slot = |name| {
            let bytes = row.attrs.get_b(name);
            let read = |bytes: &Bytes| Slot::decode(bytes).ok_or(corrupt("a damaged token"));
            bytes.map(read).transpose()
        };
        Ok(Tokens {
            current: slot(name::CURRENT)?,
            new: slot(name::NEW)?,
            version: row.version,
        })
    }

    /// The next version of the row; `None`: nothing is left to be said.
    pub(crate) fn item(&self, jid: &BareJid, client: &str) -> Option<Item> {
        let slots = [self.current, self.new].into_iter().flatten();
        let expires = slots.map(|slot| slot.expires_ms).max()?;
        let mut attrs = Attrs::new().with(name::FORMAT, FORMAT);
        for (name, slot) in [(name::CURRENT, &self.current), (name::NEW, &self.new)] {
            if let Some(slot) = slot {
                attrs.set(name, slot.encode());
            }
        }
        let item = Item::new(row_key(jid, client), attrs).versioned(self.version + 1);
        Some(item.expiring(expires / 1_000 + MOURNING_S))
    }

    /// Which token the proof was made with, the newer one first (section 7.1).
    pub(crate) fn shown(
        &self,
        key: &[u8; 32],
        account: &Account,
        client: &str,
        proof: &TokenProof,
    ) -> Option<Shown> {
        let is_shown = |slot: &Slot| {
            let right = proof.is_of(&slot.token(key, account, client));
            right && slot.mechanism == proof.mechanism
        };
        let new = self.new.filter(is_shown).map(Shown::New);
        new.or_else(|| self.current.filter(is_shown).map(Shown::Current))
    }

    /// A token was used: those before it are void. `false` when that changes nothing.
    pub(crate) fn used(&mut self, shown: &Shown) -> bool {
        match shown {
            // The first one of a client may stay where it is.
            Shown::New(_) if self.current.is_none() => false,
            Shown::New(slot) => {
                self.current = Some(*slot);
                self.new = None;
                true
            }
            Shown::Current(_) => false,
        }
    }

    /// Takes a token that the client is given.
    pub(crate) fn issue(&mut self, slot: Slot) {
        // The only one that the client has may still be the one that it was given first.
        self.current = self.current.or(self.new);
        self.new = Some(slot);
    }
}

/// Where a client's row is.
pub(crate) fn row_key(jid: &BareJid, client: &str) -> Key {
    accounts::key(&jid.owner(), Row::Fast(client)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid() -> BareJid {
        BareJid::parse("juliet@example.com").unwrap()
    }

    fn slot(byte: u8) -> Slot {
        Slot {
            mechanism: TokenMechanism::EndPoint,
            issued_ms: 1_800_000_000_000,
            expires_ms: 1_802_592_000_000,
            generation: 3,
            nonce: [byte; NONCE_BYTES],
        }
    }

    /// `v N 1`, then `name B hexadecimal`, one attribute a line.
    fn print(item: &Item) -> String {
        let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let slot = |name| {
            let bytes = item.attrs.get_b(name).unwrap();
            format!("{name} B {}\n", hex(bytes))
        };
        let format = item.attrs.get_n("v").unwrap();
        format!("{}{}v N {format}\n", slot("c"), slot("n"))
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let golden = include_str!("../golden/token.v1.txt");
        let tokens = Tokens {
            current: Some(slot(1)),
            new: Some(slot(2)),
            version: 4,
        };
        let item = tokens.item(&jid(), "phone").unwrap();
        assert_eq!(print(&item), golden);
        assert_eq!((item.version, item.expires), (5, Some(1_803_196_800)));
        let read = Tokens::read(&jid(), &item).unwrap();
        assert_eq!(
            read,
            Tokens {
                version: 5,
                ..tokens
            }
        );
    }

    #[test]
    fn rows_that_make_no_sense_are_refused() {
        let tokens = Tokens {
            new: Some(slot(2)),
            ..Tokens::default()
        };
        let read = |change: &dyn Fn(&mut Attrs)| {
            let mut item = tokens.item(&jid(), "phone").unwrap();
            change(&mut item.attrs);
            Tokens::read(&jid(), &item).unwrap_err().to_string()
        };
        let newer = read(&|attrs| {
            attrs.set("v", 2u64);
        });
        assert!(newer.contains("newer version"), "{newer}");
        let none = read(&|attrs| drop(attrs.remove("v")));
        assert!(none.contains("without a format number"), "{none}");
        for bytes in [
            vec![],
            vec![9; SLOT_BYTES],
            vec![1; SLOT_BYTES - 1],
            vec![1; SLOT_BYTES + 1],
        ] {
            let damaged = read(&|attrs| {
                attrs.set("n", bytes.clone());
            });
            assert!(damaged.contains("a damaged token"), "{damaged}");
        }
    }

    #[test]
    fn a_newer_token_takes_the_place_of_the_older_when_it_is_used() {
        let mut tokens = Tokens::default();
        tokens.issue(slot(1));
        assert!(
            !tokens.used(&Shown::New(slot(1))),
            "nothing to write for the first"
        );
        tokens.issue(slot(2));
        assert_eq!((tokens.current, tokens.new), (Some(slot(1)), Some(slot(2))));
        assert!(!tokens.used(&Shown::Current(slot(1))));
        assert_eq!(tokens.new, Some(slot(2)), "the client may not have got it");
        tokens.issue(slot(3));
        assert_eq!((tokens.current, tokens.new), (Some(slot(1)), Some(slot(3))));
        assert!(tokens.used(&Shown::New(slot(3))));
        assert_eq!((tokens.current, tokens.new), (Some(slot(3)), None));
    }
}
