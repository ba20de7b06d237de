//! The thin async shell around a [`Home`]: it feeds events in and carries effects out.
//!
//! One task owns the home. Pipes, store answers and timers reach it through bounded queues; what
//! comes out goes to the pipes' bounded queues, to the store and to the account service. It
//! decides nothing: whatever can be decided is in the pure machines.

mod entropy;
mod gate;
mod handle;
mod task;

use std::future::Future;
use std::pin::Pin;

use cirrus_router::AccountRequest;
use cirrus_stanza::StanzaError;

pub use entropy::{SystemEntropy, wall_ms};
pub use gate::Gate;
pub use handle::{Gone, HomeHandle};
pub use task::{Counters, Options, start};

/// Carries out what users ask of their accounts: it needs key derivation and several writes.
pub trait Accounts: Send + Sync {
    /// Changes the account.
    ///
    /// # Errors
    /// The refusal, as the client shall see it.
    fn change(&self, request: AccountRequest) -> Change<'_>;
}

/// The answer to a change of an account.
pub type Change<'a> = Pin<Box<dyn Future<Output = Result<(), StanzaError>> + Send + 'a>>;
