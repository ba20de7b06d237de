//! What nodes say to each other about slots.

use std::borrow::Cow;

use cirrus_cluster::Slot;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::machine::Peer;
use crate::replicated::Entry;

/// The bytes of a value. Nothing that is said has a part that can't be encoded; where there should
/// be one all the same there are no bytes, which nobody understands.
pub(crate) fn bytes_of<T: Serialize>(value: &T) -> Vec<u8> {
    bytes_about(value, 0)
}

/// The same, for a value that is about so long: nearly every message goes through here, and a
/// vector that grows from nothing is moved several times.
fn bytes_about<T: Serialize>(value: &T, length: usize) -> Vec<u8> {
    let bytes = Appended(Vec::with_capacity(length));
    postcard::serialize_with_flavor(value, bytes).unwrap_or_default()
}

/// A vector that grows.
struct Appended(Vec<u8>);

impl Flavor for Appended {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// A slot that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Has {
    pub slot: Slot,
    /// It is home, not copy.
    pub home: bool,
    /// It is home, or a copy that knows that it counts.
    pub sure: bool,
    pub term: u64,
    pub entry: u64,
}

/// One thing said over a link. The frames have no format: nodes of two versions understand each
/// other as variants, of [`Step`](crate::replicated::Step) as well, are only added, at the end, and
/// only used when the view's format has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame<'a> {
    /// What the sender has of the slots that the receiver is home of in the view of that epoch.
    Inventory { epoch: u64, has: Vec<Has> },
    /// Send your inventory again.
    Ask { epoch: u64 },
    /// Hand the slot over: the sender is its home in the view of that epoch.
    Take { epoch: u64, slot: Slot },
    /// There is nothing to hand over.
    Nothing { epoch: u64, slot: Slot },
    /// A slot's state: an answer to [`Frame::Take`] when it has that epoch, else a copy to keep.
    State {
        epoch: Option<u64>,
        slot: Slot,
        #[serde(with = "serde_bytes")]
        image: Vec<u8>,
        /// Other nodes with copies that count, of a slot that is handed over.
        copies: Vec<u64>,
    },
    /// Slots that the sender is home of, by the epoch in which each began: whoever speaks with one
    /// since before is not known to it.
    Began { slots: Vec<(u64, Vec<Slot>)> },
    /// The copy counts from now on: nothing leaves its home without it, and it may become home.
    Counts { slot: Slot, term: u64 },
    /// The sender has copies of these slots, which the receiver should be home of, and has waited
    /// for a while to hear that they count.
    Idle { slots: Vec<Slot> },
    /// The slots that the sender, their home, keeps a copy of at the receiver, ascending. There are
    /// no others.
    Copies { slots: Vec<Slot> },
    /// One more entry for a copy.
    Entry {
        slot: Slot,
        term: u64,
        number: u64,
        #[serde(borrow)]
        entry: Entry<'a>,
    },
    /// The copies of these slots have had everything up to these entries, if nothing was lost.
    Holds { slots: Vec<(Slot, u64)> },
    /// What a batch of events came to, for all copies and channels at once.
    Acks { has: Vec<Copied>, taken: Vec<Taken> },
    /// The copy can't go on and needs the state.
    Lost {
        slot: Slot,
        /// It had all entries and came to other outputs.
        diverged: bool,
    },
    /// A copy of the sender's, or of an earlier term, is not needed any more.
    Drop { slot: Slot, term: u64 },
    /// There is none any more.
    Dropped { slot: Slot, term: u64 },
    /// One peer says something to another.
    Message {
        from: Peer,
        to: Peer,
        seq: u64,
        prev: u64,
        /// How often it was passed on.
        hops: u8,
        #[serde(borrow, with = "serde_bytes")]
        message: Cow<'a, [u8]>,
    },
    /// `to` misses something that `from` said.
    Gap { from: Peer, to: Peer },
}

/// The copy of a slot has everything up to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub slot: Slot,
    pub term: u64,
    pub number: u64,
    /// It knows that it counts.
    pub sure: bool,
}

/// `to` has taken everything that `from` said up to that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub from: Peer,
    pub to: Peer,
    pub seq: u64,
}

impl<'a> Frame<'a> {
    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        /// What is not a payload; a confirmation is half of that.
        const REST: usize = 96;
        let payload = match self {
            Frame::Message { message, .. } => message.len(),
            Frame::Entry { entry, .. } => entry.payload(),
            Frame::State { image, .. } => image.len(),
            Frame::Acks { has, taken } => (has.len() + taken.len()) * REST / 2,
            _ => 0,
        };
        bytes_about(self, REST + payload)
    }

    /// The frame of those bytes; `None` when they are none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
