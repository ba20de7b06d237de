//! Events, effects and whole homes as bytes: for the node that keeps a copy of a home, the one that
//! takes it over, the ones where its pipes and other homes are, and the store.
//!
//! The first byte is the format; what follows are the fields in the order of their declaration, as
//! postcard writes them. So the order of fields and variants of every type that is serialised is
//! part of the format.
//!
//! **Two adjacent formats run together**, so that a cluster is upgraded node by node. This version
//! reads [`OLDEST`] to [`FORMAT`] and writes whichever of them it is told: to a node that is no
//! member yet the newest that both read, else the cluster's, which is the newest that every member
//! reads (`cirrus_cluster::View::common`). That one only rises.
//!
//! Whoever changes what is serialised:
//!
//! 1. gives the format a new number N, once between two releases; `OLDEST` is always N - 1, and
//!    what was there only for formats before it goes. A golden file per format
//!    (`home/golden/format-*.txt`) shows every change of a layout: the one of N is written anew
//!    (`UPDATE_GOLDEN=1`), the one of N - 1 never changes.
//! 2. adds a field, anywhere in a struct or variant, as [`Since`]`<N, T>`: in formats before N
//!    there is no byte of it, and the default is read. Never removes, reorders or retypes a field:
//!    the new one stands beside the old one until N is the oldest.
//! 3. adds variants only at the end of an enum, with their content in an [`Only`]`<N, T>`, which no
//!    older format has.
//! 4. makes a value that is not the default, or such a variant, only where the cluster's format has
//!    it: a home asks `cx.work.format.has(N)` ([`Known`]). That is state of the home, changed by
//!    [`Event::Format`], so home and copies decide alike; nothing may ask what the node around it
//!    knows.
//!
//! Whatever is given where an older format can't have it is [`CodecError::Newer`], a fault of this
//! program: it is never written as something else. Nothing is sent then, the home keeps what it
//! has, and it is tried again.
//!
//! What is stored as such bytes, a parked session, is written in the format that the home knows.
//! The frames around all this (`cirrus_replica`) have no format: there, variants are appended, and
//! used when the view's format has them.
//!
//! Bytes that are damaged, or of another format, are refused; they never make a decoder panic or
//! take more memory than a small multiple of their length. They come from nodes of this cluster
//! over links that are authenticated: what was not damaged is believed.

use std::cell::Cell;
use std::collections::HashMap;

use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Effect, Event, PipeEvent, PipeOut};
use crate::home::Frame;

/// The newest format that this version reads and writes.
pub const FORMAT: u8 = 10;
/// The oldest one.
pub const OLDEST: u8 = FORMAT - 1;

/// Why bytes can't be read, or a value can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are none.
    #[error("{what} without a byte")]
    Empty {
        /// What it should be.
        what: &'static str,
    },
    /// They are of a format that this version does not know.
    #[error("{what} of format {given}, and this version reads {OLDEST} to {FORMAT}")]
    Format {
        /// What it should be.
        what: &'static str,
        /// Its format.
        given: u8,
    },
    /// They are not what they should be.
    #[error("{what} of {bytes} bytes is damaged: it must be sent again")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// How many bytes there are.
        bytes: usize,
    },
    /// A value has something that the format does not have: a fault of this program.
    #[error("a value can't be written in format {format}: it has what only a newer one has")]
    Newer {
        /// The format that was asked for.
        format: u8,
    },
}

thread_local! {
    /// The format of the call of [`encode_into`] or [`decode`] that this thread is in: a derived
    /// implementation has no other way to know it.
    static CURRENT: Cell<u8> = const { Cell::new(FORMAT) };
}

/// The format of a call, as long as it lasts.
struct Call {
    before: u8,
}

impl Call {
    fn of(format: u8) -> Self {
        let before = CURRENT.replace(format);
        Self { before }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

fn has(format: u8) -> bool {
    CURRENT.get() >= format
}

#[cfg(feature = "planted")]
mod older {
    use std::cell::Cell;

    use super::FORMAT;

    thread_local! {
        static NEWEST: Cell<u8> = const { Cell::new(FORMAT) };
    }

    /// As long as it lives, nothing newer than its format is read or written on this thread: as by
    /// the version before.
    pub struct Older(u8);

    impl Older {
        /// Begins.
        pub fn than(newest: u8) -> Self {
            Self(NEWEST.replace(newest))
        }
    }

    impl Drop for Older {
        fn drop(&mut self) {
            NEWEST.set(self.0);
        }
    }

    pub(super) fn newest() -> u8 {
        NEWEST.get()
    }
}

#[cfg(feature = "planted")]
pub use older::Older;
#[cfg(feature = "planted")]
use older::newest;

#[cfg(not(feature = "planted"))]
const fn newest() -> u8 {
    FORMAT
}

/// A field that formats before `N` do not have: there it is not written and reads as the default.
/// Anything else can't be written in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Since<const N: u8, T>(pub T);

impl<const N: u8, T: Serialize + Default + PartialEq> Serialize for Since<N, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match has(N) {
            true => self.0.serialize(serializer),
            false if self.0 == T::default() => serializer.serialize_unit(),
            false => Err(S::Error::custom("a field of a newer format")),
        }
    }
}

impl<'de, const N: u8, T: Deserialize<'de> + Default> Deserialize<'de> for Since<N, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match has(N) {
            true => T::deserialize(deserializer).map(Self),
            false => Ok(Self::default()),
        }
    }
}

/// What a variant has that formats before `N` do not have: it can't be written in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Only<const N: u8, T>(pub T);

impl<const N: u8, T: Serialize> Serialize for Only<N, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match has(N) {
            true => self.0.serialize(serializer),
            false => Err(S::Error::custom("a variant of a newer format")),
        }
    }
}

impl<'de, const N: u8, T: Deserialize<'de>> Deserialize<'de> for Only<N, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match has(N) {
            true => T::deserialize(deserializer).map(Self),
            false => Err(D::Error::custom("a variant of a newer format")),
        }
    }
}

/// What a home was told of the cluster's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(Since<10, u8>);

impl Known {
    /// Whether what only this format and newer ones have may be made: every node of the cluster
    /// understands it, and will. Home and copies say the same.
    pub fn has(self, format: u8) -> bool {
        self.newest() >= format
    }

    /// The format in which to write what every node of the cluster shall read.
    pub fn newest(self) -> u8 {
        self.0.0.max(OLDEST)
    }

    pub(crate) fn learn(&mut self, format: u8) {
        self.0.0 = self.0.0.max(format);
    }
}

/// Appends the bytes of a value in a format, or none.
///
/// # Errors
/// [`CodecError::Newer`]: it has something that the format does not have.
pub fn encode_into<T: Serialize + ?Sized>(
    format: u8,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let format = format.clamp(OLDEST, FORMAT);
    if format > newest() {
        return Err(CodecError::Newer { format });
    }
    let start = out.len();
    out.push(format);
    let _call = Call::of(format);
    // Nothing else that is encoded has a part that can fail: no sequence of unknown length, no
    // text that is not UTF-8.
    postcard::serialize_with_flavor(value, Appended(out)).map_err(|_| {
        out.truncate(start);
        CodecError::Newer { format }
    })
}

/// The bytes of a value in a format.
///
/// # Errors
/// [`CodecError::Newer`]
pub fn encode<T: Serialize + ?Sized>(format: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_into(format, value, &mut out)?;
    Ok(out)
}

/// The value of these bytes, all of them; `what` names it in an error.
///
/// # Errors
/// [`CodecError`]
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (&given, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if !(OLDEST..=newest()).contains(&given) {
        return Err(CodecError::Format { what, given });
    }
    let _call = Call::of(given);
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(CodecError::Damaged {
            what,
            bytes: bytes.len(),
        }),
    }
}

macro_rules! codec {
    ($($name:ident $what:literal),+ $(,)?) => {
        $(
            impl $name {
                /// Its bytes in the newest format; see [`codec`](crate::codec).
                pub fn encode(&self) -> Vec<u8> {
                    // The newest has everything.
                    encode(FORMAT, self).unwrap_or_default()
                }

                /// What these bytes say.
                ///
                /// # Errors
                /// [`CodecError`]
                pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                    decode($what, bytes)
                }
            }
        )+
    };
}

codec! {
    Event "an event",
    Effect "an effect",
    PipeEvent "what a pipe tells",
    PipeOut "what a pipe is told",
    Frame "a frame",
}

/// A vector that is appended to.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Writes a map in the order of its keys, so that equal states have equal bytes.
pub(crate) fn sorted<K: Ord + Serialize, V: Serialize, S: Serializer>(
    map: &HashMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
    serializer.collect_map(entries)
}

/// A list that several values share; each of them gets its own when it is read.
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        list: &Option<Arc<[T]>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        list.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<[T]>>, D::Error> {
        Ok(Option::<Vec<T>>::deserialize(deserializer)?.map(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the version before has it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Old {
        Said { who: String, rest: Vec<u8> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum New {
        Said {
            who: String,
            why: Since<FORMAT, Option<String>>,
            rest: Vec<u8>,
        },
        Moved(Only<FORMAT, Vec<u16>>),
    }

    const WHAT: &str = "a test";

    fn said(why: Option<&str>) -> New {
        New::Said {
            who: "juliet".into(),
            why: Since(why.map(Into::into)),
            rest: vec![1, 2],
        }
    }

    #[test]
    fn the_version_before_is_understood_and_understands() {
        let old = Old::Said {
            who: "juliet".into(),
            rest: vec![1, 2],
        };
        let bytes = encode(OLDEST, &old).unwrap();
        assert_eq!(decode::<New>(WHAT, &bytes), Ok(said(None)));
        assert_eq!(encode(OLDEST, &said(None)), Ok(bytes));

        for new in [said(None), said(Some("x")), New::Moved(Only(vec![7]))] {
            let bytes = encode(FORMAT, &new).unwrap();
            assert_eq!(decode::<New>(WHAT, &bytes), Ok(new));
        }
    }

    #[test]
    fn what_an_older_format_lacks_is_refused_and_not_written() {
        let error = CodecError::Newer { format: OLDEST };
        for new in [said(Some("x")), New::Moved(Only(vec![7]))] {
            let mut out = vec![9, 9];
            assert_eq!(encode_into(OLDEST, &new, &mut out), Err(error));
            assert_eq!(out, [9, 9]);
        }
        let mut forged = encode(FORMAT, &New::Moved(Only(vec![7]))).unwrap();
        forged[0] = OLDEST;
        assert!(decode::<New>(WHAT, &forged).is_err());
        // The call before has left nothing behind.
        let new = New::Moved(Only(vec![7]));
        let bytes = encode(FORMAT, &new).unwrap();
        assert_eq!(decode::<New>(WHAT, &bytes), Ok(new));
    }

    #[test]
    fn other_formats_are_named() {
        for given in [OLDEST - 1, FORMAT + 1, 0, 255] {
            let what = WHAT;
            let error = CodecError::Format { what, given };
            assert_eq!(decode::<u8>(WHAT, &[given, 1]), Err(error));
        }
    }
}
