//! The shell of the stream machine: listeners, sockets, TLS, timers, limits.
//!
//! [`Shell::serve`] accepts on one listening socket and runs a task for each connection; it ends
//! when [`Shell::stop`] was called and the last of its connections is gone.

mod bucket;
mod counters;
mod gate;
mod governor;
mod guard;
mod known;
mod leaving;
mod outgoing;
mod pipe;
mod processors;
mod services;
mod socket;
mod throttle;
mod timer;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cirrus_accounts::Accounts;
use cirrus_proxy::Balancers;
use cirrus_router::PipeId;
use cirrus_runtime::{HomeHandle, Public};
use cirrus_stanza::{StreamError, ns};
use cirrus_tls::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use counters::Counts;
pub use socket::{SocketOptions, listen};

use crate::stream::Settings;
use counters::{Counters, add};
use gate::{Full, Gate, Place, Places};
use governor::Governor;
use guard::Guard;
use leaving::Leaving;
use pipe::Pipe;

/// Bounds of the connections of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections that have not logged in.
    pub unauthenticated: usize,
    /// Connections from one IPv4 address or IPv6 /64.
    pub per_address: usize,
    /// Connections accepted a second, in the long run.
    pub accepts_per_second: u64,
    /// Connections accepted at once after a pause.
    pub accepts_burst: u64,
    /// How late their turn may come, milliseconds on average, before fewer are accepted.
    pub accepts_late_ms: u64,
    /// New sessions a second, in the long run; those that are resumed are none.
    pub logins_per_second: u64,
    /// New sessions at once after a pause.
    pub logins_burst: u64,
    /// How long a new session may wait for its turn.
    pub login_wait: Duration,
    /// Stanzas a second from one connection, in the long run.
    pub stanzas_per_second: u64,
    /// Stanzas at once after a pause.
    pub stanzas_burst: u64,
    /// Bytes a second from one connection, in the long run.
    pub bytes_per_second: u64,
    /// Bytes at once after a pause.
    pub bytes_burst: u64,
    /// Stanzas of the home that wait to be taken by one connection.
    pub write_queue_stanzas: usize,
    /// Bytes that wait for one client to read them; past it the connection is closed.
    pub write_queue_bytes: usize,
    /// Failed logins from one address in a minute.
    pub failures_per_address_per_minute: u32,
    /// Failed logins with a password to one account in a minute.
    pub failures_per_account_per_minute: u32,
    /// Registrations tried from one address in an hour.
    pub registrations_per_address_per_hour: u32,
    /// Registrations in an hour.
    pub registrations_per_hour: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long closing may take.
    pub linger: Duration,
}

/// What connections need.
pub struct Parts {
    /// About streams.
    pub settings: Settings,
    /// Bounds.
    pub limits: Limits,
    /// What is set on sockets.
    pub socket: SocketOptions,
    /// Whose connections begin with the address of the client.
    pub balancers: Balancers,
    /// Where sessions live.
    pub home: HomeHandle,
    /// Who may log in.
    pub accounts: Arc<Accounts>,
    /// Certificates.
    pub tls: Arc<ServerTls>,
    /// Nodes have addresses of their own, which clients are told.
    pub public: bool,
    /// Whether what the server depends on has too much to do for more clients.
    pub busy: Busy,
}

/// Asks whether there is too much to do.
pub type Busy = Box<dyn Fn() -> bool + Send + Sync>;

/// Everything that the connections of a server share.
struct Shared {
    settings: Arc<Settings>,
    limits: Limits,
    socket: SocketOptions,
    balancers: Balancers,
    home: HomeHandle,
    accounts: Arc<Accounts>,
    tls: Arc<ServerTls>,
    public: bool,
    busy: Busy,
    clock: timer::Clock,
    counters: Counters,
    gate: Arc<Gate>,
    governor: Governor,
    guard: Guard,
    stopping: AtomicBool,
    stop: Arc<Notify>,
    leaving: Leaving,
    next_pipe: AtomicU64,
}

/// The client side of a server.
#[derive(Clone)]
pub struct Shell {
    shared: Arc<Shared>,
}

/// Shortest and longest pause after an accept that failed for want of descriptors or memory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Shell {
    /// A shell that listens nowhere yet.
    pub fn new(parts: Parts) -> Self {
        let limits = parts.limits;
        let gate = Gate::new(Places {
            total: limits.connections,
            unauthenticated: limits.unauthenticated,
            per_address: limits.per_address,
        });
        let guard = Guard::new(&limits);
        let clock = timer::Clock::new();
        let governor = Governor::new(&limits, clock.now());
        let shared = Shared {
            settings: Arc::new(parts.settings),
            limits,
            socket: parts.socket,
            balancers: parts.balancers,
            home: parts.home,
            accounts: parts.accounts,
            tls: parts.tls,
            public: parts.public,
            busy: parts.busy,
            clock,
            counters: Counters::default(),
            gate,
            governor,
            guard,
            stopping: AtomicBool::new(false),
            stop: Arc::default(),
            leaving: Leaving::default(),
            next_pipe: AtomicU64::new(1),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Accepts until [`Self::stop`], then waits for the connections to end. `direct_tls`: they
    /// begin with TLS (XEP-0368).
    pub async fn serve(&self, listener: TcpListener, direct_tls: bool) {
        let mut tasks = JoinSet::new();
        let mut pause = PAUSE.0;
        let mut next_at = None;
        let stop = Arc::clone(&self.shared.stop).notified_owned();
        let leave = Arc::clone(&self.shared.leaving.left).notified_owned();
        tokio::pin!(stop, leave);
        while !self.shared.is_stopping() && !self.shared.leaving.is_on() {
            tokio::select! {
                accepted = self.accept(&listener, next_at) => match accepted {
                    Ok((socket, peer)) => {
                        pause = PAUSE.0;
                        next_at = self.shared.governor.accepted(self.shared.clock.now());
                        let paced = u64::from(next_at.is_some());
                        add(&self.shared.counters.accepts_paced, paced);
                        self.admit(socket, peer, direct_tls, &mut tasks);
                    }
                    Err(error) => pause = self.accept_failed(&error, pause).await,
                },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => self.ended(ended),
                () = &mut stop => {}
                () = &mut leave => {}
            }
        }
        drop(listener);
        while let Some(ended) = tasks.join_next().await {
            self.ended(ended);
        }
    }

    /// Ends all streams with `system-shutdown` and accepts no more.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_waiters();
    }

    /// Accepts no more, and breaks every connection whose session can go on on another node, some
    /// each second, without a word unless nodes have addresses: the client resumes there. The
    /// others stay.
    pub fn leave(&self, per_second: u32) {
        self.shared.leaving.leave(per_second.into());
    }

    /// Breaks so many connections whose sessions can go on on another node, and says on which of
    /// those that lack so many if there are such. Ends when that is done, or when there are no more
    /// of them. One call at a time.
    pub async fn part(&self, connections: u64, to: Vec<(Public, u64)>) {
        self.shared.leaving.part(connections, to).await;
    }

    /// Counts, for metrics.
    pub fn counts(&self) -> Counts {
        let (connections, unauthenticated) = self.shared.gate.count();
        Counts {
            connections: connections as u64,
            unauthenticated: unauthenticated as u64,
            accepts_per_second: self.shared.governor.accepts_per_second(),
            ..self.shared.counters.read()
        }
    }

    /// The next connection, not before its time.
    async fn accept(
        &self,
        listener: &TcpListener,
        at: Option<u64>,
    ) -> std::io::Result<(TcpStream, SocketAddr)> {
        if let Some(at) = at.filter(|at| *at > self.shared.clock.now()) {
            self.shared.clock.reach(at).await;
            self.shared
                .governor
                .turn_came(self.shared.clock.now(), at, &*self.shared.busy);
        }
        listener.accept().await
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr, direct: bool, tasks: &mut JoinSet<()>) {
        let shared = &self.shared;
        add(&shared.counters.accepted, 1);
        let balanced = shared.balancers.lists(peer.ip());
        let place = match balanced {
            true => shared.gate.enter_unnamed(),
            false => shared.gate.enter(peer.ip()),
        };
        let place = match place {
            Ok(place) => place,
            Err(full) => return shared.refuse(socket, peer, (full, direct)),
        };
        if let Err(error) = socket::prepare(&socket, &shared.socket) {
            tracing::debug!(%peer, %error, "a new connection is gone already");
            return;
        }
        let shared = Arc::clone(shared);
        match balanced {
            true => tasks.spawn(shared.introduce(socket, peer, place, direct)),
            false => tasks.spawn(shared.begin(socket, peer.ip(), place, direct)),
        };
    }

    async fn accept_failed(&self, error: &std::io::Error, pause: Duration) -> Duration {
        if !socket::is_exhausted(error) {
            // The connection was gone before it was accepted.
            tracing::debug!(%error, "accept");
            return PAUSE.0;
        }
        if pause == PAUSE.0 {
            tracing::warn!(%error, "can't accept connections for now");
        }
        add(&self.shared.counters.accept_pauses, 1);
        tokio::time::sleep(pause).await;
        (pause * 2).min(PAUSE.1)
    }

    fn ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            add(&self.shared.counters.crashed, 1);
            tracing::error!(%error, "a connection ended by a fault of this server");
        }
    }
}

impl Shared {
    /// The name of a new connection.
    fn pipe_id(&self) -> PipeId {
        let pipe = self.next_pipe.fetch_add(1, Ordering::Relaxed);
        PipeId { node: 0, pipe }
    }

    /// Learns from a balancer whose connection it is.
    async fn introduce(
        self: Arc<Self>,
        mut socket: TcpStream,
        balancer: SocketAddr,
        mut place: Place,
        direct: bool,
    ) {
        let stop = Arc::clone(&self.stop).notified_owned();
        let read = self.balancers.read(&mut socket);
        let read = tokio::select! {
            read = read, if !self.is_stopping() => read,
            () = stop => return,
        };
        let peer = match read {
            Ok(source) => {
                add(&self.counters.proxied, source.is_some().into());
                source.unwrap_or(balancer)
            }
            Err(error) => {
                add(&self.counters.proxy_headers_refused, 1);
                tracing::debug!(%balancer, %error, "connection closed");
                return;
            }
        };
        if let Err(full) = place.is_of(peer.ip()) {
            return self.refuse(socket, peer, (full, direct));
        }
        Box::pin(self.begin(socket, peer.ip(), place, direct)).await;
    }

    /// A connection, to its end.
    fn begin(
        self: &Arc<Self>,
        socket: TcpStream,
        peer: IpAddr,
        place: Place,
        direct: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let id = self.pipe_id();
        let pipe = Pipe::new(self, id, socket, place, (peer.to_canonical(), direct));
        pipe.run(direct)
    }

    /// Turns a connection away for which there is no place.
    fn refuse(&self, socket: TcpStream, peer: SocketAddr, (full, direct): (Full, bool)) {
        let counter = match full {
            Full::Total => &self.counters.refused_total,
            Full::Unauthenticated => &self.counters.refused_unauthenticated,
            Full::Address => &self.counters.refused_address,
        };
        add(counter, 1);
        tracing::debug!(%peer, ?full, "connection refused");
        // Under TLS there is nobody yet to say it to.
        let words = if direct {
            Vec::new()
        } else {
            refusal(&self.settings)
        };
        socket::dismiss(socket, &words);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// What a connection hears for which there is no place.
fn refusal(settings: &Settings) -> Vec<u8> {
    let host = settings.hosts.first().map_or("localhost", String::as_str);
    let mut words = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'".to_vec();
    words.extend_from_slice(format!(" xmlns:stream='{}' from='", ns::STREAM).as_bytes());
    cirrus_xml::escape_attr(host, &mut words);
    words.extend_from_slice(b"' id='0' version='1.0' xml:lang='en'>");
    words.extend_from_slice(&StreamError::ResourceConstraint.to_xml(None));
    words.extend_from_slice(b"</stream:stream>");
    words
}
