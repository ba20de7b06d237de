//! Events, effects and whole homes as bytes: for the node that keeps a copy of a home, the one that
//! takes it over, and the ones where its pipes and other homes are.
//!
//! The first byte is the format; what follows are the fields in the order of their declaration, as
//! postcard writes them. So the order of fields and variants of every type that is serialised is
//! part of the format, and whoever changes it gives the format a new number.
//!
//! Bytes that are damaged, or of another format, are refused; they never make a decoder panic or
//! take more memory than a small multiple of their length. They come from nodes of this cluster
//! over links that are authenticated: what was not damaged is believed.

use std::collections::HashMap;

use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::event::{Effect, Event, PipeEvent, PipeOut};
use crate::home::Frame;

/// The format that this version writes, and the only one it reads.
pub const FORMAT: u8 = 9;

/// Why bytes can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are none.
    #[error("{what} without a byte")]
    Empty {
        /// What it should be.
        what: &'static str,
    },
    /// They are of a format that this version does not know.
    #[error("{what} of format {given}, and this version reads {FORMAT}: update the older node")]
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
}

/// Appends the bytes of a value.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(FORMAT);
    if let Err(error) = postcard::serialize_with_flavor(value, Appended(out)) {
        // Nothing that is encoded has a part that can fail: no sequence of unknown length, no
        // text that is not UTF-8. No byte at all is what every decoder refuses.
        tracing::error!(%error, "a value can't be encoded");
        out.truncate(start);
    }
}

/// The bytes of a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// The value of these bytes, all of them; `what` names it in an error.
///
/// # Errors
/// [`CodecError`]
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (&given, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if given != FORMAT {
        return Err(CodecError::Format { what, given });
    }
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
                /// Its bytes; see [`codec`](crate::codec).
                pub fn encode(&self) -> Vec<u8> {
                    encode(self)
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
