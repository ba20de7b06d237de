//! What is under way when a fault begins. Pure.

use crate::ledger::{Account, Fate, Ledger, Message, Pair};

/// A message under way: sent, and not yet both acknowledged and seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Who sent it, and to whom.
    pub pair: Pair,
    /// The servers that both are connected to, by their place in the list of servers.
    pub servers: (Option<usize>, Option<usize>),
}

impl Ledger {
    /// What is under way at the moment.
    pub(crate) fn under_way(&self) -> Vec<UnderWay> {
        let server = |account: Account| self.people.get(account as usize)?.server;
        let waits = self.all().filter(|(_, _, message)| {
            let sent = &message.sent;
            let acknowledged = !sent.managed || sent.fate != Fate::Pending;
            sent.refusal.is_none() && (!acknowledged || message.seen.is_empty())
        });
        let row = |(pair, _, _): (Pair, u32, &Message)| UnderWay {
            pair,
            servers: (server(pair.0), server(pair.1)),
        };
        waits.map(row).collect()
    }
}
