//! What clients do, and what they make of what they get.

use cirrus_router::{PipeId, PipeOut};
use cirrus_stanza::{Kind, Stanza, Ty, ns};

use super::network::Up;
use super::{Happening, World};
use crate::check::{Class, Message, Violation, index_of};
use crate::client::{Phase, Unacked};
use crate::plan::SKEW_MS;

impl World {
    /// It is a client's turn.
    pub(super) fn act(&mut self, index: usize) {
        if !self.playing {
            return;
        }
        let pace = self.plan.pace_ms;
        self.soon(pace, Happening::Act(index));
        match self.clients[index].phase {
            Phase::Off => self.connect(index),
            Phase::Broken => self.reconnect(index),
            Phase::On => self.talk(index),
            Phase::Binding | Phase::Enabling | Phase::Resuming | Phase::Leaving => {}
        }
    }

    pub(super) fn connect(&mut self, index: usize) {
        if !self.is_up() || self.is_away(self.clients[index].account) {
            return;
        }
        self.sessions += 1;
        self.clients[index].forget();
        self.clients[index].session = self.sessions;
        self.dial(index);
        self.clients[index].phase = Phase::Binding;
        self.send(index, Up::Bind);
        self.spend();
    }

    pub(super) fn reconnect(&mut self, index: usize) {
        if !self.is_up() || self.is_away(self.clients[index].account) {
            return;
        }
        let Some(previd) = self.clients[index].previd.clone() else {
            return self.connect(index);
        };
        self.dial(index);
        let h = self.clients[index].received;
        self.clients[index].told = h;
        self.clients[index].phase = Phase::Resuming;
        self.send(index, Up::Resume { previd, h });
        self.spend();
    }

    fn talk(&mut self, index: usize) {
        match self.rng.below(100) {
            0..=4 => self.break_pipe(index),
            5..=7 => self.leave(index),
            8..=19 => self.acknowledge(index),
            20..=24 => self.change_presence(index),
            25..=26 => self.direct_presence(index),
            27..=32 => self.subscribe(index),
            33..=35 => self.ask_roster(index),
            36..=37 => self.set_contact(index),
            38..=39 => self.ask(index),
            40 => self.enable(index),
            41..=43 => self.look(index),
            _ => self.message(index),
        }
        self.spend();
    }

    /// Closes the stream, with or without a last acknowledgement.
    fn leave(&mut self, index: usize) {
        if self.rng.one_in(2) {
            self.acknowledge(index);
        }
        self.clients[index].phase = Phase::Leaving;
        self.send(index, Up::Close);
    }

    pub(super) fn acknowledge(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.counting && client.told != client.received {
            client.told = client.received;
            let h = client.received;
            self.send(index, Up::Ack { h });
        }
    }

    fn enable(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.managed && !client.enabling {
            client.enabling = true;
            self.send(index, Up::Enable);
        }
    }

    /// Somebody looks away from a client, or at it again. What it learns about others is then late,
    /// so it has first to have learned who is there.
    fn look(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.initial.is_none() && client.presence.is_some() {
            client.looks = !client.looks;
            let active = client.looks;
            self.send(index, Up::Active(active));
        }
    }

    /// Somebody looks at a client.
    pub(super) fn look_at(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !std::mem::replace(&mut client.looks, true) {
            self.send(index, Up::Active(true));
        }
    }

    fn change_presence(&mut self, index: usize) {
        if self.clients[index].presence.is_none() || self.rng.one_in(2) {
            return self.appear(index);
        }
        let client = &mut self.clients[index];
        client.presence = None;
        client.initial = None;
        client.seen.clear();
        client.directed.clear();
        self.stanza(index, "<presence type='unavailable'/>".into(), None);
    }

    /// Available presence, which says something new.
    pub(super) fn appear(&mut self, index: usize) {
        if self.clients[index].presence.is_none() {
            self.look_at(index);
        }
        let says = format!("p{}", self.mark());
        let negative = self.playing && self.rng.one_in(6);
        let priority = if negative { -1 } else { 0 };
        let client = &mut self.clients[index];
        if client.presence.is_none() {
            client.initial = Some(says.clone());
        }
        client.presence = Some(says.clone());
        client.said.push((self.now, None, says.clone()));
        let xml =
            format!("<presence><priority>{priority}</priority><status>{says}</status></presence>");
        self.stanza(index, xml, None);
    }

    fn direct_presence(&mut self, index: usize) {
        let to = self.rng.index(self.plan.users.len());
        let says = (!self.rng.one_in(3)).then(|| format!("d{}", self.mark()));
        let xml = match &says {
            Some(says) => {
                format!(
                    "<presence to='{}'><status>{says}</status></presence>",
                    self.user(to)
                )
            }
            None => format!("<presence to='{}' type='unavailable'/>", self.user(to)),
        };
        let client = &mut self.clients[index];
        client
            .said
            .extend(says.clone().map(|says| (self.now, Some(to), says)));
        client.directed.insert(to, says);
        self.stanza(index, xml, None);
    }

    fn subscribe(&mut self, index: usize) {
        let to = self.rng.index(self.plan.users.len());
        // Subscriptions that come about are worth more than those that end.
        let kinds = [
            "subscribe",
            "subscribe",
            "subscribed",
            "subscribed",
            "unsubscribe",
            "unsubscribed",
        ];
        let kind = kinds[self.rng.index(kinds.len())];
        let xml = format!("<presence to='{}' type='{kind}'/>", self.user(to));
        self.stanza(index, xml, None);
    }

    /// Asks for the roster, with the version that the client has, if any.
    pub(super) fn ask_roster(&mut self, index: usize) {
        let roster = &mut self.clients[index].roster;
        if roster.asked.is_some() {
            return;
        }
        roster.asked = Some(roster.version);
        let version = roster.version.map(|version| format!(" ver='{version}'"));
        let xml = format!(
            "<iq type='get' id='roster'><query xmlns='{}'{}/></iq>",
            ns::ROSTER,
            version.unwrap_or_default()
        );
        self.stanza(index, xml, None);
    }

    fn set_contact(&mut self, index: usize) {
        let (to, name) = (self.rng.index(self.plan.users.len()), self.mark());
        let item = if self.rng.one_in(4) {
            format!("<item jid='{}' subscription='remove'/>", self.user(to))
        } else {
            let jid = self.user(to);
            format!(
                "<item jid='{jid}' name='n{name}'><group>g{}</group></item>",
                name % 3
            )
        };
        let space = ns::ROSTER;
        let xml = format!("<iq type='set' id='s{name}'><query xmlns='{space}'>{item}</query></iq>");
        self.stanza(index, xml, None);
    }

    /// A question to another client, or to an account.
    fn ask(&mut self, index: usize) {
        let (to, id) = (self.rng.index(self.plan.users.len()), self.mark());
        let resource = ["/r0", "/r1", ""][self.rng.index(3)];
        let jid = self.user(to);
        let xml = format!("<iq type='get' id='q{id}' to='{jid}{resource}'><q xmlns='sim:q'/></iq>");
        self.stanza(index, xml, None);
    }

    fn message(&mut self, index: usize) {
        let to = self.rng.index(self.plan.users.len());
        let number = self.history.messages.len();
        let mut address = self.user(to).to_string();
        if self.rng.one_in(4) {
            address.push_str(if self.rng.one_in(3) { "/r1" } else { "/r0" });
        }
        let body = format!("<body>{number}</body>");
        let (class, ty, content) = match self.rng.below(40) {
            0..=1 => {
                let hint = format!("{body}<no-store xmlns='{}'/>", ns::HINTS);
                (Class::Passing, "chat", hint)
            }
            2 => (Class::Passing, "headline", body),
            3 => (Class::Passing, "groupchat", body),
            4..=7 => {
                let receipt = format!("<received xmlns='{}' id='x'/>", ns::RECEIPTS);
                (Class::Receipt, "chat", receipt)
            }
            8..=11 => (Class::Kept, "normal", body),
            _ => (Class::Kept, "chat", body),
        };
        let account = self.clients[index].account;
        let target = self.target(account, to).filter(|_| class == Class::Kept);
        let retract =
            target.map(|it| format!("<retract xmlns='{}' id='m{it}'/>{content}", ns::RETRACT));
        let content = retract.unwrap_or(content);
        let client = &self.clients[index];
        let message = Message {
            class,
            from: account,
            to,
            retracts: target,
            session: client.session,
            address: address.clone(),
            sent_at: self.now,
            ..Message::default()
        };
        self.history.messages.push(message);
        let xml = format!("<message to='{address}' type='{ty}' id='m{number}'>{content}</message>");
        self.stanza(index, xml, Some(number));
    }

    /// What a message to that account retracts: mostly nothing; what was said last, or some time
    /// ago; and now and then what the other one has said, which has no effect.
    fn target(&mut self, from: usize, to: usize) -> Option<usize> {
        if !self.plan.retracts || !self.rng.one_in(6) {
            return None;
        }
        let (author, other, back) = match self.rng.below(4) {
            0..=1 => (from, to, 0),
            2 => (from, to, self.rng.index(8)),
            _ => (to, from, 0),
        };
        let messages = self.history.messages.iter().enumerate().rev();
        let mut said = messages.filter(|(_, it)| {
            (it.from, it.to, it.class) == (author, other, Class::Kept) && it.retracts.is_none()
        });
        said.nth(back).map(|(index, _)| index)
    }

    fn stanza(&mut self, index: usize, xml: String, message: Option<usize>) {
        let client = &mut self.clients[index];
        // The server counts what comes behind <enable/>.
        if client.enabling {
            client.sent += 1;
            let unacked = Unacked {
                count: client.sent,
                xml: xml.clone(),
                message,
            };
            client.unacked.push_back(unacked);
        }
        self.send(index, Up::Stanza(xml));
    }

    /// Something reaches a client.
    pub(super) fn receive(&mut self, pipe: PipeId, out: PipeOut) {
        let Some(state) = self.pipes.get(&pipe).filter(|state| state.heard) else {
            return;
        };
        let index = state.client;
        if self.clients[index].pipe != pipe {
            return;
        }
        match out {
            PipeOut::Bound { .. } => self.bound(index),
            PipeOut::SmEnabled { id, .. } => {
                let client = &mut self.clients[index];
                (client.previd, client.counting, client.told) = (id, true, u32::MAX);
                if client.phase == Phase::Enabling {
                    self.ready(index);
                }
            }
            PipeOut::Resumed { k, base, .. } => self.resumed(index, k, base),
            PipeOut::ResumeFailed { .. } | PipeOut::BindRefused { .. } => {
                if matches!(out, PipeOut::ResumeFailed { .. }) {
                    self.check_session(index);
                }
                self.closed(pipe, true);
                if self.playing {
                    self.connect(index);
                }
            }
            PipeOut::Stanza { stanza, .. } => self.took(index, &stanza),
            // Before stream management nobody counts.
            PipeOut::Handled { .. } if !self.clients[index].counting => {}
            PipeOut::Handled { k } => {
                let base = self.base_of(pipe);
                self.accepted(index, counter(k, base));
            }
            PipeOut::Close { .. } => {
                if let Some(state) = self.pipes.get_mut(&pipe) {
                    state.heard = false;
                }
                self.clients[index].phase = Phase::Broken;
            }
            PipeOut::SmRefused { condition } => {
                let text = format!("stream management was refused: {condition:?}");
                self.wrong(Violation::Counted(text));
            }
        }
    }

    /// A session could not be resumed. A cluster that loses no more nodes than it can bear keeps
    /// every session for its time.
    fn check_session(&mut self, index: usize) {
        let client = &self.clients[index];
        let jid = client.jid();
        let rivals = self.clients.iter().filter(|other| other.jid() == jid);
        let Some(session) = self.history.sessions.get(&client.session) else {
            return;
        };
        let until = session
            .detached
            .last()
            .map_or(u64::MAX, |(_, until)| *until);
        let kept = self.now + 4 * SKEW_MS < until;
        let spared = self.history.erased_since(client.account, session.bound_at);
        if self.keeps_sessions() && kept && !spared && rivals.count() == 1 {
            let text = format!("session {} of {jid} can't be resumed", client.session);
            self.wrong(Violation::Lost(text));
        }
    }

    fn bound(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.managed && !client.late {
            client.phase = Phase::Enabling;
            client.enabling = true;
            self.send(index, Up::Enable);
        } else {
            self.ready(index);
        }
    }

    fn ready(&mut self, index: usize) {
        self.clients[index].phase = Phase::On;
        if self.rng.one_in(2) {
            self.ask_roster(index);
        }
        self.appear(index);
    }

    fn resumed(&mut self, index: usize, k: u64, base: u64) {
        self.report.resumes += 1;
        self.accepted(index, counter(k, base));
        // A resumed stream starts active (XEP-0352 section 5).
        self.clients[index].looks = true;
        self.clients[index].phase = Phase::On;
        let unacked = self.clients[index].unacked.iter();
        let again: Vec<_> = unacked.map(|unacked| unacked.xml.clone()).collect();
        for xml in again {
            self.send(index, Up::Stanza(xml));
        }
    }

    fn accepted(&mut self, index: usize, h: u32) {
        for message in self.clients[index].handled(h) {
            self.history.messages[message].accepted = Some(self.now);
        }
    }

    fn took(&mut self, index: usize, stanza: &Stanza) {
        let client = &mut self.clients[index];
        if client.counting {
            client.received += 1;
        }
        match stanza.kind {
            Kind::Message => self.took_message(index, stanza),
            Kind::Presence => client.saw(stanza),
            Kind::Iq => self.took_iq(index, stanza),
        }
        if !self.playing {
            self.acknowledge(index);
        }
    }

    fn took_message(&mut self, index: usize, stanza: &Stanza) {
        let Some(message) = index_of(stanza) else {
            return;
        };
        if stanza.ty == Ty::Error {
            self.history.messages[message].refused = true;
            return;
        }
        self.report.delivered += 1;
        let client = &mut self.clients[index];
        client.got.push((client.received, message));
        let session = client.session;
        self.history.received(message, session);
    }

    fn took_iq(&mut self, index: usize, stanza: &Stanza) {
        let id = stanza.id.as_deref().unwrap_or_default().to_owned();
        let roster = &mut self.clients[index].roster;
        let right = match stanza.ty {
            Ty::Result if id == "roster" => roster.answered(stanza),
            Ty::Set if stanza.is_payload("query", ns::ROSTER) => roster.pushed(stanza),
            _ => true,
        };
        if !right {
            let jid = self.clients[index].jid();
            let bytes = stanza.to_bytes();
            let text = format!("{jid} got {}", String::from_utf8_lossy(&bytes));
            self.wrong(Violation::Roster(text));
        }
        if matches!(stanza.ty, Ty::Get | Ty::Set)
            && let Some(from) = &stanza.from
        {
            let xml = format!("<iq type='result' id='{id}' to='{from}'/>");
            self.stanza(index, xml, None);
        }
    }
}

/// The client's counter for the server's number `k`.
fn counter(k: u64, base: u64) -> u32 {
    u32::try_from(k.saturating_sub(base)).unwrap_or(u32::MAX)
}
