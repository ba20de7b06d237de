//! Stream management (XEP-0198), the client's side: counts, and what was not acknowledged. Pure.

use std::collections::VecDeque;

use anyhow::{Result, ensure};

use crate::ledger::{At, Item};

/// Namespace of stream management.
pub(crate) const SM: &str = "urn:xmpp:sm:3";

/// A session that can be resumed, or at least is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Managed {
    /// What to resume it by; none if the server doesn't allow that.
    pub(crate) id: Option<String>,
    /// Stanzas received.
    pub(crate) received: u32,
    /// When an acknowledgement was asked for that has not come.
    pub(crate) asked: Option<At>,
    queue: VecDeque<Queued>,
    acknowledged: u32,
    said: u32,
}

#[derive(Debug)]
struct Queued {
    stanza: String,
    item: Option<Item>,
    /// What we had acknowledged before it was sent.
    said: u32,
}

/// What an acknowledgement brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// What the server has handled.
    pub(crate) items: Vec<Item>,
    /// Stanzas that the server certainly knows us to have received: it has handled something that
    /// was sent after we had acknowledged so many.
    pub(crate) told: Option<u32>,
}

impl Managed {
    /// A session that has just begun.
    pub(crate) fn new(id: Option<String>) -> Managed {
        Managed {
            id,
            ..Managed::default()
        }
    }

    /// Keeps a stanza that is being sent.
    pub(crate) fn send(&mut self, stanza: String, item: Option<Item>) {
        let said = self.said;
        self.queue.push_back(Queued { stanza, item, said });
    }

    /// Stanzas that are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.queue.len()
    }

    /// What we have acknowledged.
    pub(crate) fn said(&self) -> u32 {
        self.said
    }

    /// Our acknowledgement, as of now.
    pub(crate) fn answer(&mut self) -> String {
        self.said = self.received;
        format!("<a xmlns='{SM}' h='{}'/>", self.received)
    }

    /// The server has handled `h` stanzas.
    pub(crate) fn confirm(&mut self, h: u32) -> Result<Confirmed> {
        let new = h.wrapping_sub(self.acknowledged);
        let waiting = self.queue.len();
        ensure!(
            usize::try_from(new).is_ok_and(|new| new <= waiting),
            "acknowledged up to {h}; {} were, and {waiting} wait",
            self.acknowledged
        );
        let mut confirmed = Confirmed::default();
        for _ in 0..new {
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            confirmed.items.extend(queued.item);
            confirmed.told = Some(queued.said);
        }
        self.acknowledged = h;
        Ok(confirmed)
    }

    /// The request to go on, if the server allows that.
    pub(crate) fn resume(&mut self) -> Option<String> {
        let id = self.id.as_ref()?;
        let id = cirrus_client::xml::escape(id);
        let h = self.received;
        self.said = h;
        self.asked = None;
        Some(format!("<resume xmlns='{SM}' h='{h}' previd='{id}'/>"))
    }

    /// What is sent again when the session goes on.
    pub(crate) fn again(&self) -> String {
        let stanzas = self.queue.iter().map(|queued| queued.stanza.as_str());
        stanzas.collect()
    }

    /// What nobody will know the fate of: the session is over.
    pub(crate) fn abandoned(&self) -> impl Iterator<Item = Item> {
        self.queue.iter().filter_map(|queued| queued.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managed(items: u32) -> Managed {
        let mut managed = Managed::default();
        for number in 1..=items {
            managed.send(format!("<s{number}/>"), Some(Item::Ping(number)));
        }
        managed
    }

    #[test]
    fn acknowledged_is_what_h_says_and_the_rest_is_sent_again() {
        let mut managed = managed(3);
        let confirmed = managed.confirm(2).unwrap();
        assert_eq!(confirmed.items, [Item::Ping(1), Item::Ping(2)]);
        assert_eq!(managed.again(), "<s3/>");
        assert_eq!(managed.confirm(2).unwrap(), Confirmed::default());
        let left: Vec<Item> = managed.abandoned().collect();
        assert_eq!(left, [Item::Ping(3)]);
    }

    #[test]
    fn more_than_was_sent_or_less_than_before_is_an_error() {
        let mut managed = managed(3);
        managed.confirm(2).unwrap();
        assert!(managed.confirm(1).is_err());
        assert!(managed.confirm(4).is_err());
    }

    #[test]
    fn it_counts_past_the_largest_number() {
        let mut managed = managed(2);
        managed.acknowledged = u32::MAX;
        assert_eq!(managed.confirm(1).unwrap().items.len(), 2);
    }

    #[test]
    fn the_server_knows_what_was_said_before_something_it_has_handled() {
        let mut managed = managed(1);
        managed.received = 5;
        assert!(managed.answer().contains("h='5'"));
        // Handled was only what had been sent before.
        assert_eq!(managed.confirm(1).unwrap().told, Some(0));
        managed.send("<s2/>".to_owned(), None);
        assert_eq!(managed.confirm(2).unwrap().told, Some(5));
    }
}
