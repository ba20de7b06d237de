//! What clients ask of an archive (XEP-0313), apart from sessions: ids, requests, searches,
//! preferences.
//!
//! The archive of an account is its [log](crate::log), as far as records are flagged for it. An id
//! that clients see is a position under a key; a [`Search`] is a machine that finds one page and
//! gives it out, message by message, as fast as its reader takes it.
//!
//! It knows no session and performs no I/O. Limits: those of [`Bounds`], and of each page.

mod filter;
mod id;
mod prefs;
mod request;
mod search;

pub(crate) use filter::Filter;
pub use id::IdKey;
pub(crate) use id::Ids;
pub(crate) use prefs::Prefs;
pub(crate) use request::{Page, Request, fin, metadata, not_found};
pub(crate) use search::{Bounds, Found, Search, Step};
