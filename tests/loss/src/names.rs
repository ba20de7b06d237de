//! Accounts and their addresses. Pure.

use anyhow::{Context as _, Result};

use crate::ledger::Account;

/// The resource that every client binds.
pub(crate) const RESOURCE: &str = "loss";

/// How accounts are called: a pattern with the number in it, at a host.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    suffix: String,
    /// The host.
    pub(crate) host: String,
}

impl Names {
    /// `{}` in the pattern stands for the number.
    pub(crate) fn new(pattern: &str, host: &str) -> Result<Names> {
        let parts = pattern.split_once("{}");
        let (prefix, suffix) =
            parts.with_context(|| format!("no {{}} in the user names' pattern {pattern:?}"))?;
        Ok(Names {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            host: host.to_owned(),
        })
    }

    pub(crate) fn user(&self, account: Account) -> String {
        format!("{}{account}{}", self.prefix, self.suffix)
    }

    /// The bare address.
    pub(crate) fn bare(&self, account: Account) -> String {
        format!("{}@{}", self.user(account), self.host)
    }

    /// The account of a bare or full address.
    pub(crate) fn account(&self, jid: &str) -> Option<Account> {
        let bare = jid.split('/').next()?;
        let user = bare.strip_suffix(&self.host)?.strip_suffix('@')?;
        let number = user.strip_prefix(&self.prefix)?;
        number.strip_suffix(&self.suffix)?.parse().ok()
    }
}

/// The contacts of an account: the others of its group of neighbours.
pub(crate) fn contacts(account: Account, group: u32, accounts: u32) -> Vec<Account> {
    let first = account - account % group.max(1);
    let last = first.saturating_add(group).min(accounts);
    (first..last).filter(|other| *other != account).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_made_and_read() {
        let names = Names::new("user-{}-x", "a.test").unwrap();
        assert_eq!(names.bare(7), "user-7-x@a.test");
        assert_eq!(names.account("user-7-x@a.test/loss"), Some(7));
        assert_eq!(names.account("user-7-x@b.test/loss"), None);
        assert_eq!(names.account("a.test"), None);
        assert!(Names::new("user", "a.test").is_err());
    }

    #[test]
    fn contacts_are_the_group_without_oneself() {
        assert_eq!(contacts(5, 4, 100), [4, 6, 7]);
        assert_eq!(contacts(9, 4, 10), [8]);
        assert_eq!(contacts(0, 2, 2), [1]);
    }
}
