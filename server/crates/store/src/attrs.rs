//! Attributes: a small ordered map from one-letter names to values.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_NAME;

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Bytes.
    B(#[serde(with = "crate::raw")] Bytes),
    /// Text.
    S(String),
    /// A number.
    N(u64),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::B(bytes) => write!(f, "{bytes:?}"),
            Value::S(text) => write!(f, "{text:?}"),
            Value::N(number) => write!(f, "{number}"),
        }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Value {
        Value::B(bytes)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::B(bytes.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::B(Bytes::copy_from_slice(bytes))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::S(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::S(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::N(number)
    }
}

/// The name of an attribute: 1 to [`MAX_NAME`] bytes, kept without allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    /// 0 = the name was empty or too long; the store refuses an item that has one.
    length: u8,
}

impl Name {
    /// Takes over a name. One that is empty or too long becomes the invalid name, which
    /// [`Name::is_valid`] tells and every backend refuses, so that building items can't fail.
    #[must_use]
    pub fn new(name: &str) -> Name {
        let mut bytes = [0; MAX_NAME];
        match bytes.get_mut(..name.len()) {
            Some(target) => {
                target.copy_from_slice(name.as_bytes());
                Name {
                    bytes,
                    length: name.len() as u8,
                }
            }
            None => Name { bytes, length: 0 },
        }
    }

    /// Whether the name can be stored.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.length > 0
    }

    /// The name as text; empty for the invalid name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_valid() {
            self.as_str()
        } else {
            "<invalid>"
        })
    }
}

/// The attributes of an item besides its key, version and expiry, in the order of their names.
///
/// `v` holds the format of the item, by convention. The names that the store itself uses
/// (`pk`, `sk`, `e`, `exp`, `_`) are refused when the item is put.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
pub struct Attrs(Vec<(Name, Value)>);

impl Attrs {
    /// No attributes.
    #[must_use]
    pub fn new() -> Attrs {
        Attrs::default()
    }

    /// The attributes of these names and values; `None` unless each name comes once and in order.
    pub(crate) fn from_pairs(pairs: Vec<(Name, Value)>) -> Option<Attrs> {
        let ascend = |pair: &[(Name, Value)]| pair[0].0 < pair[1].0;
        pairs.windows(2).all(ascend).then_some(Attrs(pairs))
    }

    /// Sets an attribute, in place of an earlier one of that name.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> &mut Attrs {
        self.insert(Name::new(name), value.into());
        self
    }

    /// As [`Attrs::set`], for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Attrs {
        self.set(name, value);
        self
    }

    /// As [`Attrs::set`], if there is a value.
    pub fn set_opt(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Attrs {
        if let Some(value) = value {
            self.set(name, value);
        }
        self
    }

    /// Removes an attribute and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(Name::new(name)).ok()?;
        Some(self.0.remove(at).1)
    }

    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(Name::new(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The value of an attribute, if it is bytes.
    #[must_use]
    pub fn get_b(&self, name: &str) -> Option<&Bytes> {
        match self.get(name)? {
            Value::B(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value of an attribute, if it is text.
    #[must_use]
    pub fn get_s(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::S(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an attribute, if it is a number.
    #[must_use]
    pub fn get_n(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::N(number) => Some(*number),
            _ => None,
        }
    }

    /// Names and values in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name was empty or too long.
    pub(crate) fn has_invalid_name(&self) -> bool {
        self.0.iter().any(|(name, _)| !name.is_valid())
    }

    fn insert(&mut self, name: Name, value: Value) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    fn find(&self, name: Name) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(&name))
    }
}

impl fmt::Debug for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, value)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_get_remove() {
        let mut attrs = Attrs::new()
            .with("t", 5)
            .with("b", &b"x"[..])
            .with("w", "a@b");
        attrs.set("t", 6).set_opt("o", None::<u64>);
        assert_eq!(
            (attrs.get_n("t"), attrs.get_s("t"), attrs.get_n("o")),
            (Some(6), None, None)
        );
        assert_eq!(attrs.get_b("b").map(|b| b.to_vec()), Some(b"x".to_vec()));
        assert_eq!(
            attrs.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["b", "t", "w"]
        );
        assert_eq!(attrs.remove("w"), Some(Value::S("a@b".into())));
        assert_eq!((attrs.len(), attrs.get("w")), (2, None));
    }

    #[test]
    fn bad_names_are_kept_as_invalid() {
        for name in ["", "12345678"] {
            assert!(!Name::new(name).is_valid());
            assert!(Attrs::new().with(name, 1).has_invalid_name());
        }
        assert_eq!(Name::new("1234567").as_str(), "1234567");
        assert!(!Attrs::new().with("a", 1).has_invalid_name());
    }
}
