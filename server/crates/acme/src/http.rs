//! Answers HTTP-01 (RFC 8555, section 8.3): any node, from the table.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cirrus_proxy::Balancers;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::answers::Answers;
use crate::record::Question;

/// Connections at a time; a further one takes the place of the oldest, which had the most time to
/// ask. So many that those who hold places for nothing have to hurry to be in the way.
pub const HTTP_CONNECTIONS: usize = 256;
/// How long a connection may last: one question and its answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// Bytes of a request's head.
const HEAD: usize = 8 * 1024;
const PATH: &str = "/.well-known/acme-challenge/";

/// Answers until it is dropped. Everything but an authority's question is "not found". Connections
/// of `balancers` may begin with a PROXY header: one in front of port 80 sends it there too.
pub async fn answer_http(listener: TcpListener, answers: Arc<Answers>, balancers: Balancers) {
    let mut tasks = JoinSet::new();
    let mut places: VecDeque<AbortHandle> = VecDeque::new();
    let balancers = Arc::new(balancers);
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else {
            // Out of file descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        places.retain(|place| !place.is_finished());
        if places.len() >= HTTP_CONNECTIONS
            && let Some(oldest) = places.pop_front()
        {
            oldest.abort();
        }
        let (answers, balancers) = (Arc::clone(&answers), Arc::clone(&balancers));
        places.push_back(tasks.spawn(async move {
            let conversed = async {
                if balancers.lists(peer.ip()) {
                    // Without a header it is a request, of which nothing has been read.
                    let _ = balancers.read(&mut stream).await;
                }
                converse(stream, answers).await;
            };
            // A connection that lasts longer asks for nothing that is here.
            let _ = tokio::time::timeout(CONNECTION, conversed).await;
        }));
    }
}

async fn converse(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move {
            Ok::<_, Infallible>(respond(request.method(), request.uri().path(), &answers).await)
        }
    });
    let mut http = http1::Builder::new();
    let connection = http
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the ACME address");
    }
}

async fn respond(method: &Method, path: &str, answers: &Answers) -> Response<Full<Bytes>> {
    let Some(token) = path.strip_prefix(PATH).filter(|_| method == Method::GET) else {
        return response(StatusCode::NOT_FOUND, String::new());
    };
    match answers.answer(Question::Http(token)).await {
        Ok(Some(answer)) => response(StatusCode::OK, answer),
        Ok(None) => response(StatusCode::NOT_FOUND, String::new()),
        Err(_) => response(StatusCode::SERVICE_UNAVAILABLE, String::new()),
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
    use crate::record;

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
            let server = tokio::spawn(answer_http(
                listener,
                Arc::new(Answers::new(table().await)),
                balancers,
            ));
            let answer = ask(address, &format!("{header}{question}")).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(
                answer.starts_with(&expected),
                "{listed} {header:?}: {answer}"
            );
            server.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_known_tokens_are_answered() {
        let table = MemoryTable::new(Arc::new(|| 1_000));
        let question = Question::Http("known-1_");
        record::prepare(&table, question, "known-1_.print", (1_000, 1))
            .await
            .unwrap();
        let table = Arc::new(table);
        let answers = Answers::new(table.clone());
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
            let answer = respond(&method, path, &answers).await;
            assert_eq!(answer.status(), status, "{method} {path}");
        }
        record::withdraw(&*table, question).await;
        let path = format!("{PATH}known-1_");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(respond(&Method::GET, &path, &answers).await.status(), 404);
    }

    #[tokio::test]
    async fn who_holds_places_and_says_nothing_is_in_nobodys_way() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Answers::new(table().await));
        let server = tokio::spawn(answer_http(listener, answers, Balancers::none()));
        let mut idle = Vec::new();
        for _ in 0..HTTP_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let question = format!("GET {PATH}known HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let answer = ask(address, &question).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The oldest has gone; the others go when their time is up.
        for mut idle in idle {
            let told = tokio::time::timeout(HEAD_TIME * 2, idle.read(&mut [0; 1])).await;
            assert!(!matches!(told, Err(_) | Ok(Ok(1..))), "{told:?}");
        }
        server.abort();
    }
}
