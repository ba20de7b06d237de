//! What happened to connections, for the operator's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {
        /// Counts since the start. Live; [`Counters::read`] gives plain numbers.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)+
        }

        /// Counts since the start, and how many connections there are.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            /// Connections there are.
            pub connections: u64,
            /// Those of them that have not logged in.
            pub unauthenticated: u64,
            /// Connections that are accepted a second when more come.
            pub accepts_per_second: u64,
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    ..Counts::default()
                }
            }
        }
    };
}

counters! {
    /// Connections that were accepted.
    accepted,
    /// Turned away: as many connections as there may be.
    refused_total,
    /// Turned away: as many without login as there may be.
    refused_unauthenticated,
    /// Turned away: as many from one address as there may be.
    refused_address,
    /// Connections whose client's address a balancer has told.
    proxied,
    /// Connections of balancers that were closed for want of a PROXY header.
    proxy_headers_refused,
    /// Times that accepting paused because descriptors or memory ran out.
    accept_pauses,
    /// TLS handshakes that failed or took too long.
    handshakes_failed,
    /// Streams that logged in.
    logins,
    /// Times that accepting waited because so many came at once.
    accepts_paced,
    /// New sessions that waited for their turn.
    logins_paced,
    /// New sessions that were put off: their turn would have come too late.
    logins_put_off,
    /// Connections closed so that their sessions go on on nodes with fewer.
    moved,
    /// Connections closed because their client read too slowly.
    slow_readers,
    /// Times that reading paused because a client sent too much.
    throttled,
    /// Stanzas received.
    stanzas_in,
    /// Stanzas written.
    stanzas_out,
    /// Bytes received, without TLS.
    bytes_in,
    /// Bytes written, without TLS.
    bytes_out,
    /// Connections ended by a fault of this server.
    crashed,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
