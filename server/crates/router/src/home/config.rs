//! What a home is told about itself: limits, features, domains.

use std::sync::Arc;

use cirrus_jid::BareJid;

use crate::archive::IdKey;
use crate::registry::{About, Registry};

/// Bounds of everything an entity keeps or waits for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bound resources of one user, detached ones included.
    pub resources_per_user: usize,
    /// Contacts of one roster.
    pub roster_items: usize,
    /// Bytes of one roster as a client gets it, about.
    pub roster_bytes: usize,
    /// Groups of one contact.
    pub roster_groups: usize,
    /// Subscription requests that wait for one user's answer.
    pub pending_subscriptions: usize,
    /// Bytes of a presence stanza.
    pub presence_bytes: usize,
    /// Messages that wait for a user who is offline.
    pub offline_messages: usize,
    /// Bytes of one session's unacknowledged stanzas. Past it the session ends and what was
    /// archived is delivered to the next one.
    pub unacked_bytes: usize,
    /// Inbound stanzas of one session that are not handled yet.
    pub max_unhandled: usize,
    /// Events that wait while an entity is loaded.
    pub entity_queue: usize,
    /// Entities in memory; past it, idle ones leave first and then new ones are refused.
    pub entities: usize,
    /// Milliseconds after which an entity without sessions and work leaves memory.
    pub entity_idle_ms: u64,
    /// Milliseconds that a store operation may take with all its retries.
    pub store_deadline_ms: u64,
    /// Addresses that one session's directed presence is remembered for.
    pub directed_presence: usize,
    /// Most seconds a broken session is kept for its client.
    pub resume_seconds: u32,
    /// Milliseconds an origin is remembered for, so that a redo changes nothing.
    pub dedupe_ms: u64,
    /// Origins that one entity remembers.
    pub origins: usize,
    /// Stanzas held for a client that nobody looks at (XEP-0352); past it all of them are sent.
    pub held_stanzas: usize,
    /// Bytes of them.
    pub held_bytes: usize,
    /// Archive items that one request of an offline delivery reads.
    pub spool_page: u32,
    /// Messages in one page of an answer from the archive.
    pub archive_page: usize,
    /// Bytes of messages that one query keeps in memory; what is beyond is read again.
    pub archive_page_bytes: usize,
    /// Queries of one session that wait for the one before.
    pub archive_queries: usize,
    /// Addresses in one list of a user's archive preferences.
    pub archive_prefs: usize,
    /// Records of a full segment of an archive, at most
    /// [`MAX_RECORDS`](crate::segment::MAX_RECORDS).
    pub seal_records: u64,
    /// Bytes of messages, not packed, with which a segment is full before that.
    pub seal_bytes: usize,
    /// Rows of an archive's index that stay in memory when nothing needs them.
    pub index_rows: usize,
    /// Retracted messages of one archive that its index says so of, and as many retractions that
    /// wait for their turn.
    pub tombstones: usize,
    /// Days for which messages are kept in archives; 0 = for ever.
    pub retention_days: u64,
    /// Milliseconds of a day, as far as it is about when logs are sealed and items expire.
    pub day_ms: u64,
}

impl Limits {
    /// Messages from before that time, Unix milliseconds, are not in archives any more. It moves
    /// on once a day, so that what was found out by it holds for that long.
    pub fn kept_since(&self, now: u64) -> u64 {
        let day_ms = self.day_ms.max(1);
        match self.retention_days {
            0 => 0,
            days => (now / day_ms).saturating_sub(days).saturating_mul(day_ms),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resources_per_user: 32,
            roster_items: 5_000,
            roster_bytes: 1_048_576,
            roster_groups: 32,
            pending_subscriptions: 500,
            presence_bytes: 8_192,
            offline_messages: 10_000,
            unacked_bytes: 2 * 1024 * 1024,
            max_unhandled: 1_000,
            entity_queue: 1_000,
            entities: 1_000_000,
            entity_idle_ms: 300_000,
            store_deadline_ms: 10_000,
            directed_presence: 1_000,
            resume_seconds: 300,
            dedupe_ms: 600_000,
            origins: 1_024,
            held_stanzas: 256,
            held_bytes: 64 * 1024,
            spool_page: 256,
            archive_page: 256,
            archive_page_bytes: 512 * 1024,
            archive_queries: 16,
            archive_prefs: 500,
            seal_records: 256,
            seal_bytes: 512 * 1024,
            index_rows: 4_096,
            tombstones: 1_000,
            retention_days: 0,
            day_ms: 86_400_000,
        }
    }
}

/// Everything a home knows that does not change while it runs.
pub struct HomeConfig {
    /// Bounds.
    pub limits: Limits,
    /// What the server says about itself; its domains are the ones served.
    pub about: About,
    /// The features that answer IQs.
    pub registry: Registry,
    /// Keep every message in its owners' archives; otherwise only what is spooled.
    pub archive: bool,
    /// The key behind all ids of archived messages.
    pub archive_key: IdKey,
    /// When the node started, Unix milliseconds. A home keeps what it was made with, so that all
    /// copies of it say the same.
    pub started_ms: u64,
}

impl HomeConfig {
    /// Whether the domain is served here.
    pub fn serves(&self, host: &str) -> bool {
        self.about.domains.iter().any(|domain| domain == host)
    }
}

/// Which accounts a home is home of.
#[derive(Clone)]
pub enum Territory {
    /// All of them: a node alone.
    Everything,
    /// Those for which this holds, wherever and whenever it is asked.
    Part(Arc<dyn Fn(&BareJid) -> bool + Send + Sync>),
}

impl Territory {
    /// Whether the account's entity lives there.
    pub fn has(&self, jid: &BareJid) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(has) => has(jid),
        }
    }
}
