//! Listening sockets and what is set on each connection.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Keep-alive probes that may stay unanswered.
const PROBES: u32 = 4;

/// What is set on sockets.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Connections that the kernel holds until they are accepted.
    pub backlog: u32,
    /// Silence after which the kernel probes a connection.
    pub keepalive: Duration,
}

/// Opens a listening socket. An IPv6 wildcard address takes IPv4 as well, unless `only_v6`; on a
/// machine without IPv6 it falls back to the IPv4 wildcard.
///
/// # Errors
/// The system's, when the address is taken, not there or not allowed.
pub fn listen(
    address: SocketAddr,
    only_v6: bool,
    options: &SocketOptions,
) -> io::Result<TcpListener> {
    match open(address, only_v6, options) {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() && !has_ipv6() => open(
            SocketAddr::from(([0, 0, 0, 0], address.port())),
            false,
            options,
        ),
        result => result,
    }
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok()
}

fn open(address: SocketAddr, only_v6: bool, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A restarted server takes its port although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Prepares an accepted connection: no delay for small writes (each batch is one write), and
/// probes so that a peer that vanished is noticed.
pub(super) fn prepare(socket: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(options.keepalive)
        .with_interval(options.keepalive / 4 + Duration::from_secs(1))
        .with_retries(PROBES);
    let reference = SockRef::from(socket);
    reference.set_tcp_keepalive(&probes)?;
    // Written data that nobody acknowledges breaks the connection in the same time.
    reference.set_tcp_user_timeout(Some(options.keepalive * 2))
}

/// Writes what the socket takes at once, and closes it.
pub(super) fn dismiss(socket: TcpStream, words: &[u8]) {
    if let Ok(mut socket) = socket.into_std() {
        // Nobody waits for it: a peer that is turned away gets the reason if it can.
        let _ = socket.write(words);
    }
}

/// Whether a failed accept says that descriptors or memory have run out: then trying again at
/// once only burns the processor.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM on Linux.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}
