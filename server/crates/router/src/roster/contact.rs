//! The rows of a roster and how they are stored.
//!
//! Formats, all with `v` = 1 (numbers are the store's numbers):
//!
//! * contact or tombstone, key `c NUL bare-jid`: `s` subscription (0 none, 1 to, 2 from, 3 both,
//!   4 removed), `f` flags (see [`flag`]; absent = 0), `n` name, `g` groups, each as a two-byte
//!   big-endian length and that many bytes of UTF-8, `i` and `h` the numbers of an [`Exchange`]
//!   (absent = 0). `e` is the roster version that made it so.
//! * pending request, key `p NUL bare-jid`: `z` the presence stanza, `f` flags, `h` the request's
//!   number (absent = 0).
//!
//! A pending row that is older than the contact's row was settled by it, unless the contact's row
//! says that it still stands: so settling a request is one write, and the delete that follows may
//! fail or be late.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::keys::rosters::{self, Row};
use cirrus_store::{Attrs, Item};
use serde::{Deserialize, Serialize};

use super::RosterError;
use super::state::{Kind, State, Subscription};

/// Format of the rows that this version writes, and the only one it reads.
const FORMAT: u64 = 1;

/// How long a removed contact is remembered, so that a client that was away so long can still be
/// told of it; what a client knows must be younger to get changes only.
pub const TOMBSTONE_MS: u64 = 90 * 24 * 3_600 * 1_000;

/// Tombstones live a little longer than they are needed: clocks of nodes differ.
const TOMBSTONE_MARGIN_MS: u64 = 3_600 * 1_000;

/// Bits of the `f` attribute.
mod flag {
    pub(super) const ASK: u64 = 1;
    pub(super) const APPROVED: u64 = 2;
    /// The contact's home has not confirmed the last `subscribe` or `unsubscribe`.
    pub(super) const UNSENT_INTEREST: u64 = 4;
    /// The contact's home has not confirmed the last `subscribed` or `unsubscribed`.
    pub(super) const UNSENT_APPROVAL: u64 = 8;
    /// The contact's request, an older row, still waits for an answer.
    pub(super) const PENDING: u64 = 16;
    /// Of a pending row: refused; it stands until the contact's home has confirmed the refusal.
    pub(super) const REFUSED: u64 = 1;
}

/// `s` of a tombstone.
const REMOVED: u64 = 4;

/// What the homes of the two sides of a subscription have told each other.
///
/// Every `subscribe` and `unsubscribe` has a number that rises with each; an answer carries the
/// number of what it answers. So what is repeated, because its confirmation got lost, is not
/// taken for something new, and an answer to what was taken back meanwhile counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exchange {
    /// The contact's home has not confirmed our last `subscribe` or `unsubscribe`. It is sent
    /// again when the roster is loaded; which of the two it was follows from the state.
    pub interest: bool,
    /// The contact's home has not confirmed our last `subscribed` or `unsubscribed`.
    pub approval: bool,
    /// The number of our last `subscribe` or `unsubscribe`: the version of the row that was
    /// written with it; 0 = there was none.
    pub asked: u64,
    /// The number of the contact's last `subscribe` or `unsubscribe` that was written here.
    pub heard: u64,
}

impl Exchange {
    /// Everything that was sent is confirmed.
    pub fn is_settled(self) -> bool {
        !self.interest && !self.approval
    }

    pub(super) fn mark(&mut self, kind: Kind) {
        match kind {
            Kind::Subscribe | Kind::Unsubscribe => self.interest = true,
            Kind::Subscribed | Kind::Unsubscribed => self.approval = true,
        }
    }

    /// What must be sent again in `state`.
    pub(super) fn kinds(self, state: State) -> impl Iterator<Item = Kind> + use<> {
        let subscription = state.subscription();
        let interest = match (state.ask(), subscription.is_to()) {
            (true, _) => Some(Kind::Subscribe),
            (false, false) => Some(Kind::Unsubscribe),
            // The contact's approval has arrived: it must know that we asked.
            (false, true) => None,
        };
        let approval = match (subscription.is_from(), state.pending_in()) {
            (true, _) => Some(Kind::Subscribed),
            (false, false) => Some(Kind::Unsubscribed),
            // The contact has asked anew: it knows that it has no approval.
            (false, true) => None,
        };
        let unsent = [
            interest.filter(|_| self.interest),
            approval.filter(|_| self.approval),
        ];
        unsent.into_iter().flatten()
    }
}

/// One contact of a roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The contact's address.
    pub jid: BareJid,
    /// The name the user gave it.
    pub name: Option<Box<str>>,
    /// Who is subscribed to whom.
    pub subscription: Subscription,
    /// The user asked for the contact's presence and was not answered.
    pub ask: bool,
    /// The user has approved a request that the contact may yet make (RFC 6121 section 3.4).
    pub approved: bool,
    /// The groups it is in, without repetition.
    pub groups: Box<[Box<str>]>,
    /// The roster version that made it so; the row's version in the store.
    pub version: u64,
    /// What was told to the contact's home, and heard from it.
    pub exchange: Exchange,
}

/// A removed contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tombstone {
    pub version: u64,
    pub exchange: Exchange,
}

/// A contact's request that was not granted yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub version: u64,
    /// The presence stanza, as it is delivered to every session that becomes available.
    #[serde(with = "cirrus_store::raw")]
    pub stanza: Bytes,
    /// The user has refused it; the row stands until the contact's home has confirmed that.
    pub refused: bool,
    /// The request's number (see [`Exchange`]).
    pub heard: u64,
}

impl Contact {
    /// Most bytes that it has where a client gets it.
    pub(super) fn size(&self) -> usize {
        /// Tags and attributes, without what is in them.
        const ITEM: usize = 96;
        const GROUP: usize = 15;
        let size = cirrus_xml::escaped_attr_len;
        let groups = self.groups.iter().map(|group| GROUP + size(group));
        ITEM + size(self.jid.as_str())
            + self.name.as_deref().map_or(0, size)
            + groups.sum::<usize>()
    }

    /// Nothing known but the address.
    pub(super) fn new(jid: &BareJid) -> Self {
        Self {
            jid: jid.compact(),
            name: None,
            subscription: Subscription::None,
            ask: false,
            approved: false,
            groups: Box::default(),
            version: 0,
            exchange: Exchange::default(),
        }
    }

    /// The other home has confirmed everything that was sent to it.
    pub fn sent(&self) -> bool {
        self.exchange.is_settled()
    }
}

impl Tombstone {
    /// When the row expires, Unix milliseconds. The version is a time, or a little above it.
    pub(super) fn expires_ms(self) -> u64 {
        self.version
            .saturating_add(TOMBSTONE_MS + TOMBSTONE_MARGIN_MS)
    }

    /// Whether the store counts the row as absent.
    pub(super) fn is_expired(self, now_ms: u64) -> bool {
        self.expires_ms().div_ceil(1_000) <= now_ms / 1_000
    }
}

/// A decoded row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Contact {
        contact: Contact,
        pending: bool,
    },
    Tombstone {
        jid: BareJid,
        tombstone: Tombstone,
        pending: bool,
    },
    Pending {
        jid: BareJid,
        pending: Pending,
    },
    /// A row of another feature.
    Other,
}

/// The row of a contact; `pending` = a request of it waits for an answer.
pub(super) fn contact_item(owner: &[u8], contact: &Contact, pending: bool) -> Item {
    let flags = flags(&[
        (contact.ask, flag::ASK),
        (contact.approved, flag::APPROVED),
        (pending, flag::PENDING),
    ]) | unsent_flags(contact.exchange);
    let mut attrs = Attrs::new()
        .with("v", FORMAT)
        .with("s", contact.subscription.code());
    attrs.set_opt("f", (flags != 0).then_some(flags));
    attrs.set_opt("n", contact.name.as_deref());
    attrs.set_opt("g", encode_groups(&contact.groups));
    set_numbers(&mut attrs, contact.exchange);
    let key = rosters::key(owner, Row::Contact(contact.jid.as_str()));
    Item::new(key, attrs).versioned(contact.version)
}

/// The row of a removed contact.
pub(super) fn tombstone_item(
    owner: &[u8],
    jid: &BareJid,
    tombstone: Tombstone,
    pending: bool,
) -> Item {
    let flags = flags(&[(pending, flag::PENDING)]) | unsent_flags(tombstone.exchange);
    let mut attrs = Attrs::new().with("v", FORMAT).with("s", REMOVED);
    attrs.set_opt("f", (flags != 0).then_some(flags));
    set_numbers(&mut attrs, tombstone.exchange);
    let key = rosters::key(owner, Row::Contact(jid.as_str()));
    let expires = tombstone.expires_ms().div_ceil(1_000);
    Item::new(key, attrs)
        .versioned(tombstone.version)
        .expiring(expires)
}

/// The row of a request.
pub(super) fn pending_item(owner: &[u8], jid: &BareJid, pending: &Pending) -> Item {
    let flags = flags(&[(pending.refused, flag::REFUSED)]);
    let mut attrs = Attrs::new()
        .with("v", FORMAT)
        .with("z", pending.stanza.clone());
    attrs.set_opt("f", (flags != 0).then_some(flags));
    attrs.set_opt("h", (pending.heard != 0).then_some(pending.heard));
    let key = rosters::key(owner, Row::Pending(jid.as_str()));
    Item::new(key, attrs).versioned(pending.version)
}

/// Reads a row of an owner's partition.
///
/// # Errors
/// [`RosterError::Corrupt`] when it is a contact or a request in a form this version doesn't know.
pub(super) fn decode(item: &Item) -> Result<Decoded, RosterError> {
    let corrupt = |reason: &'static str| RosterError::Corrupt {
        key: item.key.clone(),
        reason,
    };
    let (text, is_contact) = match Row::parse(&item.key.sk) {
        Some(Row::Contact(text)) => (text, true),
        Some(Row::Pending(text)) => (text, false),
        _ => return Ok(Decoded::Other),
    };
    if item.attrs.get_n("v") != Some(FORMAT) {
        return Err(corrupt("unknown format"));
    }
    let jid = BareJid::parse(text).map_err(|_| corrupt("the key holds no address"))?;
    let flags = item.attrs.get_n("f").unwrap_or(0);
    let has = |bit| flags & bit != 0;
    if !is_contact {
        let stanza = item.attrs.get_b("z").ok_or_else(|| corrupt("no stanza"))?;
        let pending = Pending {
            version: item.version,
            stanza: stanza.clone(),
            refused: has(flag::REFUSED),
            heard: item.attrs.get_n("h").unwrap_or(0),
        };
        return Ok(Decoded::Pending { jid, pending });
    }
    let exchange = Exchange {
        interest: has(flag::UNSENT_INTEREST),
        approval: has(flag::UNSENT_APPROVAL),
        asked: item.attrs.get_n("i").unwrap_or(0),
        heard: item.attrs.get_n("h").unwrap_or(0),
    };
    let (version, pending) = (item.version, has(flag::PENDING));
    let code = item.attrs.get_n("s");
    if code == Some(REMOVED) {
        return Ok(Decoded::Tombstone {
            jid,
            tombstone: Tombstone { version, exchange },
            pending,
        });
    }
    let subscription = code.and_then(Subscription::from_code);
    let contact = Contact {
        jid,
        name: item.attrs.get_s("n").map(Into::into),
        subscription: subscription.ok_or_else(|| corrupt("unknown subscription"))?,
        ask: has(flag::ASK),
        approved: has(flag::APPROVED),
        groups: match item.attrs.get_b("g") {
            None => Box::default(),
            Some(bytes) => decode_groups(bytes).ok_or_else(|| corrupt("malformed groups"))?,
        },
        version,
        exchange,
    };
    Ok(Decoded::Contact { contact, pending })
}

impl Subscription {
    /// The number it is stored as.
    fn code(self) -> u64 {
        match self {
            Self::None => 0,
            Self::To => 1,
            Self::From => 2,
            Self::Both => 3,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [Self::None, Self::To, Self::From, Self::Both]
            .into_iter()
            .find(|s| s.code() == code)
    }
}

fn flags(set: &[(bool, u64)]) -> u64 {
    set.iter()
        .filter(|(on, _)| *on)
        .fold(0, |all, (_, bit)| all | bit)
}

fn unsent_flags(exchange: Exchange) -> u64 {
    flags(&[
        (exchange.interest, flag::UNSENT_INTEREST),
        (exchange.approval, flag::UNSENT_APPROVAL),
    ])
}

fn set_numbers(attrs: &mut Attrs, exchange: Exchange) {
    let Exchange { asked, heard, .. } = exchange;
    attrs.set_opt("i", (asked != 0).then_some(asked));
    attrs.set_opt("h", (heard != 0).then_some(heard));
}

fn encode_groups(groups: &[Box<str>]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for group in groups {
        // `Limits::group_bytes` is a u16: the length fits.
        out.extend_from_slice(&(group.len() as u16).to_be_bytes());
        out.extend_from_slice(group.as_bytes());
    }
    (!out.is_empty()).then_some(out)
}

fn decode_groups(mut bytes: &[u8]) -> Option<Box<[Box<str>]>> {
    let mut groups = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (group, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        groups.push(std::str::from_utf8(group).ok()?.into());
        bytes = rest;
    }
    Some(groups.into())
}

#[cfg(test)]
mod tests {
    use cirrus_store::Value;

    use super::*;

    const OWNER: &[u8] = b"example.com\0juliet";

    fn jid() -> BareJid {
        BareJid::parse("romeo@example.net").unwrap()
    }

    fn full() -> Contact {
        Contact {
            name: Some("Romeo".into()),
            subscription: Subscription::From,
            ask: true,
            approved: true,
            groups: ["Friends".into(), "Verona ü".into()].into(),
            version: 1_795_488_480_123,
            exchange: Exchange {
                interest: true,
                approval: true,
                asked: 1_795_488_480_120,
                heard: 1_795_488_480_121,
            },
            ..Contact::new(&jid())
        }
    }

    fn tombstone() -> Tombstone {
        Tombstone {
            version: 1_795_488_480_124,
            exchange: Exchange {
                interest: true,
                approval: false,
                asked: 1_795_488_480_124,
                heard: 0,
            },
        }
    }

    fn pending() -> Pending {
        let stanza = Bytes::from_static(b"<presence type='subscribe' from='romeo@example.net'/>");
        Pending {
            version: 1_795_488_480_125,
            stanza,
            refused: true,
            heard: 1_795_488_480_122,
        }
    }

    /// One line an attribute, so that a difference can be read.
    fn text(item: &Item) -> String {
        let mut lines = format!("{} e={} exp={:?}\n", item.key, item.version, item.expires);
        for (name, value) in item.attrs.iter() {
            lines += &match value {
                Value::N(number) => format!("  {name} N {number}\n"),
                Value::S(text) => format!("  {name} S {text}\n"),
                Value::B(bytes) => format!("  {name} B {}\n", bytes.escape_ascii()),
            };
        }
        lines
    }

    #[test]
    fn format_1_is_as_it_was() {
        let mut bare = Contact::new(&jid());
        bare.version = 1;
        let items = [
            contact_item(OWNER, &full(), true),
            contact_item(OWNER, &bare, false),
            tombstone_item(OWNER, &jid(), tombstone(), false),
            pending_item(OWNER, &jid(), &pending()),
        ];
        let golden = include_str!("golden/roster-v1.txt");
        assert_eq!(items.iter().map(text).collect::<String>(), golden);
    }

    #[test]
    fn rows_round_trip() {
        let contact = full();
        assert_eq!(
            decode(&contact_item(OWNER, &contact, true)).unwrap(),
            Decoded::Contact {
                contact,
                pending: true
            }
        );
        assert_eq!(
            decode(&tombstone_item(OWNER, &jid(), tombstone(), true)).unwrap(),
            Decoded::Tombstone {
                jid: jid(),
                tombstone: tombstone(),
                pending: true
            }
        );
        assert_eq!(
            decode(&pending_item(OWNER, &jid(), &pending())).unwrap(),
            Decoded::Pending {
                jid: jid(),
                pending: pending()
            }
        );
        let blocked = Item::new(rosters::key(OWNER, Row::Blocked("a@b")), Attrs::new());
        assert_eq!(decode(&blocked).unwrap(), Decoded::Other);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let reason = |change: &dyn Fn(&mut Item)| {
            let mut item = contact_item(OWNER, &full(), false);
            change(&mut item);
            match decode(&item).unwrap_err() {
                RosterError::Corrupt { key, reason } => {
                    assert_eq!(key, item.key);
                    reason
                }
                other => panic!("{other}"),
            }
        };
        let set = |name: &'static str, value: Value| {
            move |item: &mut Item| {
                item.attrs.set(name, value.clone());
            }
        };
        assert_eq!(reason(&set("v", Value::N(2))), "unknown format");
        assert_eq!(reason(&set("s", Value::N(5))), "unknown subscription");
        assert_eq!(
            reason(&set("s", Value::S("to".into()))),
            "unknown subscription"
        );
        for groups in [&b"\0"[..], b"\0\x05abcd", b"\0\x01\xff"] {
            assert_eq!(reason(&set("g", Value::from(groups))), "malformed groups");
        }
        let key = reason(&|item| item.key.sk = Bytes::from_static(b"c\0a@@b"));
        assert_eq!(key, "the key holds no address");
        let pending = Item::new(
            rosters::key(OWNER, Row::Pending("a@b")),
            Attrs::new().with("v", FORMAT),
        );
        assert!(matches!(
            decode(&pending),
            Err(RosterError::Corrupt {
                reason: "no stanza",
                ..
            })
        ));
    }

    #[test]
    fn a_tombstone_outlives_what_clients_may_know() {
        let item = tombstone_item(OWNER, &jid(), tombstone(), false);
        let known_until = tombstone().version + TOMBSTONE_MS;
        assert!(!item.is_expired(known_until + TOMBSTONE_MARGIN_MS - 1_000));
        assert!(item.is_expired(known_until + TOMBSTONE_MARGIN_MS + 1_000));
    }

    #[test]
    fn what_is_unsent_follows_from_the_state() {
        let both = Exchange {
            interest: true,
            approval: true,
            ..Exchange::default()
        };
        let kinds = |state| both.kinds(state).collect::<Vec<_>>();
        assert_eq!(kinds(State::NONE), [Kind::Unsubscribe, Kind::Unsubscribed]);
        assert_eq!(
            kinds(State::NONE_OUT),
            [Kind::Subscribe, Kind::Unsubscribed]
        );
        assert_eq!(kinds(State::NONE_IN), [Kind::Unsubscribe]);
        assert_eq!(kinds(State::TO), [Kind::Unsubscribed]);
        assert_eq!(kinds(State::FROM_OUT), [Kind::Subscribe, Kind::Subscribed]);
        assert_eq!(kinds(State::BOTH), [Kind::Subscribed]);
        assert_eq!(Exchange::default().kinds(State::NONE).count(), 0);
    }
}
