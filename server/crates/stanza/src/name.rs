//! Element names and namespaces: the well-known ones cost no allocation.

use std::borrow::Cow;

/// A local name or namespace URI.
pub type Name = Cow<'static, str>;

/// The namespaces this server has handlers for.
pub mod ns {
    /// RFC 6120 section 4.8.2, client-to-server content.
    pub const CLIENT: &str = "jabber:client";
    /// RFC 6120 section 4.8.1, the stream itself.
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    /// RFC 6120 section 8.3.3, stanza error conditions.
    pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// RFC 6120 section 4.9.3, stream error conditions.
    pub const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    /// RFC 6121 section 2, roster management.
    pub const ROSTER: &str = "jabber:iq:roster";
    /// RFC 6120 section 7, resource binding.
    pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
    /// RFC 3921 section 3, the session that clients of that time still ask for.
    pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
    /// XEP-0030 information.
    pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    /// XEP-0030 items.
    pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
    /// XEP-0199.
    pub const PING: &str = "urn:xmpp:ping";
    /// XEP-0092.
    pub const VERSION: &str = "jabber:iq:version";
    /// XEP-0202.
    pub const TIME: &str = "urn:xmpp:time";
    /// XEP-0012.
    pub const LAST: &str = "jabber:iq:last";
    /// XEP-0077.
    pub const REGISTER: &str = "jabber:iq:register";
    /// XEP-0203.
    pub const DELAY: &str = "urn:xmpp:delay";
    /// XEP-0085.
    pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
    /// XEP-0184.
    pub const RECEIPTS: &str = "urn:xmpp:receipts";
    /// XEP-0333.
    pub const MARKERS: &str = "urn:xmpp:chat-markers:0";
    /// XEP-0334.
    pub const HINTS: &str = "urn:xmpp:hints";
    /// XEP-0359.
    pub const SID: &str = "urn:xmpp:sid:0";
    /// XEP-0115.
    pub const CAPS: &str = "http://jabber.org/protocol/caps";
    /// XEP-0198.
    pub const SM: &str = "urn:xmpp:sm:3";
    /// XEP-0313.
    pub const MAM: &str = "urn:xmpp:mam:2";
    /// XEP-0313: pages by id, flipped pages, metadata.
    pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
    /// XEP-0313: the field `include-groupchat` is understood.
    pub const MAM_GROUPCHAT_FIELD: &str = "urn:xmpp:mam:2#groupchat-field";
    /// XEP-0424.
    pub const RETRACT: &str = "urn:xmpp:message-retract:1";
    /// XEP-0424: archives show that a message was retracted, and no longer what it said.
    pub const RETRACT_TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";
    /// XEP-0280.
    pub const CARBONS: &str = "urn:xmpp:carbons:2";
    /// Client state indication (XEP-0352).
    pub const CSI: &str = "urn:xmpp:csi:0";
    /// XEP-0297.
    pub const FORWARD: &str = "urn:xmpp:forward:0";
    /// XEP-0045, what a room says to a user.
    pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
    /// XEP-0060 notifications.
    pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
    /// XEP-0004.
    pub const DATA_FORMS: &str = "jabber:x:data";
    /// XEP-0122.
    pub const FORM_VALIDATION: &str = "http://jabber.org/protocol/xdata-validate";
    /// XEP-0059.
    pub const RSM: &str = "http://jabber.org/protocol/rsm";
}

const KNOWN: &[&str] = &[
    "body",
    "query",
    "ping",
    "time",
    "c",
    "x",
    "show",
    "status",
    "priority",
    "subject",
    "thread",
    "error",
    "active",
    "composing",
    "paused",
    "inactive",
    "gone",
    "received",
    "request",
    "event",
    "bind",
    "session",
    "vCard",
    "pubsub",
    "displayed",
    "delay",
    ns::CLIENT,
    ns::ROSTER,
    ns::BIND,
    ns::SESSION,
    ns::DISCO_INFO,
    ns::DISCO_ITEMS,
    ns::PING,
    ns::VERSION,
    ns::TIME,
    ns::LAST,
    ns::REGISTER,
    ns::DELAY,
    ns::CHAT_STATES,
    ns::RECEIPTS,
    ns::MARKERS,
    ns::HINTS,
    ns::SID,
    ns::CAPS,
    ns::SM,
    ns::PUBSUB_EVENT,
    ns::DATA_FORMS,
];

/// The name as a [`Name`], borrowed when it is one of the well-known ones.
pub fn intern(name: &str) -> Name {
    match KNOWN.iter().find(|known| **known == name) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.to_owned()),
    }
}
