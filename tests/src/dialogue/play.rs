//! Plays a dialogue against a server.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::pattern::{self, Values};
use super::{Action, Deed, Dialogue, Expected, Role};
use crate::client::{Client, Identity, Received, SASL};
use crate::xml::{Event, Node, STREAM, fragment};

/// A server to play against.
pub trait Stage {
    /// Where it takes clients that start TLS inside the stream.
    fn address(&self) -> SocketAddr;
    /// Where it takes clients that begin with TLS.
    fn tls_address(&self) -> SocketAddr;
    /// Makes an account.
    ///
    /// # Errors
    /// When the server refuses.
    fn add_account(&mut self, identity: &Identity) -> Result<()>;
    /// Stops the server by a signal and starts it again on the same store.
    ///
    /// # Errors
    /// When it does not come back.
    fn restart(&mut self, signal: &str) -> Result<()>;
}

/// Plays all steps; in the end nothing unexpected may be on its way to anyone.
///
/// # Errors
/// Names the line of the step that failed, and what was received instead.
pub fn play(dialogue: &Dialogue, stage: &mut dyn Stage) -> Result<()> {
    let mut made: Vec<String> = Vec::new();
    for role in dialogue.clients.iter().filter(|role| role.has_account) {
        let bare = role.identity.bare();
        if !made.contains(&bare) {
            stage
                .add_account(&role.identity)
                .with_context(|| format!("the account {bare}"))?;
            made.push(bare);
        }
    }
    let mut player = Player {
        roles: &dialogue.clients,
        stage,
        actors: BTreeMap::new(),
        values: Values::new(),
        barriers: 0,
    };
    for step in &dialogue.steps {
        let outcome = match &step.action {
            Action::Restart(signal) => player.restart(signal),
            Action::Client(name, deed) => player.act(name, deed),
            Action::Befriend(one, other) => player.befriend(one, other),
        };
        outcome.with_context(|| format!("line {}: {}", step.line, step.text))?;
    }
    let present: Vec<String> = player.actors.keys().cloned().collect();
    for name in present {
        player
            .quiet(&name)
            .with_context(|| format!("after the last step, {name}"))?;
    }
    Ok(())
}

struct Player<'a> {
    roles: &'a [Role],
    stage: &'a mut dyn Stage,
    actors: BTreeMap<String, Actor>,
    values: Values,
    barriers: u32,
}

/// A client that is connected.
struct Actor {
    client: Client,
    /// Received, but not expected by a step yet.
    pending: VecDeque<Received>,
}

impl Actor {
    fn next(&mut self) -> Result<Received> {
        match self.pending.pop_front() {
            Some(received) => Ok(received),
            None => self.client.receive(),
        }
    }

    fn own_addresses(&self) -> Vec<String> {
        let identity = &self.client.identity;
        [identity.bare()]
            .into_iter()
            .chain(self.client.jid.clone())
            .collect()
    }

    fn compare(
        &mut self,
        expected: &Expected,
        actual: &Received,
        values: &mut Values,
    ) -> Result<()> {
        let own = self.own_addresses();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        match (expected, actual) {
            (Expected::Element(expected), Received::Event(Event::Element(actual))) => {
                pattern::compare_root(expected, actual, &own, values)
            }
            (Expected::Open(expected), Received::Event(Event::Open(actual))) => {
                pattern::compare(expected, actual, values)
            }
            (Expected::Close, Received::Event(Event::Close)) => Ok(()),
            _ => bail!("something else came"),
        }
    }
}

impl Player<'_> {
    fn act(&mut self, name: &str, deed: &Deed) -> Result<()> {
        match deed {
            Deed::Dials => self.dial(name).map(drop),
            Deed::DialsTls => {
                let address = self.stage.tls_address();
                let actor = self.enter(name, address)?;
                actor
                    .client
                    .handshake(Some("xmpp-client"), rustls::ALL_VERSIONS)
            }
            Deed::LogsIn | Deed::Connects => self.log_in(name, *deed == Deed::Connects),
            Deed::BreaksOff => {
                let mut actor = self.leave(name)?;
                actor.client.break_off();
                self.values
                    .insert(count_of(name), actor.client.acks.received.to_string());
                Ok(())
            }
            Deed::Disconnects => {
                self.quiet(name)?;
                let mut actor = self.leave(name)?;
                let last = actor.client.disconnect()?;
                ensure!(last.is_empty(), "received at the end: {}", list(&last));
                Ok(())
            }
            Deed::IsDisconnected => {
                let mut actor = self.leave(name)?;
                match actor.next()? {
                    Received::End => Ok(()),
                    Received::Event(event) => bail!("still connected, received\n{event}"),
                }
            }
            Deed::StreamEndsWith(condition) => self.stream_ends(name, condition),
            Deed::ReceivesNothing => self.quiet(name),
            Deed::Receives(expected) => self.receives(name, expected),
            Deed::ReceivesInAnyOrder(expected) => self.receives_in_any_order(name, expected),
            Deed::Sends(text) => {
                let bytes = self.fill(text)?;
                let client = &mut self.actor(name)?.client;
                if let Some(h) = resumed_count(&bytes) {
                    client.acks.received = h;
                }
                client.send(bytes)
            }
            Deed::OpensAStream => self.actor(name)?.client.open_stream().map(drop),
            Deed::StartsTls => self.actor(name)?.client.start_tls(),
            Deed::Authenticates => {
                let client = &mut self.actor(name)?.client;
                client.authenticate()?;
                client.expect_new_stream();
                Ok(())
            }
            Deed::IsRefused(condition) => {
                let failure = self.actor(name)?.client.try_to_authenticate()?;
                let failure = failure.ok_or_else(|| anyhow!("the login succeeded"))?;
                ensure!(
                    failure.child(condition, SASL).is_some(),
                    "expected {condition}, received\n{failure}"
                );
                Ok(())
            }
            Deed::IsAcknowledged(count) => self.acknowledged(name, *count),
            Deed::StopsAcknowledging => {
                self.actor(name)?.client.acks.answering = false;
                Ok(())
            }
        }
    }

    fn restart(&mut self, signal: &str) -> Result<()> {
        // Whoever is connected loses the connection; what was on its way does not matter.
        self.actors.clear();
        self.stage.restart(signal)
    }

    /// Both subscribe and approve at once; then their rosters are asked until both say so. By then
    /// each side has been sent the other's confirmations; those are written when this ends, so that
    /// nothing of it comes into the dialogue.
    fn befriend(&mut self, one: &str, other: &str) -> Result<()> {
        let address = self.stage.address();
        let mut clients = Vec::new();
        for name in [one, other] {
            let role = self.roles.iter().find(|role| role.name == name);
            let role = role.ok_or_else(|| anyhow!("no client {name}"))?;
            let identity = Identity {
                resource: None,
                ..role.identity.clone()
            };
            clients.push(Client::connect(address, identity)?);
        }
        let bare: Vec<String> = clients
            .iter()
            .map(|client| client.identity.bare())
            .collect();
        for (client, contact) in clients.iter_mut().zip(bare.iter().rev()) {
            for kind in ["subscribed", "subscribe"] {
                client.send(format!("<presence type='{kind}' to='{contact}'/>"))?;
            }
        }
        for (client, contact) in clients.iter_mut().zip(bare.iter().rev()) {
            client.wait_for_contact(contact)?;
        }
        for mut client in clients {
            client.wait_for_roster()?;
            client.disconnect()?;
        }
        Ok(())
    }

    fn dial(&mut self, name: &str) -> Result<&mut Actor> {
        let address = self.stage.address();
        self.enter(name, address)
    }

    fn enter(&mut self, name: &str, address: SocketAddr) -> Result<&mut Actor> {
        ensure!(
            !self.actors.contains_key(name),
            "{name} is connected already"
        );
        let role = self.roles.iter().find(|role| role.name == name);
        let role = role.ok_or_else(|| anyhow!("no client {name}"))?;
        let mut client = Client::dial(address, role.identity.clone())?;
        // A session that is resumed goes on counting.
        let counted = self
            .values
            .get(&count_of(name))
            .and_then(|count| count.parse().ok());
        client.acks.received = counted.unwrap_or(0);
        client.former_jid = self.values.get(&address_of(name)).cloned();
        self.values
            .insert(format!("{name}'s bare JID"), role.identity.bare());
        let actor = Actor {
            client,
            pending: VecDeque::new(),
        };
        Ok(self.actors.entry(name.to_owned()).or_insert(actor))
    }

    fn leave(&mut self, name: &str) -> Result<Actor> {
        self.actors
            .remove(name)
            .ok_or_else(|| anyhow!("{name} is not connected"))
    }

    fn actor(&mut self, name: &str) -> Result<&mut Actor> {
        self.actors
            .get_mut(name)
            .ok_or_else(|| anyhow!("{name} is not connected"))
    }

    fn log_in(&mut self, name: &str, bind: bool) -> Result<()> {
        let client = &mut self.dial(name)?.client;
        client.open_stream()?;
        client.start_tls()?;
        client.open_stream()?;
        client.authenticate()?;
        client.open_stream()?;
        if bind {
            client.bind()?;
            self.note_address(name);
        }
        Ok(())
    }

    fn note_address(&mut self, name: &str) {
        if let Some(jid) = self
            .actors
            .get(name)
            .and_then(|actor| actor.client.jid.clone())
        {
            self.values.insert(address_of(name), jid);
        }
    }

    /// What is known by name, with each client's count of received stanzas.
    fn fill(&self, text: &str) -> Result<Vec<u8>> {
        let mut values = self.values.clone();
        for (name, actor) in &self.actors {
            values.insert(count_of(name), actor.client.acks.received.to_string());
        }
        pattern::fill(text, &values)
    }

    fn receives(&mut self, name: &str, expected: &[Expected]) -> Result<()> {
        let mut values = self.values.clone();
        let actor = self.actor(name)?;
        for one in expected {
            let received = actor.next()?;
            actor
                .compare(one, &received, &mut values)
                .with_context(|| {
                    format!(
                        "{name} received\n{}\nexpected\n{}",
                        shown(&received),
                        wanted(one)
                    )
                })?;
        }
        self.values = values;
        self.note_address(name);
        Ok(())
    }

    fn receives_in_any_order(&mut self, name: &str, expected: &[Expected]) -> Result<()> {
        let mut values = self.values.clone();
        let actor = self.actor(name)?;
        let mut open: Vec<&Expected> = expected.iter().collect();
        while !open.is_empty() {
            let received = actor.next()?;
            let mut reasons = Vec::new();
            let found = open.iter().position(|one| {
                let mut tried = values.clone();
                match actor.compare(one, &received, &mut tried) {
                    Ok(()) => {
                        values = tried;
                        true
                    }
                    Err(error) => {
                        reasons.push(format!("{}\n  ({error:#})", wanted(one)));
                        false
                    }
                }
            });
            let Some(found) = found else {
                let reasons = reasons.join("\n");
                bail!(
                    "{name} received\n{}\nexpected one of\n{reasons}",
                    shown(&received)
                );
            };
            open.remove(found);
        }
        self.values = values;
        Ok(())
    }

    fn stream_ends(&mut self, name: &str, condition: &str) -> Result<()> {
        let mut actor = self.leave(name)?;
        let error = match actor.next()? {
            Received::Event(Event::Element(error)) if error.is("error", STREAM) => error,
            other => bail!(
                "expected the stream error {condition}, received\n{}",
                shown(&other)
            ),
        };
        let streams = "urn:ietf:params:xml:ns:xmpp-streams";
        ensure!(
            error.child(condition, streams).is_some(),
            "expected {condition}, received\n{error}"
        );
        for expected in [Received::Event(Event::Close), Received::End] {
            let received = actor.next()?;
            ensure!(
                received == expected,
                "after the stream error came\n{}",
                shown(&received)
            );
        }
        Ok(())
    }

    /// Shows that nothing is on its way to a client. Between two entities order holds (RFC 6120,
    /// 10.1), so everybody who is there sends it a request, it sends one to the server, and each
    /// of these and nothing else must arrive.
    fn quiet(&mut self, name: &str) -> Result<()> {
        let actor = self.actor(name)?;
        let Some(jid) = actor.client.jid.clone() else {
            return Ok(());
        };
        let host = actor.client.identity.host.clone();
        let mut names: Vec<String> = self.actors.keys().cloned().collect();
        names.retain(|other| other != name);
        for other in names {
            let id = self.barrier();
            let sender = self.actor(&other)?;
            let Some(from) = sender.client.jid.clone() else {
                continue;
            };
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            sender
                .client
                .send(format!("<iq type='get' id='{id}' to='{jid}'>{ping}</iq>"))?;
            let receiver = self.actor(name)?;
            let received = receiver.next()?;
            ensure!(
                is_barrier(&received, &id),
                "{name} received\n{}",
                shown(&received)
            );
            receiver
                .client
                .send(format!("<iq type='result' id='{id}' to='{from}'/>"))?;
            let sender = self.actor(&other)?;
            let mut early = VecDeque::new();
            loop {
                let received = sender.next()?;
                if is_barrier(&received, &id) {
                    break;
                }
                ensure!(received != Received::End, "{other} lost the connection");
                early.push_back(received);
            }
            sender.pending = early;
        }
        let id = self.barrier();
        let actor = self.actor(name)?;
        let ping =
            format!("<iq type='get' id='{id}' to='{host}'><ping xmlns='urn:xmpp:ping'/></iq>");
        actor.client.send(ping)?;
        let received = actor.next()?;
        ensure!(
            is_barrier(&received, &id),
            "{name} received\n{}",
            shown(&received)
        );
        Ok(())
    }

    fn barrier(&mut self) -> String {
        self.barriers += 1;
        format!("barrier-{}", self.barriers)
    }

    /// Asks for an acknowledgement and waits until the server has given it for so many stanzas.
    fn acknowledged(&mut self, name: &str, count: u32) -> Result<()> {
        let actor = self.actor(name)?;
        if actor.client.acks.confirmed < count {
            actor
                .client
                .send(format!("<r xmlns='{}'/>", crate::client::SM))?;
        }
        while actor.client.acks.confirmed < count {
            match actor.client.receive_acknowledgement()? {
                None => {}
                Some(Received::End) => bail!("{name} lost the connection"),
                Some(received) => actor.pending.push_back(received),
            }
        }
        ensure!(
            actor.client.acks.confirmed == count,
            "the server has acknowledged {}, expected {count}",
            actor.client.acks.confirmed
        );
        Ok(())
    }
}

/// Under which name a client's full address is known to a dialogue.
fn address_of(name: &str) -> String {
    format!("{name}'s full JID")
}

/// Under which name a client's count of received stanzas is known to a dialogue.
fn count_of(name: &str) -> String {
    format!("{name}'s h")
}

/// From where a client that resumes goes on counting: what it says itself.
fn resumed_count(sent: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(sent)
        .ok()
        .filter(|text| text.starts_with("<resume"))?;
    let nodes = fragment(text, &[]).ok()?;
    nodes.first()?.attr("h")?.parse().ok()
}

fn is_barrier(received: &Received, id: &str) -> bool {
    matches!(received, Received::Event(Event::Element(node)) if node.attr("id") == Some(id))
}

fn shown(received: &Received) -> String {
    match received {
        Received::Event(event) => event.to_string(),
        Received::End => "the end of the connection".to_owned(),
    }
}

fn wanted(expected: &Expected) -> String {
    match expected {
        Expected::Open(node) => format!("the stream header\n{node}"),
        Expected::Element(node) => node.to_string(),
        Expected::Close => "</stream:stream>".to_owned(),
    }
}

fn list(nodes: &[Node]) -> String {
    nodes
        .iter()
        .map(Node::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
