//! A user's roster (RFC 6121 sections 2 and 3): contacts, subscriptions, pending requests.
//!
//! A change takes two steps: [`Roster::plan_set`] and its siblings say what to write and change
//! nothing; when the write has succeeded, [`Roster::commit`] takes the change over and gives what
//! follows from it: a push, stanzas for the contact. So the roster in memory never shows what the
//! store may not have, and a push costs one write and no read. One change is under way at a time,
//! because pushes must come in the order of versions.
//!
//! The roster's version is the highest version of its rows (RFC 6121 section 2.6): the wall clock
//! in milliseconds, or one more than the version before, whichever is higher. A removed contact
//! leaves a tombstone for 90 days, so that a client that was away can be told what changed.
//!
//! What it does not do: it sends nothing, knows no session and no presence. Who is told what
//! (available, interested resources) is its caller's business.
//!
//! Limits: [`Limits`].

mod contact;
mod error;
mod plan;
mod state;
mod wire;

use std::collections::BTreeMap;

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::rosters;
use cirrus_store::{Condition, Direction, Item, Key, Op, SkRange};
use serde::{Deserialize, Serialize};

pub use contact::{Contact, Exchange, TOMBSTONE_MS};
pub use error::RosterError;
pub use plan::{Done, Planned};
pub use state::{Kind, State, Subscription, Transition, inbound, outbound};
pub use wire::{Set, parse_set};

use contact::{Decoded, Pending, Tombstone};

/// Bounds of one roster.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Contacts. Tombstones may be as many again, so a roster has at most twice as many rows.
    pub items: usize,
    /// Bytes of all contacts as a client gets them, about.
    pub bytes: usize,
    /// Bytes of a contact's name.
    pub name_bytes: usize,
    /// Groups of one contact.
    pub groups: usize,
    /// Bytes of a group's name.
    pub group_bytes: u16,
    /// Requests that wait for the user's answer.
    pub requests: usize,
    /// Bytes of a request's stanza, which is kept whole (RFC 6121 section 3.1.3).
    pub request_bytes: usize,
}

impl Default for Limits {
    /// A row then has at most 1,023 + 32 x 1,025 bytes: far below what a table takes.
    fn default() -> Self {
        Self {
            items: 5_000,
            bytes: 1_048_576,
            name_bytes: 1_023,
            groups: 32,
            group_bytes: 1_023,
            requests: 500,
            request_bytes: 8 * 1_024,
        }
    }
}

/// A change of the roster, for the user's interested resources (RFC 6121 section 2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The roster's version with it.
    pub version: u64,
    /// The `<query/>` element.
    #[serde(with = "cirrus_store::raw")]
    pub query: Bytes,
}

/// The answer to a roster get (RFC 6121 sections 2.2 and 2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The result carries this `<query/>`: all contacts.
    Full(Bytes),
    /// The result is empty, and these pushes follow, if any: what the client has is still good.
    Changes(Vec<Push>),
}

/// A user's roster in memory, as the store has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Roster {
    owner: Vec<u8>,
    /// From the configuration, wherever the roster is.
    #[serde(skip)]
    limits: Limits,
    contacts: BTreeMap<BareJid, Contact>,
    tombstones: BTreeMap<BareJid, Tombstone>,
    requests: BTreeMap<BareJid, Pending>,
    /// The highest version of any row, pending requests included.
    counter: u64,
    busy: bool,
    stale: bool,
}

/// A loaded roster.
#[derive(Debug)]
pub struct Loaded {
    /// The roster.
    pub roster: Roster,
    /// Deletes of requests that were settled before; nothing depends on their success.
    pub cleanup: Vec<Op>,
}

impl Roster {
    /// Reads the rows of `owner`, page after page (`after` = the `next` of the page before).
    pub fn query(owner: &BareJid, after: Option<Bytes>) -> Op {
        Op::Query {
            table: TableId::Rosters,
            pk: rosters::partition(&owner.owner()).into(),
            range: SkRange::All,
            direction: Direction::Forward,
            limit: None,
            after,
        }
    }

    /// An empty roster.
    pub fn new(jid: &BareJid, limits: Limits) -> Self {
        Self {
            owner: jid.owner(),
            limits,
            contacts: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            requests: BTreeMap::new(),
            counter: 0,
            busy: false,
            stale: false,
        }
    }

    /// The roster of `jid` from all rows of its partition. Rows of other features are left alone.
    ///
    /// # Errors
    /// [`RosterError::Corrupt`] names the first row that can't be understood.
    pub fn load(jid: &BareJid, limits: Limits, items: &[Item]) -> Result<Loaded, RosterError> {
        let mut roster = Self::new(jid, limits);
        // Requests that the contact's row has settled: the row's version by contact.
        let mut settled = BTreeMap::new();
        for item in items {
            roster.counter = roster.counter.max(item.version);
            match contact::decode(item)? {
                Decoded::Contact { contact, pending } => {
                    if !pending {
                        settled.insert(contact.jid.clone(), contact.version);
                    }
                    roster.contacts.insert(contact.jid.clone(), contact);
                }
                Decoded::Tombstone {
                    jid,
                    tombstone,
                    pending,
                } => {
                    if !pending {
                        settled.insert(jid.clone(), tombstone.version);
                    }
                    roster.tombstones.insert(jid, tombstone);
                }
                Decoded::Pending { jid, pending } => {
                    roster.requests.insert(jid, pending);
                }
                Decoded::Other => {}
            }
        }
        let mut cleanup = Vec::new();
        roster.requests.retain(|jid, request| {
            let dead = settled
                .get(jid)
                .is_some_and(|version| request.version < *version);
            if dead {
                cleanup.push(delete_request(&roster.owner, jid, request.version));
            }
            !dead
        });
        Ok(Loaded { roster, cleanup })
    }

    /// Gives a roster that was read from a snapshot its bounds, which are not in one.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The contact of that address.
    pub fn contact(&self, jid: &BareJid) -> Option<&Contact> {
        self.contacts.get(jid)
    }

    /// All contacts, in the order of their addresses.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.values()
    }

    /// Most bytes that all contacts have where a client gets them.
    pub fn bytes(&self) -> usize {
        self.contacts.values().map(Contact::size).sum()
    }

    /// Where the user stands with that address.
    pub fn state(&self, jid: &BareJid) -> State {
        let pending = self
            .requests
            .get(jid)
            .is_some_and(|request| !request.refused);
        match self.contacts.get(jid) {
            Some(contact) => State::new(contact.subscription, contact.ask, pending),
            None => State::new(Subscription::None, false, pending),
        }
    }

    /// The requests that wait for the user's answer: who asked, and the presence stanza
    /// (RFC 6121 section 3.1.3).
    pub fn requests(&self) -> impl Iterator<Item = (&BareJid, &Bytes)> {
        self.requests
            .iter()
            .filter(|(jid, request)| !request.refused && self.state(jid).pending_in())
            .map(|(jid, request)| (jid, &request.stanza))
    }

    /// What the other homes have not confirmed: send it again after loading.
    pub fn unsent(&self) -> Vec<(BareJid, Kind)> {
        let mut all = Vec::new();
        let contacts = self
            .contacts
            .iter()
            .map(|(jid, contact)| (jid, contact.exchange));
        let tombstones = self
            .tombstones
            .iter()
            .map(|(jid, tombstone)| (jid, tombstone.exchange));
        for (jid, exchange) in contacts.chain(tombstones) {
            all.extend(
                exchange
                    .kinds(self.state(jid))
                    .map(|kind| (jid.clone(), kind)),
            );
        }
        for (jid, _) in self.requests.iter().filter(|(_, request)| request.refused) {
            let refusal = (jid.clone(), Kind::Unsubscribed);
            if !all.contains(&refusal) {
                all.push(refusal);
            }
        }
        all
    }

    /// What was told to the contact's home, and heard from it.
    fn exchange(&self, jid: &BareJid) -> Exchange {
        let contact = self.contacts.get(jid).map(|contact| contact.exchange);
        let gone = || self.tombstones.get(jid).map(|gone| gone.exchange);
        let mut exchange = contact.or_else(gone).unwrap_or_default();
        if let Some(request) = self.requests.get(jid) {
            exchange.heard = exchange.heard.max(request.heard);
        }
        exchange
    }

    /// The number that a stanza of this kind to that address carries: its own, or that of what it
    /// answers.
    pub fn number(&self, jid: &BareJid, kind: Kind) -> u64 {
        let exchange = self.exchange(jid);
        match kind {
            Kind::Subscribe | Kind::Unsubscribe => exchange.asked,
            Kind::Subscribed | Kind::Unsubscribed => exchange.heard,
        }
    }

    /// The roster's version, as in `ver` attributes.
    pub fn version(&self) -> u64 {
        let contacts = self.contacts.values().map(|contact| contact.version);
        let tombstones = self.tombstones.values().map(|tombstone| tombstone.version);
        contacts.chain(tombstones).max().unwrap_or(0)
    }

    /// Answers a roster get with this `ver` attribute, if there was one.
    ///
    /// A version that is older than [`TOMBSTONE_MS`], unknown or not ours gets the full roster;
    /// so does one behind which so much has changed that the pushes would be larger.
    pub fn fetch(&self, now_ms: u64, ver: Option<&str>) -> Fetched {
        /// A push costs about as much as two items: it is a stanza of its own.
        const ITEMS_PER_PUSH: usize = 2;
        let full = || Fetched::Full(wire::full(self.version(), self.contacts.values()));
        let known = ver.and_then(|ver| ver.parse::<u64>().ok()).filter(|known| {
            *known <= self.version() && known.saturating_add(TOMBSTONE_MS) > now_ms
        });
        let Some(known) = known else { return full() };
        let pushes = self.changes_since(known);
        if pushes.len() * ITEMS_PER_PUSH > self.contacts.len() + ITEMS_PER_PUSH {
            return full();
        }
        Fetched::Changes(pushes)
    }

    /// What has changed since that version, in the order of versions.
    pub fn changes_since(&self, known: u64) -> Vec<Push> {
        let changed = self
            .contacts
            .values()
            .filter(|contact| contact.version > known);
        let removed = self
            .tombstones
            .iter()
            .filter(|(_, gone)| gone.version > known);
        let changed = changed.map(|contact| Push {
            version: contact.version,
            query: wire::changed(contact.version, contact),
        });
        let removed = removed.map(|(jid, gone)| Push {
            version: gone.version,
            query: wire::removed(gone.version, jid),
        });
        let mut pushes: Vec<Push> = changed.chain(removed).collect();
        pushes.sort_by_key(|push| push.version);
        pushes
    }

    /// A change is under way: [`Roster::commit`] or [`Roster::abort`] must come first.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// What is in memory may differ from the store: load the roster again before the next change.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The version of the next change.
    fn next_version(&self, now_ms: u64) -> u64 {
        self.counter.saturating_add(1).max(now_ms)
    }

    /// What must hold for a contact's row to be written.
    fn row_condition(&self, now_ms: u64, jid: &BareJid) -> Condition {
        let contact = self.contacts.get(jid).map(|contact| contact.version);
        let tombstone = || {
            let gone = self
                .tombstones
                .get(jid)
                .filter(|gone| !gone.is_expired(now_ms));
            gone.map(|gone| gone.version)
        };
        contact
            .or_else(tombstone)
            .map_or(Condition::Absent, Condition::Version)
    }
}

fn delete_request(owner: &[u8], jid: &BareJid, version: u64) -> Op {
    let key: Key = rosters::key(owner, rosters::Row::Pending(jid.as_str())).into();
    Op::Delete {
        key,
        condition: Condition::Version(version),
    }
}

#[cfg(test)]
mod tests;
