//! A client as far as stream management and messages go.

use std::collections::VecDeque;

use cirrus_jid::BareJid;
use cirrus_router::PipeId;

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

/// A client: one resource of one account.
pub struct Client {
    pub account: usize,
    pub user: BareJid,
    pub resource: String,
    /// Uses stream management.
    pub sm: bool,
    pub phase: Phase,
    pub pipe: PipeId,
    /// Counts binds: the session in the history.
    pub session: u64,
    pub previd: Option<String>,
    pub counting: bool,
    /// Stanzas sent and received since stream management was enabled.
    pub sent: u32,
    pub received: u32,
    pub unacked: VecDeque<Unacked>,
    /// Messages received, by their count, for when the server learns of it.
    pub got: Vec<(u32, usize)>,
    pub available: bool,
}

impl Client {
    pub fn new(account: usize, user: BareJid, resource: String, sm: bool) -> Self {
        Self {
            account,
            user,
            resource,
            sm,
            phase: Phase::Off,
            pipe: 0,
            session: 0,
            previd: None,
            counting: false,
            sent: 0,
            received: 0,
            unacked: VecDeque::new(),
            got: Vec::new(),
            available: false,
        }
    }

    /// Starts a session that knows nothing of the one before.
    pub fn forget(&mut self) {
        self.previd = None;
        self.counting = false;
        self.sent = 0;
        self.received = 0;
        self.unacked.clear();
        self.got.clear();
        self.available = false;
    }

    /// Drops what the server has handled; returns the messages among it.
    pub fn handled(&mut self, h: u32) -> Vec<usize> {
        let mut messages = Vec::new();
        while self.unacked.front().is_some_and(|first| first.count <= h) {
            messages.extend(self.unacked.pop_front().and_then(|gone| gone.message));
        }
        messages
    }
}
