//! Whether an XMPP stream opens: the only sign of readiness that is believed. An open port may be
//! a proxy's, or a listener whose server is still loading.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use cirrus_config::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(3);
/// What a balancer sends before its own words: that it speaks for nobody else (PROXY protocol,
/// version 2, command LOCAL).
const FOR_MYSELF: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// Bytes read before the features must have come.
const MAX_ANSWER: usize = 65_536;

/// Why no stream opened.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// No connection, or it broke.
    #[error("{address}: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Connected, and then no answer.
    #[error("{address}: connected, but no answer within {} s", ATTEMPT.as_secs())]
    Silent {
        /// Where.
        address: SocketAddr,
    },
    /// An answer, but no stream features.
    #[error("{address}: no stream features but `{excerpt}`")]
    NoFeatures {
        /// Where.
        address: SocketAddr,
        /// What came.
        excerpt: String,
    },
}

/// Opens a stream to a domain at an address and waits for its features (RFC 6120 4.3.2).
/// `balancers` are the networks whose connections have to begin with a PROXY header: this machine
/// may be in one.
///
/// # Errors
/// What came instead.
pub async fn stream_opens(
    address: SocketAddr,
    domain: &str,
    balancers: &[Network],
) -> Result<(), NotReady> {
    let address = reachable(address);
    let answer = tokio::time::timeout(ATTEMPT, open(address, domain, balancers)).await;
    let answer = answer.map_err(|_| NotReady::Silent { address })?;
    let answer = answer.map_err(|source| NotReady::Socket { address, source })?;
    if has_features(&answer) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer);
    let excerpt = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(NotReady::NoFeatures { address, excerpt })
}

/// The address to connect to where the server listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        address.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    address
}

async fn open(address: SocketAddr, domain: &str, balancers: &[Network]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let here = stream.local_addr()?.ip();
    if balancers.iter().any(|network| network.contains(here)) {
        stream.write_all(FOR_MYSELF).await?;
    }
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='{domain}'>"
    );
    stream.write_all(header.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut buffer = [0u8; 4096];
    while answer.len() < MAX_ANSWER && !has_features(&answer) && !has_error(&answer) {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    // It has said enough; the server may have closed already.
    let _ = stream.write_all(b"</stream:stream>").await;
    Ok(answer)
}

fn has_features(answer: &[u8]) -> bool {
    contains(answer, b"<stream:features")
}

fn has_error(answer: &[u8]) -> bool {
    contains(answer, b"</stream:error>")
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w == word)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn probe(parts: &'static [&'static str]) -> Result<(), String> {
        probe_from(&[], b"<?xml", parts).await
    }

    /// What comes of an attempt whose first bytes have to be these.
    async fn probe_from(
        balancers: &[&str],
        first: &'static [u8],
        parts: &'static [&'static str],
    ) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut header = Vec::new();
            while !header.ends_with(b"to='localhost'>") {
                header.push(socket.read_u8().await.unwrap());
            }
            assert!(header.starts_with(first), "{header:?}");
            for part in parts {
                socket.write_all(part.as_bytes()).await.unwrap();
                socket.flush().await.unwrap();
            }
        });
        let balancers = balancers.iter().map(|text| Network::parse(text).unwrap());
        let balancers: Vec<_> = balancers.collect();
        let result = stream_opens(address, "localhost", &balancers).await;
        server.await.unwrap();
        result.map_err(|e| e.to_string().replace(&address.to_string(), "A"))
    }

    #[tokio::test]
    async fn answers() {
        assert_eq!(
            probe(&["<stream:stream id='1'>", "<stream:fea", "tures/>"]).await,
            Ok(())
        );
        let error = "<stream:stream><stream:error><host-unknown/></stream:error>";
        let said = probe(&["<stream:stream><stream:error><host-unknown/></stream:error>"]).await;
        assert_eq!(said, Err(format!("A: no stream features but `{error}`")));
        let said = probe(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await;
        assert_eq!(
            said,
            Err("A: no stream features but `HTTP/1.1 400 Bad Request`".into())
        );
        assert_eq!(probe(&[]).await, Err("A: no stream features but ``".into()));
    }

    #[tokio::test]
    async fn a_machine_that_counts_as_a_balancer_says_that_it_speaks_for_itself() {
        let features = &["<stream:stream id='1'><stream:features/>"];
        let opened = probe_from(&["127.0.0.0/8"], FOR_MYSELF, features).await;
        assert_eq!(opened, Ok(()));
        let opened = probe_from(&["10.0.0.0/8"], b"<?xml", features).await;
        assert_eq!(opened, Ok(()));
    }

    #[test]
    fn every_address_is_reached_at_loopback() {
        for (listens, reached) in [
            ("[::]:5222", "[::1]:5222"),
            ("0.0.0.0:5222", "127.0.0.1:5222"),
            ("192.0.2.1:5222", "192.0.2.1:5222"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
