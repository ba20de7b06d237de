use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[derive(Default)]
struct Double {
    serving: AtomicBool,
}

impl Node for Double {
    fn health(&self) -> Health {
        let serving = self.serving.load(Ordering::Relaxed);
        let message = if serving { "serving" } else { "joining" };
        Health {
            serving,
            message: message.to_owned(),
        }
    }

    async fn metrics(&self) -> Vec<Metric> {
        let labels = vec![("table", "a\"b".to_owned())];
        let store = Metric {
            name: "store_requests",
            help: "Requests to the store",
            kind: Kind::Counter,
            samples: vec![Sample { labels, value: 7 }],
        };
        vec![Metric::one(Kind::Gauge, "sessions", "Sessions", 3), store]
    }
}

async fn ask(node: Arc<Double>, request: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = cirrus_proxy::Options {
        most: 300,
        within: PATIENCE,
    };
    let options = Options {
        connections: 1,
        balancers: Balancers::new(|peer| peer.is_loopback(), bounds),
    };
    let server = tokio::spawn(serve(listener, node, options));
    let mut answer = String::new();
    // The second comes when the first, which holds the only place, has gone.
    let silent = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(silent);
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    answer
}

#[tokio::test]
async fn health_follows_the_node() {
    let node = Arc::new(Double::default());
    let request = "GET /health HTTP/1.1\r\nHost: node\r\n\r\n";
    let answer = ask(Arc::clone(&node), request).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\njoining\n"), "{answer}");
    node.serving.store(true, Ordering::Relaxed);
    let answer = ask(node, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_balancer_may_say_for_whom_it_asks() {
    for header in ["PROXY UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", ""] {
        let request = format!("{header}GET /health HTTP/1.1\r\nHost: node\r\n\r\n");
        let answer = ask(Arc::default(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let request = "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n";
    let answer = ask(Arc::default(), request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    let expected = "# HELP sessions Sessions\n\
                    # TYPE sessions gauge\n\
                    sessions 3\n\
                    # HELP store_requests Requests to the store\n\
                    # TYPE store_requests counter\n\
                    store_requests_total{table=\"a\\\"b\"} 7\n\
                    # EOF\n";
    assert_eq!(body, expected);
}

#[tokio::test]
async fn anything_else_is_refused() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: node\r\n\r\n", "404"),
        (
            "POST /health HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("<stream:stream>\r\n\r\n", "400"),
    ] {
        let answer = ask(Arc::default(), request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {answer:?}"
        );
    }
    let long = format!(
        "GET /health HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_HEAD)
    );
    let answer = ask(Arc::default(), &long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}
