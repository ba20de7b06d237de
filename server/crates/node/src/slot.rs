//! A slot's home as a machine that is replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cirrus_cluster::{SLOTS, Slot};
use cirrus_jid::BareJid;
use cirrus_replica::{Factory, Input, Machine, Output, Payload, Peer, Port, Random};
use cirrus_router::codec::Only;
use cirrus_router::home::Frame;
use cirrus_router::{
    AccountRequest, Effect, Effects, Entropy, Event, Home, HomeConfig, PipeEvent, PipeId, PipeOut,
    Territory, Token, codec,
};
use cirrus_stanza::StanzaError;
use cirrus_store::{BlobOp, BlobOutcome, Item, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

/// What is said between ports and slots, and between slots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// A connection speaks to the home of its account.
    Pipe(PipeEvent),
    /// That home speaks to the connection.
    Out(PipeOut),
    /// One entity speaks to another, of another slot.
    Frame(Frame),
    /// The account no longer exists.
    Erase(BareJid),
    /// The account's log is due to be sealed.
    Seal(BareJid),
    /// What it owned is erased, or its log sealed, or why not.
    Erased(Result<(), String>),
    /// The node stops: every session ends, but for those that are to be parked, if any are.
    Shutdown {
        /// They are.
        park: bool,
    },
    /// Sessions that wait to be resumed are to be parked.
    Park,
    /// A session that was parked, from its row.
    Unpark(BareJid, Item),
    /// It is taken.
    Unparked,
}

/// What a home asks of its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// An operation on the store.
    Store(Op),
    /// An operation on the store of blobs.
    Blob(BlobOp),
    /// A change of an account.
    Account(AccountRequest),
}

/// What the node answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answered {
    /// The store's answer.
    Store(Result<Outcome, StoreError>),
    /// The answer of the store of blobs.
    Blob(Result<BlobOutcome, StoreError>),
    /// The refusal, as the client shall see it.
    Account(Result<(), StanzaError>),
}

/// The codec's number of the cluster's format, which it bounds to what this version writes.
pub(crate) fn codec_format(format: u16) -> u8 {
    u8::try_from(format).unwrap_or(u8::MAX)
}

macro_rules! payload {
    ($name:ident, $what:literal, $mark:expr) => {
        impl Payload for $name {
            fn encode(&self, format: u16, out: &mut Vec<u8>) {
                if let Err(error) = codec::encode_into(codec_format(format), self, out) {
                    tracing::error!(%error, what = $what, "for another node");
                }
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                let decoded = codec::decode($what, bytes);
                decoded
                    .inspect_err(|error| tracing::warn!(%error, "from another node"))
                    .ok()
            }

            fn mark(&self) -> u64 {
                $mark(self)
            }
        }
    };
}

payload!(Word, "a word", |word: &Word| match word {
    Word::Out(PipeOut::Stanza { n, stanza }) => n << 32 | stanza.inner().len() as u64,
    Word::Out(PipeOut::Handled { k }) => *k,
    _ => 0,
});
payload!(Ask, "a request", |_: &Ask| 0);
payload!(Answered, "an answer", |_: &Answered| 0);

/// The home of one slot, and who waits for its answer to something else than a connection says.
pub struct SlotHome {
    home: Home,
    asked: Token,
    awaiting: BTreeMap<Token, Port>,
    effects: Effects,
    key: [u8; 16],
    alone: bool,
}

#[derive(Serialize, Deserialize)]
struct Image {
    asked: Token,
    awaiting: BTreeMap<Token, Port>,
    home: Vec<u8>,
}

/// The machine's randomness is the home's.
struct Drawn<'a>(&'a mut dyn Random);

impl Entropy for Drawn<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

impl SlotHome {
    /// The home itself.
    pub fn home(&self) -> &Home {
        &self.home
    }

    fn event(&mut self, input: Input<Self>) -> Option<Event> {
        Some(match input {
            Input::Message { from, message } => match (from, message) {
                (Peer::Port(Port { node, number }), Word::Pipe(event)) => Event::Pipe {
                    pipe: PipeId { node, pipe: number },
                    event,
                },
                (Peer::Port(port), Word::Erase(user)) => {
                    let token = self.awaits(port);
                    Event::Erase { user, token }
                }
                (Peer::Port(_), Word::Shutdown { park }) => Event::Shutdown { park },
                (Peer::Port(_), Word::Park) => Event::Park,
                (Peer::Port(port), Word::Unpark(user, row)) => {
                    let token = self.awaits(port);
                    Event::Unpark { user, row, token }
                }
                (Peer::Port(port), Word::Seal(user)) => {
                    let token = self.awaits(port);
                    Event::Seal { user, token }
                }
                (Peer::Slot(_), Word::Frame(frame)) => Event::Frame(frame),
                // Nobody says such a thing.
                _ => return None,
            },
            Input::Answer { token, answer } => match answer {
                Answered::Store(result) => Event::Store { token, result },
                Answered::Blob(result) => Event::Blob { token, result },
                Answered::Account(result) => Event::Account { token, result },
            },
            Input::PortsGone { node } => {
                self.awaiting.retain(|_, port| port.node != node);
                Event::PipesGone { node }
            }
            Input::Takeover => Event::Takeover,
            Input::Tick => Event::Tick,
            Input::Format(format) => Event::Format(Only(codec_format(format))),
        })
    }

    /// The token of what that port is to be answered.
    fn awaits(&mut self, port: Port) -> Token {
        self.asked += 1;
        self.awaiting.insert(self.asked, port);
        self.asked
    }

    fn output(&mut self, effect: Effect) -> Option<Output<Self>> {
        Some(match effect {
            Effect::Pipe { pipe, out } => Output::Send {
                to: Peer::Port(Port {
                    node: pipe.node,
                    number: pipe.pipe,
                }),
                message: Word::Out(out),
            },
            Effect::Store { token, op } => Output::Request {
                token,
                request: Ask::Store(op),
            },
            Effect::Blob { token, op } => Output::Request {
                token,
                request: Ask::Blob(op),
            },
            Effect::Account { token, request } => Output::Request {
                token,
                request: Ask::Account(request),
            },
            Effect::Frame { to, frame } => Output::Send {
                to: Peer::Slot(slot_of(&self.key, self.alone, &to)),
                message: Word::Frame(frame),
            },
            Effect::Erased { token, result } => Output::Send {
                to: Peer::Port(self.awaiting.remove(&token)?),
                message: Word::Erased(result),
            },
            Effect::Unparked { token } => Output::Send {
                to: Peer::Port(self.awaiting.remove(&token)?),
                message: Word::Unparked,
            },
        })
    }
}

impl Machine for SlotHome {
    type Message = Word;
    type Request = Ask;
    type Answer = Answered;

    fn handle(
        &mut self,
        now: u64,
        random: &mut dyn Random,
        input: Input<Self>,
        out: &mut Vec<Output<Self>>,
    ) {
        let Some(event) = self.event(input) else {
            return;
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.home
            .handle(now, &mut Drawn(random), event, &mut effects);
        for output in effects.outputs.drain(..) {
            out.extend(self.output(output.effect));
        }
        self.effects = effects;
    }

    fn next_deadline(&self) -> Option<u64> {
        self.home.next_deadline()
    }

    fn snapshot(&self, format: u16) -> Option<Vec<u8>> {
        let format = codec_format(format);
        let image = |home| {
            let image = Image {
                asked: self.asked,
                awaiting: self.awaiting.clone(),
                home,
            };
            codec::encode(format, &image)
        };
        let bytes = self.home.snapshot_in(format).and_then(image);
        bytes
            .inspect_err(|error| tracing::error!(%error, "a slot stays where it is"))
            .ok()
    }

    fn format(&self) -> u16 {
        self.home.format().into()
    }

    fn port_nodes(&self) -> Vec<u64> {
        let mut nodes: BTreeSet<u64> = self.home.pipe_nodes();
        nodes.extend(self.awaiting.values().map(|port| port.node));
        nodes.into_iter().collect()
    }

    fn entities(&self) -> usize {
        self.home.census().entities
    }
}

/// The slot of an account. A node that will always be alone has one home for all.
pub(crate) fn slot_of(key: &[u8; 16], alone: bool, jid: &BareJid) -> Slot {
    if alone {
        return 0;
    }
    cirrus_cluster::slot(key, jid.host(), jid.local().unwrap_or_default())
}

/// Makes the homes of slots.
pub(crate) struct Homes {
    /// What every home is told about itself.
    pub config: Arc<HomeConfig>,
    /// Key of the slots' hash.
    pub key: [u8; 16],
    /// There is one slot and never another node.
    pub alone: bool,
}

impl Homes {
    fn territory(&self, slot: Slot) -> Territory {
        if self.alone {
            return Territory::Everything;
        }
        let key = self.key;
        Territory::Part(Arc::new(move |jid| {
            slot_of(&key, false, jid) == slot % SLOTS
        }))
    }

    fn around(&self, home: Home) -> SlotHome {
        SlotHome {
            home,
            asked: 0,
            awaiting: BTreeMap::new(),
            effects: Effects::default(),
            key: self.key,
            alone: self.alone,
        }
    }
}

impl Factory<SlotHome> for Homes {
    fn fresh(&self, slot: Slot) -> SlotHome {
        let config = Arc::clone(&self.config);
        self.around(Home::new(config, self.territory(slot)))
    }

    fn restore(&self, slot: Slot, bytes: &[u8]) -> Option<SlotHome> {
        let restore = || {
            let image: Image = codec::decode("a slot's state", bytes)?;
            let config = Arc::clone(&self.config);
            let home = Home::restore(config, self.territory(slot), &image.home)?;
            Ok::<_, codec::CodecError>((image, home))
        };
        let (image, home) = restore()
            .inspect_err(|error| tracing::error!(slot, %error, "sessions of a slot are lost"))
            .ok()?;
        let mut restored = self.around(home);
        restored.asked = image.asked;
        restored.awaiting = image.awaiting;
        Some(restored)
    }
}
