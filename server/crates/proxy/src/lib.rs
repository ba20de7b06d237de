//! The PROXY protocol, versions 1 and 2: a balancer says for whom it makes a connection.
//!
//! [`parse`] looks at bytes; [`Balancers`] reads a header off a socket, from whom one is expected
//! and from nobody else: whoever may send one may claim any address.
//!
//! What it does not do: it writes no headers, keeps none of their further fields, and checks no
//! checksum (a receiver need not: section 2.2.3).
//!
//! Limits: [`Options::most`] bytes of a header, and [`Options::within`] until it is there.

mod header;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

pub use header::{Fault, MAX_TEXT, Parsed, parse};

/// Bounds of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes.
    pub most: usize,
    /// How long it may take to arrive.
    pub within: Duration,
}

/// From whom headers are expected, and how they may be.
pub struct Balancers {
    lists: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    options: Options,
}

/// Why the header of a connection can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It is none.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It did not come in time.
    #[error("no whole PROXY header came within {0:?}")]
    Late(Duration),
    /// The connection ended before.
    #[error("the connection ended before its PROXY header")]
    Ended,
    /// The connection broke.
    #[error("the connection broke before its PROXY header: {0}")]
    Broken(#[from] io::Error),
}

impl Balancers {
    /// Those whose addresses `lists` holds of, IPv4 as such.
    pub fn new(lists: impl Fn(IpAddr) -> bool + Send + Sync + 'static, options: Options) -> Self {
        let lists = Box::new(lists);
        Self { lists, options }
    }

    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        let (most, within) = (MAX_TEXT, Duration::ZERO);
        Self::new(|_| false, Options { most, within })
    }

    /// Whether a connection from this address begins with a header.
    #[must_use]
    pub fn lists(&self, peer: IpAddr) -> bool {
        (self.lists)(peer.to_canonical())
    }

    /// Reads the header off a connection, and nothing of what follows it. The answer is for whom
    /// the connection was made; `None` = for its own peer.
    ///
    /// # Errors
    /// Where there is no header. Of what begins otherwise than one, nothing has been read.
    pub async fn read(&self, socket: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
        let within = self.options.within;
        let read = tokio::time::timeout(within, read(socket, self.options.most));
        read.await.unwrap_or(Err(ProxyError::Late(within)))
    }
}

impl fmt::Debug for Balancers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancers")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

async fn read(socket: &mut TcpStream, most: usize) -> Result<Option<SocketAddr>, ProxyError> {
    // What is peeked at can become longer than `most` only together with what is no header.
    let mut bytes = vec![0; most.max(MAX_TEXT)];
    let mut taken = 0;
    loop {
        let room = bytes.get_mut(taken..).unwrap_or_default();
        let there = socket.peek(room).await?;
        if there == 0 {
            return Err(ProxyError::Ended);
        }
        let seen = bytes.get(..taken + there).unwrap_or_default();
        let (end, whole) = match parse(seen, most)? {
            Parsed::Part => (taken + there, None),
            Parsed::Whole { length, source } => (length, Some(source)),
        };
        // It is in the kernel's buffer, so this waits for nothing.
        socket
            .read_exact(bytes.get_mut(taken..end).unwrap_or_default())
            .await?;
        if let Some(source) = whole {
            return Ok(source);
        }
        taken = end;
    }
}

#[cfg(test)]
mod tests;
