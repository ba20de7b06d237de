//! Stanzas that the server itself makes: replies, errors, pushes.

use bytes::Bytes;
use cirrus_jid::Jid;
use cirrus_xml::Element;

use crate::error::StanzaError;
use crate::name::intern;
use crate::stanza::{Kind, Stanza, Ty};

impl Stanza {
    /// A stanza without addresses or content.
    pub fn new(kind: Kind, ty: Ty) -> Self {
        Self {
            kind,
            ty,
            id: None,
            to: None,
            from: None,
            lang: None,
            extra: Bytes::new(),
            payload: None,
            raw: Bytes::new(),
            inner: 0..0,
        }
    }

    /// Sets the recipient.
    #[must_use]
    pub fn to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Sets the sender.
    #[must_use]
    pub fn from(mut self, from: impl Into<Jid>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<Box<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Replaces everything between the root's tags. `inner` is well-formed content in the
    /// default namespace `jabber:client` that needs no prefix from outside.
    #[must_use]
    pub fn content(mut self, inner: impl Into<Bytes>) -> Self {
        self.raw = inner.into();
        self.inner = 0..self.raw.len();
        self.extra = Bytes::new();
        self.payload = None;
        let first = self
            .children()
            .next()
            .map(|child| (intern(child.name()), intern(child.ns())));
        self.payload = first;
        self
    }

    /// The same stanza with `child` put behind its other children.
    #[must_use]
    pub fn with_child(&self, child: &[u8]) -> Self {
        // The root tag stays in front of the content, as prefixes may be declared there.
        let (head, tail) = match self.inner.is_empty() || self.inner.len() == self.raw.len() {
            true => (&[][..], &[][..]),
            false => (&self.raw[..self.inner.start], &self.raw[self.inner.end..]),
        };
        let mut raw = Vec::with_capacity(head.len() + self.inner.len() + child.len() + tail.len());
        for part in [head, self.inner(), child, tail] {
            raw.extend_from_slice(part);
        }
        let mut copy = self.clone();
        copy.inner = head.len()..raw.len() - tail.len();
        copy.raw = raw.into();
        if copy.payload.is_none() {
            let first = copy.children().next();
            copy.payload = first.map(|child| (intern(child.name()), intern(child.ns())));
        }
        copy
    }

    /// The same stanza without the children for which `gone` holds, or `None` if there are none
    /// such. Prefixes count as they will for who receives it, wherever they were declared.
    #[must_use]
    pub fn without(&self, gone: impl Fn(&Element<'_>) -> bool) -> Option<Self> {
        let stored = Self::from_stored(&self.to_bytes().into())?;
        let mut inner = Vec::with_capacity(stored.inner.len());
        let start = stored.raw.as_ptr() as usize;
        let mut from = stored.inner.start;
        let mut found = false;
        for child in stored.children().filter(gone) {
            // Where the child's bytes stand in those of the stanza.
            let at = (child.raw().as_ptr() as usize).checked_sub(start)?;
            inner.extend_from_slice(stored.raw.get(from..at)?);
            from = at + child.raw().len();
            found = true;
        }
        inner.extend_from_slice(stored.raw.get(from..stored.inner.end)?);
        found.then(|| {
            let mut copy = stored.clone();
            let head = &stored.raw[..stored.inner.start];
            let tail = &stored.raw[stored.inner.end..];
            copy.inner = head.len()..head.len() + inner.len();
            copy.raw = [head, &inner, tail].concat().into();
            let first = copy.children().next();
            copy.payload = first.map(|child| (intern(child.name()), intern(child.ns())));
            copy
        })
    }

    /// The empty `result` that answers this request, addresses swapped.
    pub fn reply(&self) -> Self {
        let mut reply = Self::new(self.kind, Ty::Result);
        reply.id.clone_from(&self.id);
        reply.to.clone_from(&self.from);
        reply.from.clone_from(&self.to);
        reply
    }

    /// The `error` that answers this stanza, addresses swapped, without the original content:
    /// RFC 6120 section 8.3.1 leaves it to the server, and a bounce must not double traffic.
    pub fn error(&self, error: &StanzaError) -> Self {
        let mut reply = self.reply();
        reply.ty = Ty::Error;
        reply.content(error.to_xml())
    }

    /// What [`Stanza::reply`] and [`Stanza::error`] need of a request, to keep until its answer.
    #[must_use]
    pub fn head(&self) -> Self {
        let mut head = Self::new(self.kind, self.ty);
        head.id.clone_from(&self.id);
        head.to.clone_from(&self.to);
        head.from.clone_from(&self.from);
        head
    }

    /// Whether an error may answer it: never an error or a result (RFC 6120 section 8.3.1).
    pub fn may_bounce(&self) -> bool {
        !matches!(self.ty, Ty::Error | Ty::Result)
    }
}
