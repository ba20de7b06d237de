//! Login and registration as they are rationed: too many failures of one address or account, and
//! the answer is "later", without a look at the account.
//!
//! Whoever fails on purpose must not keep an account's owner out. So a token, which nobody can
//! guess, is no matter of the account's count; of one network's failures the account counts a part
//! only; and from where the account has logged in lately its count holds up nobody.

use std::net::IpAddr;

use cirrus_accounts::{AccountError, Accounts, IssuedToken, TokenOutcome, TokenUse};
use cirrus_jid::BareJid;
use cirrus_sasl::Password;
use cirrus_stanza::{Condition, StanzaError};

use super::Limits;
use super::gate::network;
use super::known::Known;
use super::throttle::Throttle;
use crate::stream::{Account, TokenRequest, Unavailable};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// One network can use up this part of the failures that an account may have: two of its minutes
/// may overlap one of the account's, and a third is left even then.
const PART: u32 = 3;

/// Counts failed logins and registrations.
#[derive(Debug)]
pub(super) struct Guard {
    failures_from: Throttle<IpAddr>,
    /// Those that `failures_to` counts, by the network that they came from.
    failures_between: Throttle<(BareJid, IpAddr)>,
    failures_to: Throttle<BareJid>,
    known: Known,
    registrations_from: Throttle<IpAddr>,
    registrations: Throttle<()>,
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) address: IpAddr,
    pub(super) now: u64,
}

impl Guard {
    pub(super) fn new(limits: &Limits) -> Self {
        let to_one = limits.failures_per_account_per_minute;
        Self {
            failures_from: Throttle::new(limits.failures_per_address_per_minute, MINUTE_MS),
            failures_between: Throttle::new((to_one / PART).max(1), MINUTE_MS),
            failures_to: Throttle::new(to_one, MINUTE_MS),
            known: Known::default(),
            registrations_from: Throttle::new(limits.registrations_per_address_per_hour, HOUR_MS),
            registrations: Throttle::new(limits.registrations_per_hour, HOUR_MS),
        }
    }

    /// A login failed; whose password was tried is known unless it failed before the name.
    pub(super) fn failed(&self, asker: Asker, user: Option<BareJid>) {
        let network = network(asker.address);
        self.failures_from.count(network, asker.now);
        let Some(user) = user else { return };
        let both = (user.clone(), network);
        if !self.failures_between.is_over(&both, asker.now) {
            self.failures_between.count(both, asker.now);
            self.failures_to.count(user, asker.now);
        }
    }

    /// A login has succeeded.
    pub(super) fn succeeded(&self, asker: Asker, user: &BareJid) {
        self.known.add(user, network(asker.address));
    }

    /// The account as authentication needs it.
    pub(super) async fn load(
        &self,
        accounts: &Accounts,
        asker: Asker,
        user: &BareJid,
    ) -> Result<Option<Account>, Unavailable> {
        self.allows_password(asker, user)?;
        known(user, accounts.load(user).await)
    }

    /// The account, if the password is right.
    pub(super) async fn verify(
        &self,
        accounts: &Accounts,
        asker: Asker,
        user: &BareJid,
        password: &Password,
    ) -> Result<Option<Account>, Unavailable> {
        self.allows_password(asker, user)?;
        known(user, accounts.verify_password(user, password).await)
    }

    /// Whether the client has the token that it shows.
    pub(super) async fn verify_token(
        &self,
        accounts: &Accounts,
        asker: Asker,
        user: &BareJid,
        shown: &TokenUse,
    ) -> Result<TokenOutcome, Unavailable> {
        self.allows_address(asker, user)?;
        let verified = accounts.verify_token(user, shown).await;
        verified.map_err(|error| unreadable(user, &error))
    }

    fn allows_password(&self, asker: Asker, user: &BareJid) -> Result<(), Unavailable> {
        self.allows_address(asker, user)?;
        let over = self.failures_to.is_over(user, asker.now)
            && !self.known.has(user, network(asker.address));
        put_off(over, asker, user)
    }

    fn allows_address(&self, asker: Asker, user: &BareJid) -> Result<(), Unavailable> {
        let network = network(asker.address);
        put_off(self.failures_from.is_over(&network, asker.now), asker, user)
    }

    /// Creates an account.
    pub(super) async fn register(
        &self,
        accounts: &Accounts,
        asker: Asker,
        user: &BareJid,
        password: &Password,
    ) -> Result<(), StanzaError> {
        let address = network(asker.address);
        if self.registrations.is_over(&(), asker.now)
            || self.registrations_from.is_over(&address, asker.now)
        {
            let text = "too many accounts were registered in the last hour; try again later";
            return Err(StanzaError::new(Condition::ResourceConstraint, text));
        }
        // Attempts count: else a name that is taken could be asked for without end.
        self.registrations_from.count(address, asker.now);
        accounts
            .create(user, password)
            .await
            .map_err(|error| refusal(user, &error))?;
        self.registrations.count((), asker.now);
        tracing::info!(%user, peer = %asker.address, "registered");
        Ok(())
    }
}

fn put_off(over: bool, asker: Asker, user: &BareJid) -> Result<(), Unavailable> {
    if over {
        tracing::info!(peer = %asker.address, %user, "login put off: too many failures");
        return Err(Unavailable);
    }
    Ok(())
}

/// A token for a client that has just logged in.
pub(super) async fn issue_token(
    accounts: &Accounts,
    user: &BareJid,
    asked: TokenRequest,
) -> Option<IssuedToken> {
    let TokenRequest {
        rows,
        client,
        mechanism,
    } = asked;
    let issued = accounts.issue_token(user, rows, &client, mechanism).await;
    if let Err(error) = &issued {
        tracing::warn!(%user, %error, "a token can't be issued");
    }
    issued.ok()
}

fn known(
    user: &BareJid,
    account: Result<Option<cirrus_accounts::Account>, AccountError>,
) -> Result<Option<Account>, Unavailable> {
    let account = account.map_err(|error| unreadable(user, &error))?;
    Ok(account.map(Account::from))
}

fn unreadable(user: &BareJid, error: &AccountError) -> Unavailable {
    tracing::warn!(%user, %error, "an account can't be read");
    Unavailable
}

fn refusal(user: &BareJid, error: &AccountError) -> StanzaError {
    let condition = match error {
        AccountError::Exists(_) | AccountError::Deleting(_) => {
            return Condition::Conflict.into();
        }
        AccountError::NotAUser(_) | AccountError::TooLong { .. } | AccountError::Password(_) => {
            Condition::NotAcceptable
        }
        error if error.is_retryable() => Condition::ResourceConstraint,
        _ => Condition::InternalServerError,
    };
    if condition == Condition::InternalServerError {
        tracing::warn!(%user, %error, "an account can't be created");
        return condition.into();
    }
    StanzaError::new(condition, error.to_string())
}
