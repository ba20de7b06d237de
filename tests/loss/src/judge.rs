//! The judgement: what was lost, doubled, reordered, or shown wrongly. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ledger::{At, By, Fate, Ledger, Message, Person, Refusal, Sent, Sighting, Window};

/// How long others may go on to be told that somebody is away who is back already; and how much
/// later than the server a client may notice that its session is gone.
const NEWS: At = 10_000_000;

/// Examples of each fault that are kept to be shown.
const EXAMPLES: usize = 5;

/// What became of all that was sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// Messages sent.
    pub messages: u64,
    /// Seen over the stream, without delay.
    pub by_stream: u64,
    /// Microseconds from the sending of a message to its sight, where both had a connection all
    /// the time and nothing was broken on purpose.
    pub delivery: Vec<At>,
    /// The same while something was.
    pub delivery_in_faults: Vec<At>,
    /// Seen first with a mark of delay.
    pub by_offline: u64,
    /// Seen in the archive alone.
    pub by_archive: u64,
    /// Acknowledged and never seen.
    pub lost: u64,
    /// Those of them that were sent while their recipient had no connection.
    pub lost_cut_off: u64,
    /// Acknowledged and never seen, at recipients that don't say what they have received, on a
    /// server without an archive: it can't know, and they can't ask.
    pub lost_unmanaged: u64,
    /// Seen again though the server knew that it had arrived, or in the same session.
    pub doubled: u64,
    /// Seen again in a later session, where the server could not know.
    pub repeated: u64,
    /// Seen before an earlier one of the same pair.
    pub reordered: u64,
    /// Never acknowledged, and seen.
    pub unacknowledged_seen: u64,
    /// Never acknowledged, and not seen.
    pub unacknowledged_unseen: u64,
    /// Messages that were answered by an error which says that they were not delivered.
    pub refused: u64,
    /// Messages that were answered by an error which says "wait": the outcome is unknown.
    pub refused_unknown: u64,
    /// Messages that were answered by a definite error and delivered all the same.
    pub refused_but_seen: u64,
    /// Messages seen that nobody sent, or at the wrong one.
    pub stray: u64,
    /// Things that no server may send.
    pub violations: u64,
    /// Contacts shown wrongly at the end.
    pub ghosts: u64,
    /// Contacts shown unavailable that had not left.
    pub flaps: u64,
    /// Pings sent.
    pub pings: u64,
    /// Pings answered.
    pub pings_answered: u64,
    /// Pings answered by a definite error: the contact was away.
    pub pings_refused: u64,
    /// Pings answered by an error that means "unknown".
    pub pings_unknown: u64,
    /// Pings acknowledged and never answered.
    pub pings_unanswered: u64,
    /// Changes of presence sent.
    pub presences: u64,
    /// Things that clients with stream management sent or wanted to send outside of faults.
    pub offered: u64,
    /// Those of them that the server took.
    pub accepted: u64,
    /// Examples, for people.
    pub examples: Vec<String>,
}

impl Judgement {
    /// Judges a ledger in which nothing is under way any more.
    #[must_use]
    pub fn of(ledger: &Ledger) -> Judgement {
        let mut judgement = Judgement {
            stray: ledger.stray,
            violations: ledger.violations,
            ..Judgement::default()
        };
        judgement.judge_messages(ledger);
        for (to, person) in (0..).zip(&ledger.people) {
            judgement.judge_flaps(to, person, ledger);
            judgement.judge_pings(person);
            judgement.presences += person.presences.len() as u64;
        }
        judgement.judge_share(ledger);
        judgement
    }

    /// Adds contacts that are shown wrongly now, when everything has had its time.
    pub fn judge_views(&mut self, ledger: &Ledger) {
        for view in ledger.views().filter(|view| view.shown != view.truth) {
            self.ghosts += 1;
            self.example(|| {
                let state =
                    |it: Option<u32>| it.map_or("unavailable".to_owned(), |n| n.to_string());
                let (shown, truth) = (state(view.shown), state(view.truth));
                let (observer, of) = (view.observer, view.of);
                format!("ghost: {observer} is shown {of} as {shown}, which is {truth}")
            });
        }
    }

    /// Nothing was lost, doubled or reordered.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered == 0
    }

    fn judge_messages(&mut self, ledger: &Ledger) {
        let mut last = BTreeMap::new();
        for (pair, number, message) in ledger.all() {
            self.messages += 1;
            let recipient = ledger.people.get(pair.1 as usize);
            self.judge_sightings(pair, number, message, recipient);
            self.judge_fate(pair, number, message, ledger);
            self.judge_delivery(pair, message, ledger);
            let first = message.seen.iter().find(|it| it.by != By::Archive);
            if let Some(first) = first {
                let order = last.entry(pair).or_insert(first.order);
                if first.order < *order {
                    self.reordered += 1;
                    self.example(|| format!("reordered: {pair:?} {number} before an earlier one"));
                }
                *order = first.order.max(*order);
            }
        }
    }

    fn judge_sightings(
        &mut self,
        pair: (u32, u32),
        number: u32,
        message: &Message,
        recipient: Option<&Person>,
    ) {
        let streamed: Vec<&Sighting> = message
            .seen
            .iter()
            .filter(|it| it.by != By::Archive)
            .collect();
        match streamed.first().map(|first| first.by) {
            Some(By::Offline) => self.by_offline += 1,
            Some(_) => self.by_stream += 1,
            None => self.by_archive += u64::from(!message.seen.is_empty()),
        }
        for (before, again) in streamed.iter().zip(streamed.iter().skip(1)) {
            let told = recipient.and_then(|person| person.told.get(&before.session));
            let known = told.is_some_and(|told| *told >= before.count);
            if before.session == again.session || known {
                self.doubled += 1;
                self.example(|| format!("doubled: {pair:?} {number}: {before:?}, {again:?}"));
            } else {
                self.repeated += 1;
            }
        }
    }

    fn judge_delivery(&mut self, pair: (u32, u32), message: &Message, ledger: &Ledger) {
        let streamed = message.seen.first().filter(|it| it.by == By::Stream);
        let Some(seen) = streamed.map(|it| it.at) else {
            return;
        };
        let sent = message.sent.at;
        let meets = |time: &Range<At>| time.start <= seen && sent < time.end;
        let connected = |account: u32| {
            let person = ledger.people.get(account as usize);
            person.is_some_and(|it| !it.cut_off.iter().chain(&it.absences).any(meets))
        };
        if !connected(pair.0) || !connected(pair.1) {
            return;
        }
        let mut windows = ledger.windows.iter();
        let calm = !windows.any(|it| meets(&(it.begin..it.end.unwrap_or(At::MAX))));
        let took = seen.saturating_sub(sent);
        match calm {
            true => self.delivery.push(took),
            false => self.delivery_in_faults.push(took),
        }
    }

    fn judge_fate(&mut self, pair: (u32, u32), number: u32, message: &Message, ledger: &Ledger) {
        let seen = !message.seen.is_empty();
        let recipient = ledger.people.get(pair.1 as usize);
        let managed = recipient.is_some_and(|person| person.managed);
        let can_know = managed || ledger.archive == Some(true);
        match (message.sent.refusal, message.sent.fate) {
            (Some(Refusal::Definite), _) => {
                self.refused += 1;
                self.refused_but_seen += u64::from(seen);
            }
            (Some(Refusal::Unknown), _) => self.refused_unknown += 1,
            (None, Fate::Acknowledged) if seen => {}
            (None, Fate::Acknowledged) if can_know => {
                let at = message.sent.at;
                let cut_off = recipient.map_or(&[][..], |person| &person.cut_off);
                let cut_off = cut_off.iter().any(|times| times.contains(&at));
                self.lost += 1;
                self.lost_cut_off += u64::from(cut_off);
                let to = if cut_off {
                    " to one without a connection"
                } else {
                    ""
                };
                self.example(|| {
                    let at = at / 1000;
                    format!("lost: {pair:?} {number}, sent{to} at {at} ms")
                });
            }
            (None, Fate::Acknowledged) => self.lost_unmanaged += 1,
            (None, _) if seen => self.unacknowledged_seen += 1,
            (None, _) => self.unacknowledged_unseen += 1,
        }
    }

    fn judge_flaps(&mut self, observer: u32, person: &Person, ledger: &Ledger) {
        for (of, at) in &person.vanished {
            let was_away = ledger.people.get(*of as usize).is_some_and(|other| {
                let mut absences = other.absences.iter();
                absences.any(|away| {
                    let early = away.start.saturating_sub(NEWS);
                    (early..away.end.saturating_add(NEWS)).contains(at)
                })
            });
            if !was_away {
                self.flaps += 1;
                let at = at / 1000;
                self.example(|| format!("flap: {observer} is shown that {of} left, at {at} ms"));
            }
        }
    }

    fn judge_pings(&mut self, person: &Person) {
        self.pings += person.pings.len() as u64;
        for ping in &person.pings {
            match (ping.answered, ping.refusal) {
                (true, _) => self.pings_answered += 1,
                (_, Some(Refusal::Definite)) => self.pings_refused += 1,
                (_, Some(Refusal::Unknown)) => self.pings_unknown += 1,
                _ => self.pings_unanswered += u64::from(ping.fate == Fate::Acknowledged),
            }
        }
    }

    fn judge_share(&mut self, ledger: &Ledger) {
        let calm = |at: At| !ledger.windows.iter().any(|window| contains(window, at));
        let mut count = |sent: &Sent, may_be_refused: bool| {
            if !sent.managed || !calm(sent.at) {
                return;
            }
            let refused = match sent.refusal {
                Some(Refusal::Definite) => !may_be_refused,
                Some(Refusal::Unknown) => true,
                None => false,
            };
            self.offered += 1;
            self.accepted += u64::from(sent.fate == Fate::Acknowledged && !refused);
        };
        ledger
            .all()
            .for_each(|(_, _, message)| count(&message.sent, false));
        for person in &ledger.people {
            // A ping to one who is away is rightly refused.
            person.pings.iter().for_each(|sent| count(sent, true));
            person.presences.iter().for_each(|sent| count(sent, false));
        }
        let managed = ledger.people.iter().filter(|person| person.managed);
        let stalled = managed.flat_map(|person| &person.stalled);
        self.offered += stalled.filter(|at| calm(**at)).count() as u64;
    }

    fn example(&mut self, text: impl Fn() -> String) {
        let text = text();
        let kind = text.split(':').next().unwrap_or_default();
        let known = self.examples.iter().filter(|it| it.starts_with(kind));
        if known.count() < EXAMPLES {
            self.examples.push(text);
        }
    }
}

fn contains(window: &Window, at: At) -> bool {
    window.begin <= at && window.end.is_none_or(|end| at < end)
}

#[cfg(test)]
mod tests;
