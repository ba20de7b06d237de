//! What goes into a home and what comes out of it.

use std::fmt;

use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::{Condition, Stanza, StanzaError, StreamError};
use cirrus_store::{BlobOp, BlobOutcome, Item, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use crate::codec::Only;
use crate::home::Frame;

/// Names a connection, wherever in the cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PipeId {
    /// The node that has the socket.
    pub node: u64,
    /// The connection's number there, unique while its process runs.
    pub pipe: u64,
}

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.pipe)
    }
}

/// What an operation's answer is found again by.
pub type Token = u64;

/// 128 random bits that name a session, also as its stream management id (XEP-0198).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The id as it stands in `<enabled id='…'/>`: 32 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The id of that text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

/// Which inbound stanza of which session something came from. It makes every redo idempotent
/// and lets the recipient's home confirm what it made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The sender's session.
    pub session: SessionId,
    /// The number its pipe gave the stanza.
    pub k: u64,
}

/// What the pipe knows about a login.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Login {
    /// SASL mechanism, as advertised.
    pub mechanism: String,
    /// The peer's address as text, for the operator.
    pub address: String,
    /// The stream's `xml:lang`.
    pub lang: Option<Box<str>>,
    /// The rows of the account's partition that authentication has read, so that a cold
    /// activation need not read them again.
    pub account: Vec<Item>,
    /// What the client calls itself, the same at each of its logins (XEP-0388 section 2.3).
    pub client: Option<Box<str>>,
    /// What it asks for together with the resource.
    pub inline: Inline,
}

/// What a session is to begin with (XEP-0386 section 3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inline {
    /// The first part of a resource that the home chooses.
    pub tag: Option<Box<str>>,
    /// Enable stream management (XEP-0198).
    pub sm: Option<Enable>,
    /// Enable copies of messages (XEP-0280).
    pub carbons: bool,
    /// Nobody looks at the client (XEP-0352).
    pub inactive: bool,
    /// Say where the archive begins and ends (XEP-0313 section 5).
    pub archive: bool,
}

/// How stream management is asked for (XEP-0198 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enable {
    /// The client wants to be able to resume.
    pub resume: bool,
    /// The longest resumption time it wants, in seconds.
    pub max: Option<u32>,
}

/// Stream management as it was enabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabled {
    /// The id to resume with; `None` when it can't be resumed.
    pub id: Option<String>,
    /// Seconds that a broken session is kept.
    pub max: u32,
    /// What `h` counts from: h = k - base.
    pub base: u64,
}

/// What a pipe tells the home.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PipeEvent {
    /// Bind a resource (RFC 6120 section 7).
    Bind {
        /// The authenticated account.
        user: BareJid,
        /// The resource asked for; `None` lets the home choose.
        resource: Option<String>,
        /// About the login.
        login: Login,
    },
    /// Resume a session (XEP-0198 section 5).
    Resume {
        /// The authenticated account.
        user: BareJid,
        /// The session's stream management id.
        previd: String,
        /// How many of the home's stanzas the client has handled.
        h: u32,
        /// About the login.
        login: Login,
    },
    /// Enable stream management (XEP-0198 section 3).
    EnableSm {
        /// The client wants to be able to resume.
        resume: bool,
        /// The longest resumption time it wants, in seconds.
        max: Option<u32>,
    },
    /// A checked stanza.
    Stanza {
        /// Its number: 1, 2, 3 … since the bind, continued by a resume.
        k: u64,
        /// The stanza as received; the home stamps `from`.
        stanza: Box<Stanza>,
    },
    /// A stanza that is answered at the edge instead of being routed. It counts like any other.
    Refused {
        /// Its number.
        k: u64,
        /// The error to answer with, addressed to the session; `None` where nothing is answered.
        reply: Option<Box<Stanza>>,
    },
    /// The client has handled `h` stanzas since it enabled stream management.
    Ack {
        /// Counter modulo 2^32.
        h: u32,
    },
    /// Everything up to `n` was handed to the socket; only without stream management.
    Written {
        /// The last number written.
        n: u64,
    },
    /// The connection is gone.
    Closed {
        /// The client closed its stream; otherwise the connection broke.
        clean: bool,
    },
    /// Whether somebody looks at the client (XEP-0352).
    ClientState {
        /// Somebody does.
        active: bool,
    },
}

/// What the home tells a pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PipeOut {
    /// The resource is bound.
    Bound {
        /// The session's full JID.
        jid: Jid,
        /// Stream management, where it was asked for together with the resource.
        sm: Option<Enabled>,
        /// The `<metadata/>` of the archive, where that was asked for and is known.
        archive: Option<Vec<u8>>,
    },
    /// The resource is not bound; the stream may try again.
    BindRefused {
        /// Why.
        error: StanzaError,
    },
    /// Stream management is on.
    SmEnabled {
        /// The id to resume with; `None` when it can't be resumed.
        id: Option<String>,
        /// Seconds that a broken session is kept.
        max: u32,
        /// What `h` counts from: h = k - base.
        base: u64,
    },
    /// Stream management stays off.
    SmRefused {
        /// The stanza error condition to name.
        condition: Condition,
    },
    /// The session goes on here; the stanzas that follow repeat what was not acknowledged.
    Resumed {
        /// The session's stream management id.
        id: String,
        /// The session's full JID.
        jid: Jid,
        /// The last inbound number that was handled; the pipe counts on from it.
        k: u64,
        /// What `h` counts from: h = k - base.
        base: u64,
    },
    /// There is nothing to resume.
    ResumeFailed {
        /// What the session had handled, where that is still known.
        h: Option<u32>,
        /// The stanza error condition to name.
        condition: Condition,
    },
    /// A stanza to write.
    Stanza {
        /// Its number.
        n: u64,
        /// The stanza.
        stanza: Box<Stanza>,
    },
    /// Every inbound stanza up to `k` is handled.
    Handled {
        /// The last number of the prefix.
        k: u64,
    },
    /// Close the connection.
    Close {
        /// The stream error to send first; without one the stream is just closed.
        error: Option<StreamError>,
    },
}

/// A change of an account that a user asked for; it needs key derivation, so the shell does it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AccountRequest {
    /// Set a new password (XEP-0077 section 3.3).
    SetPassword {
        /// The account.
        user: BareJid,
        /// The new password.
        password: Secret,
    },
    /// Remove the account (XEP-0077 section 3.2).
    Remove {
        /// The account.
        user: BareJid,
    },
}

/// Text that must not reach a log. Encoded it is in the clear: for encrypted links only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything that can happen to a home.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// A pipe speaks.
    Pipe {
        /// Which.
        pipe: PipeId,
        /// What.
        event: PipeEvent,
    },
    /// The store answered.
    Store {
        /// The operation's token.
        token: Token,
        /// Its answer.
        result: Result<Outcome, StoreError>,
    },
    /// The store of blobs answered.
    Blob {
        /// The operation's token.
        token: Token,
        /// Its answer.
        result: Result<BlobOutcome, StoreError>,
    },
    /// An [`AccountRequest`] was carried out or refused.
    Account {
        /// The request's token.
        token: Token,
        /// The refusal, as the client shall see it.
        result: Result<(), StanzaError>,
    },
    /// The account no longer exists: end its sessions and erase what it owns.
    Erase {
        /// The account.
        user: BareJid,
        /// Answered by [`Effect::Erased`].
        token: Token,
    },
    /// The log of this account is due: what of it is not sealed must be, and what is too old goes.
    Seal {
        /// The account.
        user: BareJid,
        /// Answered by [`Effect::Erased`].
        token: Token,
    },
    /// An entity that lives elsewhere speaks to one that lives here. Every frame comes once, and
    /// those of one home come in their order.
    Frame(Frame),
    /// A node is gone, and every pipe that it had: as if each were [closed](PipeEvent::Closed).
    PipesGone {
        /// Which.
        node: u64,
    },
    /// This state has just come to another node, because the one before is gone or gave it away.
    /// Sessions that wait to be resumed have their full time again; other timers go on. Whoever
    /// runs the home asks the store again for every operation that was not answered, and then a
    /// refusal does not count as proof that nothing was written.
    Takeover,
    /// Nothing but time passed.
    Tick,
    /// End every session; the process is about to stop.
    Shutdown {
        /// But for those that can be resumed: they lose their connections and are to be
        /// [parked](Event::Park).
        park: bool,
    },
    /// Nothing is under way any more: put every session that waits to be resumed into the store.
    Park,
    /// A session that the last process has parked. It waits in memory until something is said to
    /// its account or its time is up.
    Unpark {
        /// Whose.
        user: BareJid,
        /// Its row.
        row: Item,
        /// Answered by [`Effect::Unparked`].
        token: Token,
    },
    /// Every node of the cluster has this format of the [codec](crate::codec); what the home knew
    /// before holds on if that is newer.
    Format(Only<10, u8>),
}

/// What the shell is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Effect {
    /// Give this to a pipe.
    Pipe {
        /// Which.
        pipe: PipeId,
        /// What.
        out: PipeOut,
    },
    /// Carry out an operation on the store and answer with [`Event::Store`].
    Store {
        /// The answer's token.
        token: Token,
        /// The operation.
        op: Op,
    },
    /// Carry out an operation on the store of blobs and answer with [`Event::Blob`].
    Blob {
        /// The answer's token.
        token: Token,
        /// The operation.
        op: BlobOp,
    },
    /// Change an account and answer with [`Event::Account`].
    Account {
        /// The answer's token.
        token: Token,
        /// What to change.
        request: AccountRequest,
    },
    /// Bring this to the entity's home, once and in order; there it is an [`Event::Frame`].
    Frame {
        /// The entity.
        to: BareJid,
        /// What is said to it.
        frame: Frame,
    },
    /// An [`Event::Unpark`] is taken.
    Unparked {
        /// The event's token.
        token: Token,
    },
    /// An [`Event::Erase`] or [`Event::Seal`] is done, or failed and may be repeated.
    Erased {
        /// The event's token.
        token: Token,
        /// The store's refusal.
        result: Result<(), String>,
    },
}

/// An effect, and the log entry that its slot's backup must hold before the effect leaves the
/// node (output commit). A node without a backup has nothing to wait for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Output {
    /// The entry's number.
    pub after: u64,
    /// What to do then.
    pub effect: Effect,
}

/// The effects of one or more events, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// In the order in which they must be carried out.
    pub outputs: Vec<Output>,
    pub(crate) entry: u64,
}

impl Effects {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.outputs.push(Output {
            after: self.entry,
            effect,
        });
    }
}
