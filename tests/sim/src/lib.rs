//! A whole server as pure machines, against a faulty network, store and clock, from a seed.
//!
//! Clients log in, talk, break their connections, resume and leave; the store is slow, refuses,
//! or writes and does not say so; the server is killed or stopped and starts again on what the
//! store has. A copy follows the home event by event and takes its place. A checker compares what
//! the clients saw with what the archives hold. The same seed gives the same run, so a failing
//! seed is a test case.
//!
//! It does not simulate TLS, XML framing or the async shell: those have tests of their own.

mod check;
mod client;
mod plan;
mod rng;
mod spread;
mod store;
mod tell;
mod totals;
mod world;

pub use check::Violation;
pub use spread::spread;
pub use totals::Totals;
pub use world::{Change, Growth, Load, Report, grow, run, run_cluster, trace, trace_cluster};

/// Bugs that can be planted, to show that the checker finds them.
pub use cirrus_router::planted::{Bug, plant};
/// The same of clusters.
pub mod cluster {
    pub use cirrus_cluster::planted::{Bug, plant};
}
