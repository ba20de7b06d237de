//! Changes of a roster: what to write, and what follows when it is written.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_store::{Condition, Item, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::contact::{self, Contact, Exchange, Pending, Tombstone};
use super::state::{self, Kind, State, Transition};
use super::wire::{self, Set};
use super::{Limits, Push, Roster, RosterError, delete_request};

/// A change that waits for its write.
#[derive(Debug, Serialize, Deserialize)]
pub struct Planned {
    /// The one write that decides; `None` = nothing to store, commit at once. Take it, carry it
    /// out, then give the plan to [`Roster::commit`] or [`Roster::abort`].
    pub write: Option<Op>,
    done: Done,
    row: Option<Row>,
    request: Option<Request>,
    version: u64,
}

/// What follows from a change that is written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// The contact.
    pub jid: BareJid,
    /// Where the user stood with it.
    pub before: State,
    /// Where the user stands now. A gained or lost `from` starts or ends the contact's view of the
    /// user's presence (RFC 6121 sections 3.1.5, 3.2.2, 3.3.3).
    pub after: State,
    /// Outbound: route the user's stanza to the contact. Inbound: deliver the contact's stanza to
    /// the user.
    pub pass: bool,
    /// Stanzas to the contact from the user's bare JID, made by the server.
    pub sends: Vec<Kind>,
    /// For every interested resource of the user.
    pub push: Option<Push>,
    /// A delete of a settled request; nothing depends on its success.
    pub cleanup: Option<Op>,
}

/// A contact's row afterwards.
#[derive(Debug, Serialize, Deserialize)]
enum Row {
    Contact(Contact),
    Tombstone(Tombstone),
    /// What was told and heard changes, and nothing that shows; a client that asks for changes
    /// gets the item once more.
    Exchange(Exchange),
}

/// A request's row afterwards.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Put(Pending),
    Delete,
}

/// A change on its way to becoming a plan.
struct Draft {
    after: State,
    pass: bool,
    sends: Vec<Kind>,
    row: Option<Row>,
    request: Option<Request>,
    push: bool,
}

impl Planned {
    /// Whether the write is done, given the store's answer. Deleting a request that is gone
    /// already is done.
    pub fn is_written(&self, result: &Result<Outcome, StoreError>) -> bool {
        let deletes = self.row.is_none() && matches!(self.request, Some(Request::Delete));
        match result {
            Ok(_) => true,
            Err(StoreError::Conflict { existing: None, .. }) => deletes,
            Err(_) => false,
        }
    }
}

impl Draft {
    /// Nothing happens.
    fn quiet(after: State) -> Self {
        Self {
            after,
            pass: false,
            sends: Vec::new(),
            row: None,
            request: None,
            push: false,
        }
    }
}

impl Roster {
    /// A roster set by the user (RFC 6121 sections 2.3 to 2.5). `nonce` = 128 random bits.
    ///
    /// # Errors
    /// [`RosterError::Unknown`], [`RosterError::Full`], [`RosterError::TooLarge`],
    /// [`RosterError::Busy`], [`RosterError::Stale`].
    pub fn plan_set(&mut self, now_ms: u64, nonce: u128, set: Set) -> Result<Planned, RosterError> {
        self.ready()?;
        match set {
            Set::Update { jid, name, groups } => {
                let mut contact = self.contact_or_new(now_ms, &jid)?;
                contact.name = name;
                contact.groups = groups;
                self.room_for(&contact)?;
                let after = self.state(&jid);
                let draft = Draft {
                    row: Some(Row::Contact(contact)),
                    ..Draft::quiet(after)
                };
                Ok(self.plan(
                    now_ms,
                    nonce,
                    &jid,
                    Draft {
                        push: true,
                        ..draft
                    },
                ))
            }
            Set::Remove { jid } => self.plan_removal(now_ms, nonce, &jid),
        }
    }

    /// A subscription stanza from the user to a contact (RFC 6121 Appendix A.2).
    ///
    /// # Errors
    /// [`RosterError::Full`], [`RosterError::TooLarge`], [`RosterError::Busy`],
    /// [`RosterError::Stale`].
    pub fn plan_outbound(
        &mut self,
        now_ms: u64,
        nonce: u128,
        jid: &BareJid,
        kind: Kind,
    ) -> Result<Planned, RosterError> {
        self.ready()?;
        let before = self.state(jid);
        let step = state::outbound(before, self.is_approved(jid), kind);
        let mut draft = Draft {
            pass: step.pass,
            ..Draft::quiet(step.state)
        };
        if step.push {
            let mut contact = self.stepped(now_ms, jid, &step)?;
            if step.pass {
                contact.exchange.mark(kind);
            }
            if matches!(kind, Kind::Subscribe | Kind::Unsubscribe) {
                contact.exchange.asked = self.next_version(now_ms);
            }
            draft.row = Some(Row::Contact(contact));
            draft.push = true;
            draft.request = self.settled(jid, step.state);
        } else if before.pending_in() && !step.state.pending_in() {
            // A refusal changes no row that shows; it stands until the other home has it.
            draft.request = self.requests.get(jid).map(|request| {
                Request::Put(Pending {
                    refused: true,
                    ..request.clone()
                })
            });
        }
        Ok(self.plan(now_ms, nonce, jid, draft))
    }

    /// A subscription stanza from a contact to the user (RFC 6121 Appendix A.3). `stanza` is the
    /// presence as it shall be delivered; a request is kept whole. `number` is what
    /// [`Roster::number`] gave at the contact's home; a stanza of another server has none.
    ///
    /// # Errors
    /// [`RosterError::RequestsFull`], [`RosterError::RequestTooLong`], [`RosterError::Full`],
    /// [`RosterError::Busy`], [`RosterError::Stale`].
    pub fn plan_inbound(
        &mut self,
        now_ms: u64,
        nonce: u128,
        jid: &BareJid,
        kind: Kind,
        stanza: &[u8],
        number: Option<u64>,
    ) -> Result<Planned, RosterError> {
        self.ready()?;
        let before = self.state(jid);
        if let Some(number) = number
            && let Some(draft) = self.repeated(jid, kind, number)
        {
            return Ok(self.plan(now_ms, nonce, jid, draft));
        }
        let step = state::inbound(before, self.is_approved(jid), kind);
        let heard = number.filter(|_| matches!(kind, Kind::Subscribe | Kind::Unsubscribe));
        let mut draft = Draft {
            pass: step.pass,
            sends: step.reply.into_iter().collect(),
            push: step.push,
            ..Draft::quiet(step.state)
        };
        if step.push {
            let mut contact = self.stepped(now_ms, jid, &step)?;
            let exchange = &mut contact.exchange;
            match kind {
                Kind::Subscribe => exchange.mark(Kind::Subscribed),
                Kind::Unsubscribe => exchange.approval = false,
                Kind::Subscribed | Kind::Unsubscribed => exchange.interest = false,
            }
            exchange.heard = heard.unwrap_or(exchange.heard);
            draft.row = Some(Row::Contact(contact));
            draft.request = self.settled(jid, step.state);
        } else if before != step.state || step.state.pending_in() && heard.is_some() {
            draft.request = Some(if step.state.pending_in() {
                Request::Put(self.new_request(jid, stanza, heard.unwrap_or(0))?)
            } else {
                Request::Delete
            });
        } else if step.reply == Some(Kind::Subscribed) && heard.is_some() {
            // The contact asks anew for what it has here: the answer must reach it.
            let mut exchange = self.exchange(jid);
            exchange.mark(Kind::Subscribed);
            exchange.heard = heard.unwrap_or(exchange.heard);
            draft.row = Some(Row::Exchange(exchange));
        }
        Ok(self.plan(now_ms, nonce, jid, draft))
    }

    /// What follows from a stanza that was taken before, or that a later one has overtaken; `None`
    /// when it is neither.
    fn repeated(&self, jid: &BareJid, kind: Kind, number: u64) -> Option<Draft> {
        let exchange = self.exchange(jid);
        let before = self.state(jid);
        let mut draft = Draft::quiet(before);
        let known = match kind {
            Kind::Subscribe if number == exchange.heard => {
                // It is answered again: the contact's home may not have got the answer.
                let granted = before.subscription().is_from();
                draft.sends.extend(granted.then_some(Kind::Subscribed));
                true
            }
            Kind::Subscribe | Kind::Unsubscribe => number < exchange.heard,
            Kind::Subscribed if number < exchange.asked => {
                // The contact's home grants what is no longer wanted: it must have missed that.
                let interest = if before.ask() {
                    Kind::Subscribe
                } else {
                    Kind::Unsubscribe
                };
                let wanted = before.subscription().is_to();
                draft.sends.extend((!wanted).then_some(interest));
                true
            }
            Kind::Subscribed | Kind::Unsubscribed => number < exchange.asked,
        };
        known.then_some(draft)
    }

    /// The contact's home has confirmed that it got the user's stanza of this kind and
    /// [number](Roster::number). `None` when that is known already, or the stanza is no longer
    /// the last word.
    ///
    /// # Errors
    /// [`RosterError::Busy`], [`RosterError::Stale`].
    pub fn plan_confirmed(
        &mut self,
        nonce: u128,
        jid: &BareJid,
        kind: Kind,
        number: u64,
    ) -> Result<Option<Planned>, RosterError> {
        self.ready()?;
        if number != self.number(jid, kind) {
            return Ok(None);
        }
        let state = self.state(jid);
        let refused = self
            .requests
            .get(jid)
            .is_some_and(|request| request.refused);
        let request = (refused && kind == Kind::Unsubscribed).then_some(Request::Delete);
        let mut exchange = self.exchange(jid);
        let row = exchange.kinds(state).any(|unsent| unsent == kind).then(|| {
            match kind {
                Kind::Subscribe | Kind::Unsubscribe => exchange.interest = false,
                Kind::Subscribed | Kind::Unsubscribed => exchange.approval = false,
            }
            Row::Exchange(exchange)
        });
        if row.is_none() && request.is_none() {
            return Ok(None);
        }
        let draft = Draft {
            row,
            request,
            ..Draft::quiet(state)
        };
        Ok(Some(self.plan(0, nonce, jid, draft)))
    }

    /// The write of a plan has succeeded: takes the change over.
    pub fn commit(&mut self, planned: Planned) -> Done {
        let Planned {
            done,
            row,
            request,
            version,
            ..
        } = planned;
        let jid = done.jid.compact();
        if row.is_some() || request.is_some() {
            self.busy = false;
            self.counter = self.counter.max(version);
        }
        match row {
            Some(Row::Contact(contact)) => {
                self.tombstones.remove(&jid);
                self.contacts.insert(jid.clone(), contact);
            }
            Some(Row::Tombstone(gone)) => {
                self.contacts.remove(&jid);
                self.tombstones.insert(jid.clone(), gone);
            }
            Some(Row::Exchange(exchange)) => {
                if let Some(contact) = self.contacts.get_mut(&jid) {
                    (contact.exchange, contact.version) = (exchange, version);
                } else if let Some(gone) = self.tombstones.get_mut(&jid) {
                    (gone.exchange, gone.version) = (exchange, version);
                }
            }
            None => {}
        }
        match request {
            Some(Request::Put(request)) => {
                self.requests.insert(jid, request);
            }
            Some(Request::Delete) => {
                self.requests.remove(&jid);
            }
            None => {}
        }
        done
    }

    /// The write of a plan has failed: nothing changes. When it may have happened all the same, or
    /// another node has written, the roster [is stale](Self::is_stale).
    pub fn abort(&mut self, _planned: Planned, error: &StoreError) {
        self.busy = false;
        self.stale |= error.outcome_unknown() || matches!(error, StoreError::Conflict { .. });
    }

    fn ready(&self) -> Result<(), RosterError> {
        match (self.stale, self.busy) {
            (true, _) => Err(RosterError::Stale),
            (_, true) => Err(RosterError::Busy),
            _ => Ok(()),
        }
    }

    fn is_approved(&self, jid: &BareJid) -> bool {
        self.contacts
            .get(jid)
            .is_some_and(|contact| contact.approved)
    }

    fn plan_removal(
        &mut self,
        now_ms: u64,
        nonce: u128,
        jid: &BareJid,
    ) -> Result<Planned, RosterError> {
        if !self.contacts.contains_key(jid) {
            return Err(RosterError::Unknown(jid.as_str().into()));
        }
        let before = self.state(jid);
        let mut sends = Vec::new();
        if before.subscription().is_to() || before.ask() {
            sends.push(Kind::Unsubscribe);
        }
        if before.subscription().is_from() || before.pending_in() {
            sends.push(Kind::Unsubscribed);
        }
        let mut exchange = self.exchange(jid);
        sends.iter().for_each(|kind| exchange.mark(*kind));
        if sends.contains(&Kind::Unsubscribe) {
            exchange.asked = self.next_version(now_ms);
        }
        // A refusal that is not confirmed yet goes on in the tombstone.
        exchange.approval |= self.requests.contains_key(jid);
        let version = 0;
        let row = Row::Tombstone(Tombstone { version, exchange });
        let request = self.requests.contains_key(jid).then_some(Request::Delete);
        let draft = Draft {
            sends,
            row: Some(row),
            request,
            push: true,
            ..Draft::quiet(State::NONE)
        };
        Ok(self.plan(now_ms, nonce, jid, draft))
    }

    /// The contact, or a new one if there is room; what was told and heard is taken over.
    fn contact_or_new(&self, now_ms: u64, jid: &BareJid) -> Result<Contact, RosterError> {
        if let Some(contact) = self.contacts.get(jid) {
            return Ok(contact.clone());
        }
        let mut contact = Contact::new(jid);
        let tombstone = self.tombstones.get(jid);
        contact.exchange = self.exchange(jid);
        let limit = self.limits.items;
        let tombstones = self
            .tombstones
            .values()
            .filter(|gone| !gone.is_expired(now_ms))
            .count();
        let rows = self.contacts.len() + tombstones - usize::from(tombstone.is_some());
        if self.contacts.len() >= limit || rows >= 2 * limit {
            return Err(RosterError::Full { limit });
        }
        self.room_for(&contact)?;
        Ok(contact)
    }

    /// Whether the roster stays small enough with this contact, new or changed.
    fn room_for(&self, contact: &Contact) -> Result<(), RosterError> {
        let before = self.contacts.get(&contact.jid).map_or(0, Contact::size);
        let (after, limit) = (contact.size(), self.limits.bytes);
        let given = self.bytes() - before + after;
        if after > before && given > limit {
            return Err(RosterError::TooLarge { given, limit });
        }
        Ok(())
    }

    /// The contact after a step of the state machine.
    fn stepped(
        &self,
        now_ms: u64,
        jid: &BareJid,
        step: &Transition,
    ) -> Result<Contact, RosterError> {
        let mut contact = self.contact_or_new(now_ms, jid)?;
        contact.exchange = self.exchange(jid);
        contact.subscription = step.state.subscription();
        contact.ask = step.state.ask();
        contact.approved = step.approved;
        Ok(contact)
    }

    /// What becomes of a request when the contact's row is written with this state. A refusal
    /// stands until it is confirmed or taken back.
    fn settled(&self, jid: &BareJid, after: State) -> Option<Request> {
        let request = self.requests.get(jid)?;
        let granted = after.subscription().is_from();
        let settled = if request.refused {
            granted
        } else {
            !after.pending_in()
        };
        settled.then_some(Request::Delete)
    }

    fn new_request(
        &self,
        jid: &BareJid,
        stanza: &[u8],
        heard: u64,
    ) -> Result<Pending, RosterError> {
        let Limits {
            requests: limit,
            request_bytes,
            ..
        } = self.limits;
        if stanza.len() > request_bytes {
            let (given, limit) = (stanza.len(), request_bytes);
            return Err(RosterError::RequestTooLong { given, limit });
        }
        if self.requests.len() >= limit && !self.requests.contains_key(jid) {
            return Err(RosterError::RequestsFull { limit });
        }
        Ok(Pending {
            version: 0,
            stanza: Bytes::copy_from_slice(stanza),
            refused: false,
            heard,
        })
    }

    /// Makes a plan of a draft: numbers it and builds its writes.
    fn plan(&mut self, now_ms: u64, nonce: u128, jid: &BareJid, draft: Draft) -> Planned {
        let Draft {
            after,
            pass,
            sends,
            mut row,
            mut request,
            push,
        } = draft;
        let version = self.next_version(now_ms);
        let stands = self.requests.contains_key(jid) && !matches!(request, Some(Request::Delete));
        let known = self.requests.get(jid).map(|request| request.version);
        let item = self.row_item(jid, &mut row, version, stands);
        let condition = self.row_condition(now_ms, jid);
        let row_write = item.map(|item| Op::Put {
            item,
            condition,
            nonce,
        });
        let request_write = match &mut request {
            None => None,
            Some(Request::Delete) => known.map(|version| delete_request(&self.owner, jid, version)),
            Some(Request::Put(request)) => {
                request.version = version;
                let item = contact::pending_item(&self.owner, jid, request);
                let condition = known.map_or(Condition::Absent, Condition::Version);
                Some(Op::Put {
                    item,
                    condition,
                    nonce,
                })
            }
        };
        let (write, cleanup) = match row_write {
            None => (request_write, None),
            row_write => (row_write, request_write),
        };
        let push = match &row {
            Some(Row::Contact(contact)) if push => Some(wire::changed(version, contact)),
            Some(Row::Tombstone(_)) if push => Some(wire::removed(version, jid)),
            _ => None,
        };
        let push = push.map(|query| Push { version, query });
        self.busy = write.is_some();
        let before = self.state(jid);
        let done = Done {
            jid: jid.clone(),
            before,
            after,
            pass,
            sends,
            push,
            cleanup,
        };
        Planned {
            write,
            done,
            row,
            request,
            version,
        }
    }

    /// The row as it shall be stored, its version filled in.
    fn row_item(
        &self,
        jid: &BareJid,
        row: &mut Option<Row>,
        version: u64,
        pending: bool,
    ) -> Option<Item> {
        Some(match row.as_mut()? {
            Row::Contact(contact) => {
                contact.version = version;
                contact::contact_item(&self.owner, contact, pending)
            }
            Row::Tombstone(gone) => {
                gone.version = version;
                contact::tombstone_item(&self.owner, jid, *gone, pending)
            }
            Row::Exchange(exchange) => match self.contacts.get(jid) {
                Some(contact) => {
                    let contact = Contact {
                        exchange: *exchange,
                        version,
                        ..contact.clone()
                    };
                    contact::contact_item(&self.owner, &contact, pending)
                }
                None => {
                    let gone = Tombstone {
                        exchange: *exchange,
                        version,
                    };
                    contact::tombstone_item(&self.owner, jid, gone, pending)
                }
            },
        })
    }
}
