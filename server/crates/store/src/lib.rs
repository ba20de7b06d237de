//! Tables and blobs: the two abstractions over everything that outlives the process.
//!
//! [`Table`] is items under a partition key and a sort key with conditional writes and range
//! queries; [`Blob`] is objects under a name. Every backend passes the one contract suite in
//! `contract`, unchanged. Reads are strongly consistent; an expired item is absent to reads and to
//! conditions alike, whether or not the backend has removed it yet.
//!
//! The store never sees a stanza and never interprets an attribute. It has no transaction, no
//! secondary index and no scan on a user's path, because the provider bills those dearly.
//!
//! Limits: see the constants of [`limits`]; every backend refuses what exceeds them in the same
//! way, so that what works on a laptop works on the provider.

mod attrs;
#[cfg(feature = "aws")]
pub mod aws;
mod blob;
mod check;
pub mod contract;
mod deadline;
mod dump;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
pub mod fault;
mod item;
pub mod limits;
mod memory;
pub mod meter;
mod op;
mod paced;
mod rules;
mod serial;
mod size;
mod table;
mod target;

use std::{pin::Pin, sync::Arc};

pub use attrs::{Attrs, Name, Value};
pub use blob::{Blob, BlobEntry, BlobKey, BlobKind, BlobOp, BlobOutcome, BlobPage, Presign};
pub use deadline::Deadline;
pub use dump::{Dump, DumpPage, dump_lines};
#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedOptions, EmbeddedTable, FolderBlob};
pub use error::{Place, Source, StoreError};
pub use item::{Item, Key};
pub use memory::{MemoryBlob, MemoryTable};
pub use meter::{Meter, Metered};
pub use op::{Condition, Direction, Op, Outcome, RequestKind, SkRange};
pub use paced::{Pace, Paced, Pacing};
pub use serial::{Raw, raw};
pub use size::{read_units, write_units};
pub use table::{Answer, Done, Table, Usage};
pub use target::Target;

/// A boxed future, as the object-safe traits of this crate return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a backend gets the time from, in Unix milliseconds: it decides what is expired.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
