//! A socket, with or without TLS.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Most bytes that come out of one read: what one TLS record holds.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What a connection reads from and writes to.
pub(super) enum Transport {
    /// Before TLS.
    Plain(TcpStream),
    /// Boxed: a TLS session is an order of magnitude larger than everything else here.
    Tls(Box<TlsStream<TcpStream>>),
    /// In the middle of a handshake, or after one that failed.
    None,
}

impl Transport {
    /// Ready with how many bytes came in, which are put behind the others; 0 at the end.
    pub(super) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(match self {
                Self::Plain(socket) => Pin::new(socket).poll_read(cx, &mut buffer),
                Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, &mut buffer),
                Self::None => Poll::Ready(Ok(())),
            })?;
            input.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
            Self::None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::None => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more will be written: `close_notify` where there is TLS, then FIN.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::None => Poll::Ready(Ok(())),
        }
    }

    /// Takes the plain socket out, for a handshake.
    pub(super) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(self, Self::None) {
            Self::Plain(socket) => Some(socket),
            other => {
                *self = other;
                None
            }
        }
    }
}
