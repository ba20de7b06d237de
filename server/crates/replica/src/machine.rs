//! What is replicated: a deterministic machine for each slot, and who it speaks with.

use cirrus_cluster::Slot;
use serde::{Deserialize, Serialize};

/// Names an operation of a machine to its answer; unique in one slot.
pub type Token = u64;

/// Who speaks or is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// The machine of a slot, wherever it is.
    Slot(Slot),
    /// Something that lives and dies with a node: a connection, an operator's request.
    Port(Port),
}

/// A port's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The node it lives on ([`cirrus_cluster::Member::node_id`]).
    pub node: u64,
    /// Its number there, never used again.
    pub number: u64,
}

/// A value that travels between nodes.
pub trait Payload: Sized {
    /// Appends the value's bytes in that [format](cirrus_cluster::View::common); nothing where it
    /// has something that the format does not have, which is a fault of the machine.
    fn encode(&self, format: u16, out: &mut Vec<u8>);

    /// The value of those bytes; `None` when they are none.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// A number that tells it from what a machine with another state would say in its place.
    fn mark(&self) -> u64 {
        0
    }
}

/// Where randomness comes from.
pub trait Random {
    /// Fills the buffer.
    fn fill(&mut self, buffer: &mut [u8]);
}

/// A machine whose copies, given the same inputs with the same times and the same random bytes,
/// have the same state and the same outputs, on whatever node they run.
pub trait Machine: Sized {
    /// What it exchanges with ports and with other slots' machines.
    type Message: Payload + Clone;
    /// What it asks of its node: operations on the store, and changes of accounts. Asked again by
    /// the next home if that one got no answer, so it must be idempotent.
    type Request: Payload + Clone;
    /// What the node answers.
    type Answer: Payload;

    /// Takes one input. `now` = Unix milliseconds, never going back.
    fn handle(
        &mut self,
        now: u64,
        random: &mut dyn Random,
        input: Input<Self>,
        out: &mut Vec<Output<Self>>,
    );

    /// When [`Input::Tick`] is due, Unix milliseconds.
    fn next_deadline(&self) -> Option<u64>;

    /// Its whole state, in that format; `None` where it has something that the format does not
    /// have.
    fn snapshot(&self, format: u16) -> Option<Vec<u8>>;

    /// The newest format that it was told of by [`Input::Format`]. One that does not care knows
    /// all.
    fn format(&self) -> u16 {
        u16::MAX
    }

    /// The nodes that its ports live on.
    fn port_nodes(&self) -> Vec<u64>;

    /// How many entities it holds; a machine without any needs no copy.
    fn entities(&self) -> usize;
}

/// Makes machines.
pub trait Factory<M> {
    /// The machine of a slot in which nothing is; it is told the cluster's format afterwards.
    fn fresh(&self, slot: Slot) -> M;

    /// The machine of a snapshot; `None` when its bytes can't be understood.
    fn restore(&self, slot: Slot, bytes: &[u8]) -> Option<M>;
}

/// What happens to a machine.
#[derive(Debug)]
pub enum Input<M: Machine> {
    /// Somebody says something.
    Message {
        /// Who.
        from: Peer,
        /// What.
        message: M::Message,
    },
    /// The node answers a request.
    Answer {
        /// Which.
        token: Token,
        /// With what.
        answer: M::Answer,
    },
    /// A node is gone, and every port on it.
    PortsGone {
        /// Which.
        node: u64,
    },
    /// The machine goes on on another node: what waits for clients waits anew.
    Takeover,
    /// Time passed.
    Tick,
    /// Every member of the cluster understands this format from now on. Comes as long as the
    /// machine knows an older one only, so there is none where nobody is newer than that.
    Format(u16),
}

/// What a machine does.
#[derive(Debug)]
pub enum Output<M: Machine> {
    /// Says something to a port or another slot, once and in order.
    Send {
        /// To whom.
        to: Peer,
        /// What.
        message: M::Message,
    },
    /// Asks its node.
    Request {
        /// The answer's token.
        token: Token,
        /// For what.
        request: M::Request,
    },
}
