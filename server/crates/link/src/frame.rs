//! Frames on the wire: a length of four bytes, big-endian, then that many bytes. An empty one means
//! nothing and is passed over.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes of the length before each frame.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A length over the limit: nothing after it can be trusted to begin a frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes, where {limit} are allowed")]
pub(crate) struct TooBig {
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
}

/// Cuts the next whole frame out of what was received. `None`: more must come first.
pub(crate) fn cut(received: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, TooBig> {
    while let Some(length) = received.first_chunk::<LENGTH_BYTES>() {
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > limit {
            return Err(TooBig { bytes, limit });
        }
        if bytes == 0 {
            received.advance(LENGTH_BYTES);
            continue;
        }
        let whole = LENGTH_BYTES + bytes;
        if received.len() < whole {
            received.reserve(whole - received.len());
            return Ok(None);
        }
        received.advance(LENGTH_BYTES);
        return Ok(Some(received.split_to(bytes).freeze()));
    }
    Ok(None)
}

/// Appends a frame as it goes over the wire. The queue holds none that is longer than a `u32`.
pub(crate) fn put(frame: &[u8], out: &mut BytesMut) {
    out.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    out.put_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut wire = BytesMut::new();
        for frame in [&b"one"[..], b"", b"two2", b"", b"x"] {
            put(frame, &mut wire);
        }
        let mut received = BytesMut::new();
        let mut frames = Vec::new();
        for byte in wire {
            received.put_u8(byte);
            while let Some(frame) = cut(&mut received, 4).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"one"[..], b"two2", b"x"]);
        assert!(received.is_empty());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut received = BytesMut::from(&[0, 0, 0, 5][..]);
        let too_big = TooBig { bytes: 5, limit: 4 };
        assert_eq!(cut(&mut received, 4), Err(too_big));
        let mut received = BytesMut::from(&[0xff; 4][..]);
        assert!(cut(&mut received, 1 << 20).is_err());
        assert!(received.capacity() < 1 << 20, "nothing was reserved for it");
    }

    #[test]
    fn many_empty_frames_are_nothing() {
        let mut received = BytesMut::from(&[0; 4003][..]);
        assert_eq!(cut(&mut received, 4), Ok(None));
        assert_eq!(received.len(), 3);
    }
}
