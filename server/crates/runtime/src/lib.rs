//! The thin async shell around a node's machine ([`cirrus_node::Node`]) and its links.
//!
//! One task owns it. Pipes, links, store answers and timers reach it through bounded queues; what
//! comes out goes to the pipes' and links' bounded queues, to the store and to the account service.
//! It decides nothing: whatever can be decided is in the pure machine.

mod cluster;
mod entropy;
mod handle;
mod lanes;
mod node;

use std::future::Future;
use std::pin::Pin;

use cirrus_router::AccountRequest;
use cirrus_stanza::StanzaError;

pub use cirrus_node::{
    About, Census, NodeSeen, Place, Public, SpreadOptions, Standing, ViewSeen, Work,
};
pub use cirrus_replica::Options as ReplicaOptions;
pub use cluster::Cluster;
pub use entropy::{SystemEntropy, boot_ms, wall_ms};
pub use handle::{Gone, HomeHandle};
pub use node::{Counters, Options, Parting, Parts, Running, start};

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
