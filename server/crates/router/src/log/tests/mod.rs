//! The log's bytes, its behaviour event by event, and a simulation of several writers.

mod events;
mod format;
mod sim;
mod spool;

use bytes::Bytes;
use cirrus_jid::BareJid;

use super::*;
use crate::event::{Origin, SessionId};

const NOW: u64 = 1_795_488_480_000;

fn owner() -> BareJid {
    BareJid::parse("juliet@example.com").unwrap()
}

/// A message of session `session`, number `k`, with a body that names it.
fn message(t: u64, session: u128, k: u64) -> Record {
    let peer = BareJid::parse("romeo@example.net").unwrap();
    let origin = Origin {
        session: SessionId(session),
        k,
    };
    let stanza = format!("<message><body>{session}-{k}</body></message>");
    Record::message(t, Direction::In, peer, Some(origin), stanza)
}

fn marker(t: u64, session: u128, k: u64) -> Record {
    message(t, session, k).with_flags(Flags {
        marker: true,
        ..Flags::default()
    })
}

fn spooled(t: u64, session: u128, k: u64) -> Record {
    message(t, session, k).with_flags(Flags {
        spool: true,
        archive: true,
        marker: false,
    })
}
