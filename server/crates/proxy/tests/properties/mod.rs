//! What holds for any bytes at all. The property test and the fuzz target call this.

use cirrus_proxy::{Parsed, parse};
use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// Bytes that a header may have in these tests.
const MOST: usize = 300;

/// Looks at `bytes` and asserts what must hold of what comes out, also beside another reader.
pub(crate) fn any_bytes(bytes: &[u8]) {
    let parsed = parse(bytes, MOST);
    match parsed {
        Ok(Parsed::Whole { length, source }) => {
            assert!(length <= bytes.len() && length <= MOST);
            // What follows changes nothing, and it is nothing before its last byte.
            assert_eq!(parse(&bytes[..length], MOST), parsed);
            for end in 0..length {
                assert_eq!(parse(&bytes[..end], MOST), Ok(Parsed::Part), "{end}");
            }
            agrees(&bytes[..length], source);
        }
        Ok(Parsed::Part) => assert!(bytes.len() < MOST),
        // Whatever comes later, a fault stays one.
        Err(_) => {
            let mut longer = bytes.to_vec();
            longer.extend_from_slice(b" 1\r\n");
            assert!(parse(&longer, MOST).is_err());
            also_refused(bytes);
        }
    }
}

/// The other reader gives the same source, where it takes the header at all.
fn agrees(header: &[u8], source: Option<std::net::SocketAddr>) {
    let Ok((other, length)) = ProxyHeader::parse(header, ParseConfig::default()) else {
        // A balancer's word about itself, with a family of addresses that it has left open.
        assert!(header.get(12) == Some(&0x20), "{header:?}");
        return;
    };
    assert_eq!(length, header.len());
    // Datagrams have a source there, which is nobody's who could connect here.
    let streams = other.proxied_address();
    let streams = streams.filter(|it| it.protocol == Protocol::Stream);
    assert_eq!(streams.map(|it| it.source), source);
}

/// What we refuse is no binary header for the other reader either, unless it is only too long here.
fn also_refused(bytes: &[u8]) {
    if bytes.first() == Some(&b'\r') && parse(bytes, usize::MAX).is_err() {
        assert!(ProxyHeader::parse(bytes, ParseConfig::default()).is_err());
    }
}
