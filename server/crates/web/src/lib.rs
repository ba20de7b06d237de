//! HTTP: health for a load balancer, metrics for a monitoring system.
//!
//! It knows how to answer, not what: a [`Node`] says how it is. It has no TLS and asks nobody who
//! they are, so its address is not for the public. Connections are bounded, each carries one
//! request, and a client that sends nothing is dropped.

mod metrics;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cirrus_proxy::Balancers;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use metrics::{Kind, Metric, Sample};

/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head; hyper's own least.
const MAX_HEAD: usize = 8_192;
/// Pause after the system refused a connection, so that a lack of descriptors is not a busy loop.
const REFUSED: Duration = Duration::from_millis(100);

/// How a node is, for a load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether clients should be sent here.
    pub serving: bool,
    /// One word and why, for people.
    pub message: String,
}

/// What is asked for health and metrics.
pub trait Node: Send + Sync + 'static {
    /// Whether clients should be sent here.
    fn health(&self) -> Health;

    /// The present value of every metric.
    fn metrics(&self) -> impl Future<Output = Vec<Metric>> + Send;
}

/// Who is answered.
#[derive(Debug)]
pub struct Options {
    /// So many at the same time.
    pub connections: usize,
    /// Whose connections may begin with a PROXY header, which is passed over: a balancer that tells
    /// servers for whom its connections are says it of its own health checks too.
    pub balancers: Balancers,
}

/// Answers on a listener until the future is dropped.
pub async fn serve<N: Node>(listener: TcpListener, node: Arc<N>, options: Options) {
    let places = Arc::new(Semaphore::new(options.connections));
    let balancers = Arc::new(options.balancers);
    loop {
        // Who comes while all places are taken waits in the listener's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((mut stream, peer)) = listener.accept().await else {
            tokio::time::sleep(REFUSED).await;
            continue;
        };
        let (node, balancers) = (Arc::clone(&node), Arc::clone(&balancers));
        tokio::spawn(async move {
            let conversed = tokio::time::timeout(PATIENCE, async {
                if balancers.lists(peer.ip()) {
                    // Without a header it is a request, of which nothing has been read.
                    let _ = balancers.read(&mut stream).await;
                }
                converse(stream, node).await
            });
            let conversed = conversed.await;
            if let Ok(Err(error)) = conversed {
                tracing::debug!(%error, "health connection");
            }
            drop(place);
        });
    }
}

async fn converse<N: Node>(stream: TcpStream, node: Arc<N>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&request, &*node).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer<N: Node>(request: &Request<Incoming>, node: &N) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/health" | "/metrics" if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(ALLOW, allowed);
            refusal
        }
        "/health" => {
            let health = node.health();
            let status = match health.serving {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            text(status, health.message + "\n")
        }
        "/metrics" => match metrics::encode(node.metrics().await) {
            Ok(page) => {
                let mut page = text(StatusCode::OK, page);
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                page.headers_mut().insert(CONTENT_TYPE, kind);
                page
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => text(StatusCode::NOT_FOUND, "/health or /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
