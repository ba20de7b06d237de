//! The state machine of one client stream.
//!
//! The shell cuts frames out of what it reads and gives them to [`Stream::on`] with everything
//! else that happens; the machine appends what is to be written to [`Output::bytes`] and what is
//! to be done to [`Output::effects`]. Bytes come before effects: the shell first writes, then
//! acts. While [`Stream::wants_frames`] is false, frames stay in the shell's buffer.

mod clock;
mod features;
mod header;
mod negotiate;
mod open;
mod register;
mod sasl;
mod sasl2;
mod settings;
mod sm;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use cirrus_accounts::{IssuedToken, TokenOutcome, TokenUse};
use cirrus_jid::{BareJid, Jid};
use cirrus_router::{Enabled, Entropy, PipeEvent, PipeOut};
use cirrus_sasl::{ChannelBinding, Password, StoredKey};
use cirrus_stanza::{StanzaError, StreamError, ns};
use cirrus_store::Item;
use cirrus_xml::{Frame, Scope, Writer, XmlError};

pub use features::{CHANNEL_BINDING, Features};
pub use settings::{Settings, Timeouts};
pub use token::TokenRequest;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The client sent something.
    Frame(Frame),
    /// What the client sent can't be framed.
    Fault(XmlError),
    /// TLS is established.
    Secured(Secured),
    /// Answers [`Effect::Load`].
    Loaded(Result<Option<Account>, Unavailable>),
    /// Answers [`Effect::Verify`]: whether the password is right.
    Verified(Result<Option<Account>, Unavailable>),
    /// Answers [`Effect::VerifyToken`].
    TokenVerified(Result<TokenOutcome, Unavailable>),
    /// Answers [`Effect::IssueToken`]: the token, unless the store failed.
    TokenIssued(Option<IssuedToken>),
    /// Answers [`Effect::Register`].
    Registered(Result<(), StanzaError>),
    /// The home speaks.
    Home(PipeOut),
    /// The home is gone, or has given this connection up.
    HomeGone,
    /// Bytes came in, be they a whole frame or not, and no more are read before this time.
    Read {
        /// Now, unless the client has to be slowed down.
        next_ms: u64,
    },
    /// The shell is about to write what it has.
    BatchEnd,
    /// Everything produced so far was handed to the socket.
    Flushed,
    /// [`Stream::deadline`] has passed.
    Tick,
    /// The connection broke, or the client closed it without closing its stream.
    Eof,
    /// The server ends the stream.
    Stop(StreamError),
    /// The server sends the client to another address (`host` or `host:port`).
    Redirect(String),
    /// Where the client had best resume its session (`host` or `host:port`). Comes before the
    /// [`Event::Home`] with which its session can be resumed.
    Location(String),
}

/// What the shell is to do, after it has written the bytes that came with it.
#[derive(Debug)]
pub enum Effect {
    /// Discard what is in the read buffer and start TLS as the server; answer with
    /// [`Event::Secured`].
    StartTls {
        /// Whose certificate to show.
        host: Box<str>,
    },
    /// Forget the framing of the old stream; `authenticated` allows the larger limits.
    Restart {
        /// The client has logged in.
        authenticated: bool,
    },
    /// The client has logged in on the stream that it is on: allows the larger limits.
    Authenticated,
    /// Read an account; answer with [`Event::Loaded`].
    Load {
        /// Whose.
        user: BareJid,
    },
    /// Compare a password, off the event loop; answer with [`Event::Verified`].
    Verify {
        /// Whose.
        user: BareJid,
        /// The password.
        password: Password,
    },
    /// Look whether a client has a token; answer with [`Event::TokenVerified`].
    VerifyToken {
        /// Whose.
        user: BareJid,
        /// What the client shows, and wants.
        shown: Box<TokenUse>,
    },
    /// Give a client a token; answer with [`Event::TokenIssued`].
    IssueToken {
        /// Whose.
        user: BareJid,
        /// For what.
        asked: Box<TokenRequest>,
    },
    /// Create an account; answer with [`Event::Registered`].
    Register {
        /// Which.
        user: BareJid,
        /// Its password.
        password: Password,
    },
    /// Count a failed login.
    LoginFailed {
        /// Whose password was tried, where that was said. Of a token that does not serve no
        /// account is told: nobody guesses one.
        user: Option<BareJid>,
    },
    /// Connect to the home of this account, before the first event for it.
    Attach {
        /// Whose home.
        user: BareJid,
    },
    /// Tell the home.
    Home(PipeEvent),
    /// Write the bytes and close the connection.
    Close,
}

/// What [`Stream::on`] produces. The shell keeps one and empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// To be written.
    pub bytes: Vec<u8>,
    /// To be done then.
    pub effects: Vec<Effect>,
}

/// The account store did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// What authentication needs of an account.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Login is refused by the operator.
    pub disabled: bool,
    /// Stored keys, at most one a hash.
    pub keys: Vec<StoredKey>,
    /// The rows that were read, for the home.
    pub rows: Vec<Item>,
}

impl From<cirrus_accounts::Account> for Account {
    fn from(account: cirrus_accounts::Account) -> Self {
        Self {
            disabled: account.disabled,
            keys: account.credentials,
            rows: account.rows,
        }
    }
}

/// What the TLS handshake established.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secured {
    /// Channel bindings of this connection, the best first (XEP-0440).
    pub bindings: Vec<ChannelBinding>,
    /// The host that TLS was negotiated for, where that was a served one.
    pub host: Option<String>,
}

/// Everything a step may use besides the event.
struct Step<'a> {
    now: u64,
    entropy: &'a mut dyn Entropy,
    out: &'a mut Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A stream header is due.
    Header,
    /// Features were sent; TLS, SASL, a resource or a resumption is due.
    Negotiating,
    /// The TLS handshake runs.
    Securing,
    /// An answer of the account store, the home or a derivation is due.
    Waiting,
    /// A resource is bound.
    Open,
    /// The client has closed its stream; the home still handles what came before.
    Draining,
    /// Nothing more is read or written.
    Ended,
}

/// What matters only until a resource is bound; given back then.
#[derive(Debug, Default)]
struct Login {
    secured: Option<Secured>,
    /// The `from` of the present stream header.
    from: Option<BareJid>,
    sasl: Option<sasl::Exchange>,
    /// A token that is looked at.
    showing: Option<Box<token::Showing>>,
    /// The client speaks the profile of XEP-0388.
    sasl2: bool,
    /// A login with that profile of which the client is not told yet.
    success: Option<Box<sasl2::Success>>,
    /// What the answer that is awaited is for.
    awaited: Option<Awaited>,
    failures: u32,
    mechanism: &'static str,
    rows: Vec<Item>,
    /// What the client calls itself, the same at each of its logins.
    client: Option<Box<str>>,
    /// The account has just logged in; unless with XEP-0388, the next header starts its stream.
    user: Option<BareJid>,
}

#[derive(Debug)]
enum Awaited {
    /// The id of the `<iq/>` that asked for a resource.
    Bind(Box<str>),
    /// What the client has handled of the session it resumes.
    Resume(u32),
    /// The id of the `<iq/>` that asked for an account.
    Register(Box<str>),
    /// A token for the client's next login.
    Token,
    /// As [`Awaited::Bind`], asked for together with the login.
    InlineBind,
    /// As [`Awaited::Resume`], asked for together with the login.
    InlineResume(u32),
}

/// One client stream.
#[derive(Debug)]
pub struct Stream {
    settings: Arc<Settings>,
    phase: Phase,
    login: Option<Box<Login>>,
    /// The peer's address as text.
    address: Box<str>,
    /// The host of the present stream header, once it was accepted.
    host: Option<Box<str>>,
    /// Our header was sent for the present stream.
    header_sent: bool,
    /// The home knows this connection.
    attached: bool,
    secure: bool,
    lang: Option<Box<str>>,
    scope: Scope,
    jid: Option<Jid>,
    sm: sm::Counters,
    written: open::Written,
    clock: clock::Clock,
}

impl Stream {
    /// A stream of a connection that was accepted at `now_ms`; with direct TLS (XEP-0368) the
    /// first event is [`Event::Secured`].
    pub fn new(settings: Arc<Settings>, address: &str, direct_tls: bool, now_ms: u64) -> Self {
        Self {
            settings,
            phase: if direct_tls {
                Phase::Securing
            } else {
                Phase::Header
            },
            login: Some(Box::default()),
            address: address.into(),
            host: None,
            header_sent: false,
            attached: false,
            secure: false,
            lang: None,
            scope: Scope::client(),
            jid: None,
            sm: sm::Counters::default(),
            written: open::Written::default(),
            clock: clock::Clock::new(now_ms),
        }
    }

    /// Takes one event.
    pub fn on(&mut self, now_ms: u64, event: Event, entropy: &mut dyn Entropy, out: &mut Output) {
        if self.phase == Phase::Ended {
            return;
        }
        let mut step = Step {
            now: now_ms,
            entropy,
            out,
        };
        match event {
            Event::Frame(frame) => self.frame(frame, &mut step),
            Event::Fault(fault) => self.fault(&fault, &mut step),
            Event::Secured(secured) => self.secured(secured, &mut step),
            Event::Loaded(account) => self.loaded(account, &mut step),
            Event::Verified(account) => self.verified(account, &mut step),
            Event::TokenVerified(outcome) => self.token_verified(outcome, &mut step),
            Event::TokenIssued(issued) => self.token_issued(issued, &mut step),
            Event::Registered(result) => self.registered(result, &mut step),
            Event::Home(home) => self.home(home, &mut step),
            Event::HomeGone => self.home_gone(&mut step),
            Event::Read { next_ms } => self.clock.heard(next_ms),
            Event::BatchEnd => self.batch_end(&mut step),
            Event::Flushed => self.flushed(&mut step),
            Event::Tick => self.tick(&mut step),
            Event::Eof => self.lost(&mut step),
            Event::Stop(error) => self.fail(error, None, &mut step),
            Event::Redirect(host) => self.redirect(&host, &mut step),
            Event::Location(host) => self.sm.locate(host),
        }
    }

    /// Whether the next frame may come: no answer is awaited that it would have to wait for, and
    /// not too many stanzas are unhandled.
    pub fn wants_frames(&self) -> bool {
        match self.phase {
            Phase::Header | Phase::Negotiating => true,
            Phase::Open => self.sm.accepts(self.settings.max_unhandled),
            Phase::Securing | Phase::Waiting | Phase::Draining | Phase::Ended => false,
        }
    }

    /// When [`Event::Tick`] is due at the latest, if nothing else happens before.
    pub fn deadline(&self) -> Option<u64> {
        self.next_deadline()
    }

    /// The bound address.
    pub fn jid(&self) -> Option<&Jid> {
        self.jid.as_ref()
    }

    /// If the connection breaks, the client can go on with its session on another one.
    pub fn is_resumable(&self) -> bool {
        self.sm.is_resumable()
    }

    /// Whether the client may be sent elsewhere, to go on with its session there: it is told so
    /// over TLS and after its login, as whoever could tell it before could lead it astray (RFC 6120
    /// section 4.9.3.19).
    pub fn can_be_redirected(&self) -> bool {
        self.phase == Phase::Open && self.secure && self.is_resumable()
    }

    /// Nothing will be read or written any more.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn frame(&mut self, frame: Frame, step: &mut Step<'_>) {
        self.clock.heard(step.now);
        match (frame, self.phase) {
            (Frame::Space(_), _) | (_, Phase::Draining) => {}
            (Frame::Open(bytes), Phase::Header) => self.open_stream(&bytes, step),
            (Frame::Close, _) => self.close_requested(step),
            (Frame::Element(bytes), Phase::Negotiating) => self.negotiate(&bytes, step),
            (Frame::Element(bytes), Phase::Open) => self.element(&bytes, step),
            (Frame::Open(_) | Frame::Element(_), _) => {
                self.fail(
                    StreamError::BadFormat,
                    Some("not at this point of the stream"),
                    step,
                );
            }
        }
    }

    fn fault(&mut self, fault: &XmlError, step: &mut Step<'_>) {
        let condition = StreamError::parse(fault.stream_condition());
        let text = fault.to_string();
        self.fail(
            condition.unwrap_or(StreamError::NotWellFormed),
            Some(&text),
            step,
        );
    }

    fn home(&mut self, home: PipeOut, step: &mut Step<'_>) {
        match home {
            PipeOut::Stanza { n, stanza } => self.outbound(n, &stanza, step),
            PipeOut::Handled { k } => self.handled(k, step),
            PipeOut::Bound { jid, sm, archive } => {
                self.bound(jid, sm, archive.as_deref(), step);
            }
            PipeOut::BindRefused { error } => self.bind_refused(&error, step),
            PipeOut::SmEnabled { id, max, base } => {
                self.sm_enabled(&Enabled { id, max, base }, step);
            }
            PipeOut::SmRefused { condition } => self.sm_refused(condition.as_str(), step),
            PipeOut::Resumed { id, jid, k, base } => self.resumed(&id, jid, (k, base), step),
            PipeOut::ResumeFailed { h, condition } => {
                self.resume_failed(h, condition.as_str(), step);
            }
            PipeOut::Close { error: Some(error) } => {
                self.attached = false;
                self.fail(error, None, step);
            }
            PipeOut::Close { error: None } => {
                self.attached = false;
                self.hang_up(step);
            }
        }
    }

    /// The client's `</stream:stream>` (RFC 6120 section 4.4). With stream management the
    /// answer waits, for a bounded time, until everything it sent is handled, so that its last
    /// `<a/>` says so (XEP-0198 section 7).
    fn close_requested(&mut self, step: &mut Step<'_>) {
        if self.phase == Phase::Open && self.sm.is_on() && !self.sm.all_handled() {
            self.phase = Phase::Draining;
            self.clock
                .end_by(step.now + self.settings.timeouts.drain_ms);
            return;
        }
        self.close_cleanly(step);
    }

    fn close_cleanly(&mut self, step: &mut Step<'_>) {
        if self.header_sent {
            if self.sm.is_on() {
                self.sm.write_ack(&mut step.out.bytes);
            }
            step.out.bytes.extend_from_slice(b"</stream:stream>");
        }
        self.end(true, step);
    }

    /// Ends the stream with an error (RFC 6120 section 4.9).
    fn fail(&mut self, error: StreamError, text: Option<&str>, step: &mut Step<'_>) {
        self.fail_as(error, &error.to_xml(text), step);
    }

    /// As [`Self::fail`], with an element that says more (RFC 6120 section 4.9.4).
    fn fail_with(&mut self, error: StreamError, more: &[u8], step: &mut Step<'_>) {
        let mut w = Writer::new();
        w.start("stream:error")
            .start(error.as_str())
            .attr("xmlns", ns::STREAMS)
            .end();
        w.raw(more).end();
        self.fail_as(error, &w.into_bytes(), step);
    }

    /// `<see-other-host/>` (RFC 6120 section 4.9.3.19).
    fn redirect(&mut self, host: &str, step: &mut Step<'_>) {
        let error = StreamError::SeeOtherHost;
        let mut w = Writer::new();
        w.start("stream:error")
            .start(error.as_str())
            .attr("xmlns", ns::STREAMS);
        w.text(host).end();
        w.end();
        self.fail_as(error, &w.into_bytes(), step);
    }

    /// Before our header was sent it goes out first (RFC 6120 section 4.9.1.2).
    fn fail_as(&mut self, error: StreamError, xml: &[u8], step: &mut Step<'_>) {
        if self.phase == Phase::Securing {
            // Nobody could read it in the middle of a handshake.
            return self.end(false, step);
        }
        tracing::debug!(peer = %self.address, jid = self.jid.as_ref().map(Jid::as_str),
            error = error.as_str(), "stream error");
        self.announce(step);
        if self.sm.ack_due().is_some() {
            self.sm.write_ack(&mut step.out.bytes);
        }
        step.out.bytes.extend_from_slice(xml);
        step.out.bytes.extend_from_slice(b"</stream:stream>");
        self.end(false, step);
    }

    /// Closes the connection without a word: a resumable session stays resumable.
    fn hang_up(&mut self, step: &mut Step<'_>) {
        self.end(false, step);
    }

    fn lost(&mut self, step: &mut Step<'_>) {
        self.end(self.phase == Phase::Draining, step);
    }

    fn home_gone(&mut self, step: &mut Step<'_>) {
        self.attached = false;
        match self.phase {
            // The home was needed to authorise the session (RFC 6120 section 4.9.3.15).
            Phase::Waiting => self.fail(StreamError::RemoteConnectionFailed, None, step),
            Phase::Draining => self.close_cleanly(step),
            // The session may go on elsewhere; an error would tell the client that it is lost.
            _ => self.hang_up(step),
        }
    }

    fn end(&mut self, clean: bool, step: &mut Step<'_>) {
        if std::mem::take(&mut self.attached) {
            self.report_written(step);
            step.out
                .effects
                .push(Effect::Home(PipeEvent::Closed { clean }));
        }
        step.out.effects.push(Effect::Close);
        self.login = None;
        self.phase = Phase::Ended;
    }
}
