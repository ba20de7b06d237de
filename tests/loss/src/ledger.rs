//! What happened: each number that was sent, and where it was seen.
//!
//! Pure: clients tell it what they did and saw, with the time; [`crate::judge`] reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use crate::under_way::UnderWay;

/// An account, by its number from 0.
pub type Account = u32;
/// Microseconds since the run began.
pub type At = u64;
/// Who sent, and to whom.
pub type Pair = (Account, Account);

/// A numbered thing that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A message: to whom, and its number in the pair, from 1.
    Message(Account, u32),
    /// A ping of a contact's full address, and its number.
    Ping(u32),
    /// A change of presence, and its number.
    Presence(u32),
}

/// How an error reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It was not done.
    Definite,
    /// "Wait": it may have been done, and may not.
    Unknown,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Over the stream: live, or repeated by a resumption.
    Stream,
    /// Over the stream, with a mark of delay: kept while its recipient was away.
    Offline,
    /// As the answer to a question to the archive.
    Archive,
}

/// Why a client had to log in as if it were new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It came for the first time, or after it had left.
    Expected,
    /// It had no session to resume: it does no stream management.
    Unmanaged,
    /// It had one, and could not.
    Lost,
}

/// One thing that a client did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Sent, or put where it is sent when the session is resumed.
    Sent(Item),
    /// Wanted to send, and there was no session to send it in.
    Stalled,
    /// The server has acknowledged it.
    Acknowledged(Item),
    /// Its session ended before the server had acknowledged it.
    Abandoned(Item),
    /// It was answered by an error.
    Refused(Item, Refusal),
    /// A ping was answered.
    Answered(u32),
    /// A message was seen: the `count`th stanza of that session.
    Seen {
        /// Who sent it.
        from: Account,
        /// Its number.
        sequence: u32,
        /// The way it came.
        by: By,
        /// The session, by its number from 1.
        session: u32,
        /// Stanzas received in that session, this one included.
        count: u32,
    },
    /// The server knows for certain that so many stanzas of that session were received.
    Told {
        /// The session.
        session: u32,
        /// The number of stanzas.
        count: u32,
    },
    /// A contact is shown available with its presence of that number, or unavailable.
    Shown(Account, Option<u32>),
    /// All its contacts are subscribed to it, and it to them.
    Ready,
    /// It has a new session.
    LoggedIn(Login),
    /// It has its session back.
    Resumed {
        /// It had broken the connection itself.
        by_choice: bool,
        /// Microseconds since it noticed the break, or set out to come back.
        took: At,
    },
    /// The server refused to resume its session.
    ResumeFailed,
    /// It has a connection to the server of that place in the list.
    Connected(usize),
    /// The connection is gone.
    Broke {
        /// It dropped the connection itself.
        by_choice: bool,
    },
    /// It has ended its session in good order.
    Left,
    /// It has asked whether there is an archive: there is, or not.
    Archive(bool),
    /// All that the archive has was asked for.
    ArchiveRead,
    /// The server sent something that it must not.
    Violation,
}

/// What became of something sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// Not known yet.
    #[default]
    Pending,
    /// Acknowledged.
    Acknowledged,
    /// Its session ended without an acknowledgement.
    Abandoned,
}

/// What is known of something sent.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// When.
    pub at: At,
    /// Whether its sender can be told that it was handled.
    pub managed: bool,
    /// What became of it.
    pub fate: Fate,
    /// The error that answered it.
    pub refusal: Option<Refusal>,
    /// For a ping: it was answered.
    pub answered: bool,
}

/// A message that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// When.
    pub at: At,
    /// Its place among all sightings.
    pub order: u64,
    /// The way it came.
    pub by: By,
    /// The recipient's session.
    pub session: u32,
    /// Its place in that session.
    pub count: u32,
}

/// A message and all its sightings.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its sending.
    pub sent: Sent,
    /// Its sightings, in order.
    pub seen: Vec<Sighting>,
}

/// What is known of an account.
#[derive(Debug, Clone, Default)]
pub struct Person {
    /// It does stream management.
    pub managed: bool,
    /// Its contacts are subscribed.
    pub ready: bool,
    /// It has a session and a connection.
    pub online: bool,
    /// The server it is connected to, by its place in the list.
    pub server: Option<usize>,
    /// It has a session, perhaps without a connection.
    pub present: bool,
    /// It ended its session in good order.
    pub left: bool,
    /// The number of its last presence.
    pub presence: u32,
    /// Since when it is not present.
    pub absent_since: At,
    /// When its connection broke, other than by its choice, if it has none since.
    pub broke_at: Option<At>,
    /// When it was not present; the last one may be open.
    pub absences: Vec<Range<At>>,
    /// When it had no connection; the last time may be open.
    pub cut_off: Vec<Range<At>>,
    /// What its contacts are shown as.
    pub shown: BTreeMap<Account, Option<u32>>,
    /// When contacts were shown unavailable.
    pub vanished: Vec<(Account, At)>,
    /// Stanzas that the server certainly knows to have come, by session.
    pub told: BTreeMap<u32, u32>,
    /// Its pings, by number from 1.
    pub pings: Vec<Sent>,
    /// Its presences, by number from 1.
    pub presences: Vec<Sent>,
    /// When it wanted to send and could not.
    pub stalled: Vec<At>,
    /// All that the archive has was asked for.
    pub archive_read: bool,
}

/// A time in which something was broken on purpose.
#[derive(Debug, Clone)]
pub struct Window {
    /// What.
    pub name: String,
    /// From when to when; open while it lasts.
    pub begin: At,
    /// Its end.
    pub end: Option<At>,
    /// Connections that broke in it, other than by a client's choice.
    pub broke: u64,
    /// Sessions resumed in it, other than after a client's own break.
    pub resumed: u64,
    /// Sessions lost in it.
    pub lost: u64,
    /// Messages that were under way when it began.
    pub under_way: Vec<UnderWay>,
}

/// Times and counts of breaks.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    /// Connections that broke, other than by a client's choice.
    pub broke: u64,
    /// Connections that clients broke.
    pub broke_by_choice: u64,
    /// Resumption times after breaks, in microseconds.
    pub resumed: Vec<At>,
    /// Resumption times after a client's own breaks.
    pub resumed_by_choice: Vec<At>,
    /// Times without a session that can be used, after breaks other than by choice.
    pub gaps: Vec<At>,
    /// Resumptions that were refused.
    pub resume_failed: u64,
    /// Full logins by clients that had a session to resume.
    pub lost: u64,
    /// Full logins after breaks by clients without stream management.
    pub unmanaged: u64,
    /// Logins of those that came for the first time, or back.
    pub expected: u64,
    /// Times that clients left in good order.
    pub left: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Messages by pair; number `n` is at `n - 1`.
    pub messages: BTreeMap<Pair, Vec<Message>>,
    /// Accounts.
    pub people: Vec<Person>,
    /// Times in which something was broken on purpose, in order.
    pub windows: Vec<Window>,
    /// Breaks.
    pub sessions: Sessions,
    /// Whether the server has an archive, once it was asked.
    pub archive: Option<bool>,
    /// Messages seen that nobody had sent, or that came to the wrong one.
    pub stray: u64,
    /// Things that the server must not send.
    pub violations: u64,
    /// Messages sent so far.
    pub sent: u64,
    sightings: u64,
}

impl Ledger {
    /// A ledger of accounts that all are away: who does stream management, and who is subscribed
    /// to whom.
    #[must_use]
    pub fn new(managed: &[bool], contacts: impl Fn(Account) -> Vec<Account>) -> Ledger {
        let people = managed.iter().zip(0..).map(|(managed, account)| Person {
            managed: *managed,
            absences: std::iter::once(0..At::MAX).collect(),
            cut_off: std::iter::once(0..At::MAX).collect(),
            shown: contacts(account).into_iter().map(|of| (of, None)).collect(),
            ..Person::default()
        });
        Ledger {
            people: people.collect(),
            ..Ledger::default()
        }
    }

    /// Takes note of what a client did or saw.
    pub fn record(&mut self, who: Account, at: At, event: Event) {
        match event {
            Event::Sent(item) => self.send(who, at, item),
            Event::Acknowledged(item) => self.settle(who, item, Fate::Acknowledged),
            Event::Abandoned(item) => self.settle(who, item, Fate::Abandoned),
            Event::Refused(item, refusal) => {
                if let Some(sent) = self.item(who, item) {
                    sent.refusal = Some(refusal);
                }
            }
            Event::Answered(number) => {
                if let Some(sent) = self.item(who, Item::Ping(number)) {
                    sent.answered = true;
                }
            }
            Event::Seen {
                from,
                sequence,
                by,
                session,
                count,
            } => {
                let order = self.sightings;
                self.sightings += 1;
                let sighting = Sighting {
                    at,
                    order,
                    by,
                    session,
                    count,
                };
                self.see((from, who), sequence, sighting);
            }
            Event::Violation => self.violations += 1,
            Event::Archive(there) => self.archive = Some(there),
            other => self.person_event(who, at, other),
        }
    }

    /// A time begins in which something is broken on purpose. One that is open ends.
    pub fn begin(&mut self, name: &str, at: At) {
        self.end(at);
        let under_way = self.under_way();
        self.windows.push(Window {
            under_way,
            name: name.to_owned(),
            begin: at,
            end: None,
            broke: 0,
            resumed: 0,
            lost: 0,
        });
    }

    /// It ends.
    pub fn end(&mut self, at: At) {
        if let Some(window) = self.windows.last_mut() {
            window.end.get_or_insert(at);
        }
    }

    /// Messages that were acknowledged to their sender and not seen, by pair and number.
    pub fn missing(&self) -> impl Iterator<Item = (Pair, u32)> {
        self.all().filter_map(|(pair, number, message)| {
            let told = message.sent.fate == Fate::Acknowledged && message.sent.refusal.is_none();
            let missing = told && message.seen.is_empty();
            missing.then_some((pair, number))
        })
    }

    /// Nothing is under way any more: all are online, nothing waits to be acknowledged or seen.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let pending = |sent: &Sent| sent.managed && sent.fate == Fate::Pending;
        self.people.iter().all(|person| {
            let mut items = person.pings.iter().chain(&person.presences);
            person.online && !items.any(pending)
        }) && !self.all().any(|(_, _, message)| pending(&message.sent))
            && self.missing().next().is_none()
    }

    /// Every contact that is shown to somebody, and what it should be shown as.
    pub fn views(&self) -> impl Iterator<Item = View> {
        let people = self.people.iter().zip(0..);
        people.flat_map(move |(person, observer)| {
            let shown = person.shown.iter().filter(|_| person.present);
            shown.map(move |(of, shown)| View {
                observer,
                of: *of,
                shown: *shown,
                truth: self
                    .people
                    .get(*of as usize)
                    .and_then(|other| other.present.then_some(other.presence)),
            })
        })
    }

    /// All messages, with their pairs and numbers.
    pub fn all(&self) -> impl Iterator<Item = (Pair, u32, &Message)> {
        let pairs = self.messages.iter();
        pairs.flat_map(|(pair, messages)| (1..).zip(messages).map(|(n, m)| (*pair, n, m)))
    }

    fn send(&mut self, who: Account, at: At, item: Item) {
        let Some(person) = self.people.get_mut(who as usize) else {
            return;
        };
        let managed = person.managed;
        let sent = Sent {
            at,
            managed,
            ..Sent::default()
        };
        match item {
            Item::Message(to, _) => {
                let seen = Vec::new();
                let pair = self.messages.entry((who, to)).or_default();
                pair.push(Message { sent, seen });
                self.sent += 1;
            }
            Item::Ping(_) => person.pings.push(sent),
            Item::Presence(number) => {
                person.presences.push(sent);
                person.presence = number;
            }
        }
    }

    fn item(&mut self, who: Account, item: Item) -> Option<&mut Sent> {
        let at = |number: u32| number.checked_sub(1).map(|at| at as usize);
        match item {
            Item::Message(to, number) => {
                let messages = self.messages.get_mut(&(who, to))?;
                messages
                    .get_mut(at(number)?)
                    .map(|message| &mut message.sent)
            }
            Item::Ping(number) => self
                .people
                .get_mut(who as usize)?
                .pings
                .get_mut(at(number)?),
            Item::Presence(number) => {
                let person = self.people.get_mut(who as usize)?;
                person.presences.get_mut(at(number)?)
            }
        }
    }

    fn settle(&mut self, who: Account, item: Item, fate: Fate) {
        if let Some(sent) = self.item(who, item) {
            sent.fate = fate;
        }
    }

    fn see(&mut self, pair: Pair, sequence: u32, sighting: Sighting) {
        let messages = self.messages.get_mut(&pair);
        let at = sequence.checked_sub(1).map(|at| at as usize);
        match messages.zip(at).and_then(|(all, at)| all.get_mut(at)) {
            Some(message) => message.seen.push(sighting),
            None => self.stray += 1,
        }
    }

    fn person_event(&mut self, who: Account, at: At, event: Event) {
        let Some(person) = self.people.get_mut(who as usize) else {
            return;
        };
        let window = self.windows.last_mut().filter(|it| it.end.is_none());
        if matches!(event, Event::LoggedIn(_) | Event::Resumed { .. }) {
            let broke_at = person.broke_at.take();
            self.sessions
                .gaps
                .extend(broke_at.map(|broke_at| at - broke_at));
            if let Some(last) = person.cut_off.last_mut() {
                last.end = last.end.min(at);
            }
        }
        if matches!(event, Event::Left | Event::Broke { .. }) && person.online {
            person.cut_off.push(at..At::MAX);
        }
        match event {
            Event::Stalled => person.stalled.push(at),
            Event::Connected(server) => person.server = Some(server),
            Event::Told { session, count } => {
                person.told.insert(session, count);
            }
            Event::Shown(of, shown) => {
                let before = person.shown.insert(of, shown).flatten();
                if shown.is_none() && before.is_some() {
                    person.vanished.push((of, at));
                }
            }
            Event::Ready => person.ready = true,
            Event::ArchiveRead => person.archive_read = true,
            Event::LoggedIn(login) => {
                person.log_in(at, login);
                let sessions = &mut self.sessions;
                match login {
                    Login::Expected => sessions.expected += 1,
                    Login::Unmanaged => sessions.unmanaged += 1,
                    Login::Lost => {
                        sessions.lost += 1;
                        window.into_iter().for_each(|it| it.lost += 1);
                    }
                }
            }
            Event::Resumed { by_choice, took } => {
                person.online = true;
                if by_choice {
                    self.sessions.resumed_by_choice.push(took);
                } else {
                    self.sessions.resumed.push(took);
                    window.into_iter().for_each(|it| it.resumed += 1);
                }
            }
            Event::ResumeFailed => self.sessions.resume_failed += 1,
            Event::Broke { by_choice } => {
                person.break_off(at);
                if by_choice {
                    self.sessions.broke_by_choice += 1;
                } else {
                    person.broke_at = Some(at);
                    self.sessions.broke += 1;
                    window.into_iter().for_each(|it| it.broke += 1);
                }
            }
            Event::Left => {
                person.leave(at);
                self.sessions.left += 1;
            }
            _ => {}
        }
    }
}

impl Person {
    fn log_in(&mut self, at: At, login: Login) {
        if self.present && login == Login::Lost {
            // Nobody could know before, but its session was gone since the break.
            self.absences.push(self.absent_since..At::MAX);
        }
        if let Some(absence) = self.absences.last_mut() {
            absence.end = absence.end.min(at);
        }
        (self.online, self.present, self.left) = (true, true, false);
        // The new session knows nothing of its contacts until it is told.
        for shown in self.shown.values_mut() {
            *shown = None;
        }
    }

    fn break_off(&mut self, at: At) {
        if self.online {
            self.absent_since = at;
        }
        (self.online, self.server) = (false, None);
        if !self.managed {
            self.leave(at);
            self.left = false;
        }
    }

    fn leave(&mut self, at: At) {
        if self.present {
            self.absences.push(at..At::MAX);
        }
        (self.online, self.present, self.left) = (false, false, true);
        self.server = None;
    }
}

/// What one is shown of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Who looks.
    pub observer: Account,
    /// At whom.
    pub of: Account,
    /// The number of the presence shown, or none if unavailable.
    pub shown: Option<u32>,
    /// What should be.
    pub truth: Option<u32>,
}

/// The accounts that have not seen what they should have.
#[must_use]
pub fn recipients_of_missing(ledger: &Ledger) -> BTreeSet<Account> {
    ledger.missing().map(|((_, to), _)| to).collect()
}
