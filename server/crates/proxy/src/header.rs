//! The header itself, as bytes.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// How the binary form begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How the text form begins.
const WORD: &[u8; 6] = b"PROXY ";
/// Bytes of the longest text form, with its end of line.
pub const MAX_TEXT: usize = 107;
/// Bytes of the binary form before its addresses.
const FIXED: usize = 16;

/// What the bytes of a connection begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header. All bytes so far belong to it.
    Part,
    /// A whole header.
    Whole {
        /// Its bytes.
        length: usize,
        /// For whom the connection was made; `None` = for the balancer itself, or for somebody
        /// whom it cannot name: the address of the connection holds.
        source: Option<SocketAddr>,
    },
}

/// Why it is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first bytes are those of something else.
    #[error("there is no PROXY header")]
    Missing,
    /// It begins like a header.
    #[error("the PROXY header has {0}")]
    Malformed(&'static str),
    /// It says that it is longer than allowed.
    #[error("the PROXY header has {length} bytes; {most} are allowed")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// Bytes that are allowed.
        most: usize,
    },
}

/// Looks at the first bytes of a connection. A header in binary form has at most `most` bytes, one
/// in text form [`MAX_TEXT`].
///
/// # Errors
/// As soon as it can't become a header.
pub fn parse(bytes: &[u8], most: usize) -> Result<Parsed, Fault> {
    if begins(bytes, SIGNATURE) {
        binary(bytes, most)
    } else if begins(bytes, WORD) {
        text(bytes)
    } else {
        Err(Fault::Missing)
    }
}

/// Whether the bytes begin so, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn text(bytes: &[u8]) -> Result<Parsed, Fault> {
    let line = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < MAX_TEXT {
            true => Ok(Parsed::Part),
            false => Err(Fault::Malformed("no end")),
        };
    };
    let line = line.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(Fault::Malformed("a line that is none"))?;
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        // What follows means nothing (section 2.1).
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(ends::<Ipv6Addr>(words)?),
        _ => return Err(Fault::Malformed("an unknown protocol")),
    };
    Ok(Parsed::Whole { length, source })
}

/// Source and destination address, source and destination port; the source comes out.
fn ends<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, Fault> {
    const ADDRESS: Fault = Fault::Malformed("a bad address");
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok());
    let source = address().ok_or(ADDRESS)?;
    address().ok_or(ADDRESS)?;
    let mut port = || words.next().and_then(port);
    let (from, to) = (port(), port());
    match (from, to, words.next()) {
        (Some(from), Some(_), None) => Ok(SocketAddr::new(source.into(), from)),
        _ => Err(Fault::Malformed("bad ports")),
    }
}

/// Digits without a sign and without zeros before them.
fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = word.len() == 1 || !word.starts_with('0');
    word.parse().ok().filter(|_| digits && shortest)
}

fn binary(bytes: &[u8], most: usize) -> Result<Parsed, Fault> {
    let Some((head, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Part);
    };
    let [.., command, family, high, low] = *head;
    let size = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + size;
    if length > most {
        return Err(Fault::TooLong { length, most });
    }
    // What is sent is looked at before all of it has come: a fault need not be waited for.
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Malformed("an unknown version or command")),
    };
    let (addresses, known) = match family {
        0x11 | 0x12 => (12, true),
        0x21 | 0x22 => (36, true),
        0x31 | 0x32 => (216, true),
        0x00 => (0, true),
        _ => (0, false),
    };
    // A balancer that speaks for itself may leave all that empty.
    if !local && !known {
        return Err(Fault::Malformed("an unknown family of addresses"));
    }
    if !local && size < addresses {
        return Err(Fault::Malformed("no place for its addresses"));
    }
    let Some(rest) = rest.get(..size) else {
        return Ok(Parsed::Part);
    };
    let source = match family {
        _ if local => None,
        0x11 => rest.first_chunk::<12>().map(|it| {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *it;
            let port = u16::from_be_bytes([high, low]);
            SocketAddr::from(([a, b, c, d], port))
        }),
        0x21 => rest.first_chunk::<36>().map(|it| {
            let [source @ .., _, _] = *it;
            let (address, _) = source.split_at(16);
            let address: [u8; 16] = address.try_into().unwrap_or_default();
            let [.., high, low] = source;
            SocketAddr::from((address, u16::from_be_bytes([high, low])))
        }),
        // Sockets of other kinds have no address that would mean anything here.
        _ => None,
    };
    Ok(Parsed::Whole { length, source })
}
