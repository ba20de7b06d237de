//! The message log of one owner: an append-only, dense sequence of records in table `archive`.
//!
//! Append = insert if absent at the next position. So whatever nodes believe about who owns a log,
//! it never forks, has no gap and loses nothing: of two writers that try a position one wins, and
//! the other must read what won, deliver it, and go on behind it. No clock, lease or epoch is used.
//!
//! One put is under way per owner. What arrives meanwhile is packed into the next item, up to
//! [`MAX_RECORDS`] or [`MAX_BYTES`]. A put whose outcome is unknown is tried again at the same
//! position with the same nonce, so it can't be written twice. Past the deadline its tickets fail
//! as unknown, and the machine remembers it: if it turns out to have landed, that is reported as
//! [`LogEffect::LandedLate`]; a put at the same position with other content settles which of the
//! two stands. Receipts and markers wait for the owner's next write, at most [`Limits::defer_ms`].
//!
//! Items expire; [`Cover`] says how it is made sure that they are sealed before.
//!
//! What it does not do: it performs no I/O and reads no clock; it knows no session and delivers
//! nothing; it never deletes. Sealing into segments and queries are not its business.
//!
//! Limits: [`Limits`], and the constants above.

mod cover;
mod ends;
mod error;
mod flight;
mod limits;
mod machine;
mod read;
mod record;

pub use cover::{Cover, put_due};
pub use ends::{End, Ends, Hit};
pub use error::LogError;
pub use limits::Limits;
pub use machine::{Log, LogEffect, Ticket, Token};
pub use read::{SpoolReader, Spooled, Step, Tail, TailReader};
pub use record::{
    Content, Direction, Flags, MAX_BYTES, MAX_RECORDS, MAX_RESPOOL, Message, Record, decode,
};

pub(crate) use record::{Cursor, encode_record, put_varint};

#[cfg(test)]
pub(crate) use record::encode;

#[cfg(test)]
mod tests;
