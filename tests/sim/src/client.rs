//! A client: stream management from its side, and what it believes about others.

use std::collections::{BTreeMap, VecDeque};

use cirrus_jid::BareJid;
use cirrus_router::PipeId;
use cirrus_stanza::{Stanza, Ty, ns};
use cirrus_xml::Element;

use crate::plan::Setup;

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not connected, nothing to resume.
    Off,
    /// Asked for a resource.
    Binding,
    /// Asked for stream management.
    Enabling,
    /// Asked to resume.
    Resuming,
    /// Talking.
    On,
    /// Is closing its stream.
    Leaving,
    /// The connection broke.
    Broken,
}

/// A stanza the client has sent and the server has not acknowledged.
pub struct Unacked {
    /// Its number since stream management was enabled.
    pub count: u32,
    /// The stanza, to be sent again.
    pub xml: String,
    /// The message's index in the history.
    pub message: Option<usize>,
}

/// A contact as the client's roster shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub subscription: String,
    pub ask: bool,
    pub approved: bool,
    pub name: Option<String>,
    pub groups: Vec<String>,
}

/// The roster as the client has it, which outlives sessions (RFC 6121 section 2.6).
#[derive(Default)]
pub struct Roster {
    pub entries: BTreeMap<String, Entry>,
    /// The version of the last answer or push.
    pub version: Option<u64>,
    /// It was asked for in this session and has arrived.
    pub live: bool,
    /// It was asked for in this session, and which version the client had then.
    pub asked: Option<Option<u64>>,
}

/// A client: one resource of one account.
pub struct Client {
    pub account: usize,
    pub user: BareJid,
    pub resource: String,
    /// Uses stream management.
    pub managed: bool,
    /// Enables it only when it talks already.
    pub late: bool,
    pub phase: Phase,
    pub pipe: PipeId,
    /// Counts binds: the session in the history.
    pub session: u64,
    pub previd: Option<String>,
    pub counting: bool,
    pub enabling: bool,
    /// Stanzas sent and received since stream management was enabled.
    pub sent: u32,
    pub received: u32,
    /// What it has acknowledged.
    pub told: u32,
    pub unacked: VecDeque<Unacked>,
    /// Messages received, by their count, for when the server learns of it.
    pub got: Vec<(u32, usize)>,
    /// Somebody looks at it (XEP-0352), as it has told the server.
    pub looks: bool,
    /// What its last broadcast said, while it is available.
    pub presence: Option<String>,
    /// What it says on becoming available: everything seen before its echo is of another time.
    pub initial: Option<String>,
    /// Available resources that it has seen, and what they said.
    pub seen: BTreeMap<String, String>,
    /// Accounts that it showed itself to and what it said, or from which it withdrew.
    pub directed: BTreeMap<usize, Option<String>>,
    /// Whatever it has said about itself, when, and to which account if not to all.
    pub said: Vec<(u64, Option<usize>, String)>,
    pub roster: Roster,
}

impl Client {
    pub fn new(setup: &Setup, user: BareJid) -> Self {
        Self {
            account: setup.account,
            user,
            resource: setup.resource.clone(),
            managed: setup.managed,
            late: setup.late,
            phase: Phase::Off,
            pipe: PipeId { node: 0, pipe: 0 },
            session: 0,
            previd: None,
            counting: false,
            enabling: false,
            sent: 0,
            received: 0,
            told: u32::MAX,
            unacked: VecDeque::new(),
            got: Vec::new(),
            looks: true,
            presence: None,
            initial: None,
            seen: BTreeMap::new(),
            directed: BTreeMap::new(),
            said: Vec::new(),
            roster: Roster::default(),
        }
    }

    pub fn jid(&self) -> String {
        format!("{}/{}", self.user, self.resource)
    }

    /// Starts a session that knows nothing of the one before, but for the roster.
    pub fn forget(&mut self) {
        self.previd = None;
        self.counting = false;
        self.enabling = false;
        self.sent = 0;
        self.received = 0;
        self.told = u32::MAX;
        self.unacked.clear();
        self.got.clear();
        self.looks = true;
        self.presence = None;
        self.initial = None;
        self.seen.clear();
        self.directed.clear();
        self.roster.live = false;
        self.roster.asked = None;
    }

    /// Drops what the server has handled; returns the messages among it.
    pub fn handled(&mut self, h: u32) -> Vec<usize> {
        let mut messages = Vec::new();
        while self.unacked.front().is_some_and(|first| first.count <= h) {
            messages.extend(self.unacked.pop_front().and_then(|gone| gone.message));
        }
        messages
    }

    /// Presence of somebody, or its own.
    pub fn saw(&mut self, stanza: &Stanza) {
        let Some(from) = stanza.from.as_ref().map(ToString::to_string) else {
            return;
        };
        match stanza.ty {
            Ty::Available => {
                let says = stanza.child("status", ns::CLIENT);
                let says = says.map(|status| status.text().into_owned());
                let says = says.unwrap_or_default();
                if from == self.jid() && self.initial.as_ref() == Some(&says) {
                    self.initial = None;
                    self.seen.clear();
                }
                if self.presence.is_some() && self.initial.is_none() {
                    self.seen.insert(from, says);
                }
            }
            Ty::Unavailable => drop(self.seen.remove(&from)),
            _ => {}
        }
    }
}

impl Roster {
    /// The answer to a get. `false`: it can't be.
    pub fn answered(&mut self, stanza: &Stanza) -> bool {
        let Some(known) = self.asked.take() else {
            return false;
        };
        self.live = true;
        let Some(query) = stanza.child("query", ns::ROSTER) else {
            // What the client knew when it asked is still good, but for the pushes that follow.
            self.version = known;
            return known.is_some();
        };
        self.entries.clear();
        self.version = version_of(&query);
        self.apply(&query);
        self.version.is_some()
    }

    /// A push. `false`: nobody asked, or it is not newer than what was known.
    pub fn pushed(&mut self, stanza: &Stanza) -> bool {
        let Some(query) = stanza.child("query", ns::ROSTER) else {
            return false;
        };
        let version = version_of(&query);
        let newer = self.live && version.is_some() && version > self.version;
        self.version = version;
        self.apply(&query);
        newer
    }

    fn apply(&mut self, query: &Element<'_>) {
        for item in query.children() {
            let attr = |name| item.attr(name).map(std::borrow::Cow::into_owned);
            let jid = attr("jid").unwrap_or_default();
            let subscription = attr("subscription").unwrap_or_else(|| "none".into());
            if subscription == "remove" {
                self.entries.remove(&jid);
                continue;
            }
            let groups = item.children().map(|group| group.text().into_owned());
            let mut groups: Vec<_> = groups.collect();
            groups.sort();
            let entry = Entry {
                subscription,
                ask: attr("ask").is_some(),
                approved: attr("approved").is_some(),
                name: attr("name"),
                groups,
            };
            self.entries.insert(jid, entry);
        }
    }
}

fn version_of(query: &Element<'_>) -> Option<u64> {
    query.attr("ver")?.parse().ok()
}
