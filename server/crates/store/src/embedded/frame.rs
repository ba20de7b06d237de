//! Frames: what one commit appends to the log, and the header of a log file.
//!
//! A log file starts with a header of [`HEADER`] bytes: magic (8), format (4), salt (4),
//! generation (8), number of frames of the generation before (8), checksum (4), rest zero.
//! A frame is: length of its body (4), number in its file (4), checksum of these (4), checksum of
//! the body (4), body. All checksums (CRC-32) are seeded with the file's salt, so that neither the
//! remains of an earlier use of the file nor content chosen by a user pass as a frame.
//!
//! The body is a sequence of changes: kind (1: put, 2: delete), length of the key (2), length of
//! the record (4), key, record. All numbers little-endian.

use bytes::Bytes;

/// Length of a file's header.
pub(super) const HEADER: u64 = 64;
/// Length of a frame's own header.
pub(super) const FRAME: usize = 16;
/// The longest body that is believed when a log is read.
pub(super) const MAX_BODY: usize = 16 * 1_024 * 1_024;

const MAGIC: &[u8; 8] = b"CIRRUSLG";
const FORMAT: u32 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The header of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Counts the uses of log files.
    pub generation: u64,
    /// Seeds the checksums of this use.
    pub salt: u32,
    /// Frames of the generation before, all of them durable before this file was begun.
    pub previous: u64,
}

impl FileHeader {
    pub(super) fn encode(self) -> [u8; HEADER as usize] {
        let mut out = [0; HEADER as usize];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..32].copy_from_slice(&self.previous.to_le_bytes());
        let sum = checksum(self.salt, &out[..32]);
        out[32..36].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header, unless the file was never begun or its header never completed.
    pub(super) fn decode(bytes: &[u8]) -> Option<FileHeader> {
        let bytes: &[u8; HEADER as usize] = bytes.get(..HEADER as usize)?.try_into().ok()?;
        let salt = number4(bytes, 12);
        let valid = bytes[..8] == *MAGIC
            && number4(bytes, 8) == FORMAT
            && number4(bytes, 32) == checksum(salt, &bytes[..32]);
        let (generation, previous) = (number8(bytes, 16), number8(bytes, 24));
        valid.then_some(FileHeader {
            generation,
            salt,
            previous,
        })
    }
}

/// A frame in the making.
#[derive(Debug, Default)]
pub(super) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// Starts anew, keeping the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME, 0);
    }

    pub(super) fn push(&mut self, key: &[u8], record: Option<&[u8]>) {
        let (kind, value) = record.map_or((DELETE, &[][..]), |record| (PUT, record));
        self.bytes.push(kind);
        self.bytes
            .extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Bytes of the frame so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME
    }

    /// The finished frame with this number in a file of this salt.
    pub(super) fn seal(&mut self, salt: u32, number: u32) -> &[u8] {
        let body = (self.bytes.len() - FRAME) as u32;
        self.bytes[..4].copy_from_slice(&body.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&number.to_le_bytes());
        let head = checksum(salt, &self.bytes[..8]);
        let body = checksum(salt, &self.bytes[FRAME..]);
        self.bytes[8..12].copy_from_slice(&head.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&body.to_le_bytes());
        &self.bytes
    }
}

/// The body of frame `number`, if that is whole at the start of `bytes`.
pub(super) fn find(bytes: &[u8], salt: u32, number: u32) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<FRAME>()?;
    let length = number4(head, 0) as usize;
    let expected = number4(head, 4) == number && number4(head, 8) == checksum(salt, &head[..8]);
    if !expected || length > MAX_BODY {
        return None;
    }
    let body = rest.get(..length)?;
    (checksum(salt, body) == number4(head, 12)).then_some(body)
}

/// Whether a later frame than `number`, which should be at the start of `bytes`, stands anywhere
/// behind it. Then frame `number` was durable once: the next is only written after that.
///
/// Looks at every byte once. A number is believed only if so many frames fit in front of it, so
/// that hardly anything else is worth a checksum; and no checksum is right by chance or by intent,
/// as for [frames](self) in general.
pub(super) fn is_followed(bytes: &[u8], salt: u32, number: u32) -> bool {
    bytes.windows(FRAME).enumerate().any(|(at, head)| {
        let later = number4(head, 4);
        let fits = later > number && (later - number) as usize <= at / FRAME;
        fits && find(&bytes[at..], salt, later).is_some()
    })
}

/// One change of a frame: an encoded key and the new record, or none for a delete.
pub(super) type Change<'a> = (&'a [u8], Option<Bytes>);

/// The changes of a frame's body; `None` where the body is malformed.
pub(super) fn changes(body: &[u8]) -> impl Iterator<Item = Option<Change<'_>>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let change = next_change(&mut rest);
        if change.is_none() {
            rest = &[];
        }
        Some(change)
    })
}

fn next_change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let (head, after) = rest.split_first_chunk::<7>()?;
    let key_length = usize::from(u16::from_le_bytes([head[1], head[2]]));
    let (key, after) = after.split_at_checked(key_length)?;
    let (value, after) = after.split_at_checked(number4(head, 3) as usize)?;
    *rest = after;
    match head[0] {
        PUT => Some((key, Some(Bytes::copy_from_slice(value)))),
        DELETE => Some((key, None)),
        _ => None,
    }
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn number4(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn number8(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_damage_shows() {
        let header = FileHeader {
            generation: 7,
            salt: 0xdead_beef,
            previous: 3,
        };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Some(header));
        for at in 0..36 {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(FileHeader::decode(&other), None, "{at}");
        }
        assert_eq!(FileHeader::decode(&bytes[..63]), None);
        assert_eq!(FileHeader::decode(&[0; 64]), None);
    }

    #[test]
    fn frames_round_trip_and_damage_shows() {
        let mut frame = FrameBuilder::default();
        frame.clear();
        assert!(frame.is_empty());
        frame.push(b"key", Some(b"record"));
        frame.push(b"gone", None);
        let bytes = frame.seal(5, 2).to_vec();
        let body = find(&bytes, 5, 2).unwrap();
        let got: Vec<_> = changes(body).collect();
        let put = Some((&b"key"[..], Some(Bytes::from_static(b"record"))));
        assert_eq!(got, [put, Some((&b"gone"[..], None))]);
        assert_eq!(find(&bytes, 6, 2), None);
        assert_eq!(find(&bytes, 5, 3), None);
        assert_eq!(find(&bytes[..bytes.len() - 1], 5, 2), None);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert_eq!(find(&other, 5, 2), None, "{at}");
        }
    }

    #[test]
    fn a_later_frame_is_found_wherever_it_stands() {
        let frame = |salt, number| {
            let mut frame = FrameBuilder::default();
            frame.clear();
            frame.push(b"key", Some(b"record"));
            frame.seal(salt, number).to_vec()
        };
        for gap in [20, 21, 5_000] {
            let with = |frame: Vec<u8>| [vec![0x5a; gap], frame, vec![0; 100]].concat();
            assert!(is_followed(&with(frame(5, 3)), 5, 2), "{gap}");
            assert!(!is_followed(&with(frame(5, 2)), 5, 2), "it is no later one");
            assert!(
                !is_followed(&with(frame(6, 3)), 5, 2),
                "from an earlier use"
            );
            let mut cut = frame(5, 3);
            cut.pop();
            assert!(!is_followed(&with(cut), 5, 2), "it is not whole");
        }
        assert!(!is_followed(&frame(5, 3)[..FRAME - 1], 5, 2));
        assert!(!is_followed(&[], 5, 2));
    }

    #[test]
    fn malformed_bodies_end() {
        for body in [&b"\x01"[..], b"\x01\x05\0\0\0\0\0ab", b"\x07\0\0\0\0\0\0"] {
            assert_eq!(changes(body).collect::<Vec<_>>(), [None], "{body:?}");
        }
    }
}
