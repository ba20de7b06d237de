//! What each side says first inside TLS, and how it proves that it has the cluster key.
//!
//! The proof covers the side's role, the TLS exporter of this very connection and both node ids. So
//! a hello is worth nothing on another connection, in the other direction or for another node, and
//! whoever stands between has two connections with two exporters.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::hmac;

/// Bytes of a hello: magic, versions, node ids, incarnation, sequence, nonce, proof.
pub(crate) const HELLO_BYTES: usize = BODY_BYTES + MAC_BYTES;
/// Bytes of the exporter's output.
pub(crate) const EXPORTER_BYTES: usize = 32;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"cirlink\x01";
const BODY_BYTES: usize = 8 + 2 + 2 + 8 + 8 + 8 + 8 + NONCE_BYTES;
const MAC_BYTES: usize = 32;

/// Who dialled speaks first, who accepted answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dialler,
    Acceptor,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Role::Dialler => b"cirrus-link dialler v1",
            Role::Acceptor => b"cirrus-link acceptor v1",
        }
    }
}

/// What one side says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Oldest and newest version that it understands.
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    /// The side's node.
    pub(crate) node: u64,
    /// The node it speaks to; 0: it does not know.
    pub(crate) other: u64,
    /// Random number of its process: sequences of one process can be compared.
    pub(crate) incarnation: u64,
    /// Grows with each hello of the process.
    pub(crate) sequence: u64,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// What the proof is about besides the hello itself.
#[derive(Clone, Copy)]
pub(crate) struct Proof<'a> {
    pub(crate) key: &'a hmac::Key,
    pub(crate) role: Role,
    pub(crate) exporter: &'a [u8; EXPORTER_BYTES],
    /// The nonce heard from the other side; zeros from who speaks first.
    pub(crate) heard: &'a [u8; NONCE_BYTES],
}

/// Why a hello is not accepted. The acceptor says it in one byte; that byte proves nothing, it
/// only makes the other side's log line clearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No hello of this protocol.
    Foreign,
    /// Another cluster key, or somebody between.
    Key,
    /// No version that both understand.
    Version,
    /// It looks for another node.
    OtherNode,
    /// It is this node.
    Myself,
    /// A better link with it exists or is being made.
    Crossed,
}

/// What the acceptor says before its hello.
pub(crate) const ACCEPTED: u8 = 0;

const CODES: [(u8, Refusal); 6] = [
    (1, Refusal::Foreign),
    (2, Refusal::Key),
    (3, Refusal::Version),
    (4, Refusal::OtherNode),
    (5, Refusal::Myself),
    (6, Refusal::Crossed),
];

impl Refusal {
    pub(crate) fn code(self) -> u8 {
        let code = CODES.iter().find(|(_, refusal)| *refusal == self);
        code.map_or(1, |(code, _)| *code)
    }

    pub(crate) fn of(code: u8) -> Refusal {
        let refusal = CODES.iter().find(|(known, _)| *known == code);
        refusal.map_or(Refusal::Foreign, |(_, refusal)| *refusal)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Foreign => "it is no link of this protocol; is the address a node's?",
            Refusal::Key => "the cluster keys differ; all nodes must use the same tables",
            Refusal::Version => {
                "no version is understood by both; update through each version in turn"
            }
            Refusal::OtherNode => "another node is at this address now",
            Refusal::Myself => "the address is this node's own",
            Refusal::Crossed => "there is a link with this node already",
        })
    }
}

impl Hello {
    /// The hello with its proof, as bytes.
    pub(crate) fn seal(&self, proof: Proof<'_>) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &self.oldest.to_be_bytes(),
            &self.newest.to_be_bytes(),
            &self.node.to_be_bytes(),
            &self.other.to_be_bytes(),
            &self.incarnation.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.nonce,
        ];
        let (body, mac) = bytes.split_at_mut(BODY_BYTES);
        for (to, from) in body.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        let tag = hmac::sign(proof.key, &proof.signed(body));
        mac.copy_from_slice(tag.as_ref());
        bytes
    }

    /// The hello in the bytes, if its proof holds.
    pub(crate) fn open(bytes: &[u8; HELLO_BYTES], proof: Proof<'_>) -> Result<Hello, Refusal> {
        let (body, mac) = bytes.split_at(BODY_BYTES);
        let mut rest = body;
        if take::<8>(&mut rest)? != MAGIC {
            return Err(Refusal::Foreign);
        }
        // Compares in constant time.
        hmac::verify(proof.key, &proof.signed(body), mac).map_err(|_| Refusal::Key)?;
        Ok(Hello {
            oldest: u16::from_be_bytes(take(&mut rest)?),
            newest: u16::from_be_bytes(take(&mut rest)?),
            node: u64::from_be_bytes(take(&mut rest)?),
            other: u64::from_be_bytes(take(&mut rest)?),
            incarnation: u64::from_be_bytes(take(&mut rest)?),
            sequence: u64::from_be_bytes(take(&mut rest)?),
            nonce: take(&mut rest)?,
        })
    }

    /// The version to speak with who said this, where node `me` looked for `wanted` (0: anyone).
    pub(crate) fn judge(
        &self,
        me: u64,
        wanted: u64,
        versions: &RangeInclusive<u16>,
    ) -> Result<u16, Refusal> {
        if self.node == me || self.node == 0 {
            return Err(Refusal::Myself);
        }
        if (self.other != 0 && self.other != me) || (wanted != 0 && self.node != wanted) {
            return Err(Refusal::OtherNode);
        }
        let version = self.newest.min(*versions.end());
        if version < self.oldest || version < *versions.start() {
            return Err(Refusal::Version);
        }
        Ok(version)
    }
}

impl Proof<'_> {
    fn signed(&self, body: &[u8]) -> Vec<u8> {
        [self.role.label(), self.exporter, self.heard, body].concat()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (field, after) = rest.split_first_chunk::<N>().ok_or(Refusal::Foreign)?;
    *rest = after;
    Ok(*field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    fn hello() -> Hello {
        Hello {
            oldest: 3,
            newest: 4,
            node: 7,
            other: 9,
            incarnation: 11,
            sequence: 13,
            nonce: [5; NONCE_BYTES],
        }
    }

    fn proof(key: &hmac::Key) -> Proof<'_> {
        Proof {
            key,
            role: Role::Dialler,
            exporter: &[1; EXPORTER_BYTES],
            heard: &[0; NONCE_BYTES],
        }
    }

    #[test]
    fn a_hello_is_read_as_it_was_said() {
        let key = key(1);
        let bytes = hello().seal(proof(&key));
        assert_eq!(Hello::open(&bytes, proof(&key)), Ok(hello()));
    }

    #[test]
    fn each_changed_bit_is_refused() {
        let key = key(1);
        let bytes = hello().seal(proof(&key));
        for bit in 0..HELLO_BYTES * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::open(&changed, proof(&key)).is_err(), "bit {bit}");
        }
        let foreign = Hello::open(&[0; HELLO_BYTES], proof(&key));
        assert_eq!(foreign, Err(Refusal::Foreign));
    }

    #[test]
    fn another_key_role_connection_or_dialogue_is_refused() {
        let (key, other) = (key(1), key(2));
        let bytes = hello().seal(proof(&key));
        let wrong = [
            Proof {
                key: &other,
                ..proof(&key)
            },
            Proof {
                role: Role::Acceptor,
                ..proof(&key)
            },
            Proof {
                exporter: &[2; EXPORTER_BYTES],
                ..proof(&key)
            },
            Proof {
                heard: &[1; NONCE_BYTES],
                ..proof(&key)
            },
        ];
        for proof in wrong {
            assert_eq!(Hello::open(&bytes, proof), Err(Refusal::Key));
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        for (versions, version) in [
            (1..=2, Err(Refusal::Version)),
            (1..=3, Ok(3)),
            (3..=4, Ok(4)),
            (4..=9, Ok(4)),
            (5..=9, Err(Refusal::Version)),
        ] {
            assert_eq!(hello().judge(9, 7, &versions), version, "{versions:?}");
        }
    }

    #[test]
    fn only_who_was_looked_for_is_accepted() {
        let versions = 1..=9;
        assert_eq!(hello().judge(9, 0, &versions), Ok(4));
        assert_eq!(hello().judge(9, 8, &versions), Err(Refusal::OtherNode));
        assert_eq!(hello().judge(8, 7, &versions), Err(Refusal::OtherNode));
        assert_eq!(hello().judge(7, 0, &versions), Err(Refusal::Myself));
    }

    #[test]
    fn a_refusal_survives_its_byte() {
        for (code, refusal) in CODES {
            assert_eq!((Refusal::of(code), refusal.code()), (refusal, code));
            assert_ne!(code, ACCEPTED);
        }
        assert_eq!(Refusal::of(200), Refusal::Foreign);
    }
}
