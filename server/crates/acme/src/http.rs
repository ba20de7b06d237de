//! Answers HTTP-01 (RFC 8555, section 8.3): any node, from the table.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cirrus_proxy::Balancers;
use cirrus_store::Table;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::record::{self, Question};

/// Connections at a time; further ones are closed at once.
pub const HTTP_CONNECTIONS: usize = 64;
/// How long a connection may last: one question and its answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD: usize = 8 * 1024;
const PATH: &str = "/.well-known/acme-challenge/";

/// Answers until it is dropped. Everything but an authority's question is "not found". Connections
/// of `balancers` may begin with a PROXY header: one in front of port 80 sends it there too.
pub async fn answer_http(listener: TcpListener, table: Arc<dyn Table>, balancers: Balancers) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    let balancers = Arc::new(balancers);
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else {
            // Out of file descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (table, balancers) = (Arc::clone(&table), Arc::clone(&balancers));
        tokio::spawn(async move {
            let conversed = async {
                if balancers.lists(peer.ip()) {
                    // Without a header it is a request, of which nothing has been read.
                    let _ = balancers.read(&mut stream).await;
                }
                converse(stream, table).await;
            };
            // A connection that lasts longer asks for nothing that is here.
            let _ = tokio::time::timeout(CONNECTION, conversed).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, table: Arc<dyn Table>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let table = Arc::clone(&table);
        async move {
            Ok::<_, Infallible>(respond(request.method(), request.uri().path(), &*table).await)
        }
    });
    let mut http = http1::Builder::new();
    let connection = http
        .keep_alive(false)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the ACME address");
    }
}

async fn respond(method: &Method, path: &str, table: &dyn Table) -> Response<Full<Bytes>> {
    let Some(token) = path.strip_prefix(PATH).filter(|_| method == Method::GET) else {
        return response(StatusCode::NOT_FOUND, String::new());
    };
    match record::answer(table, Question::Http(token)).await {
        Ok(Some(answer)) => response(StatusCode::OK, answer),
        Ok(None) => response(StatusCode::NOT_FOUND, String::new()),
        Err(error) => {
            tracing::warn!(%error, "an authority's question has no answer");
            response(StatusCode::SERVICE_UNAVAILABLE, String::new())
        }
    }
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let octets = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response
}

#[cfg(test)]
mod tests {
    use cirrus_store::MemoryTable;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A table from which the token `known` is answered.
    async fn table() -> Arc<MemoryTable> {
        let memory = Arc::new(MemoryTable::new(Arc::new(|| 1_000)));
        record::prepare(&*memory, Question::Http("known"), "print", (1_000, 1))
            .await
            .unwrap();
        memory
    }

    /// What is answered to these bytes.
    async fn ask(at: std::net::SocketAddr, said: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A connection that is given up is as good as an empty answer.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_balancer_may_say_for_whom_a_question_is() {
        let question = format!("GET {PATH}known HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let header =
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x50";
        for (listed, header, status) in [
            (true, header, "200"),
            (true, "PROXY UNKNOWN\r\n", "200"),
            (true, "", "200"),
            (false, "", "200"),
            (false, header, "400"),
        ] {
            let bounds = cirrus_proxy::Options {
                most: 300,
                within: CONNECTION,
            };
            let balancers = Balancers::new(move |_| listed, bounds);
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(answer_http(listener, table().await, balancers));
            let answer = ask(address, &format!("{header}{question}")).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(
                answer.starts_with(&expected),
                "{listed} {header:?}: {answer}"
            );
            server.abort();
        }
    }

    #[tokio::test]
    async fn only_known_tokens_are_answered() {
        let memory = MemoryTable::new(Arc::new(|| 1_000));
        let table: &dyn Table = &memory;
        let question = Question::Http("known-1_");
        record::prepare(table, question, "known-1_.print", (1_000, 1))
            .await
            .unwrap();
        let long = format!("{PATH}{}", "a".repeat(300));
        for (method, path, status) in [
            (Method::GET, "/.well-known/acme-challenge/known-1_", 200),
            (Method::POST, "/.well-known/acme-challenge/known-1_", 404),
            (Method::GET, "/.well-known/acme-challenge/unknown", 404),
            (Method::GET, "/.well-known/acme-challenge/", 404),
            (Method::GET, "/.well-known/acme-challenge/a%2fb", 404),
            (Method::GET, &long, 404),
            (Method::GET, "/", 404),
        ] {
            let answer = respond(&method, path, table).await;
            assert_eq!(answer.status(), status, "{method} {path}");
        }
        record::withdraw(table, question).await;
        let path = format!("{PATH}known-1_");
        assert_eq!(respond(&Method::GET, &path, table).await.status(), 404);
    }
}
