//! Who serves: the view, slots and their placement, leases, and membership as a pure machine.
//!
//! The [`View`] is one item that only conditional puts change. It names the members and the key
//! of the hash that gives every owner one of 4,096 [slots](slot); [`Placement`] gives every slot a
//! home and a backup. A [lease](lease) says only two things: "may this silent node be removed" and
//! "am I cut off". Nobody compares wall clocks: who holds a lease counts from before it sent the
//! renewal, who watches one waits a full lease after the last change it saw.
//!
//! [`members::Members`] is the machine of one node: it joins, renews its lease, finds out who is
//! gone, and says which view holds.
//!
//! What this crate does not do: no I/O, no clock, no links between nodes, no sessions. It knows
//! owners as bytes, not addresses.
//!
//! Limits: [`MAX_MEMBERS`] members of a view, [`MAX_TEXT`] bytes of a member's texts,
//! [`MAX_WEIGHT`].

mod error;
pub mod lease;
pub mod members;
mod place;
pub mod planted;
mod view;

pub use error::ClusterError;
pub use members::Token;
pub use place::{Placement, SLOTS, Slot, slot};
pub use view::{MAX_MEMBERS, MAX_TEXT, MAX_WEIGHT, Member, MemberState, View};
