//! Looks after archives that are due: every log that has items not sealed stands in the list of
//! some day, and is sealed when that day is over, long before its items expire.
//!
//! One node at a time does it, by a lease in the table `cluster`. Two that do it at once do no
//! harm, because everything is asked of the homes of the accounts, and can be asked again. A log
//! whose sealing fails stays in the list, and its day is gone through again with the next look.
//!
//! A home has what is too old removed when it is asked to seal, and puts the log on the list again
//! for the next time. Logs of accounts that were quiet when that was switched on are on no list: so
//! when it is found to have changed, every account is put on the one of that day.
//!
//! An account whose deletion broke off is on a list too: its deletion is finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cirrus_jid::BareJid;
use cirrus_router::log::{Cover, put_due};
use cirrus_runtime::{HomeHandle, wall_ms};
use cirrus_schema::TableId;
use cirrus_schema::keys::{accounts, archive, cluster};
use cirrus_store::{Attrs, Condition, Direction, Item, Op, Outcome, SkRange, StoreError, Table};
use tokio::task::JoinSet;

use crate::service::AccountService;

const FORMAT: u64 = 1;
const DAY_MS: u64 = 86_400_000;
/// How long a day must be over: clocks differ, and a put may be under way for a minute.
const GRACE_MS: u64 = 3_600_000;
/// Days that a list can be behind before its items have expired, with those that it lay ahead.
const REACH: u64 = Cover::AHEAD_DAYS + Cover::KEPT_DAYS;
/// How long one log may take; a long one is sealed segment by segment.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first look comes soon, for the sake of servers that don't run for long.
const FIRST: Duration = Duration::from_secs(60);
/// Rows of one page of a list.
const PAGE: u32 = 256;

/// How archives are looked after.
pub(crate) struct Sweep {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) home: HomeHandle,
    pub(crate) accounts: Arc<AccountService>,
    /// Time between two looks.
    pub(crate) every: Duration,
    /// Logs that are sealed at once.
    pub(crate) at_once: usize,
    /// The domains whose accounts are looked after.
    pub(crate) hosts: Vec<String>,
    /// Days for which messages are kept; 0 = for ever.
    pub(crate) retention_days: u64,
    /// A name that no other process has.
    pub(crate) name: u64,
    /// For how many days the oldest list has been due.
    pub(crate) late_days: Arc<AtomicU64>,
}

/// What the row of the sweep says.
struct Lease {
    version: u64,
    /// The last day that is done.
    done: u64,
    /// The retention with which every account was put on a list.
    retention_days: u64,
}

impl Sweep {
    /// Goes on until the task is dropped.
    pub(crate) async fn run(self) {
        let mut pause = FIRST.min(self.every);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.every;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "archives that are due can't be looked up");
            }
        }
    }

    /// One look at everything that is due.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let now = wall_ms();
        let today = now.saturating_sub(GRACE_MS) / DAY_MS;
        let Some(mut lease) = self.claim(now).await? else {
            return Ok(());
        };
        if self.retention_days > 0 && lease.retention_days != self.retention_days {
            list_all(&*self.table, &self.hosts, now / DAY_MS).await?;
        }
        lease.retention_days = self.retention_days;
        // A look ends with the day before. What was listed since for days that it had already done
        // is found by nobody else. Clocks that differ by a moment are not meant.
        if lease.done > today {
            tracing::warn!(
                done = lease.done,
                today,
                "archives that are due were looked up with a clock that was ahead, or this one is \
                 behind; every list is gone through again"
            );
            lease.done = 0;
        }
        let first = (lease.done + 1).max(today.saturating_sub(REACH));
        lease.done = first - 1;
        for day in first..today {
            let clear = self.day(day).await?;
            if clear && lease.done + 1 == day {
                lease.done = day;
            }
        }
        self.late_days
            .store(today.saturating_sub(lease.done + 1), Ordering::Relaxed);
        lease.version += 1;
        self.put(&lease, 0).await.map(drop)
    }

    /// Takes the lease. `None`: another node has it.
    async fn claim(&self, now: u64) -> Result<Option<Lease>, StoreError> {
        let item = self.table.get(cluster::sweep()).await?;
        let unknown = |item: &Item| item.attrs.get_n("v") != Some(FORMAT);
        if item.as_ref().is_some_and(unknown) {
            tracing::warn!("archives are sealed by nodes of a newer version only");
            return Ok(None);
        }
        let number = |name| item.as_ref().and_then(|item| item.attrs.get_n(name));
        if number("u").is_some_and(|until| now < until) && number("n") != Some(self.name) {
            return Ok(None);
        }
        let lease = Lease {
            version: item.as_ref().map_or(0, |item| item.version) + 1,
            done: number("d").unwrap_or(0),
            retention_days: number("r").unwrap_or(0),
        };
        let every = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        let until = now.saturating_add(every.saturating_mul(2));
        let taken = self.put(&lease, until).await?;
        Ok(taken.then_some(lease))
    }

    /// `false`: another node has written it.
    async fn put(&self, lease: &Lease, until: u64) -> Result<bool, StoreError> {
        let attrs = Attrs::new()
            .with("v", FORMAT)
            .with("d", lease.done)
            .with("r", lease.retention_days)
            .with("u", until)
            .with("n", self.name);
        let version = lease.version;
        let condition = match version {
            1 => Condition::Absent,
            version => Condition::Version(version - 1),
        };
        let item = Item::new(cluster::sweep(), attrs).versioned(version);
        let nonce = u128::from(self.name) << 64 | u128::from(version);
        match self.table.put(item, condition, nonce).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has everything sealed that is due on that day. `true`: nothing of it is left.
    async fn day(&self, day: u64) -> Result<bool, StoreError> {
        let day = u32::try_from(day).unwrap_or(u32::MAX);
        let mut clear = true;
        for shard in 0..archive::DUE_SHARDS {
            let pk = archive::due_partition(day, shard);
            let mut after = None;
            loop {
                let op = Op::Query {
                    table: TableId::Archive,
                    pk: pk.clone().into(),
                    range: SkRange::All,
                    direction: Direction::Forward,
                    limit: Some(PAGE),
                    after,
                };
                let Outcome::Page { items, next } = self.table.apply(op).await? else {
                    return Ok(false);
                };
                clear &= self.seal_all(items).await;
                match next {
                    Some(_) => after = next,
                    None => break,
                }
            }
        }
        Ok(clear)
    }

    /// Has these logs sealed, a few at once, and takes those that are from the list.
    async fn seal_all(&self, due: Vec<Item>) -> bool {
        let mut clear = true;
        let mut under_way: JoinSet<bool> = JoinSet::new();
        for item in due {
            if under_way.len() >= self.at_once {
                clear &= matches!(under_way.join_next().await, Some(Ok(true)));
            }
            let (table, home) = (Arc::clone(&self.table), self.home.clone());
            let accounts = Arc::clone(&self.accounts);
            under_way.spawn(async move { look_after(&*table, &home, &accounts, item).await });
        }
        while let Some(sealed) = under_way.join_next().await {
            clear &= matches!(sealed, Ok(true));
        }
        clear
    }
}

/// Puts every account on the list of that day: one write for each, once.
async fn list_all(table: &dyn Table, hosts: &[String], day: u64) -> Result<(), StoreError> {
    for host in hosts {
        let mut after = None;
        loop {
            let op = Op::Query {
                table: TableId::Accounts,
                pk: accounts::directory_partition(host).into(),
                range: SkRange::All,
                direction: Direction::Forward,
                limit: Some(PAGE),
                after,
            };
            let Outcome::Page { items, next } = table.apply(op).await? else {
                return Ok(());
            };
            for item in items {
                let local = std::str::from_utf8(&item.key.sk).ok();
                let jid = local.and_then(|it| BareJid::parse(&format!("{it}@{host}")).ok());
                if let Some(jid) = jid {
                    table.apply(put_due(&jid.owner(), day)).await?;
                }
            }
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
    }
    Ok(())
}

/// Does what is due for one row of a list, and takes the row away. `false`: it stays, for the next
/// look.
async fn look_after(
    table: &dyn Table,
    home: &HomeHandle,
    accounts: &AccountService,
    due: Item,
) -> bool {
    if let Some(user) = user(&due.key.sk) {
        // What can't be deleted must not keep messages from being sealed.
        let deleted = finish_deletion(accounts, &user).await;
        if !seal(home, &user).await || !deleted {
            return false;
        }
    }
    let gone = table.delete(due.key, Condition::Any).await;
    gone.inspect_err(|error| tracing::warn!(%error, "a list of archives that are due"))
        .is_ok()
}

/// `true`: the account is not being deleted, or no more.
async fn finish_deletion(accounts: &AccountService, user: &BareJid) -> bool {
    match tokio::time::timeout(PATIENCE, accounts.finish_deletion(user)).await {
        Ok(Ok(finished)) => finished,
        Ok(Err(error)) => {
            tracing::warn!(%user, %error, "the deletion of an account is not finished");
            false
        }
        Err(_) => {
            tracing::warn!(%user, "the deletion of an account is not finished in time");
            false
        }
    }
}

async fn seal(home: &HomeHandle, user: &BareJid) -> bool {
    match tokio::time::timeout(PATIENCE, home.seal(user.clone())).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%user, %error, "an archive that is due is not sealed");
            false
        }
        Err(_) => {
            tracing::warn!(%user, "an archive that is due is not sealed in time");
            false
        }
    }
}

/// The account of an owner, as keys have it.
fn user(owner: &[u8]) -> Option<BareJid> {
    let owner = std::str::from_utf8(owner).ok()?;
    let (host, local) = owner.split_once('\0')?;
    let parsed = match local {
        "" => BareJid::parse(host),
        local => BareJid::parse(&format!("{local}@{host}")),
    };
    parsed.ok()
}

#[cfg(test)]
mod tests;
