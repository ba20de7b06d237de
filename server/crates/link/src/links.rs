//! The tasks: one accepts, one for each node to be dialled, one for each link.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::error::{LinkError, Lost};
use crate::link::{self, Greeted};
use crate::queue::LinkSender;
use crate::table::Table;
use crate::tls::LinkTls;

/// What links are made with. It has no `Debug`: it holds the key.
#[derive(Clone)]
pub struct Options {
    /// This node; not 0.
    pub me: u64,
    /// The cluster key, the same at all nodes; it authenticates, and encrypts nothing.
    pub key: [u8; 32],
    /// Oldest and newest version of what is in the frames that this node understands. A link
    /// speaks the newest that both do.
    pub versions: RangeInclusive<u16>,
    /// The address of this machine that others are dialled from; the system's choice if none, and
    /// for nodes that have only addresses of the other kind (IPv4, IPv6).
    pub from: Option<IpAddr>,
    /// Most bytes that wait to be written to one link, each frame counted with 4 bytes more.
    pub queue_bytes: usize,
    /// Most bytes of one frame, in both directions; alike at all nodes.
    pub frame_bytes: usize,
    /// Most connections at once that others opened and that are not authenticated yet; more wait
    /// in the listener's backlog.
    pub greetings: usize,
    /// Longest time until a connection to a node is open, its name's resolution included.
    pub connect: Duration,
    /// Longest time from an open connection to a link.
    pub handshake: Duration,
    /// First pause before a node is dialled again; it doubles.
    pub retry: Duration,
    /// Longest pause before a node is dialled again, and the pause after a refusal.
    pub retry_max: Duration,
    /// Silence after which a connection is probed, and the time between probes.
    pub keepalive: Duration,
    /// Silence after which a link is broken, so that it is made anew: bytes may vanish on the way
    /// of one connection only, and the system notices that late. Nodes that use links say
    /// something far more often.
    pub idle: Duration,
}

/// A node to be linked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0: unknown, whoever answers is linked with.
    pub node: u64,
    /// `host:port`.
    pub address: String,
    /// Whether this node dials it; else the other one is expected to.
    pub dial: bool,
}

/// What happens to links. Each link is `Up`, then has its frames in order, then is `Down`; with one
/// node at most one link is up at a time.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is a link.
    Up {
        /// With this node.
        node: u64,
        /// Number of the link, never used again by this process.
        link: u64,
        /// The version that both sides speak on it.
        version: u16,
        /// Sends over it.
        sender: LinkSender,
    },
    /// A frame came; never empty.
    Frame {
        /// From this node.
        node: u64,
        /// Over this link.
        link: u64,
        /// It shares memory with those that came with it: what is kept for long should be copied.
        frame: Bytes,
    },
    /// The link has ended.
    Down {
        /// With this node.
        node: u64,
        /// Number of the link.
        link: u64,
    },
}

/// The links of this node. Dropping it ends its tasks and closes the links, without further events.
pub struct Links {
    node: Arc<Node>,
    diallers: Mutex<HashMap<(u64, String), AbortHandle>>,
    /// The tasks end when it is dropped.
    _alive: watch::Sender<()>,
}

/// What all tasks share.
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) key: hmac::Key,
    pub(crate) tls: LinkTls,
    pub(crate) table: Arc<Table>,
    pub(crate) incarnation: u64,
    events: mpsc::Sender<LinkEvent>,
    alive: watch::Receiver<()>,
}

impl Links {
    /// Accepts links at the listener, within a tokio runtime. A receiver of events that is slow
    /// slows the links down, until the other nodes' queues are full.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn start(
        options: Options,
        listener: TcpListener,
        events: mpsc::Sender<LinkEvent>,
    ) -> Result<Links, LinkError> {
        options.check()?;
        let (alive, still_alive) = watch::channel(());
        let node = Arc::new(Node {
            key: hmac::Key::new(hmac::HMAC_SHA256, &options.key),
            tls: LinkTls::build()?,
            table: Arc::new(Table::new(options.me)),
            incarnation: u64::from_be_bytes(link::random().ok_or(LinkError::Randomness)?),
            options,
            events,
            alive: still_alive,
        });
        node.spawn(Arc::clone(&node).accept(listener));
        Ok(Links {
            node,
            diallers: Mutex::default(),
            _alive: alive,
        })
    }

    /// Dials those of `peers` that are to be dialled, again and again, until a later call no longer
    /// names them. Links that this node dialled with nodes that are no longer named are closed;
    /// those that others opened are theirs to close. Within the runtime, as [`Links::start`].
    pub fn keep(&self, peers: Vec<Peer>) {
        let named: HashSet<u64> = peers.iter().map(|peer| peer.node).collect();
        let dialled: HashSet<(u64, String)> = peers
            .into_iter()
            .filter(|peer| peer.dial && peer.node != self.node.options.me)
            .map(|peer| (peer.node, peer.address))
            .collect();
        let mut diallers = self.diallers.lock().unwrap_or_else(PoisonError::into_inner);
        diallers.retain(|peer, task| {
            let kept = dialled.contains(peer);
            if !kept {
                task.abort();
            }
            kept
        });
        for (node, address) in dialled {
            diallers
                .entry((node, address.clone()))
                .or_insert_with(|| self.node.spawn(Arc::clone(&self.node).dial(node, address)));
        }
        // Which node an unknown one is shows only when it answers.
        if !named.contains(&0) {
            self.node.table.close_dialled(&named);
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), LinkError> {
        let fault = if self.me == 0 {
            "a node's number for links is not 0"
        } else if self.versions.is_empty() {
            "the range of link versions is empty; the oldest comes first"
        } else if self.frame_bytes == 0 || self.queue_bytes <= self.frame_bytes {
            "the queue of a link must have room for one frame of the largest size"
        } else if self.greetings == 0 {
            "at least one link must be allowed to be greeted at a time"
        } else if self.retry.is_zero() || self.retry_max < self.retry {
            "the pause before a node is dialled again must be over 0 and at most its bound"
        } else if self.idle.is_zero() {
            "a link must be allowed some silence"
        } else {
            return Ok(());
        };
        Err(LinkError::Option(fault))
    }
}

impl Node {
    /// Runs a task until it ends or the links do.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut alive = self.alive.clone();
        let task = async move {
            tokio::select! {
                // Nothing is ever sent: this is the end of the sender.
                _ = alive.changed() => {}
                () = task => {}
            }
        };
        tokio::spawn(task).abort_handle()
    }

    fn carry(self: &Arc<Self>, greeted: Greeted) {
        let node = Arc::clone(self);
        self.spawn(async move {
            let events = node.events.clone();
            link::carry(greeted, &node.options, events).await;
        });
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let greetings = Arc::new(Semaphore::new(self.options.greetings));
        // Ends with the semaphore, which is never closed.
        while let Ok(permit) = Arc::clone(&greetings).acquire_owned().await {
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a link; trying again after a pause");
                    sleep(self.options.retry).await;
                    continue;
                }
            };
            let node = Arc::clone(&self);
            self.spawn(async move {
                let greeted = node.greet_accepted(socket).await;
                drop(permit);
                match greeted {
                    Ok(greeted) => node.carry(greeted),
                    Err(lost) if lost.is_crossed() => {
                        tracing::debug!(%address, reason = %lost, "a link was not needed");
                    }
                    Err(lost) => tracing::warn!(%address, reason = %lost, "a link was refused"),
                }
            });
        }
    }

    async fn greet_accepted(&self, socket: TcpStream) -> Result<Greeted, Lost> {
        link::prepare(&socket, &self.options)?;
        let greeting = link::greet_accepted(self, socket);
        self.in_time(greeting).await
    }

    /// Keeps a link with the node at the address.
    async fn dial(self: Arc<Self>, mut node: u64, address: String) {
        let mut backoff = Backoff::new(self.options.retry, self.options.retry_max);
        loop {
            self.table.without(node).await;
            match self.dial_once(node, &address).await {
                Ok(Some(greeted)) => {
                    node = greeted.seat.node;
                    backoff.reset();
                    // A dialler that is aborted meanwhile ends here, and its link with it.
                    tokio::task::yield_now().await;
                    self.carry(greeted);
                    self.table.without(node).await;
                }
                Ok(None) => {}
                Err(lost) if lost.is_crossed() => {
                    tracing::debug!(node, address, reason = %lost, "a link was not needed");
                }
                Err(lost) => {
                    if lost.is_stubborn() {
                        backoff.exhaust();
                    }
                    tracing::warn!(node, address, reason = %lost, "cannot link with a node");
                }
            }
            sleep(backoff.next_pause()).await;
        }
    }

    async fn dial_once(&self, node: u64, address: &str) -> Result<Option<Greeted>, Lost> {
        let limit = self.options.connect;
        let socket = timeout(limit, connect(self.options.from, address))
            .await
            .map_err(|_| Lost::Connect(limit.as_millis()))??;
        link::prepare(&socket, &self.options)?;
        let greeting = link::greet_dialled(self, socket, node);
        self.in_time(greeting).await
    }

    async fn in_time<T>(&self, greeting: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
        let limit = self.options.handshake;
        let late = |_| Lost::Handshake(limit.as_millis());
        timeout(limit, greeting).await.map_err(late)?
    }
}

/// Opens a connection to the first address of `host:port` that takes one.
async fn connect(from: Option<IpAddr>, address: &str) -> io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect(address).await;
    };
    let mut refused = None;
    for to in lookup_host(address).await? {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if from.is_ipv4() == to.is_ipv4() {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        match socket.connect(to).await {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable)))
}
