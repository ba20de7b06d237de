//! Answers HTTP-01 (RFC 8555, section 8.3): any node, from the table.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

/// Answers until it is dropped. Everything but an authority's question is "not found".
pub async fn answer_http(listener: TcpListener, table: Arc<dyn Table>) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let table = Arc::clone(&table);
        tokio::spawn(async move {
            // A connection that lasts longer asks for nothing that is here.
            let _ = tokio::time::timeout(CONNECTION, converse(stream, table)).await;
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

    use super::*;

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
