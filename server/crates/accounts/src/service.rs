//! The service: requests on accounts, each a few operations on the table.

use std::fmt;
use std::sync::Arc;

use cirrus_jid::BareJid;
use cirrus_sasl::{FakeKeys, Hash, Password, StoredKey};
use cirrus_schema::keys::{accounts, cluster};
use cirrus_schema::{MAX_SK_OWNER, TableId};
use cirrus_store::{
    Attrs, Clock, Condition, Direction, Item, Op, Outcome, SkRange, StoreError, Table,
};

use crate::derive::Derivations;
use crate::record::{self, Account};
use crate::token::TokenOptions;
use crate::{AccountError, Random};

mod deletion;
mod tokens;

pub use deletion::Erase;
pub use tokens::{TokenLogin, TokenOutcome, TokenUse};

/// Most accounts in one page of a list.
pub const MAX_LIST: u32 = 1_000;
/// How often a change is tried again when somebody else changed the account in between.
const ATTEMPTS: u32 = 4;
/// Attribute of the item an erased account leaves behind: its last archive position.
const ERASED_POSITION: &str = "p";
const DIRECTORY_FORMAT: u64 = 1;

/// What [`Accounts`] is built from.
#[derive(Debug, Clone)]
pub struct Options {
    /// PBKDF2 iterations of new keys, [`cirrus_sasl::MIN_ITERATIONS`] to
    /// [`cirrus_sasl::MAX_ITERATIONS`].
    pub iterations: u32,
    /// Derivations that run at once, each on a core of its own; at least 1.
    pub derivations: usize,
    /// Derivations that wait for one to end; more are refused with [`AccountError::Busy`].
    pub waiting: usize,
    /// Stands in for accounts that don't exist, so that checking a password takes as long.
    pub fake: FakeKeys,
    /// Tokens that clients may show instead of passwords; `None`: there are none.
    pub tokens: Option<TokenOptions>,
}

impl Options {
    /// The defaults: 10,000 iterations (3 ms a key), two derivations at once, 256 waiting (less
    /// than a second of work), no tokens.
    pub fn new(fake: FakeKeys) -> Options {
        Options {
            iterations: 10_000,
            derivations: 2,
            waiting: 256,
            fake,
            tokens: None,
        }
    }
}

/// A page of a host's accounts in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The accounts.
    pub users: Vec<BareJid>,
    /// The name to continue after; `None`: this was the last page.
    pub next: Option<String>,
}

/// The accounts of all hosts. Shared by everything that authenticates or administers.
pub struct Accounts {
    table: Arc<dyn Table>,
    derivations: Derivations,
    options: Options,
    clock: Clock,
    random: Random,
}

impl Accounts {
    /// A service on this table. `clock` tells Unix milliseconds.
    pub fn new(table: Arc<dyn Table>, options: Options, clock: Clock, random: Random) -> Accounts {
        let derivations = Derivations::new(options.derivations, options.waiting);
        Accounts {
            table,
            derivations,
            options,
            clock,
            random,
        }
    }

    /// Creates an account; of several creations at once, one succeeds.
    ///
    /// # Errors
    /// [`AccountError::Exists`], [`AccountError::Deleting`], [`AccountError::NotAUser`],
    /// [`AccountError::TooLong`], [`AccountError::Busy`], or the store's. After a store error the
    /// account may exist.
    pub async fn create(&self, jid: &BareJid, password: &Password) -> Result<(), AccountError> {
        let local = local_of(jid)?;
        let owner = jid.owner();
        if owner.len() > MAX_SK_OWNER {
            return Err(AccountError::TooLong {
                jid: jid.clone(),
                limit: MAX_SK_OWNER,
            });
        }
        // Asked before the expensive part, so that trying taken names costs one read.
        if let Some(existing) = self.credentials(jid).await? {
            return Err(self.taken(jid, local, &existing).await);
        }
        let keys = self.derive(password).await?;
        let erased = self.table.get(cluster::erased(&owner)).await?;
        let floor = erased
            .and_then(|item| item.attrs.get_n(ERASED_POSITION))
            .unwrap_or(0);
        let account = Account::new(jid, keys, (self.clock)(), floor);
        match self.put(account.item(), Condition::Absent).await {
            Err(StoreError::Conflict { existing, .. }) => {
                return match existing.map(|item| Account::read(jid, &item)).transpose()? {
                    Some(existing) => Err(self.taken(jid, local, &existing).await),
                    None => Err(AccountError::Contended(jid.clone())),
                };
            }
            result => result?,
        }
        // After the credentials, which decide who creates: a deletion that runs at the same time
        // removes the directory row before them, so it never removes this one.
        self.enter(jid, local).await?;
        Ok(())
    }

    /// Gives an account another password. Tokens issued before become void; sessions go on.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Busy`], [`AccountError::Contended`], or the
    /// store's. After a store error the password may have changed.
    pub async fn set_password(
        &self,
        jid: &BareJid,
        password: &Password,
    ) -> Result<(), AccountError> {
        self.existing(jid).await?;
        let keys = self.derive(password).await?;
        self.change(jid, |account| {
            account.credentials.clone_from(&keys);
            account.min_generation += 1;
        })
        .await
    }

    /// Forbids or allows to log in. Forbidding makes tokens void; sessions go on.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Contended`], or the store's.
    pub async fn set_disabled(&self, jid: &BareJid, disabled: bool) -> Result<(), AccountError> {
        self.change(jid, |account| {
            account.disabled = disabled;
            account.min_generation += u64::from(disabled);
        })
        .await
    }

    /// A page of the accounts of `host`, normalised, after the name `after`; at most `limit` and
    /// [`MAX_LIST`].
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        host: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page, AccountError> {
        let op = Op::Query {
            table: TableId::Accounts,
            pk: accounts::directory_partition(host).into(),
            range: SkRange::All,
            direction: Direction::Forward,
            limit: Some(limit.clamp(1, MAX_LIST)),
            after: after.map(|name| name.as_bytes().to_vec().into()),
        };
        let place = op.place();
        let Outcome::Page { items, next } = self.table.apply(op).await? else {
            let reason = "the backend answered another request".to_owned();
            return Err(StoreError::Corrupt { place, reason }.into());
        };
        let name = |sk: &[u8]| str::from_utf8(sk).ok().map(str::to_owned);
        let users = items.iter().filter_map(|item| {
            let user = name(&item.key.sk).and_then(|it| BareJid::new(Some(&it), host).ok());
            if user.is_none() {
                tracing::warn!(key = %item.key, "a directory row that names no account");
            }
            user
        });
        Ok(Page {
            users: users.collect(),
            next: next.and_then(|sk| name(&sk)),
        })
    }

    /// Everything about an account in one Query; `None` where there is none.
    ///
    /// # Errors
    /// [`AccountError::Corrupt`], [`AccountError::Keys`], or the store's.
    pub async fn load(&self, jid: &BareJid) -> Result<Option<Account>, AccountError> {
        let account = Account::read_all(jid, self.rows(jid).await?)?;
        Ok(account.filter(|account| account.deleting.is_none()))
    }

    /// The account, if `password` is its password. Takes as long where there is no account. The
    /// caller still has to look at [`Account::disabled`].
    ///
    /// # Errors
    /// [`AccountError::Busy`], and those of [`Accounts::load`].
    pub async fn verify_password(
        &self,
        jid: &BareJid,
        password: &Password,
    ) -> Result<Option<Account>, AccountError> {
        let account = self.load(jid).await?;
        let key = account
            .as_ref()
            .and_then(|it| it.credentials.first())
            .cloned();
        let known = key.is_some();
        let key = key.unwrap_or_else(|| self.fake_key(jid));
        let password = password.clone();
        let right = self.derivations.run(move || key.verify(&password)).await?;
        let right = right.map_err(|source| AccountError::Keys {
            what: format!("keys of {jid}"),
            source,
        })?;
        Ok(account.filter(|_| right && known))
    }

    fn fake_key(&self, jid: &BareJid) -> StoredKey {
        self.options
            .fake
            .key(Hash::Sha256, jid.host(), jid.local().unwrap_or_default())
    }

    async fn derive(&self, password: &Password) -> Result<Vec<StoredKey>, AccountError> {
        let mut salts = [[0; 16]; 2];
        salts.iter_mut().for_each(|salt| (self.random)(salt));
        self.derivations
            .keys(password.clone(), salts, self.options.iterations)
            .await
    }

    async fn rows(&self, jid: &BareJid) -> Result<Vec<Item>, AccountError> {
        let pk = accounts::partition(&jid.owner());
        Ok(self
            .table
            .query_all(TableId::Accounts, pk, SkRange::All)
            .await?)
    }

    /// The credentials row alone, also of an account that is being deleted.
    async fn credentials(&self, jid: &BareJid) -> Result<Option<Account>, AccountError> {
        let item = self.table.get(record::row_key(jid)).await?;
        item.map(|item| Account::read(jid, &item)).transpose()
    }

    async fn existing(&self, jid: &BareJid) -> Result<Account, AccountError> {
        let account = self
            .credentials(jid)
            .await?
            .filter(|account| account.deleting.is_none());
        account.ok_or_else(|| AccountError::NotFound(jid.clone()))
    }

    /// Why a name can't be had. Mends the directory, where a creation may have been cut short.
    async fn taken(&self, jid: &BareJid, local: &str, existing: &Account) -> AccountError {
        if existing.deleting.is_some() {
            return AccountError::Deleting(jid.clone());
        }
        match self.enter(jid, local).await {
            Ok(()) => AccountError::Exists(jid.clone()),
            Err(error) => error.into(),
        }
    }

    /// Writes the directory row.
    async fn enter(&self, jid: &BareJid, local: &str) -> Result<(), StoreError> {
        let attrs = Attrs::new().with("v", DIRECTORY_FORMAT);
        let item = Item::new(accounts::directory(jid.host(), local), attrs);
        self.table.put(item, Condition::Any, 0).await
    }

    async fn change(&self, jid: &BareJid, edit: impl Fn(&mut Account)) -> Result<(), AccountError> {
        self.change_if(jid, |account| account.deleting.is_none(), edit)
            .await
    }

    /// Reads, edits, and writes on the condition of the version read.
    async fn change_if(
        &self,
        jid: &BareJid,
        wanted: impl Fn(&Account) -> bool,
        edit: impl Fn(&mut Account),
    ) -> Result<(), AccountError> {
        for _ in 0..ATTEMPTS {
            let found = self.credentials(jid).await?.filter(&wanted);
            let mut account = found.ok_or_else(|| AccountError::NotFound(jid.clone()))?;
            let read = account.version;
            edit(&mut account);
            account.version = read + 1;
            match self.put(account.item(), Condition::Version(read)).await {
                Err(StoreError::Conflict { .. }) => {}
                result => return Ok(result?),
            }
        }
        Err(AccountError::Contended(jid.clone()))
    }

    /// A put, tried once more with the same nonce when its outcome is unknown.
    async fn put(&self, item: Item, condition: Condition) -> Result<(), StoreError> {
        let mut nonce = [0; 16];
        (self.random)(&mut nonce);
        let nonce = u128::from_be_bytes(nonce).max(1);
        match self.table.put(item.clone(), condition, nonce).await {
            Err(error) if error.outcome_unknown() => self.table.put(item, condition, nonce).await,
            result => result,
        }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("options", &self.options)
            .field("derivations", &self.derivations)
            .finish_non_exhaustive()
    }
}

fn local_of(jid: &BareJid) -> Result<&str, AccountError> {
    jid.local()
        .ok_or_else(|| AccountError::NotAUser(jid.clone()))
}

#[cfg(test)]
mod tests;
