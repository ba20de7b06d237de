//! One client: connects, negotiates as a client does that waits for each answer, and is then
//! online.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use cirrus_peers::{HOST, account};
use memchr::memmem::Finder;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::link::{Link, Received};
use crate::scram::{Exchange, KeyCache};
use crate::wire::{self, Cutter, Mark};

/// The resource that every session binds.
pub(crate) const RESOURCE: &str = "bench";

/// How a session is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// XMPP as far as the options say.
    Xmpp(Login),
    /// TLS at once and one line that names the user: the bare forwarder.
    Raw,
}

/// What a login does after resource binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Login {
    /// Enables stream management, resumable.
    pub(crate) stream_management: bool,
    /// Sends initial presence and waits until it comes back.
    pub(crate) presence: bool,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) keys: KeyCache,
    pub(crate) finder: Finder<'static>,
    nonces: u64,
}

impl Shared {
    /// Shared by sessions whose accounts all have `password`.
    pub(crate) fn new(tls: Arc<ClientConfig>, password: &str) -> Shared {
        Shared {
            tls,
            keys: KeyCache::new(password),
            finder: wire::mark_finder(),
            nonces: 0,
        }
    }
}

/// A marked message that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The user who received it.
    pub(crate) to: u32,
    /// Its number.
    pub(crate) mark: Mark,
    /// When it was read.
    pub(crate) at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    PlainFeatures,
    Proceed,
    SecureFeatures,
    Challenge,
    Success,
    BoundFeatures,
    Bound,
    Enabled,
    Presence,
    Greeting,
    Online,
}

/// A client and its stream.
pub(crate) struct Session {
    link: Link,
    cutter: Cutter,
    dialect: Dialect,
    step: Step,
    exchange: Option<Exchange>,
    user: u32,
    received: u32,
    asked: bool,
    acknowledged: u32,
}

impl Session {
    /// Connects and sends the first bytes.
    pub(crate) fn open(port: u16, user: u32, dialect: Dialect, shared: &Shared) -> Result<Self> {
        // 127.0.0.2 to 127.0.0.251
        let source = u8::try_from(user % 250).unwrap_or(0) + 2;
        let mut session = Session {
            link: Link::connect(port, source)?,
            cutter: Cutter::default(),
            dialect,
            step: Step::PlainFeatures,
            exchange: None,
            user,
            received: 0,
            asked: false,
            acknowledged: 0,
        };
        match dialect {
            Dialect::Xmpp(_) => session.send(header().as_bytes())?,
            Dialect::Raw => {
                session.secure(shared)?;
                session.send(format!("<user n='{user}'/>").as_bytes())?;
                session.step = Step::Greeting;
            }
        }
        Ok(session)
    }

    /// For registration with a poller.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Login is complete.
    pub(crate) fn is_online(&self) -> bool {
        self.step == Step::Online
    }

    /// Stanzas of ours that the server has acknowledged since stream management was enabled.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Sends in one write.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.link
            .send(bytes)
            .with_context(|| format!("user {}: can't send", self.user))
    }

    /// Ends the stream without waiting for the server's end.
    pub(crate) fn close(mut self) {
        if matches!(self.dialect, Dialect::Xmpp(_)) {
            // The server may have closed first.
            let _ = self.link.send(b"</stream:stream>");
        }
    }

    /// Reads once and acts on what came; messages are appended to `arrivals`.
    pub(crate) fn ready(
        &mut self,
        shared: &mut Shared,
        now: u64,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<()> {
        if self.link.wants_write() {
            self.link.flush()?;
        }
        let ended = matches!(self.link.receive(self.cutter.input())?, Received::End);
        while let Some(piece) = self.cutter.next() {
            if self.step == Step::Online {
                self.online(piece, shared, now, arrivals)?;
            } else {
                let piece = self.cutter.piece(piece).to_vec();
                self.negotiate(&piece, shared).with_context(|| {
                    let (user, step) = (self.user, self.step);
                    let piece = String::from_utf8_lossy(&piece);
                    format!("user {user}, waiting for {step:?}, got {piece}")
                })?;
            }
        }
        self.cutter.compact();
        ensure!(
            !ended,
            "user {}: the server closed while in {:?}",
            self.user,
            self.step
        );
        if self.asked {
            self.asked = false;
            let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.received);
            self.send(answer.as_bytes())?;
        }
        Ok(())
    }

    fn online(
        &mut self,
        piece: std::ops::Range<usize>,
        shared: &Shared,
        at: u64,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<()> {
        let piece = self.cutter.piece(piece);
        match piece.get(1) {
            Some(b'm' | b'i') => {
                self.received += 1;
                if let Some(mark) = wire::find_mark(&shared.finder, piece) {
                    arrivals.push(Arrival {
                        to: self.user,
                        mark,
                        at,
                    });
                }
            }
            Some(b'p') => self.received += 1,
            Some(b'r') => self.asked = true,
            Some(b'a') => self.acknowledged = acknowledged(piece)?,
            _ => bail!(
                "user {}: unexpected {}",
                self.user,
                String::from_utf8_lossy(piece)
            ),
        }
        Ok(())
    }

    fn negotiate(&mut self, piece: &[u8], shared: &mut Shared) -> Result<()> {
        if piece.starts_with(b"<stream:stream") {
            return Ok(());
        }
        if piece.starts_with(b"<r ") {
            self.asked = true;
            return Ok(());
        }
        if piece.starts_with(b"<a ") {
            self.acknowledged = acknowledged(piece)?;
            return Ok(());
        }
        let expected = match self.step {
            Step::PlainFeatures | Step::SecureFeatures | Step::BoundFeatures => "<stream:features",
            Step::Proceed => "<proceed",
            Step::Challenge => "<challenge",
            Step::Success => "<success",
            Step::Bound => "<iq",
            Step::Enabled => "<enabled",
            Step::Presence => "<presence",
            Step::Greeting => "<ready",
            Step::Online => "<",
        };
        ensure!(
            piece.starts_with(expected.as_bytes()),
            "expected {expected}"
        );
        self.advance(piece, shared)
    }

    /// Takes the step that the expected piece allows.
    fn advance(&mut self, piece: &[u8], shared: &mut Shared) -> Result<()> {
        match self.step {
            Step::PlainFeatures => {
                let starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
                self.go(Step::Proceed, starttls)?;
            }
            Step::Proceed => {
                self.secure(shared)?;
                self.cutter.restart();
                self.go(Step::SecureFeatures, &header())?;
            }
            Step::SecureFeatures => self.authenticate(shared)?,
            Step::Challenge => {
                let exchange = self.exchange.as_mut().context("no exchange")?;
                let answer = exchange.answer(&mut shared.keys, wire::text(piece))?;
                self.go(Step::Success, &sasl("response", "", &answer))?;
            }
            Step::Success => {
                let exchange = self.exchange.take().context("no exchange")?;
                exchange.verify(wire::text(piece))?;
                self.cutter.restart();
                self.go(Step::BoundFeatures, &header())?;
            }
            Step::BoundFeatures => self.go(Step::Bound, &bind())?,
            Step::Bound => {
                let result = wire::attribute(piece, "type") == Some(b"result");
                ensure!(result, "binding failed");
                self.after_bind()?;
            }
            Step::Enabled => {
                self.received = 0;
                self.announce()?;
            }
            Step::Presence => {
                self.received += 1;
                self.step = Step::Online;
            }
            Step::Greeting => self.step = Step::Online,
            Step::Online => {}
        }
        Ok(())
    }

    fn go(&mut self, step: Step, bytes: &str) -> Result<()> {
        self.step = step;
        self.send(bytes.as_bytes())
    }

    fn secure(&mut self, shared: &Shared) -> Result<()> {
        let tls = ClientConnection::new(shared.tls.clone(), ServerName::try_from(HOST)?)?;
        Ok(self.link.upgrade(tls.into())?)
    }

    fn authenticate(&mut self, shared: &mut Shared) -> Result<()> {
        shared.nonces += 1;
        let nonce = format!("bench{:020}", shared.nonces);
        let (exchange, initial) = Exchange::begin(&account(self.user), &nonce);
        self.exchange = Some(exchange);
        let auth = sasl("auth", " mechanism='SCRAM-SHA-1'", &initial);
        self.go(Step::Challenge, &auth)
    }

    fn after_bind(&mut self) -> Result<()> {
        match self.dialect {
            Dialect::Xmpp(login) if login.stream_management => self.go(
                Step::Enabled,
                "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
            ),
            _ => self.announce(),
        }
    }

    fn announce(&mut self) -> Result<()> {
        match self.dialect {
            Dialect::Xmpp(login) if login.presence => self.go(Step::Presence, "<presence/>"),
            _ => {
                self.step = Step::Online;
                Ok(())
            }
        }
    }
}

fn header() -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='{HOST}'>"
    )
}

fn acknowledged(piece: &[u8]) -> Result<u32> {
    let h = wire::attribute(piece, "h").context("an ack without h")?;
    Ok(std::str::from_utf8(h)?.parse()?)
}

fn bind() -> String {
    format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{RESOURCE}</resource></bind></iq>"
    )
}

fn sasl(name: &str, attributes: &str, payload: &str) -> String {
    format!("<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'{attributes}>{payload}</{name}>")
}
