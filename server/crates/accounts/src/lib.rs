//! Accounts: who may log in, kept in the table `accounts`.
//!
//! [`Accounts`] creates, loads, lists and deletes accounts and checks and changes passwords. Of a
//! password only the [`StoredKey`](cirrus_sasl::StoredKey)s for SHA-256 and SHA-1 are kept.
//! Deriving keys costs milliseconds of CPU: it runs on blocking threads, a bounded number at a
//! time, behind a bounded queue; an event loop never does it.
//!
//! It sees no socket and no stanza, and knows nothing of what an account owns in other tables:
//! [`Erase`] is where their owner comes in when an account is deleted. It ends no session. A
//! deletion that breaks off stands on the list of logs that are due, a row of the table `archive`;
//! who goes through that list calls [`Accounts::finish_deletion`].
//!
//! Requests: [`Accounts::load`] is one Query of the account's partition; creation one Get and two
//! Puts; a changed password one Get and one Put; a page of the list one Query; a login by token as
//! [`Accounts::load`], with one Put where the client gets another token.
//!
//! Limits: [`Options::derivations`], [`Options::waiting`], [`TokenOptions::clients`], [`MAX_LIST`],
//! [`cirrus_sasl::MAX_PASSWORD_BYTES`], owners of at most [`cirrus_schema::MAX_SK_OWNER`] bytes.

mod derive;
mod error;
mod generate;
mod record;
mod service;
mod token;

use std::sync::Arc;

pub use error::AccountError;
pub use generate::generate_password;
pub use record::Account;
pub use service::{Accounts, Erase, MAX_LIST, Options, Page, TokenLogin, TokenOutcome, TokenUse};
pub use token::{IssuedToken, TokenOptions};

/// Where random bytes come from: salts, nonces, generated passwords. Must be cryptographic.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;
