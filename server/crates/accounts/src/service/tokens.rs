//! Login with a token, and what a client is given for its next one (XEP-0484).

use cirrus_jid::BareJid;
use cirrus_sasl::{TokenMechanism, TokenProof};
use cirrus_schema::keys::accounts::Row;
use cirrus_store::{Condition, Item, StoreError};

use super::{ATTEMPTS, Accounts};
use crate::AccountError;
use crate::record::Account;
use crate::token::{self, IssuedToken, NONCE_BYTES, Shown, Slot, TokenOptions, Tokens};

/// A login by token.
#[derive(Clone, Debug)]
pub struct TokenUse {
    /// What the client calls itself.
    pub client: Box<str>,
    /// Its message.
    pub proof: TokenProof,
    /// It wants no more of its tokens to be good.
    pub invalidate: bool,
    /// It wants a token for this mechanism.
    pub request: Option<TokenMechanism>,
}

/// What became of a login by token.
#[derive(Debug)]
pub enum TokenOutcome {
    /// The client is who it says. The caller still has to look at [`Account::disabled`].
    Right(Box<TokenLogin>),
    /// It has no such token.
    Wrong,
    /// It has, but the token has had its time or was made void.
    Expired,
}

/// A login by token that has succeeded.
#[derive(Debug)]
pub struct TokenLogin {
    /// Whose.
    pub account: Account,
    /// What proves to the client that the server knows the token.
    pub answer: Vec<u8>,
    /// The token for the next login, where the client should have another.
    pub issued: Option<IssuedToken>,
}

impl Accounts {
    /// Looks whether the client has a token of `jid`. One Query; a write only where a token is
    /// issued, first used after another, or invalidated.
    ///
    /// # Errors
    /// Those of [`Accounts::load`]; [`AccountError::Contended`] or the store's when tokens that are
    /// to be invalidated could not be.
    pub async fn verify_token(
        &self,
        jid: &BareJid,
        shown: &TokenUse,
    ) -> Result<TokenOutcome, AccountError> {
        let Some(options) = &self.options.tokens else {
            return Ok(TokenOutcome::Wrong);
        };
        for _ in 0..ATTEMPTS {
            let Some(account) = self.load(jid).await? else {
                return Ok(TokenOutcome::Wrong);
            };
            let mut tokens = Tokens::of(&account, &shown.client)?;
            let found = tokens.shown(&options.key, &account, &shown.client, &shown.proof);
            let Some(found) = found else {
                return Ok(TokenOutcome::Wrong);
            };
            if !found.slot().is_good(&account, (self.clock)()) {
                return Ok(TokenOutcome::Expired);
            }
            let token = found.slot().token(&options.key, &account, &shown.client);
            let mut login = TokenLogin {
                answer: shown.proof.answer(&token),
                account,
                issued: None,
            };
            if login.account.disabled {
                return Ok(TokenOutcome::Right(Box::new(login)));
            }
            let (changed, issued) = self.after(options, &login.account, &mut tokens, &found, shown);
            let written = match changed {
                true => self.write_tokens(jid, &shown.client, &tokens).await,
                false => Ok(()),
            };
            match written {
                Ok(()) => login.issued = issued,
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) if shown.invalidate => return Err(error.into()),
                // The token is right; what it leads to is done when it is used the next time.
                Err(error) => tracing::warn!(user = %jid, %error, "tokens stay as they were"),
            }
            return Ok(TokenOutcome::Right(Box::new(login)));
        }
        Err(AccountError::Contended(jid.clone()))
    }

    /// Gives a client that has logged in by other means a token. `rows` are those of
    /// [`Account::rows`]. One write, and another where the client is one too many.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] where tokens are off or the account is none,
    /// [`AccountError::Contended`], or the store's.
    pub async fn issue_token(
        &self,
        jid: &BareJid,
        rows: Vec<Item>,
        client: &str,
        mechanism: TokenMechanism,
    ) -> Result<IssuedToken, AccountError> {
        let none = || AccountError::NotFound(jid.clone());
        let options = self.options.tokens.as_ref().ok_or_else(none)?;
        let mut account = Account::read_all(jid, rows)?.ok_or_else(none)?;
        for _ in 0..ATTEMPTS {
            let mut tokens = Tokens::of(&account, client)?;
            if tokens.version == 0 {
                self.make_room(options, &account).await?;
            }
            let issued = self.issue(options, &account, &mut tokens, client, mechanism);
            match self.write_tokens(jid, client, &tokens).await {
                Ok(()) => return Ok(issued),
                Err(StoreError::Conflict { .. }) => {
                    account = self.load(jid).await?.ok_or_else(none)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AccountError::Contended(jid.clone()))
    }

    /// What the use of a token leads to: whether the client's row changes, and what the client is
    /// given.
    fn after(
        &self,
        options: &TokenOptions,
        account: &Account,
        tokens: &mut Tokens,
        found: &Shown,
        shown: &TokenUse,
    ) -> (bool, Option<IssuedToken>) {
        let now = (self.clock)();
        let client = &shown.client;
        let mut changed = tokens.used(found);
        if shown.invalidate {
            (tokens.current, tokens.new) = (None, None);
            changed = true;
        }
        let due = !shown.invalidate && found.slot().is_due(now);
        let mechanism = shown.request.or(due.then_some(shown.proof.mechanism));
        let Some(mechanism) = mechanism else {
            return (changed, None);
        };
        // It was given another one before and has not used it: perhaps it never got it.
        let waiting = tokens.new.filter(|new| {
            let unused = matches!(found, Shown::Current(_)) && shown.request.is_none();
            unused && new.mechanism == mechanism && new.is_good(account, now) && !new.is_due(now)
        });
        if let Some(slot) = waiting {
            let token = slot.token(&options.key, account, client);
            let expires_ms = slot.expires_ms;
            return (changed, Some(IssuedToken { token, expires_ms }));
        }
        let issued = self.issue(options, account, tokens, client, mechanism);
        (true, Some(issued))
    }

    /// Makes a token, not yet stored.
    fn issue(
        &self,
        options: &TokenOptions,
        account: &Account,
        tokens: &mut Tokens,
        client: &str,
        mechanism: TokenMechanism,
    ) -> IssuedToken {
        let now = (self.clock)();
        let mut nonce = [0; NONCE_BYTES];
        (self.random)(&mut nonce);
        let slot = Slot {
            mechanism,
            issued_ms: now,
            expires_ms: now.saturating_add(options.lifetime_ms),
            generation: account.min_generation,
            nonce,
        };
        tokens.current = tokens.current.filter(|old| old.is_good(account, now));
        tokens.new = tokens.new.filter(|old| old.is_good(account, now));
        tokens.issue(slot);
        IssuedToken {
            token: slot.token(&options.key, account, client),
            expires_ms: slot.expires_ms,
        }
    }

    /// Writes a client's row on the condition of the version that was read.
    async fn write_tokens(
        &self,
        jid: &BareJid,
        client: &str,
        tokens: &Tokens,
    ) -> Result<(), StoreError> {
        let condition = match tokens.version {
            0 => Condition::Absent,
            version => Condition::Version(version),
        };
        match tokens.item(jid, client) {
            Some(item) => self.put(item, condition).await,
            None => {
                let key = token::row_key(jid, client);
                self.table.delete(key, condition).await
            }
        }
    }

    /// One more client is to have tokens: the one whose tokens end first may have to go.
    async fn make_room(
        &self,
        options: &TokenOptions,
        account: &Account,
    ) -> Result<(), AccountError> {
        let is_token = |row: &&Item| matches!(Row::parse(&row.key.sk), Some(Row::Fast(_)));
        let mut rows: Vec<_> = account.rows.iter().filter(is_token).collect();
        rows.sort_by_key(|row| row.expires);
        let surplus = (rows.len() + 1).saturating_sub(options.clients);
        for row in rows.into_iter().take(surplus) {
            self.table.delete(row.key.clone(), Condition::Any).await?;
        }
        Ok(())
    }
}
