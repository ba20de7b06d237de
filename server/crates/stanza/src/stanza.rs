//! The stanza: a decoded header around the bytes that were received.

use std::ops::Range;

use bytes::Bytes;
use cirrus_jid::Jid;
use cirrus_xml::{Checked, Children, Element, Scope};
use serde::{Deserialize, Serialize};

use crate::error::{Condition, StanzaError};
use crate::name::{Name, intern, ns};

/// Which of the three stanzas of RFC 6120 section 8 it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `<message/>`, pushed.
    Message,
    /// `<presence/>`, published.
    Presence,
    /// `<iq/>`, asked and answered.
    Iq,
}

impl Kind {
    /// The element name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }
}

/// The `type` attribute of every kind (RFC 6121 sections 5.2.2 and 4.7.1, RFC 6120 section
/// 8.2.3), with the absent one named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ty {
    /// Message, also when the type is absent or unknown.
    Normal,
    /// Message.
    Chat,
    /// Message.
    Groupchat,
    /// Message.
    Headline,
    /// Presence without a type.
    Available,
    /// Presence.
    Unavailable,
    /// Presence.
    Subscribe,
    /// Presence.
    Subscribed,
    /// Presence.
    Unsubscribe,
    /// Presence.
    Unsubscribed,
    /// Presence.
    Probe,
    /// IQ.
    Get,
    /// IQ.
    Set,
    /// IQ.
    Result,
    /// Any kind.
    Error,
}

impl Ty {
    /// The attribute's value; `None` where it is left out.
    pub fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Normal | Self::Available => return None,
            Self::Chat => "chat",
            Self::Groupchat => "groupchat",
            Self::Headline => "headline",
            Self::Unavailable => "unavailable",
            Self::Subscribe => "subscribe",
            Self::Subscribed => "subscribed",
            Self::Unsubscribe => "unsubscribe",
            Self::Unsubscribed => "unsubscribed",
            Self::Probe => "probe",
            Self::Get => "get",
            Self::Set => "set",
            Self::Result => "result",
            Self::Error => "error",
        })
    }

    fn parse(kind: Kind, text: Option<&str>) -> Option<Self> {
        Some(match (kind, text) {
            (Kind::Message, Some("chat")) => Self::Chat,
            (Kind::Message, Some("groupchat")) => Self::Groupchat,
            (Kind::Message, Some("headline")) => Self::Headline,
            (_, Some("error")) => Self::Error,
            (Kind::Message, _) => Self::Normal,
            (Kind::Presence, None) => Self::Available,
            (Kind::Presence, Some("unavailable")) => Self::Unavailable,
            (Kind::Presence, Some("subscribe")) => Self::Subscribe,
            (Kind::Presence, Some("subscribed")) => Self::Subscribed,
            (Kind::Presence, Some("unsubscribe")) => Self::Unsubscribe,
            (Kind::Presence, Some("unsubscribed")) => Self::Unsubscribed,
            (Kind::Presence, Some("probe")) => Self::Probe,
            (Kind::Iq, Some("get")) => Self::Get,
            (Kind::Iq, Some("set")) => Self::Set,
            (Kind::Iq, Some("result")) => Self::Result,
            _ => return None,
        })
    }
}

/// Local name and namespace of a stanza's first child element.
pub type Payload = (Name, Name);

/// A longer `xml:lang` is none: tags of RFC 5646 section 4.4 have some 35 characters at most.
pub const LANG_BYTES: usize = 64;

/// One stanza. Cloning shares the content.
#[derive(Clone, Debug)]
pub struct Stanza {
    /// Message, presence or IQ.
    pub kind: Kind,
    /// The `type` attribute.
    pub ty: Ty,
    /// The `id` attribute, decoded.
    pub id: Option<Box<str>>,
    /// The `to` attribute.
    pub to: Option<Jid>,
    /// The `from` attribute; a session's stanza carries its full JID.
    pub from: Option<Jid>,
    /// The `xml:lang` attribute, of [`LANG_BYTES`] at most.
    pub lang: Option<Box<str>>,
    /// Every other root attribute, verbatim, each with one leading space: namespace
    /// declarations that the content needs, and extensions.
    pub extra: Bytes,
    /// The first child element; it decides who handles an IQ.
    pub payload: Option<Payload>,
    pub(crate) raw: Bytes,
    pub(crate) inner: Range<usize>,
}

/// A stanza that is answered with an error at the edge instead of being routed.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What is wrong with it.
    pub error: StanzaError,
    /// The error stanza for its sender; `None` where nothing may be answered.
    pub reply: Option<Box<Stanza>>,
}

impl Stanza {
    /// The stanza in `bytes`, which `checked` describes. `None` when the root is no stanza.
    ///
    /// # Errors
    /// [`Refused`] with the error stanza to answer: a malformed address (`jid-malformed`), an
    /// IQ without id, type or exactly one child as RFC 6120 section 8.2.3 demands, a presence of
    /// unknown type (`bad-request`).
    pub fn from_checked(
        bytes: &Bytes,
        checked: &Checked,
        scope: &Scope,
    ) -> Option<Result<Self, Refused>> {
        let kind = match checked.name(bytes) {
            "message" => Kind::Message,
            "presence" => Kind::Presence,
            "iq" => Kind::Iq,
            _ => return None,
        };
        if checked.ns() != ns::CLIENT {
            return None;
        }
        Some(Self::header(kind, bytes, checked, scope))
    }

    fn header(
        kind: Kind,
        bytes: &Bytes,
        checked: &Checked,
        scope: &Scope,
    ) -> Result<Self, Refused> {
        let attr = |name| checked.attr(bytes, name);
        let mut stanza = Self::new(kind, Ty::Error);
        stanza.id = attr("id").map(Into::into);
        let lang = attr("xml:lang").filter(|lang| lang.len() <= LANG_BYTES);
        stanza.lang = lang.map(Into::into);
        stanza.extra = checked.extra(bytes, scope).into();
        stanza.raw = bytes.clone();
        stanza.inner = checked.inner();
        stanza.payload = checked
            .payload(bytes)
            .map(|(name, ns)| (intern(name), intern(ns)));
        let ty = attr("type");
        let ty = Ty::parse(kind, ty.as_deref());
        for name in ["to", "from"] {
            let Some(text) = checked.attr(bytes, name) else {
                continue;
            };
            match (Jid::parse(&text), name) {
                (Ok(jid), "to") => stanza.to = Some(jid),
                (Ok(jid), _) => stanza.from = Some(jid),
                (Err(cause), _) => {
                    let text = format!("the '{name}' address is not a JID: {cause}");
                    let error = StanzaError::new(Condition::JidMalformed, text);
                    return Err(stanza.refuse(ty, error));
                }
            }
        }
        let Some(known) = ty else {
            let text = match kind {
                Kind::Iq => "an IQ needs a type of get, set, result or error",
                _ => "this presence type is not one that RFC 6121 section 4.7.1 defines",
            };
            return Err(stanza.refuse(ty, StanzaError::new(Condition::BadRequest, text)));
        };
        stanza.ty = known;
        stanza.compact();
        match stanza.iq_fault(checked.child_elements()) {
            Some(text) => {
                Err(stanza.refuse(Some(known), StanzaError::new(Condition::BadRequest, text)))
            }
            None => Ok(stanza),
        }
    }

    /// Forgets a root tag that is much longer than what is known of it: spaces, a type that nobody
    /// knows, prefixes that are not used.
    fn compact(&mut self) {
        /// What the tags of a usual client have beside that.
        const SLACK: usize = 512;
        if self.raw.len() > self.size() + SLACK {
            let bytes = self.to_bytes();
            let end = match self.inner.is_empty() {
                true => bytes.len(),
                false => bytes.len() - "</>".len() - self.kind.as_str().len(),
            };
            self.inner = end - self.inner.len()..end;
            self.raw = bytes.into();
        }
    }

    fn iq_fault(&self, children: usize) -> Option<&'static str> {
        if self.kind != Kind::Iq {
            return None;
        }
        if self.id.is_none() {
            return Some("an IQ needs an id");
        }
        match self.ty {
            Ty::Get | Ty::Set if children != 1 => Some("a request has exactly one child element"),
            Ty::Result if children > 1 => Some("a result has at most one child element"),
            _ => None,
        }
    }

    fn refuse(mut self, ty: Option<Ty>, error: StanzaError) -> Refused {
        self.ty = ty.unwrap_or(Ty::Get);
        let reply = self.may_bounce().then(|| {
            let mut reply = self.error(&error);
            reply.to = None;
            Box::new(reply)
        });
        Refused { error, reply }
    }

    /// A stanza that this server wrote earlier, from an archive or a link. `None` when the bytes
    /// are not one.
    pub fn from_stored(bytes: &Bytes) -> Option<Self> {
        let scope = Scope::client();
        let checked = cirrus_xml::check(bytes, &scope, &cirrus_xml::Limits::STORED).ok()?;
        Self::from_checked(bytes, &checked, &scope)?.ok()
    }

    /// Everything between the root's tags.
    pub fn inner(&self) -> &[u8] {
        self.raw.get(self.inner.clone()).unwrap_or_default()
    }

    /// The child elements, in order.
    pub fn children(&self) -> Children<'_> {
        if self.inner.len() == self.raw.len() {
            return Children::of_fragment(&self.raw, ns::CLIENT);
        }
        match Element::parse(&self.raw, ns::CLIENT) {
            Ok(root) => root.children(),
            Err(_) => Children::of_fragment(&[], ns::CLIENT),
        }
    }

    /// The first child of that local name and namespace.
    pub fn child(&self, name: &str, namespace: &str) -> Option<Element<'_>> {
        self.children()
            .find(|child| child.name() == name && child.ns() == namespace)
    }

    /// Whether the first child has that local name and namespace.
    pub fn is_payload(&self, name: &str, namespace: &str) -> bool {
        self.payload
            .as_ref()
            .is_some_and(|(n, space)| n == name && space == namespace)
    }

    /// Appends the whole stanza: a new root tag around the shared content.
    pub fn write(&self, out: &mut Vec<u8>) {
        let name = self.kind.as_str().as_bytes();
        out.reserve(self.inner.len() + self.extra.len() + 192);
        out.push(b'<');
        out.extend_from_slice(name);
        let mut attr = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.push(b' ');
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"='");
                cirrus_xml::escape_attr(value, out);
                out.push(b'\'');
            }
        };
        attr("type", self.ty.as_str());
        attr("id", self.id.as_deref());
        attr("to", self.to.as_ref().map(Jid::as_str));
        attr("from", self.from.as_ref().map(Jid::as_str));
        attr("xml:lang", self.lang.as_deref());
        out.extend_from_slice(&self.extra);
        if self.inner.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        out.extend_from_slice(self.inner());
        out.extend_from_slice(b"</");
        out.extend_from_slice(name);
        out.push(b'>');
    }

    /// The whole stanza as bytes of their exact size.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out.shrink_to_fit();
        out
    }

    /// Upper bound of its bytes on the wire, and with some hundred more of what it holds in memory.
    /// It is the same wherever the stanza was read.
    pub fn size(&self) -> usize {
        let text = |text: Option<&str>| text.map_or(0, cirrus_xml::escaped_attr_len);
        self.inner.len()
            + self.extra.len()
            + text(self.to.as_ref().map(Jid::as_str))
            + text(self.from.as_ref().map(Jid::as_str))
            + text(self.id.as_deref())
            + text(self.lang.as_deref())
            + 128
    }
}

#[cfg(test)]
mod tests;
