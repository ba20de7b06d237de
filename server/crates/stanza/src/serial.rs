//! A stanza in serialised values: its header and its content. The root's tag as it was received is
//! left out where nothing depends on it, so what is read may hold fewer bytes and says the same.

use bytes::Bytes;
use cirrus_jid::Jid;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::intern;
use crate::stanza::{Kind, Stanza, Ty};

/// Bytes as bytes, where the derived code would write them one by one.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[derive(Serialize)]
struct Written<'a> {
    kind: Kind,
    ty: Ty,
    id: Option<&'a str>,
    to: Option<&'a Jid>,
    from: Option<&'a Jid>,
    lang: Option<&'a str>,
    extra: Raw<'a>,
    payload: Option<(&'a str, &'a str)>,
    raw: Raw<'a>,
    /// Where the content stands in `raw`, unless it is all of it.
    inner: Option<(usize, usize)>,
}

#[derive(Deserialize)]
struct Read<'a> {
    kind: Kind,
    ty: Ty,
    id: Option<Box<str>>,
    to: Option<Jid>,
    from: Option<Jid>,
    lang: Option<Box<str>>,
    extra: &'a [u8],
    payload: Option<(&'a str, &'a str)>,
    raw: &'a [u8],
    inner: Option<(usize, usize)>,
}

impl Serialize for Stanza {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Without other attributes the root declares no prefix that the content may use.
        let whole = self.extra.is_empty() || self.inner.len() == self.raw.len();
        let (raw, inner) = match whole {
            true => (self.inner(), None),
            false => (&self.raw[..], Some((self.inner.start, self.inner.end))),
        };
        let payload = self.payload.as_ref();
        let written = Written {
            kind: self.kind,
            ty: self.ty,
            id: self.id.as_deref(),
            to: self.to.as_ref(),
            from: self.from.as_ref(),
            lang: self.lang.as_deref(),
            extra: Raw(&self.extra),
            payload: payload.map(|(name, space)| (name.as_ref(), space.as_ref())),
            raw: Raw(raw),
            inner,
        };
        written.serialize(serializer)
    }
}

/// From a format that lends what it reads.
impl<'de> Deserialize<'de> for Stanza {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read::deserialize(deserializer)?;
        let (start, end) = read.inner.unwrap_or((0, read.raw.len()));
        if start > end || end > read.raw.len() {
            return Err(D::Error::custom("a stanza's content lies outside of it"));
        }
        Ok(Self {
            kind: read.kind,
            ty: read.ty,
            id: read.id,
            to: read.to,
            from: read.from,
            lang: read.lang,
            extra: Bytes::copy_from_slice(read.extra),
            payload: read.payload.map(|(name, ns)| (intern(name), intern(ns))),
            raw: Bytes::copy_from_slice(read.raw),
            inner: start..end,
        })
    }
}
