//! Answers of the metadata service as EC2 gives them, replayed in order.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What `curl -i` shows for an instance, with the account's number replaced.
const DOCUMENT: &str = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-west-1b",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0abcdef1234567890",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "t3.small",
  "kernelId" : null,
  "pendingTime" : "2026-01-01T00:00:00Z",
  "privateIp" : "172.31.7.9",
  "ramdiskId" : null,
  "region" : "eu-west-1",
  "version" : "2017-09-30"
}"#;

/// Serves these answers, one a connection, and gives the request lines and tokens seen.
async fn replay(
    answers: Vec<(u16, &'static str)>,
) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let line = request
                .lines()
                .next()
                .unwrap()
                .trim_end_matches(" HTTP/1.1");
            let lower = request.to_ascii_lowercase();
            let token = lower
                .lines()
                .find_map(|l| l.strip_prefix("x-aws-ec2-metadata-token: "));
            seen.push(format!("{line} {}", token.unwrap_or("-")));
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    });
    (endpoint, server)
}

async fn client(
    answers: Vec<(u16, &'static str)>,
) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
    let (endpoint, server) = replay(answers).await;
    (
        Client::new(Some(&endpoint), Duration::from_secs(20)).unwrap(),
        server,
    )
}

#[tokio::test]
async fn one_token_for_user_data_and_identity() {
    let answers = vec![
        (200, "AQAEtoken=="),
        (200, "domain=example.com\n"),
        (200, DOCUMENT),
    ];
    let (mut client, server) = client(answers).await;
    assert_eq!(
        client.user_data().await.unwrap().unwrap(),
        b"domain=example.com\n"
    );
    let identity = client.identity().await.unwrap();
    assert_eq!(identity.instance_id, "i-0123456789abcdef0");
    assert_eq!(identity.private_address.to_string(), "172.31.7.9");
    let expected = [
        "PUT /latest/api/token -",
        "GET /latest/user-data aqaetoken==",
        "GET /latest/dynamic/instance-identity/document aqaetoken==",
    ];
    assert_eq!(server.await.unwrap(), expected);
}

#[tokio::test]
async fn no_user_data_is_no_error() {
    let (mut client, _server) = client(vec![(200, "t"), (404, "<html>404</html>")]).await;
    assert_eq!(client.user_data().await.unwrap(), None);
}

#[tokio::test]
async fn what_fails_for_now_is_asked_again() {
    let answers = vec![
        (503, ""),
        (200, "old"),
        (500, ""),
        (401, ""),
        (200, "new"),
        (429, ""),
        (200, "x"),
    ];
    let (mut client, server) = client(answers).await;
    assert_eq!(client.user_data().await.unwrap().unwrap(), b"x");
    let seen = server.await.unwrap();
    assert_eq!(seen.last().unwrap(), "GET /latest/user-data new");
    assert_eq!(seen.len(), 7);
}

#[tokio::test]
async fn what_never_answers_is_named() {
    for (answers, expected) in [
        (
            vec![(403, "")],
            "refuses api/token: HTTP status 403 \
             (the instance metadata service is switched off for this instance)",
        ),
        (
            vec![(405, "")],
            "refuses api/token: HTTP status 405 \
             (it does not know version 2, which is the only one that Cirrus uses)",
        ),
        (
            vec![(200, "t"), (400, "")],
            "refuses user-data: HTTP status 400",
        ),
        (
            vec![(200, "")],
            "answers nonsense for api/token: the token is no token",
        ),
        (
            vec![(200, "a b")],
            "answers nonsense for api/token: the token is no token",
        ),
    ] {
        let (mut client, _server) = client(answers).await;
        let error = client.user_data().await.unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let body: &'static str = "x".repeat(70_000).leak();
    let (mut client, _server) = client(vec![(200, "t"), (200, body)]).await;
    let error = client.user_data().await.unwrap_err().to_string();
    assert!(
        error.ends_with("answers nonsense for user-data: more than 64 KiB"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut client = Client::new(Some(&endpoint), Duration::from_millis(300)).unwrap();
    let error = client.user_data().await.unwrap_err();
    assert!(
        matches!(error, MetadataError::Unreachable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn documents_that_make_no_sense() {
    for (from, to, expected) in [
        ("123456789012", "12", "the field accountId makes no sense"),
        (
            "eu-west-1\"",
            "eu west\"",
            "the field region makes no sense",
        ),
        (
            "i-0123456789abcdef0",
            "",
            "the field instanceId makes no sense",
        ),
        (
            "172.31.7.9",
            "here",
            "invalid IP address syntax at line 13 column 22",
        ),
        (
            "\"region\"",
            "\"reg\"",
            "missing field `region` at line 17 column 1",
        ),
    ] {
        let document = DOCUMENT.replace(from, to);
        assert_eq!(
            Identity::parse(document.as_bytes()).unwrap_err(),
            expected,
            "{to}"
        );
    }
    assert!(Identity::parse(b"<html>").is_err());
}

#[test]
fn pauses_grow_and_are_bounded() {
    let pauses: Vec<u64> = (0..8).map(pause_ms).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
}
