//! What home and copy have alike: the machine, its place in the log, and its channels.
//!
//! A channel is what one peer says to another, in order and once. The one who speaks numbers what
//! it says, keeps it until it is taken, and names with each message the last one before it that was
//! not yet taken (`prev`). So who listens knows a repetition by its number and a gap by `prev`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};

use cirrus_cluster::planted::{self, Bug};
use serde::{Deserialize, Serialize};

use crate::frame;
use crate::machine::{Factory, Input, Machine, Output, Payload, Peer, Random, Token};

/// How long it is remembered what was taken from a peer that says nothing more, milliseconds.
/// Nothing is repeated for so long.
const REMEMBER_MS: u64 = 600_000;

/// Numbers of what a machine says in one life. One that begins anew, as nobody has its state, must
/// not use again the numbers that listeners remember, so each life has the range of its epoch.
const LIFE_BITS: u32 = 36;

/// The epoch in which the life began in which that was said.
pub(crate) fn life_of(seq: u64) -> u64 {
    seq >> LIFE_BITS
}

/// One entry of the log: an input with all that chance and time add to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    pub now: u64,
    /// What the machine drew.
    #[serde(borrow, with = "serde_bytes")]
    pub random: Cow<'a, [u8]>,
    /// What was taken from the machine's channels since the last entry.
    pub trims: Vec<(Peer, u64)>,
    #[serde(borrow)]
    pub step: Step<'a>,
    /// Of the outputs: a copy that comes to others is not equal and is replaced.
    pub mark: u64,
}

impl Entry<'_> {
    /// How many bytes of it are somebody else's.
    pub fn payload(&self) -> usize {
        let step = match &self.step {
            Step::Message { message, .. } => message.len(),
            Step::Answer { answer, .. } => answer.len(),
            _ => 0,
        };
        self.random.len() + step
    }
}

/// An input as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step<'a> {
    Message {
        from: Peer,
        seq: u64,
        #[serde(borrow, with = "serde_bytes")]
        message: Cow<'a, [u8]>,
    },
    Answer {
        token: Token,
        #[serde(borrow, with = "serde_bytes")]
        answer: Cow<'a, [u8]>,
    },
    PortsGone {
        node: u64,
    },
    Takeover,
    Tick,
    /// Nothing but what else is in the entry.
    Nothing,
    /// Of format 10 and newer, as there is no older one that a machine has to be told of.
    Format(u16),
}

/// What an input made due, in order.
pub(crate) enum Emit<M: Machine> {
    /// A message that stands in its channel.
    Said {
        to: Peer,
        seq: u64,
    },
    /// A message that need not stand there: who says it and who hears it live and die together.
    Direct {
        to: Peer,
        seq: u64,
        message: M::Message,
    },
    Request {
        token: Token,
        request: M::Request,
    },
    /// Everything from that peer up to that number is taken.
    Taken {
        from: Peer,
        seq: u64,
    },
}

/// What was said and not taken yet.
pub(crate) struct Said<M: Machine> {
    pub seq: u64,
    pub message: M::Message,
}

/// What was taken from whom, by age: idle peers are forgotten.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Heard {
    young: HashMap<Peer, u64>,
    old: HashMap<Peer, u64>,
    turned: u64,
}

impl Heard {
    fn last(&self, from: &Peer) -> u64 {
        let last = self.young.get(from).or_else(|| self.old.get(from));
        last.copied().unwrap_or(0)
    }

    fn note(&mut self, now: u64, from: Peer, seq: u64) {
        if now.saturating_sub(self.turned) >= REMEMBER_MS {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        self.young.insert(from, seq);
    }
}

/// Whether something that was said is next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Next,
    /// It was taken before.
    Again,
    /// Something before it is missing.
    Gap,
}

/// What is next after `last`.
pub(crate) fn order(last: u64, seq: u64, prev: u64) -> Order {
    if seq <= last && !planted::is(Bug::TakeTwice) {
        Order::Again
    } else if prev > last && !planted::is(Bug::SkipPrev) {
        Order::Gap
    } else {
        Order::Next
    }
}

/// What stays with a slot until it is taken or answered.
pub(crate) struct Keep<'a> {
    /// Whether a message to that peer stands in its channel.
    pub message: &'a dyn Fn(&Peer) -> bool,
    /// Whether requests are kept.
    pub requests: bool,
}

/// The replicated state of a slot.
pub(crate) struct Replicated<M: Machine> {
    pub machine: M,
    /// The epoch of the view in which the home of the last entry became home.
    pub term: u64,
    /// The number of the last entry.
    pub entry: u64,
    now: u64,
    said: u64,
    heard: Heard,
    pub outs: BTreeMap<Peer, VecDeque<Said<M>>>,
    /// How much of that is said to slots.
    pub to_slots: usize,
    pub pending: BTreeMap<Token, M::Request>,
    scratch: Vec<Output<M>>,
}

#[derive(Serialize, Deserialize)]
struct Image {
    term: u64,
    entry: u64,
    now: u64,
    said: u64,
    heard: Heard,
    outs: Vec<(Peer, Vec<(u64, serde_bytes::ByteBuf)>)>,
    pending: Vec<(Token, serde_bytes::ByteBuf)>,
    machine: serde_bytes::ByteBuf,
}

/// The bytes of a payload that a state has; `None` where the format has no bytes for it.
fn bytes_of(format: u16, payload: &impl Payload) -> Option<serde_bytes::ByteBuf> {
    let bytes = encoded(format, payload);
    (!bytes.is_empty()).then(|| serde_bytes::ByteBuf::from(bytes))
}

/// The bytes of a payload.
pub(crate) fn encoded(format: u16, payload: &impl Payload) -> Vec<u8> {
    /// Most messages fit.
    const USUAL: usize = 384;
    let mut bytes = Vec::with_capacity(USUAL);
    payload.encode(format, &mut bytes);
    bytes
}

impl<M: Machine> Replicated<M> {
    pub fn new(machine: M, term: u64) -> Self {
        Self {
            machine,
            term,
            entry: 0,
            now: 0,
            said: term << LIFE_BITS,
            heard: Heard::default(),
            outs: BTreeMap::new(),
            to_slots: 0,
            pending: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The epoch in which it began.
    pub fn began(&self) -> u64 {
        life_of(self.said)
    }

    /// Everything, for another node; `None` where the format lacks something that is in it.
    pub fn image(&self, format: u16) -> Option<Vec<u8>> {
        let channel = |(peer, queue): (&Peer, &VecDeque<Said<M>>)| {
            let said = |said: &Said<M>| Some((said.seq, bytes_of(format, &said.message)?));
            Some((*peer, queue.iter().map(said).collect::<Option<_>>()?))
        };
        let request =
            |(token, request): (&Token, &M::Request)| Some((*token, bytes_of(format, request)?));
        let image = Image {
            term: self.term,
            entry: self.entry,
            now: self.now,
            said: self.said,
            heard: match planted::is(Bug::ForgetHeard) {
                true => Heard::default(),
                false => self.heard.clone(),
            },
            outs: self.outs.iter().map(channel).collect::<Option<_>>()?,
            pending: self.pending.iter().map(request).collect::<Option<_>>()?,
            machine: serde_bytes::ByteBuf::from(self.machine.snapshot(format)?),
        };
        Some(frame::bytes_of(&image))
    }

    /// What [`Replicated::image`] gave. `None` when it can't be understood.
    pub fn from_image(slot: u16, bytes: &[u8], factory: &dyn Factory<M>) -> Option<Self> {
        let image: Image = postcard::from_bytes(bytes).ok()?;
        let (mut outs, mut to_slots) = (BTreeMap::new(), 0);
        for (peer, queue) in image.outs {
            let said = |(seq, bytes): (u64, serde_bytes::ByteBuf)| {
                let message = M::Message::decode(&bytes)?;
                Some(Said { seq, message })
            };
            let queue: Option<VecDeque<_>> = queue.into_iter().map(said).collect();
            let queue = queue?;
            if matches!(peer, Peer::Slot(_)) {
                to_slots += queue.len();
            }
            outs.insert(peer, queue);
        }
        let request = |(token, bytes): (Token, serde_bytes::ByteBuf)| {
            Some((token, M::Request::decode(&bytes)?))
        };
        let pending: Option<BTreeMap<_, _>> = image.pending.into_iter().map(request).collect();
        Some(Self {
            machine: factory.restore(slot, &image.machine)?,
            term: image.term,
            entry: image.entry,
            now: image.now,
            said: image.said,
            heard: image.heard,
            outs,
            to_slots,
            pending: pending?,
            scratch: Vec::new(),
        })
    }

    /// The last number taken from a peer.
    pub fn last_from(&self, from: &Peer) -> u64 {
        self.heard.last(from)
    }

    /// The number that a message names as the one before it.
    pub fn prev(&self, to: &Peer, seq: u64) -> u64 {
        let queue = self.outs.get(to);
        let before = queue.and_then(|queue| {
            let before = queue.partition_point(|said| said.seq < seq);
            before.checked_sub(1).and_then(|n| queue.get(n))
        });
        before.map_or(0, |said| said.seq)
    }

    /// Everything said to that peer up to that number was taken.
    pub fn trim(&mut self, to: &Peer, seq: u64) {
        if let Some(queue) = self.outs.get_mut(to) {
            while queue.front().is_some_and(|said| said.seq <= seq) {
                queue.pop_front();
                self.to_slots -= usize::from(matches!(to, Peer::Slot(_)));
            }
            if queue.is_empty() {
                self.outs.remove(to);
            }
        }
    }

    /// The time of the next entry: never before the last one.
    pub fn clock(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    /// Takes an input as the next entry, at a time; a message has a number. Returns the mark of
    /// the outputs.
    pub fn take(
        &mut self,
        (now, seq): (u64, u64),
        random: &mut dyn Random,
        input: Option<Input<M>>,
        keep: &Keep<'_>,
        emits: &mut Vec<Emit<M>>,
    ) -> u64 {
        self.entry += 1;
        let now = self.clock(now);
        let mut taken = None;
        match &input {
            Some(Input::Message { from, .. }) => {
                self.heard.note(now, *from, seq);
                taken = Some(*from);
            }
            Some(Input::Answer { token, .. }) => {
                self.pending.remove(token);
            }
            Some(Input::PortsGone { node }) => self.forget_ports(*node),
            _ => {}
        }
        let mut mark = 0_u64;
        if let Some(input) = input {
            let mut outputs = std::mem::take(&mut self.scratch);
            self.machine.handle(now, random, input, &mut outputs);
            for output in outputs.drain(..) {
                mark = mix(mark, &output);
                self.emit(output, keep, emits);
            }
            self.scratch = outputs;
        }
        if let Some(from) = taken {
            emits.push(Emit::Taken { from, seq });
        }
        mark
    }

    fn emit(&mut self, output: Output<M>, keep: &Keep<'_>, emits: &mut Vec<Emit<M>>) {
        match output {
            Output::Send { to, message } => {
                self.said += 1;
                let seq = self.said;
                // Behind one that is kept, which may have to be said again first.
                if (keep.message)(&to) || self.outs.contains_key(&to) {
                    self.to_slots += usize::from(matches!(to, Peer::Slot(_)));
                    self.outs
                        .entry(to)
                        .or_default()
                        .push_back(Said { seq, message });
                    emits.push(Emit::Said { to, seq });
                } else {
                    emits.push(Emit::Direct { to, seq, message });
                }
            }
            Output::Request { token, request } => {
                if keep.requests {
                    self.pending.insert(token, request.clone());
                }
                emits.push(Emit::Request { token, request });
            }
        }
    }

    fn forget_ports(&mut self, node: u64) {
        let gone = |peer: &Peer| matches!(peer, Peer::Port(port) if port.node == node);
        self.outs.retain(|peer, _| !gone(peer));
        self.heard.young.retain(|peer, _| !gone(peer));
        self.heard.old.retain(|peer, _| !gone(peer));
    }

    /// Takes an entry that the home took. Returns whether it came to the same outputs.
    pub fn follow(&mut self, entry: &Entry<'_>) -> bool {
        for (peer, seq) in &entry.trims {
            self.trim(peer, *seq);
        }
        let Some((input, seq)) = decode::<M>(&entry.step) else {
            return false;
        };
        let mut replay = Replay {
            bytes: &entry.random,
            short: false,
        };
        let mut emits = Vec::new();
        let keep = Keep {
            message: &|_| true,
            requests: true,
        };
        let mark = self.take((entry.now, seq), &mut replay, input, &keep, &mut emits);
        mark == entry.mark && !replay.short && replay.bytes.is_empty()
    }
}

/// The input of a step, and the number of its message; `None` when it can't be understood.
fn decode<M: Machine>(step: &Step<'_>) -> Option<(Option<Input<M>>, u64)> {
    let input = match step {
        Step::Message { from, seq, message } => {
            let message = M::Message::decode(message)?;
            return Some((
                Some(Input::Message {
                    from: *from,
                    message,
                }),
                *seq,
            ));
        }
        Step::Answer { token, answer } => Input::Answer {
            token: *token,
            answer: M::Answer::decode(answer)?,
        },
        Step::PortsGone { node } => Input::PortsGone { node: *node },
        Step::Takeover => Input::Takeover,
        Step::Tick => Input::Tick,
        Step::Format(format) => Input::Format(*format),
        Step::Nothing => return Some((None, 0)),
    };
    Some((Some(input), 0))
}

/// The step of an input. `raw` = a message's bytes, where it came as such.
pub(crate) fn step<'a, M: Machine>(
    format: u16,
    input: Option<&Input<M>>,
    seq: u64,
    raw: Option<&'a [u8]>,
) -> Step<'a> {
    match input {
        Some(Input::Message { from, message }) => Step::Message {
            from: *from,
            seq,
            message: raw.map_or_else(|| encoded(format, message).into(), Cow::Borrowed),
        },
        Some(Input::Answer { token, answer }) => Step::Answer {
            token: *token,
            answer: encoded(format, answer).into(),
        },
        Some(Input::PortsGone { node }) => Step::PortsGone { node: *node },
        Some(Input::Takeover) => Step::Takeover,
        Some(Input::Tick) => Step::Tick,
        Some(Input::Format(format)) => Step::Format(*format),
        None => Step::Nothing,
    }
}

/// Adds an output to a mark. Who is spoken to, in which order, and what is asked for tell two
/// states apart soon enough; hashing all bytes is not worth its time.
fn mix<M: Machine>(mark: u64, output: &Output<M>) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let (word, more) = match output {
        Output::Send {
            to: Peer::Slot(slot),
            message,
        } => (1 | u64::from(*slot) << 2, message.mark()),
        Output::Send {
            to: Peer::Port(port),
            message,
        } => (port.number << 2 | 2, message.mark()),
        Output::Request { token, request } => (token << 2 | 3, request.mark()),
    };
    let mark = (mark ^ word).wrapping_mul(PRIME).rotate_left(29);
    (mark ^ more).wrapping_mul(PRIME).rotate_left(31)
}

/// Remembers what is drawn.
pub(crate) struct Recorder<'a> {
    pub source: &'a mut dyn Random,
    pub drawn: Vec<u8>,
}

impl Random for Recorder<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.source.fill(buffer);
        self.drawn.extend_from_slice(buffer);
    }
}

/// Gives again what was drawn.
struct Replay<'a> {
    bytes: &'a [u8],
    short: bool,
}

impl Random for Replay<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        if let Some((drawn, rest)) = self.bytes.split_at_checked(buffer.len()) {
            buffer.copy_from_slice(drawn);
            self.bytes = rest;
        } else {
            self.short = true;
            buffer.fill(0);
        }
    }
}
