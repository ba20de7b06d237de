//! Authenticated links between nodes: frames of bytes, in order, over TLS 1.3.
//!
//! * [`Links::start`] accepts links, [`Links::keep`] says which nodes to dial; [`LinkEvent`]s tell
//!   of links that begin and end, and of frames.
//! * [`LinkSender::send`] never waits: a node that doesn't read fast enough loses its link, and who
//!   sends hears of it.
//! * A link on which nothing comes for a while is broken, and dialled again: its users beat.
//! * Nodes know each other by the cluster key. Certificates are made at start and trusted by
//!   nobody; each side proves inside TLS that it has the key, for this very connection.
//! * With one node there is at most one link. A newer one replaces the older; of two that were
//!   dialled crosswise both sides keep that of the higher node.
//!
//! It doesn't know what frames mean, who should be linked, or whether a silent node is dead, and
//! it doesn't repeat what a broken link has lost.
//!
//! Limits: all in [`Options`].

mod backoff;
mod error;
mod frame;
mod hello;
mod link;
mod links;
mod queue;
mod rank;
mod table;
#[cfg(test)]
mod tests;
mod tls;

pub use error::LinkError;
pub use links::{LinkEvent, Links, Options, Peer};
pub use queue::{LinkSender, NotTaken};
