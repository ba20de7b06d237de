//! What a client makes of what comes in a session.

use anyhow::{Result, bail};

use super::{Effect, Machine, Phase};
use crate::client::managed::Managed;
use crate::client::stanzas::{self, Incoming};
use crate::ledger::{Account, At, By, Event};

/// Pages of an archive that are read at most.
const MAX_PAGES: u32 = 1_000;

impl Machine {
    pub(super) fn incoming(&mut self, now: At, incoming: Incoming) -> Result<()> {
        match incoming {
            Incoming::Request => {
                if let Some(answer) = self.managed.as_mut().map(Managed::answer) {
                    self.send(answer);
                }
            }
            Incoming::Acknowledgement(h) => {
                if let Some(managed) = &mut self.managed {
                    managed.asked = None;
                }
                match h {
                    Some(h) => self.confirm(h),
                    None => self.violation("an acknowledgement without h".to_owned()),
                }
                self.ask(now);
                if matches!(self.phase, Phase::Leaving(_)) && self.is_acknowledged() {
                    self.close(now);
                }
            }
            Incoming::Message(mark, by) if mark.to == self.me => {
                let managed = self.managed.as_ref();
                let count = managed.map_or(0, |managed| managed.received);
                self.note(Event::Seen {
                    from: mark.from,
                    sequence: mark.sequence,
                    by,
                    session: self.session,
                    count,
                });
            }
            // An archive has what we sent, too.
            Incoming::Message(_, By::Archive) | Incoming::Other => {}
            Incoming::Message(mark, _) => {
                self.violation(format!("a message for account {} at another", mark.to));
            }
            Incoming::Refused(item, refusal) => self.note(Event::Refused(item, refusal)),
            Incoming::Answered(number) => self.note(Event::Answered(number)),
            Incoming::Shown(of, shown) => {
                if self.contacts.contains_key(&of) {
                    self.note(Event::Shown(of, shown));
                }
            }
            Incoming::Question(answer) => self.offer(now, answer, None),
            Incoming::Subscribe(from) => {
                let yes = stanzas::subscription("subscribed", from, &self.settings.names);
                self.offer(now, yes, None);
            }
            Incoming::Roster(items) => {
                self.befriended(&items);
                self.ask_friends(now);
            }
            Incoming::RosterPush(items, answer) => {
                self.offer(now, answer, None);
                self.befriended(&items);
            }
            Incoming::Archive(there) => self.archive(now, there),
            Incoming::ArchivePage(next) => self.archive_page(now, next.as_deref()),
            Incoming::SeeOtherHost(host) => {
                self.broken(now);
                self.effects.push(Effect::GoTo(host));
            }
            Incoming::StreamError(condition) => {
                self.broken(now);
                bail!("the server ended the stream: {condition}");
            }
        }
        Ok(())
    }

    fn befriended(&mut self, items: &[(Account, bool)]) {
        for (account, both) in items {
            if let Some(known) = self.contacts.get_mut(account) {
                *known |= both;
            }
        }
        if !self.ready && self.contacts.values().all(|both| *both) {
            self.ready = true;
            self.asks_again_at = At::MAX;
            self.note(Event::Ready);
        }
    }

    fn ask_friends(&mut self, now: At) {
        let missing: Vec<Account> = self
            .contacts
            .iter()
            .filter(|(_, both)| !**both)
            .map(|(account, _)| *account)
            .collect();
        for contact in missing {
            let please = stanzas::subscription("subscribe", contact, &self.settings.names);
            self.offer(now, please, None);
        }
    }

    fn archive(&mut self, now: At, there: bool) {
        self.note(Event::Archive(there));
        if there {
            self.offer(now, stanzas::ask_archive(None), None);
        } else {
            self.note(Event::ArchiveRead);
        }
    }

    fn archive_page(&mut self, now: At, next: Option<&str>) {
        self.pages += 1;
        match next.filter(|_| self.pages < MAX_PAGES) {
            Some(next) => self.offer(now, stanzas::ask_archive(Some(next)), None),
            None => self.note(Event::ArchiveRead),
        }
    }
}
