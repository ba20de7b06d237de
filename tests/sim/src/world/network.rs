//! Connections: what is under way between clients and the server.

use cirrus_router::{Login, PipeEvent, PipeId, PipeOut};
use cirrus_stanza::{Kind, Stanza, Ty};

use super::{Happening, World};
use crate::check::{Session, index_of};
use crate::client::Phase;

/// Nodes that connections are at.
pub const NODES: u64 = 2;
/// Longest way of a stanza, milliseconds.
const LATENCY_MS: u64 = 20;
/// Longest time until what a client acknowledged has reached its home, milliseconds.
const PASS_MS: u64 = 6_000;
/// Longest time until the server notices that a connection broke, milliseconds.
const NOTICE_MS: u64 = 4_000;

/// From a client to the server.
#[derive(Debug)]
pub enum Up {
    Bind,
    Resume {
        previd: String,
        h: u32,
    },
    Enable,
    Ack {
        h: u32,
    },
    /// Whether somebody looks at the client.
    Active(bool),
    Stanza(String),
    Close,
}

/// A connection.
pub struct Pipe {
    pub client: usize,
    pub session: u64,
    /// The client still hears the server.
    pub heard: bool,
    /// The server still hears the client.
    pub talks: bool,
    /// The server's count of inbound stanzas.
    k: u64,
    base: u64,
    /// Stream management is on.
    counted: bool,
    /// It was asked for: the home no longer takes what is written as acknowledged.
    asked: bool,
    /// The count that the client resumed with.
    resumes: u32,
    /// Messages given to the socket, by number.
    given: Vec<(u64, usize)>,
    /// What the client has acknowledged to its node, and when.
    told: Vec<(u64, usize)>,
    up_at: u64,
    down_at: u64,
}

impl World {
    /// Opens a connection for a client's present session.
    pub(super) fn dial(&mut self, index: usize) {
        self.last_pipe += 1;
        let up = self.is_up();
        let node = match self.cluster {
            Some(_) => self.accepting().unwrap_or(0),
            None => 1 + self.last_pipe % NODES,
        };
        let pipe = Pipe {
            client: index,
            session: self.clients[index].session,
            heard: up,
            talks: up,
            k: 0,
            base: 0,
            counted: false,
            asked: false,
            resumes: 0,
            given: Vec::new(),
            told: Vec::new(),
            up_at: 0,
            down_at: 0,
        };
        let id = PipeId {
            node,
            pipe: self.last_pipe,
        };
        self.pipes.insert(id, pipe);
        self.clients[index].pipe = id;
    }

    /// What the client's counter of a connection counts from.
    pub(super) fn base_of(&self, pipe: PipeId) -> u64 {
        self.pipes.get(&pipe).map_or(0, |state| state.base)
    }

    /// A client sends something.
    pub(super) fn send(&mut self, client: usize, up: Up) {
        let pipe = self.clients[client].pipe;
        let latency = 1 + self.rng.below(LATENCY_MS);
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        state.up_at = state.up_at.max(self.now + latency);
        let time = state.up_at;
        self.at(time, Happening::Up(pipe, up));
    }

    /// A connection breaks. What the client has sent may still arrive.
    pub(super) fn break_pipe(&mut self, index: usize) {
        let pipe = self.clients[index].pipe;
        let arrives = self.rng.one_in(2);
        if let Some(state) = self.pipes.get_mut(&pipe) {
            state.heard = false;
            state.talks &= arrives;
        }
        self.tell(|| format!("pipe {pipe} breaks"));
        self.clients[index].phase = Phase::Broken;
        self.soon(NOTICE_MS, Happening::Gone(pipe));
    }

    /// The server learns that a connection is gone.
    pub(super) fn closed(&mut self, pipe: PipeId, clean: bool) {
        if self.lose_pipe(pipe, clean).is_some() {
            self.pipe_event(pipe, PipeEvent::Closed { clean });
        }
    }

    /// A connection is no more; returns whose it was, if it was there.
    pub(super) fn lose_pipe(&mut self, pipe: PipeId, clean: bool) -> Option<usize> {
        let state = self.pipes.remove(&pipe)?;
        self.tell(|| format!("pipe {pipe} closed, clean: {clean}"));
        if clean && self.cluster.is_some() {
            // Where a home is not there, much may wait for it together with this.
            self.history.left(state.session, self.now);
            let told = state.told.iter();
            let told = told.map(|(at, message)| (*at, *message, state.session));
            self.parting.extend(told);
            if !self.is_settled() {
                self.doubt_parting();
            }
        }
        let client = &mut self.clients[state.client];
        if clean && client.pipe == pipe {
            client.phase = Phase::Off;
            client.forget();
        } else if state.counted && !clean {
            let until = self.resumable_until();
            self.history.detached(state.session, self.now, until);
        } else if !clean && !self.passes_on(pipe.node) {
            // Its home hears of it late: until then what is sent to it waits for it.
            let until = self.now + PASS_MS;
            self.history.detached(state.session, self.now, until);
        }
        Some(state.client)
    }

    /// The server has written everything up to `n` to a socket.
    pub(super) fn written(&mut self, pipe: PipeId, n: u64) {
        let passes = self.passes_on(pipe.node);
        let Some(state) = self.pipes.get_mut(&pipe).filter(|state| state.talks) else {
            return;
        };
        if !state.counted && !state.asked && passes {
            let done = state.given.iter().filter(|(number, _)| *number <= n);
            for (_, message) in done {
                state.told.push((self.now, *message));
                self.history.confirmed(*message, state.session, self.now);
            }
            state.given.retain(|(number, _)| *number > n);
        }
        self.pipe_event(pipe, PipeEvent::Written { n });
    }

    /// The server gives something to a connection.
    pub(super) fn emit(&mut self, pipe: PipeId, out: PipeOut) {
        self.tell(|| format!("pipe {pipe} <- {}", crate::tell::out(&out)));
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        let session = state.session;
        match &out {
            PipeOut::Stanza { n, stanza } => {
                let n = *n;
                let message = index_of(stanza).filter(|_| stanza.kind == Kind::Message);
                if let Some(index) = message
                    && stanza.ty == Ty::Error
                {
                    self.history.messages[index].answered = true;
                } else if let Some(index) = message {
                    let exposed = !state.counted;
                    state.given.push((n, index));
                    self.history.emitted(index, session, exposed, self.now);
                }
                if !state.counted {
                    self.soon(3, Happening::Written(pipe, n));
                }
            }
            PipeOut::SmEnabled { base, .. } => {
                state.base = *base;
                state.counted = true;
                // What is handled of what came before is not told.
                self.history.handled(session, *base, true);
            }
            PipeOut::Resumed { k, base, .. } => {
                (state.k, state.base, state.counted) = (*k, *base, true);
                let (k, h, client) = (*k, state.resumes, state.client);
                self.history.handled(session, k, true);
                self.history.resumed(session, self.now);
                self.confirm(pipe, client, session, h);
            }
            // A connection that another has replaced may hear it late.
            PipeOut::Handled { .. } if self.clients[state.client].pipe != pipe => {}
            PipeOut::Handled { k } => self.history.handled(session, *k, false),
            PipeOut::Close { .. } => state.talks = false,
            _ => {}
        }
        let latency = 1 + self.rng.below(LATENCY_MS);
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        state.down_at = state.down_at.max(self.now + latency);
        let time = state.down_at;
        self.at(time, Happening::Down(pipe, out));
    }

    /// The server takes an acknowledgement.
    fn confirm(&mut self, pipe: PipeId, client: usize, session: u64, h: u32) {
        let client = &mut self.clients[client];
        let state = self.pipes.get_mut(&pipe);
        let (Some(state), true) = (state, client.session == session) else {
            return;
        };
        for (_, message) in client.got.iter().filter(|(count, _)| *count <= h) {
            state.told.push((self.now, *message));
            self.history.confirmed(*message, session, self.now);
        }
        client.got.retain(|(count, _)| *count > h);
    }

    /// Something reaches the server.
    pub(super) fn arrive(&mut self, pipe: PipeId, up: Up) {
        let Some(state) = self.pipes.get_mut(&pipe).filter(|state| state.talks) else {
            return;
        };
        let (index, session) = (state.client, state.session);
        if let Some(tell) = self.tell {
            let who = self.clients[index].jid();
            let now = self.now - super::START;
            tell(format!("{now:>7} pipe {pipe} {who} s{session} -> {up:?}"));
        }
        let client = &self.clients[index];
        let event = match up {
            Up::Bind => {
                let bound = Session {
                    account: client.account,
                    bound_at: self.now,
                    ..Session::default()
                };
                self.history.sessions.insert(session, bound);
                PipeEvent::Bind {
                    user: client.user.clone(),
                    resource: Some(client.resource.clone()),
                    login: Login::default(),
                }
            }
            Up::Resume { previd, h } => {
                state.resumes = h;
                PipeEvent::Resume {
                    user: client.user.clone(),
                    previd,
                    h,
                    login: Login::default(),
                }
            }
            Up::Enable => {
                state.asked = true;
                PipeEvent::EnableSm {
                    resume: true,
                    max: None,
                }
            }
            Up::Ack { h } => {
                if self.passes_on(pipe.node) {
                    self.confirm(pipe, index, session, h);
                }
                PipeEvent::Ack { h }
            }
            Up::Stanza(xml) => {
                state.k += 1;
                let k = state.k;
                let Some(stanza) = Stanza::from_stored(&xml.into()) else {
                    return;
                };
                let message = index_of(&stanza).filter(|_| stanza.kind == Kind::Message);
                self.history.taken(session, k, message, self.now);
                self.history.shown(session, &stanza, self.now);
                let stanza = Box::new(stanza);
                PipeEvent::Stanza { k, stanza }
            }
            Up::Active(active) => PipeEvent::ClientState { active },
            Up::Close => return self.closed(pipe, true),
        };
        self.pipe_event(pipe, event);
    }

    /// A node is gone, and perhaps with it what its clients acknowledged lately.
    pub(super) fn doubt_acks(&mut self, pipe: PipeId) {
        if let Some(state) = self.pipes.get(&pipe) {
            let late = |(at, _): &&(u64, usize)| at + PASS_MS >= self.now;
            for (_, message) in state.told.iter().filter(late) {
                self.history.doubted(*message, state.session);
            }
        }
    }

    /// The same of clients that have closed their streams: what they acknowledged may come to a new
    /// home after the client's next session, which came through another node.
    pub(super) fn doubt_parting(&mut self) {
        let now = self.now;
        for (at, message, session) in std::mem::take(&mut self.parting) {
            if at + PASS_MS >= now {
                self.history.doubted(message, session);
            }
        }
    }

    /// The session that a connection has or wants.
    pub(super) fn session_of(&self, pipe: PipeId) -> Option<u64> {
        Some(self.pipes.get(&pipe)?.session)
    }
}
