//! One account's client: its sessions, what it does, and what it makes of what comes. Pure: the
//! shell brings connections, bytes and the time.

mod incoming;
mod leaving;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cirrus_client::scram::KeyCache;
use cirrus_client::xml;

use super::login::{Identity, Login as Negotiation, Progress};
use super::managed::{Managed, SM};
use super::schedule::{Deed, Means, Schedule};
use super::stanzas;
use crate::ledger::{Account, At, Event, Item, Login};
use crate::names::Names;
use crate::rng::Rng;

/// How long a client that wants to leave waits for its last acknowledgements, and then for the
/// server to end the stream.
const FAREWELL: At = 5_000_000;

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The run's number: stanzas of earlier ones don't count.
    pub(crate) run: u32,
    /// The accounts' addresses.
    pub(crate) names: Names,
    /// How often a client does what.
    pub(crate) means: Means,
    /// How long a client may be away by its own choice, at most.
    pub(crate) away: Duration,
    /// A server that owes an answer for so long is gone.
    pub(crate) silence: Duration,
    /// Stanzas that a client keeps to be acknowledged; past it, it waits.
    pub(crate) unacknowledged: usize,
}

/// What the whole run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All log in and make friends.
    Setup,
    /// Messages, faults.
    Load,
    /// All come back and stay.
    Settle,
    /// Each shows itself once more.
    Greeting,
    /// Those that miss something ask the archive.
    Archive,
    /// Some leave for good.
    Farewell,
    /// All end.
    Done,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send this.
    Send(String),
    /// A new stream begins: forget what the parser has.
    NewStream,
    /// Make the TLS handshake, and say [`Machine::secured`].
    StartTls,
    /// Drop the connection.
    Drop,
    /// Try there first.
    GoTo(String),
    /// Take note of this.
    Note(Event),
    /// Tell people of this.
    Complain(String),
}

enum Phase {
    /// No connection, and none wanted until then.
    Away(At),
    /// A login is under way, until then.
    LoggingIn(Box<Negotiation>, At),
    /// There is a session.
    Online,
    /// There is a session that is to end when all is acknowledged, or then.
    Leaving(At),
    /// The stream is to be ended by the server too, or then.
    Closing(At),
}

/// A client.
pub(crate) struct Machine {
    me: Account,
    settings: Arc<Settings>,
    identity: Identity,
    /// Contacts, and whether they and we are subscribed to each other.
    contacts: BTreeMap<Account, bool>,
    keys: KeyCache,
    rng: Rng,
    schedule: Schedule,
    stage: Stage,
    phase: Phase,
    managed: Option<Managed>,
    /// What the next new session means.
    login: Login,
    /// Since when there should be a connection, and whether its end was our choice.
    coming_back: (At, bool),
    /// When we come back after we have left.
    back_at: At,
    /// It wants to end its session, and does not know yet that it has.
    leaving: bool,
    /// It has said so to the server.
    said_goodbye: bool,
    /// A connection could not be had since the last one.
    troubled: bool,
    ready: bool,
    /// When the roster is asked for again, until all contacts are subscribed: a step of a
    /// subscription that a server could not take is no longer under way.
    asks_again_at: At,
    session: u32,
    sequences: BTreeMap<Account, u32>,
    pings: u32,
    presences: u32,
    pages: u32,
    effects: Vec<Effect>,
}

impl Machine {
    /// A client that comes at a time.
    pub(crate) fn new(
        (me, begins): (Account, At),
        identity: Identity,
        contacts: &[Account],
        settings: Arc<Settings>,
        rng: Rng,
    ) -> Machine {
        Machine {
            me,
            identity,
            contacts: contacts.iter().map(|contact| (*contact, false)).collect(),
            keys: KeyCache::default(),
            rng,
            schedule: Schedule::new(settings.means),
            settings,
            stage: Stage::Setup,
            phase: Phase::Away(begins),
            managed: None,
            login: Login::Expected,
            coming_back: (begins, true),
            back_at: 0,
            leaving: false,
            said_goodbye: false,
            troubled: false,
            ready: false,
            asks_again_at: At::MAX,
            session: 0,
            sequences: BTreeMap::new(),
            pings: 0,
            presences: 0,
            pages: 0,
            effects: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Since when, or from when on, there should be a connection; none if there is one.
    pub(crate) fn wants_connection(&self) -> Option<At> {
        match self.phase {
            Phase::Away(until) => Some(until),
            _ => None,
        }
    }

    /// When [`Machine::tick`] is to be called at the latest.
    pub(crate) fn deadline(&self) -> At {
        let phase = match &self.phase {
            Phase::Away(_) => At::MAX,
            Phase::LoggingIn(_, until) | Phase::Leaving(until) | Phase::Closing(until) => *until,
            Phase::Online => self.silent_at().min(self.asks_again_at),
        };
        phase.min(self.schedule.deadline())
    }

    /// A connection is there. `nonce` is new each time.
    pub(crate) fn connected(&mut self, now: At, nonce: String) {
        let resume = self.managed.as_mut().and_then(Managed::resume);
        let (login, first) = Negotiation::begin(&self.identity, nonce, resume);
        self.phase = Phase::LoggingIn(Box::new(login), now + micros(self.settings.silence));
        self.effects.push(Effect::NewStream);
        self.send(first);
    }

    /// No address could be reached.
    pub(crate) fn unreachable(&mut self) {
        self.troubled = true;
    }

    /// TLS stands.
    pub(crate) fn secured(&mut self, now: At) {
        if let Phase::LoggingIn(login, _) = &mut self.phase {
            let progress = login.secured(&self.identity);
            self.progress(now, progress);
        }
    }

    /// The connection is gone, or useless.
    pub(crate) fn broken(&mut self, now: At) {
        self.break_off(now, now, false);
    }

    /// Something came. An error says what is wrong with it; the connection is dropped.
    pub(crate) fn received(&mut self, now: At, event: &xml::Event) -> Result<()> {
        if let Phase::LoggingIn(login, _) = &mut self.phase {
            match login.received(event, &self.identity, &mut self.keys) {
                Ok(progress) => self.progress(now, progress),
                Err(error) => {
                    self.broken(now);
                    return Err(error);
                }
            }
            return Ok(());
        }
        match event {
            xml::Event::Element(node) => {
                if node.is_stanza()
                    && let Some(managed) = &mut self.managed
                {
                    managed.received = managed.received.wrapping_add(1);
                }
                self.incoming(
                    now,
                    stanzas::read(node, self.settings.run, &self.settings.names),
                )
            }
            xml::Event::Open(_) => Ok(()),
            xml::Event::Close => {
                if matches!(self.phase, Phase::Closing(_)) {
                    self.effects.push(Effect::Drop);
                    self.left(now);
                } else {
                    self.broken(now);
                }
                Ok(())
            }
        }
    }

    /// The run is at another stage.
    pub(crate) fn stage(&mut self, now: At, stage: Stage) {
        self.stage = stage;
        match stage {
            Stage::Setup => {}
            Stage::Load => self.schedule.begin(now, &mut self.rng),
            Stage::Settle => {
                self.schedule.end();
                self.back_at = self.back_at.min(now);
                if let Phase::Away(until) = &mut self.phase {
                    *until = now.min(*until);
                    self.coming_back.0 = self.coming_back.0.min(now);
                }
            }
            Stage::Greeting => self.show(now),
            Stage::Archive => {
                let question = stanzas::ask_features(self.me, &self.settings.names);
                self.offer(now, question, None);
            }
            Stage::Farewell => self.leave(now, At::MAX),
            Stage::Done => {
                self.back_at = At::MAX;
                match self.phase {
                    Phase::Online | Phase::Leaving(_) => self.close(now),
                    Phase::LoggingIn(..) => self.broken(now),
                    Phase::Away(_) | Phase::Closing(_) => {}
                }
                if let Phase::Away(until) = &mut self.phase {
                    *until = At::MAX;
                }
            }
        }
    }

    /// The run is over, and so is the connection.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done && matches!(self.phase, Phase::Away(_))
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: At) {
        match &self.phase {
            Phase::LoggingIn(_, until) | Phase::Closing(until) if *until <= now => {
                self.broken(now);
            }
            Phase::Leaving(until) if *until <= now => self.close(now),
            Phase::Online if self.silent_at() <= now => self.broken(now),
            Phase::Online if self.asks_again_at <= now => self.ask_roster(now),
            _ => {}
        }
        while let Some(deed) = self.schedule.due(now, &mut self.rng) {
            self.act(now, deed);
        }
    }

    /// Goes on as if the server had taken the password.
    #[cfg(test)]
    pub(crate) fn skip_authentication(&mut self) {
        if let Phase::LoggingIn(login, _) = &mut self.phase {
            login.skip_authentication();
        }
    }

    fn silent_at(&self) -> At {
        let asked = self.managed.as_ref().and_then(|managed| managed.asked);
        asked.map_or(At::MAX, |asked| asked + micros(self.settings.silence))
    }

    fn progress(&mut self, now: At, progress: Progress) {
        match progress {
            Progress::None => {}
            Progress::Say(what) => self.send(what),
            Progress::StartTls => self.effects.push(Effect::StartTls),
            Progress::Restart(header) => {
                self.effects.push(Effect::NewStream);
                self.send(header);
            }
            Progress::Resumed(h) => self.resumed(now, h),
            Progress::NotResumed(h, next) => {
                if let Some(h) = h {
                    self.confirm(h);
                }
                if self.said_goodbye {
                    self.note(Event::Left);
                    self.lose_session(Login::Expected);
                } else {
                    self.note(Event::ResumeFailed);
                    self.lose_session(Login::Lost);
                }
                self.send(next);
            }
            Progress::Bound(managed) => self.bound(now, managed),
        }
        // Each answer gives the server time for the next.
        if let Phase::LoggingIn(_, until) = &mut self.phase {
            *until = now + micros(self.settings.silence);
        }
    }

    fn resumed(&mut self, now: At, h: u32) {
        self.phase = Phase::Online;
        self.troubled = false;
        let (since, by_choice) = self.coming_back;
        let took = now.saturating_sub(since);
        self.note(Event::Resumed { by_choice, took });
        self.confirm(h);
        let again = self.managed.as_ref().map(Managed::again);
        self.send(again.unwrap_or_default());
        // What we had received by then was in our request, and the server has answered that.
        if let Some(count) = self.managed.as_ref().map(Managed::said) {
            self.told(count);
        }
        self.ask(now);
        if self.leaving {
            self.leave(now, self.back_at);
        }
    }

    fn bound(&mut self, now: At, managed: Option<Option<String>>) {
        self.phase = Phase::Online;
        self.troubled = false;
        self.session += 1;
        self.said_goodbye = false;
        self.managed = managed.map(Managed::new);
        self.note(Event::LoggedIn(self.login));
        self.login = Login::Unmanaged;
        if !self.ready {
            self.ask_roster(now);
        }
        self.show(now);
        if self.leaving {
            self.leave(now, self.back_at);
        }
    }

    fn ask_roster(&mut self, now: At) {
        self.asks_again_at = now + micros(self.settings.silence);
        self.offer(now, stanzas::ask_roster(), None);
    }

    fn act(&mut self, now: At, deed: Deed) {
        match deed {
            Deed::Message | Deed::Ping | Deed::Presence => self.speak(now, deed),
            Deed::Leave => {
                if matches!(self.phase, Phase::Online) {
                    let away = self.rng.around(self.settings.away / 2);
                    self.leave(now, now + micros(away));
                }
            }
            Deed::Break => {
                if matches!(self.phase, Phase::Online) {
                    let away = self.rng.around(self.settings.away / 2);
                    self.break_off(now, now + micros(away), true);
                }
            }
        }
    }

    fn is_resumable(&self) -> bool {
        self.managed.as_ref().is_some_and(|it| it.id.is_some())
    }

    /// Sends something numbered, if there is a session to send it in.
    fn speak(&mut self, now: At, deed: Deed) {
        match self.phase {
            Phase::Online => {}
            Phase::Away(_) | Phase::LoggingIn(..) if self.is_resumable() => {}
            // Away by choice, or on the way.
            Phase::Leaving(_) | Phase::Closing(_) => return,
            Phase::Away(_) | Phase::LoggingIn(..) if !self.troubled && self.is_expected() => return,
            Phase::Away(_) | Phase::LoggingIn(..) => return self.note(Event::Stalled),
        }
        let waiting = self.managed.as_ref().map_or(0, Managed::unacknowledged);
        if waiting >= self.settings.unacknowledged {
            return self.note(Event::Stalled);
        }
        let picked = self.rng.below(self.contacts.len() as u64);
        let picked = usize::try_from(picked).unwrap_or(0);
        let Some(to) = self.contacts.keys().nth(picked).copied() else {
            return;
        };
        match deed {
            Deed::Message => {
                let sequence = self.sequences.entry(to).or_default();
                *sequence += 1;
                let item = Item::Message(to, *sequence);
                self.offer_item(now, item, to);
            }
            Deed::Ping => {
                self.pings += 1;
                self.offer_item(now, Item::Ping(self.pings), to);
            }
            _ => self.show(now),
        }
    }

    fn is_expected(&self) -> bool {
        self.login == Login::Expected
    }

    /// Shows a new presence.
    fn show(&mut self, now: At) {
        self.presences += 1;
        self.offer_item(now, Item::Presence(self.presences), self.me);
    }

    fn offer_item(&mut self, now: At, item: Item, to: Account) {
        let Settings { run, names, .. } = &*self.settings;
        let stanza = stanzas::write(item, *run, self.me, to, names);
        self.note(Event::Sent(item));
        self.offer(now, stanza, Some(item));
    }

    /// Sends a stanza, or keeps it until the session goes on.
    fn offer(&mut self, now: At, stanza: String, item: Option<Item>) {
        let connected = matches!(self.phase, Phase::Online | Phase::Leaving(_));
        match &mut self.managed {
            Some(managed) => {
                managed.send(stanza.clone(), item);
                if connected {
                    self.send(stanza);
                    self.ask(now);
                }
            }
            None if connected => self.send(stanza),
            None => {}
        }
    }

    /// Asks for an acknowledgement if something waits for one and none is under way.
    fn ask(&mut self, now: At) {
        if let Some(managed) = &mut self.managed
            && managed.asked.is_none()
            && managed.unacknowledged() > 0
        {
            managed.asked = Some(now);
            self.send(format!("<r xmlns='{SM}'/>"));
        }
    }

    fn is_acknowledged(&self) -> bool {
        let waiting = self.managed.as_ref().map(Managed::unacknowledged);
        waiting.unwrap_or(0) == 0
    }

    fn confirm(&mut self, h: u32) {
        let Some(managed) = &mut self.managed else {
            return;
        };
        match managed.confirm(h) {
            Ok(confirmed) => {
                for item in confirmed.items {
                    self.note(Event::Acknowledged(item));
                }
                if let Some(count) = confirmed.told {
                    self.told(count);
                }
            }
            Err(error) => self.violation(error.to_string()),
        }
    }

    fn told(&mut self, count: u32) {
        let session = self.session;
        self.note(Event::Told { session, count });
    }

    fn break_off(&mut self, now: At, until: At, by_choice: bool) {
        self.effects.push(Effect::Drop);
        match self.phase {
            Phase::Away(_) => return,
            Phase::LoggingIn(..) => {
                self.troubled = true;
                self.phase = Phase::Away(until);
                return;
            }
            // Perhaps the server has not heard that it leaves: it says so again.
            Phase::Closing(_) if self.is_resumable() && self.stage != Stage::Done => {}
            Phase::Closing(_) => return self.left(now),
            Phase::Online | Phase::Leaving(_) => {}
        }
        self.note(Event::Broke { by_choice });
        self.coming_back = (until, by_choice);
        self.phase = Phase::Away(until);
        match self.managed.as_mut() {
            Some(managed) if managed.id.is_some() => managed.asked = None,
            Some(_) => self.lose_session(Login::Lost),
            None => self.lose_session(Login::Unmanaged),
        }
    }

    /// The session is over, whatever it had under way.
    fn lose_session(&mut self, next: Login) {
        if let Some(managed) = self.managed.take() {
            for item in managed.abandoned() {
                self.note(Event::Abandoned(item));
            }
        }
        self.login = next;
    }

    fn send(&mut self, what: String) {
        if !what.is_empty() {
            self.effects.push(Effect::Send(what));
        }
    }

    /// The server did what none may do.
    fn violation(&mut self, what: String) {
        self.note(Event::Violation);
        self.effects.push(Effect::Complain(what));
    }

    fn note(&mut self, event: Event) {
        self.effects.push(Effect::Note(event));
    }
}

fn micros(time: Duration) -> At {
    At::try_from(time.as_micros()).unwrap_or(At::MAX / 4)
}
