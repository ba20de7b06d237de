//! Deletions: the end of an account, in steps that can be repeated.
//!
//! A node may die in between, or the store fail, and then the user can't log in any more to ask
//! again. So before an account is marked as being deleted, its owner is put on that day's list of
//! logs that are due, and whoever goes through the list asks [`Accounts::finish_deletion`].

use cirrus_jid::BareJid;
use cirrus_schema::keys::{accounts, archive};
use cirrus_store::{Attrs, BoxFuture, Condition, Item, Key, Source, StoreError};

use super::{Accounts, local_of};
use crate::AccountError;
use crate::record::{self, Account};

/// How long a deletion is left to whoever has begun it or tried it again: much longer than one
/// takes, and shorter than the time between two looks at the lists.
const LEFT_ALONE_MS: u64 = 30 * 60_000;
const DAY_MS: u64 = 86_400_000;
/// Which of a day's partitions has deletions: every one is gone through, and they are few.
const DUE_SHARD: u8 = 0;
const DUE_FORMAT: u64 = 1;

/// Removes what an account owns in other tables. Called by [`Accounts::delete`] when the account
/// can no longer log in, and while its credentials row is still there.
pub trait Erase: Send + Sync {
    /// Ends the sessions of `jid` and erases what it owns, but for the item that keeps its last
    /// archive position. Must be repeatable: it is called again when a deletion is repeated.
    fn erase<'a>(&'a self, jid: &'a BareJid) -> BoxFuture<'a, Result<(), Source>>;
}

impl Accounts {
    /// Deletes an account and what it owns. Each step can be repeated; a deletion that was
    /// interrupted is finished by the next, or by [`Accounts::finish_deletion`]. `false`: there was
    /// nothing to delete.
    ///
    /// # Errors
    /// [`AccountError::NotAUser`], [`AccountError::Erase`], [`AccountError::Contended`], or the
    /// store's: delete again.
    pub async fn delete(&self, jid: &BareJid, erase: &dyn Erase) -> Result<bool, AccountError> {
        let local = local_of(jid)?;
        if self.credentials(jid).await?.is_some() {
            self.list_as_due(jid).await?;
        }
        match self.mark(jid, |_| true).await {
            Ok(()) => {}
            Err(AccountError::NotFound(_)) => {
                // A creation or deletion that was interrupted may have left it.
                let directory: Key = accounts::directory(jid.host(), local).into();
                let listed = self.table.get(directory.clone()).await?.is_some();
                self.table.delete(directory, Condition::Any).await?;
                return Ok(listed);
            }
            Err(error) => return Err(error),
        }
        self.remove(jid, local, erase).await?;
        Ok(true)
    }

    /// Finishes the deletion of an account, if one has begun and was then left. `true`: the account
    /// is not being deleted, any more or at all. `false`: somebody else is at it; ask again later.
    ///
    /// # Errors
    /// [`AccountError::Erase`], [`AccountError::Contended`], or the store's: ask again later.
    pub async fn finish_deletion(
        &self,
        jid: &BareJid,
        erase: &dyn Erase,
    ) -> Result<bool, AccountError> {
        let Some(local) = jid.local() else {
            return Ok(true); // Only users are deleted.
        };
        let Some(since) = self.deleting(jid).await? else {
            return Ok(true);
        };
        let left = |since| (self.clock)().saturating_sub(since) >= LEFT_ALONE_MS;
        if !left(since) {
            return Ok(false);
        }
        // Of several that find it, one takes it over.
        match self
            .mark(jid, |account| account.deleting.is_some_and(left))
            .await
        {
            Ok(()) => {}
            Err(AccountError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.remove(jid, local, erase).await?;
        Ok(true)
    }

    /// Since when the account is being deleted.
    async fn deleting(&self, jid: &BareJid) -> Result<Option<u64>, AccountError> {
        let account = self.credentials(jid).await?;
        Ok(account.and_then(|account| account.deleting))
    }

    /// Has the account looked at when this day is over.
    async fn list_as_due(&self, jid: &BareJid) -> Result<(), StoreError> {
        let day = u32::try_from((self.clock)() / DAY_MS).unwrap_or(u32::MAX);
        let key = archive::due(day, DUE_SHARD, &jid.owner());
        let item = Item::new(key, Attrs::new().with("v", DUE_FORMAT));
        self.put(item, Condition::Any).await
    }

    /// Says that the account is being deleted, from now on: nobody may log in any more.
    async fn mark(
        &self,
        jid: &BareJid,
        wanted: impl Fn(&Account) -> bool,
    ) -> Result<(), AccountError> {
        let since = (self.clock)().max(1);
        self.change_if(jid, wanted, |account| {
            account.disabled = true;
            account.deleting = Some(since);
        })
        .await
    }

    /// Removes what a marked account owns, and then itself. With the credentials the deletion ends,
    /// so that nobody can create the account anew before the last step.
    async fn remove(
        &self,
        jid: &BareJid,
        local: &str,
        erase: &dyn Erase,
    ) -> Result<(), AccountError> {
        let erased = erase.erase(jid).await;
        erased.map_err(|source| AccountError::Erase {
            jid: jid.clone(),
            source,
        })?;
        let credentials = record::row_key(jid);
        let rows = self.rows(jid).await?;
        let marked = rows.iter().find(|row| row.key == credentials);
        let marked = marked.map(|row| Account::read(jid, row)).transpose()?;
        let Some(account) = marked.filter(|account| account.deleting.is_some()) else {
            return Ok(()); // Somebody else was faster. What is there is a new account's.
        };
        for row in rows {
            if row.key != credentials {
                self.table.delete(row.key, Condition::Any).await?;
            }
        }
        let directory: Key = accounts::directory(jid.host(), local).into();
        self.table.delete(directory, Condition::Any).await?;
        let condition = Condition::Version(account.version);
        match self.table.delete(credentials, condition).await {
            // As above; or somebody deletes it too, and has marked it after this one.
            Err(StoreError::Conflict { .. }) => Ok(()),
            result => Ok(result?),
        }
    }
}
