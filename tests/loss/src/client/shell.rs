//! The shell around one client: its socket, its clock, and its way to a server.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cirrus_client::xml::StreamParser;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::machine::{Effect, Machine, Stage};
use super::servers::{Route, Servers};
use crate::ledger::{self, Account, At, Event, Ledger};

/// Longest time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after every server was refused, or after a login that came to nothing.
const RETRY: At = 100_000;
/// Different complaints that are kept.
const COMPLAINTS: usize = 20;
/// Longest sleep, so that no sum overflows.
const NAP: Duration = Duration::from_secs(60);

/// What all clients of a run share.
pub(crate) struct Shared {
    ledger: Mutex<Ledger>,
    complaints: Mutex<BTreeMap<String, u64>>,
    began: Instant,
    /// TLS with or without a check of the certificate.
    pub(crate) tls: TlsConnector,
    /// The servers.
    pub(crate) servers: Servers,
    /// The domain, as the certificate should have it.
    pub(crate) host: ServerName<'static>,
    /// Every how manieth account leaves at the end.
    pub(crate) group: u32,
    /// Longest time for the server to take what is sent.
    pub(crate) silence: Duration,
}

impl Shared {
    /// For a run that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the zero of a run's clock; the machines are given times"
    )]
    pub(crate) fn new(
        ledger: Ledger,
        tls: TlsConnector,
        servers: Servers,
        host: ServerName<'static>,
        group: u32,
        silence: Duration,
    ) -> Shared {
        Shared {
            ledger: Mutex::new(ledger),
            complaints: Mutex::default(),
            began: Instant::now(),
            tls,
            servers,
            host,
            group,
            silence,
        }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(&self) -> At {
        At::try_from(self.began.elapsed().as_micros()).unwrap_or(At::MAX)
    }

    /// The ledger; never held over an await.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients complained of, and how often.
    pub(crate) fn complaints(&self) -> Vec<(String, u64)> {
        let complaints = self.complaints.lock();
        let complaints = complaints.unwrap_or_else(PoisonError::into_inner);
        complaints.iter().map(|(k, n)| (k.clone(), *n)).collect()
    }

    fn complain(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let complaints = self.complaints.lock();
        let mut complaints = complaints.unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < COMPLAINTS || complaints.contains_key(&text) {
            *complaints.entry(text).or_default() += 1;
        }
    }
}

enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

type Pending = Pin<Box<dyn Future<Output = Result<Link>> + Send>>;

/// One client with its connection.
pub(crate) struct Client {
    me: Account,
    machine: Machine,
    shared: Arc<Shared>,
    link: Option<Link>,
    pending: Option<Pending>,
    parser: StreamParser,
    route: Route,
    /// Where the connection leads.
    address: String,
    retry_at: At,
    in_session: bool,
}

impl Client {
    /// A client without a connection.
    pub(crate) fn new(me: Account, machine: Machine, route: Route, shared: Arc<Shared>) -> Client {
        Client {
            me,
            machine,
            shared,
            link: None,
            pending: None,
            parser: StreamParser::new(),
            route,
            address: String::new(),
            retry_at: 0,
            in_session: false,
        }
    }

    /// Runs until the run is over.
    pub(crate) async fn run(mut self, mut stages: watch::Receiver<Stage>) {
        let mut buffer = vec![0; 16_384];
        loop {
            self.perform().await;
            if self.machine.is_done() {
                return;
            }
            let wake = self.next_wake();
            let wait = Duration::from_micros(wake.saturating_sub(self.shared.now())).min(NAP);
            tokio::select! {
                changed = stages.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let stage = *stages.borrow_and_update();
                    self.enter(stage);
                }
                link = finish(&mut self.pending) => {
                    self.pending = None;
                    self.connected(link);
                }
                read = read(&mut self.link, &mut buffer) => {
                    self.received(read.map(|length| buffer.get(..length).unwrap_or_default()));
                }
                () = sleep(wait) => {
                    let now = self.shared.now();
                    self.machine.tick(now);
                }
            }
        }
    }

    /// Sets out for a connection if one is due, and says when there is something to do next.
    fn next_wake(&mut self) -> At {
        let deadline = self.machine.deadline();
        if self.link.is_some() || self.pending.is_some() {
            return deadline;
        }
        let Some(wanted) = self.machine.wants_connection() else {
            return deadline;
        };
        let due = wanted.max(self.retry_at);
        if due > self.shared.now() {
            return deadline.min(due);
        }
        match self.route.next(&self.shared.servers) {
            Ok(address) => {
                self.address.clone_from(&address);
                self.pending = Some(Box::pin(connect(address)));
            }
            Err(error) => {
                self.shared.complain(&error);
                self.machine.unreachable();
                self.retry_at = self.shared.now() + RETRY;
                return deadline.min(self.retry_at);
            }
        }
        deadline
    }

    fn enter(&mut self, stage: Stage) {
        let now = self.shared.now();
        let concerned = match stage {
            Stage::Archive => {
                ledger::recipients_of_missing(&self.shared.ledger()).contains(&self.me)
            }
            Stage::Farewell => self.me.is_multiple_of(self.shared.group.max(1)),
            _ => true,
        };
        if concerned {
            self.machine.stage(now, stage);
        }
    }

    fn connected(&mut self, link: Result<Link>) {
        let now = self.shared.now();
        match link {
            Ok(link) => {
                self.route.arrived();
                let event = Event::Connected(self.shared.servers.number(&self.address));
                self.shared.ledger().record(self.me, now, event);
                let secured = matches!(link, Link::Tls(_));
                self.link = Some(link);
                match nonce() {
                    _ if secured => self.machine.secured(now),
                    Ok(nonce) => self.machine.connected(now, nonce),
                    Err(error) => self.shared.complain(&error),
                }
            }
            // A handshake that failed: the machine waits for it.
            Err(error) if self.machine.wants_connection().is_none() => {
                self.shared.complain(&error);
                self.machine.broken(now);
            }
            Err(error) => {
                self.shared.complain(&error);
                self.machine.unreachable();
                if self.route.is_exhausted() {
                    self.retry_at = now + RETRY;
                }
            }
        }
    }

    fn received(&mut self, read: Result<&[u8]>) {
        let now = self.shared.now();
        let fed = read.and_then(|bytes| self.parser.feed(bytes));
        if fed.is_err() {
            return self.machine.broken(now);
        }
        while let Some(event) = self.parser.event() {
            if let Err(error) = self.machine.received(now, &event) {
                self.shared.complain(&error);
            }
            // What is left belongs to a stream that is over.
            if self.machine.wants_connection().is_some() {
                return;
            }
        }
    }

    async fn perform(&mut self) {
        loop {
            let effects = self.machine.effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Send(what) => {
                        if self.link.is_some() && self.send(what.as_bytes()).await.is_err() {
                            self.link = None;
                            let now = self.shared.now();
                            self.machine.broken(now);
                        }
                    }
                    Effect::NewStream => self.parser = StreamParser::new(),
                    Effect::StartTls => {
                        if let Some(Link::Plain(socket)) = self.link.take() {
                            let (tls, host) = (self.shared.tls.clone(), self.shared.host.clone());
                            self.pending = Some(Box::pin(secure(tls, host, socket)));
                        }
                    }
                    Effect::Drop => self.drop_connection(),
                    Effect::GoTo(host) => self.route.go_to(host),
                    Effect::Note(event) => self.note(event),
                    Effect::Complain(what) => self.shared.complain(&anyhow!(what)),
                }
            }
        }
    }

    fn drop_connection(&mut self) {
        self.link = None;
        self.pending = None;
        if !self.in_session {
            self.retry_at = self.shared.now() + RETRY;
        }
        self.in_session = false;
    }

    fn note(&mut self, event: Event) {
        if matches!(event, Event::LoggedIn(_) | Event::Resumed { .. }) {
            self.in_session = true;
        }
        let now = self.shared.now();
        self.shared.ledger().record(self.me, now, event);
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = async {
            match &mut self.link {
                Some(Link::Plain(socket)) => socket.write_all(bytes).await,
                Some(Link::Tls(socket)) => {
                    socket.write_all(bytes).await?;
                    socket.flush().await
                }
                None => Ok(()),
            }
        };
        Ok(timeout(self.shared.silence, sent).await??)
    }
}

async fn connect(address: String) -> Result<Link> {
    let connected = timeout(CONNECT, TcpStream::connect(&address)).await;
    let socket = connected
        .map_err(anyhow::Error::from)
        .and_then(|it| Ok(it?));
    let socket = socket.with_context(|| format!("can't connect to {address}"))?;
    socket.set_nodelay(true)?;
    Ok(Link::Plain(socket))
}

async fn secure(tls: TlsConnector, host: ServerName<'static>, socket: TcpStream) -> Result<Link> {
    let stream = tls.connect(host, socket).await.context("TLS")?;
    Ok(Link::Tls(Box::new(stream)))
}

async fn finish(pending: &mut Option<Pending>) -> Result<Link> {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

/// Reads what is there; the end is an error.
async fn read(link: &mut Option<Link>, buffer: &mut [u8]) -> Result<usize> {
    let read = match link {
        Some(Link::Plain(socket)) => socket.read(buffer).await,
        Some(Link::Tls(socket)) => socket.read(buffer).await,
        None => std::future::pending().await,
    };
    match read? {
        0 => Err(anyhow!("the server closed the connection")),
        length => Ok(length),
    }
}

#[expect(clippy::disallowed_methods, reason = "the nonce of a real login")]
fn nonce() -> Result<String> {
    let mut bytes = [0; 18];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    Ok(STANDARD.encode(bytes))
}
