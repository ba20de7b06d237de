//! The other crates' services as a connection uses them.

use std::cell::RefCell;
use std::time::Duration;

use cirrus_router::Entropy;
use cirrus_sasl::{BindingKind, ChannelBinding};
use cirrus_tls::{ServerTls, TlsError};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::stream::Secured;

thread_local! {
    static ENTROPY: RefCell<cirrus_runtime::SystemEntropy> = RefCell::default();
}

/// The system's randomness, drawn once for all connections of a thread.
pub(super) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        ENTROPY.with_borrow_mut(|entropy| entropy.fill(buffer));
    }
}

/// The handshake, for so long at most and until the server stops: after STARTTLS as `host`, else as
/// the host that the client names.
///
/// # Errors
/// Why it failed, for the log.
pub(super) async fn accept(
    tls: &ServerTls,
    (socket, host): (TcpStream, Option<&str>),
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(Box<TlsStream<TcpStream>>, Secured), String> {
    tokio::select! {
        done = tokio::time::timeout(within, shake_hands(tls, socket, host)) => match done {
            Ok(done) => done.map_err(|cause| cause.to_string()),
            Err(_) => Err("it took too long".to_owned()),
        },
        () = stop => Err("the server stops".to_owned()),
    }
}

async fn shake_hands(
    tls: &ServerTls,
    socket: TcpStream,
    host: Option<&str>,
) -> Result<(Box<TlsStream<TcpStream>>, Secured), TlsError> {
    let secured = match host {
        Some(host) => tls.accept_starttls(socket, host).await?,
        None => tls.accept_direct(socket).await?,
    };
    let bindings = secured.bindings();
    let kinds = [
        (BindingKind::TlsExporter, bindings.exporter),
        (BindingKind::TlsServerEndPoint, bindings.server_end_point),
    ];
    let bindings = kinds
        .into_iter()
        .filter_map(|(kind, data)| Some(ChannelBinding { kind, data: data? }))
        .collect();
    let shown = secured.certificate.host.clone();
    let asked = secured.stream.get_ref().1.server_name();
    // Without a name, or with one that is not ours, the certificate is only a default.
    let named = || {
        asked
            .and_then(|name| cirrus_jid::host(name).ok())
            .is_some_and(|n| n == shown)
    };
    let host = (host.is_some() || named()).then_some(shown);
    Ok((Box::new(secured.stream), Secured { bindings, host }))
}
