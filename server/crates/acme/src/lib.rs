//! Certificates from an authority (ACME, RFC 8555), shared by all nodes through the table
//! `cluster`.
//!
//! * [`Keeper`] decides when one domain's certificate is due: a pure machine.
//! * [`Turn`] lets one node at a time ask the authority, under a lease.
//! * [`run`] is the shell around both: it asks, stores what was issued, and gives every new
//!   certificate, whoever got it, to an [`Install`].
//! * [`Answers`] are those in the table, on any node: [`answer_http`] answers the authority's
//!   questions on port 80 with them, [`Answers::proof`] is what to answer with in a handshake, and
//!   a [`Dns`] publishes a record instead. However many ask, the table is read once a second.
//!
//! It does not know what a certificate is used for, opens no XMPP socket and reads no clock of its
//! own. Private keys are in the table and in memory, never in a log line or an error.
//!
//! Limits: one order at a time, [`ORDER_SECONDS`] each and the time of its records;
//! [`HTTP_CONNECTIONS`] connections of authorities at a time.

mod answers;
mod challenge;
mod dns;
mod error;
mod http;
mod keeper;
mod order;
mod record;
mod task;
mod turn;

pub use answers::{Answers, Unread};
pub use challenge::Method;
pub use dns::{Dns, Done};
pub use error::AcmeError;
pub use http::{HTTP_CONNECTIONS, answer_http};
pub use keeper::{Keeper, Pace, Validity};
pub use order::{ORDER_SECONDS, Settings};
pub use record::{CertificateRecord, find};
pub use task::{Around, Install, Subject, run};
pub use turn::Turn;
