//! What the configuration says about client streams.

use cirrus_sasl::{FakeKeys, Mechanism};
use cirrus_xml::Limits;

use super::features::Features;

/// Settings that all streams of a server share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hosts that are served, normalised; the first speaks when none was named.
    pub hosts: Vec<String>,
    /// Hosts that were served once (stream error `host-gone`).
    pub gone_hosts: Vec<String>,
    /// SASL mechanisms that may be offered. Those with channel binding are left out where the
    /// connection has none.
    pub mechanisms: Vec<Mechanism>,
    /// What else is announced.
    pub features: Features,
    /// Limits before the login.
    pub limits_before: Limits,
    /// Limits after it.
    pub limits: Limits,
    /// SASL failures after which the stream is closed; RFC 6120 section 6.4.5 wants 2 to 5
    /// retries.
    pub max_failures: u32,
    /// Stanzas of a client that may await handling before reading pauses.
    pub max_unhandled: u64,
    /// Makes keys of accounts that don't exist look like keys of those that do.
    pub fake_keys: FakeKeys,
    /// Durations.
    pub timeouts: Timeouts,
}

/// Durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection to a bound resource.
    pub login_ms: u64,
    /// Silence in both directions after which the server says something; 0 = never.
    pub keepalive_ms: u64,
    /// Silence of the client after which the connection is closed; 0 = never.
    pub idle_ms: u64,
    /// How long an unrequested `<a/>` waits for more to acknowledge; without stream management,
    /// how long the home waits to hear what was written.
    pub ack_ms: u64,
    /// How long the client may be silent when an answer to `<r/>` is due; 0 = for ever.
    pub answer_ms: u64,
    /// How long a closing client's last stanzas may take to be handled.
    pub drain_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            login_ms: 60_000,
            keepalive_ms: 120_000,
            idle_ms: 900_000,
            ack_ms: 100,
            answer_ms: 120_000,
            drain_ms: 2_000,
        }
    }
}

impl Settings {
    pub(super) fn serves(&self, host: &str) -> bool {
        self.hosts.iter().any(|served| served == host)
    }

    pub(super) fn served_once(&self, host: &str) -> bool {
        self.gone_hosts.iter().any(|gone| gone == host)
    }

    pub(super) fn default_host(&self) -> &str {
        self.hosts.first().map_or("localhost", String::as_str)
    }
}
