//! Handshakes, and what a connection knows after one.

use std::fmt;
use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::TlsError;
use crate::binding::{EXPORTER_BYTES, EXPORTER_LABEL};
use crate::certificate::Certificate;
use crate::challenge::ALPN_ACME;
use crate::server::ServerTls;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured<IO> {
    /// Plain text in, plain text out.
    pub stream: TlsStream<IO>,
    /// What the client saw: the certificate in use when the handshake began.
    pub certificate: Arc<Certificate>,
}

/// Channel-binding data of a connection; what is `None` must not be offered on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266): on TLS 1.3 only, as TLS 1.2 would need a guarantee of the
    /// extended master secret.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929).
    pub server_end_point: Option<Vec<u8>>,
}

/// For a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's name.
    pub cipher: String,
    /// Resumed by ticket.
    pub resumed: bool,
}

impl ServerTls {
    /// The handshake after STARTTLS (RFC 6120, section 5). `host` is what the stream header named
    /// in `to`; it decides the certificate whatever the client indicates in the handshake.
    ///
    /// # Errors
    /// [`TlsError::UnknownHost`], [`TlsError::Handshake`].
    pub async fn accept_starttls<IO>(&self, io: IO, host: &str) -> Result<Secured<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let unknown = || TlsError::UnknownHost {
            host: host.to_owned(),
        };
        let host = self.host(host).ok_or_else(unknown)?;
        let acceptor = TlsAcceptor::from(Arc::clone(&host.starttls));
        let stream = acceptor.accept(io).await.map_err(TlsError::Handshake)?;
        Ok(Secured {
            stream,
            certificate: Arc::clone(&host.certificate),
        })
    }

    /// The handshake of direct TLS (XEP-0368): the client indicates the host; where it indicates
    /// none, or one that is not here, the first host answers. A client that offers protocols must
    /// offer `xmpp-client`.
    ///
    /// A certificate authority's question (RFC 8737) is answered by the handshake alone: then
    /// there is no stream.
    ///
    /// The stream header may still name another host than [`Certificate::host`]: the caller decides
    /// whether it allows that.
    ///
    /// # Errors
    /// [`TlsError::Handshake`]; [`TlsError::Asked`] after an authority's question.
    pub async fn accept_direct<IO>(&self, io: IO) -> Result<Secured<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .map_err(TlsError::Handshake)?;
        if let Some(name) = question(&start.client_hello()) {
            if let Some(config) = self.challenge(&name).await {
                let answer = start.into_stream(config).await;
                answer.map_err(TlsError::Handshake)?;
            }
            return Err(TlsError::Asked { name });
        }
        let host = self.host_for_sni(start.client_hello().server_name())?;
        let accept = start.into_stream(Arc::clone(&host.direct));
        let stream = accept.await.map_err(TlsError::Handshake)?;
        Ok(Secured {
            stream,
            certificate: Arc::clone(&host.certificate),
        })
    }
}

/// The name that an authority asks about: it offers this protocol and no other.
fn question(hello: &ClientHello<'_>) -> Option<String> {
    let mut offered = hello.alpn()?;
    let asks = offered.next() == Some(ALPN_ACME) && offered.next().is_none();
    let name = hello.server_name().filter(|_| asks)?;
    Some(name.to_ascii_lowercase())
}

impl<IO> Secured<IO> {
    /// What SASL may bind to.
    pub fn bindings(&self) -> Bindings {
        let (_, connection) = self.stream.get_ref();
        let exporter = (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
            .then_some([0; EXPORTER_BYTES])
            .and_then(|out| {
                connection
                    .export_keying_material(out, EXPORTER_LABEL, Some(&[]))
                    .ok()
            })
            .map(|data| data.to_vec());
        Bindings {
            exporter,
            server_end_point: self.certificate.end_point.clone(),
        }
    }

    /// What was negotiated.
    pub fn summary(&self) -> Summary {
        let (_, connection) = self.stream.get_ref();
        let version = connection.protocol_version();
        let cipher = connection.negotiated_cipher_suite();
        Summary {
            version: match version {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: cipher.map_or_else(String::new, |cipher| format!("{:?}", cipher.suite())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings")
            .field("exporter", &self.exporter.is_some())
            .field("server_end_point", &self.server_end_point.is_some())
            .finish()
    }
}
