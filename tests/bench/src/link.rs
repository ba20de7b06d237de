//! A non-blocking socket, plain until it is upgraded to TLS 1.3.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, Connection, DigitallySignedStruct, SignatureScheme};

/// What a read found.
pub(crate) enum Received {
    /// Bytes were appended (perhaps none: a handshake record).
    Some,
    /// The other side closed.
    End,
}

/// One connection.
pub(crate) struct Link {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
    plain_out: Vec<u8>,
}

impl Link {
    /// Connects over loopback. `source` varies the last byte of the local address, so that ports in
    /// TIME-WAIT don't run out and the server sees more than one address.
    pub(crate) fn connect(port: u16, source: u8) -> Result<Link> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        socket
            .connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
            .with_context(|| format!("can't connect to 127.0.0.1:{port}"))?;
        Link::from_socket(socket.into())
    }

    /// Takes over a connected socket.
    pub(crate) fn from_socket(socket: TcpStream) -> Result<Link> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Link {
            socket,
            tls: None,
            plain_out: Vec::new(),
        })
    }

    /// Speaks TLS from here on.
    pub(crate) fn upgrade(&mut self, mut tls: Connection) -> io::Result<()> {
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        self.flush()
    }

    /// For registration with a poller.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends in one write, as far as the socket takes it; the rest waits for [`Link::flush`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.plain_out.extend_from_slice(bytes),
        }
        self.flush()
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let written = match &mut self.tls {
            Some(tls) => {
                let mut result = Ok(());
                while tls.wants_write() && result.is_ok() {
                    result = tls.write_tls(&mut self.socket).map(drop);
                }
                result
            }
            None => {
                let mut result = Ok(());
                while !self.plain_out.is_empty() && result.is_ok() {
                    result = self.socket.write(&self.plain_out).map(|sent| {
                        self.plain_out.drain(..sent);
                    });
                }
                result
            }
        };
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Something waits for the socket to become writable.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write(),
            None => !self.plain_out.is_empty(),
        }
    }

    /// Reads once and appends the plain text to `into`.
    pub(crate) fn receive(&mut self, into: &mut Vec<u8>) -> Result<Received> {
        let Some(tls) = &mut self.tls else {
            let mut chunk = [0_u8; 4096];
            return match self.socket.read(&mut chunk) {
                Ok(0) => Ok(Received::End),
                Ok(length) => {
                    into.extend_from_slice(&chunk[..length]);
                    Ok(Received::Some)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Some),
                Err(error) => Err(error.into()),
            };
        };
        match tls.read_tls(&mut self.socket) {
            Ok(0) => return Ok(Received::End),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Some),
            Err(error) => return Err(error.into()),
        }
        let state = tls.process_new_packets()?;
        let (plain, closed) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        if plain > 0 {
            let start = into.len();
            into.resize(start + plain, 0);
            tls.reader().read_exact(&mut into[start..])?;
        }
        if tls.wants_write() {
            self.flush()?;
        }
        Ok(if closed && plain == 0 {
            Received::End
        } else {
            Received::Some
        })
    }
}

/// TLS 1.3 with one cipher suite and one group for every server, no resumption, and no look at the
/// certificate: each login costs the server a full handshake, and the generator as little as
/// possible.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts every certificate: the servers are our own children on loopback.
#[derive(Debug)]
struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
