//! The control socket: how the operator's commands reach the running server.
//!
//! One JSON object a line in each direction, over a unix socket that only its owner can open. A
//! request names its version and its call, `{"v":1,"call":"user.add","jid":"ada@example.com",
//! "password":"…"}`; the answer is `{"v":1,"ok":true,…}` or
//! `{"v":1,"ok":false,"error":{"code":"exists","message":"…"}}`. A connection may carry several
//! requests, one after the other.

pub(crate) mod client;
pub(crate) mod server;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of requests and answers.
const VERSION: u64 = 1;

/// What can be asked of the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "call", deny_unknown_fields)]
pub(crate) enum Call {
    /// Create an account.
    #[serde(rename = "user.add")]
    UserAdd {
        /// Its bare address.
        jid: String,
        /// Its password.
        password: Secret,
    },
    /// Set an account's password.
    #[serde(rename = "user.passwd")]
    UserPasswd {
        /// Its bare address.
        jid: String,
        /// The new password.
        password: Secret,
    },
    /// Remove an account and all it owns.
    #[serde(rename = "user.delete")]
    UserDelete {
        /// Its bare address.
        jid: String,
    },
    /// One page of the accounts of a host; answers `users` and, if there are more, `after`.
    #[serde(rename = "user.list")]
    UserList {
        /// The host.
        host: String,
        /// Continues behind this local part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// How the server is; answers `version`, `hosts` and some numbers.
    #[serde(rename = "server.status")]
    ServerStatus {},
    /// Stop as after SIGTERM; answers at once. A second one can only bring the end nearer.
    #[serde(rename = "server.stop")]
    ServerStop {
        /// Seconds left for the drain, if that is less than `drain.deadline_seconds`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_seconds: Option<u64>,
    },
    /// The cluster as this node sees it; answers `nodes` and counts of slots and entities.
    #[serde(rename = "cluster.status")]
    ClusterStatus {
        /// Answers `account` too: the slot of this account, and the nodes that have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jid: Option<String>,
    },
    /// Give the node's slots away; answers when that is done.
    #[serde(rename = "cluster.drain")]
    ClusterDrain {},
    /// Take a drain back.
    #[serde(rename = "cluster.abort")]
    ClusterAbort {},
}

/// The calls there are, for an error's text.
const CALLS: &[&str] = &[
    "user.add",
    "user.passwd",
    "user.delete",
    "user.list",
    "server.status",
    "server.stop",
    "cluster.status",
    "cluster.drain",
    "cluster.abort",
];

/// Text that is not printed.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// What a carried out request answers besides `ok`.
pub(crate) type Answer = Result<Map<String, Value>, Refusal>;

/// Reads a request.
fn parse_request(line: &[u8]) -> Result<Call, Refusal> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|cause| Refusal::new("bad-json", format!("the request is not JSON: {cause}")))?;
    let Value::Object(mut request) = value else {
        return Err(Refusal::new("bad-request", "a request is a JSON object"));
    };
    match request.remove("v") {
        Some(version) if version == VERSION => {}
        Some(version) => {
            let message = format!("this server speaks version {VERSION}, not {version}");
            return Err(Refusal::new("unsupported-version", message));
        }
        None => {
            return Err(Refusal::new(
                "bad-request",
                "a request names its version, as in v: 1",
            ));
        }
    }
    let known = match request.get("call") {
        Some(Value::String(call)) => CALLS.contains(&call.as_str()),
        _ => return Err(Refusal::new("bad-request", "a request names its call")),
    };
    if !known {
        let message = format!("there is no such call; there are {}", CALLS.join(", "));
        return Err(Refusal::new("unknown-call", message));
    }
    // The cause names fields and types, never the value of a text.
    serde_json::from_value(Value::Object(request))
        .map_err(|cause| Refusal::new("bad-request", without_values(&cause.to_string())))
}

/// serde_json quotes a text that stands where something else belongs; it may be a secret.
fn without_values(cause: &str) -> String {
    match cause.split_once("invalid type: string ") {
        Some((before, after)) => {
            let expected = after
                .rsplit_once(", expected")
                .map_or("", |(_, expected)| expected);
            format!("{before}invalid type: string, expected{expected}")
        }
        None => cause.to_owned(),
    }
}

/// Writes a request line.
fn write_request(call: &Call) -> Vec<u8> {
    let mut request = serde_json::to_value(call).unwrap_or_default();
    if let Value::Object(request) = &mut request {
        request.insert("v".into(), VERSION.into());
    }
    line(&request)
}

/// Writes an answer line.
fn write_answer(answer: Answer) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("v".into(), VERSION.into());
    object.insert("ok".into(), answer.is_ok().into());
    match answer {
        Ok(fields) => object.extend(fields),
        Err(refusal) => {
            object.insert(
                "error".into(),
                serde_json::to_value(refusal).unwrap_or_default(),
            );
        }
    }
    line(&Value::Object(object))
}

/// Reads an answer line; `None` when it is not one.
fn parse_answer(line: &[u8]) -> Option<Answer> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else {
        return None;
    };
    if object.remove("v")? != VERSION {
        return None;
    }
    match object.remove("ok")? {
        Value::Bool(true) => Some(Ok(object)),
        Value::Bool(false) => Some(Err(serde_json::from_value(object.remove("error")?).ok()?)),
        _ => None,
    }
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request line, and code and text of its refusal.
    #[test]
    fn wrong_requests_are_refused_by_name() {
        let calls = "user.add, user.passwd, user.delete, user.list, server.status, \
                 server.stop, cluster.status, cluster.drain, cluster.abort";
        let unknown = format!("there is no such call; there are {calls}");
        let table = [
            (
                "",
                "bad-json",
                "the request is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                "{",
                "bad-json",
                "the request is not JSON: EOF while parsing an object at line 1 column 1",
            ),
            ("[1]", "bad-request", "a request is a JSON object"),
            ("null", "bad-request", "a request is a JSON object"),
            (
                "{}",
                "bad-request",
                "a request names its version, as in v: 1",
            ),
            (
                r#"{"v":2,"call":"user.add"}"#,
                "unsupported-version",
                "this server speaks version 1, not 2",
            ),
            (
                r#"{"v":"1","call":"user.add"}"#,
                "unsupported-version",
                "this server speaks version 1, not \"1\"",
            ),
            (r#"{"v":1}"#, "bad-request", "a request names its call"),
            (
                r#"{"v":1,"call":7}"#,
                "bad-request",
                "a request names its call",
            ),
            (r#"{"v":1,"call":"user.drop"}"#, "unknown-call", &*unknown),
            (
                r#"{"v":1,"call":"user.add","jid":"a@b"}"#,
                "bad-request",
                "missing field `password`",
            ),
            (
                r#"{"v":1,"call":"user.add","jid":"a@b","password":7}"#,
                "bad-request",
                "invalid type: integer `7`, expected a string",
            ),
            (
                r#"{"v":1,"call":"user.delete","jid":"a@b","force":true}"#,
                "bad-request",
                "unknown field `force`, expected `jid`",
            ),
        ];
        for (request, code, message) in table {
            let refusal = parse_request(request.as_bytes()).unwrap_err();
            assert_eq!(
                (&*refusal.code, &*refusal.message),
                (code, message),
                "{request}"
            );
        }
        assert_eq!(parse_request(b"\xff").unwrap_err().code, "bad-json");
    }

    #[test]
    fn a_text_in_the_wrong_place_is_not_repeated() {
        let request = br#"{"v":1,"call":"user.add","jid":["s3cret, expected x"],"password":"x"}"#;
        assert!(
            !parse_request(request)
                .unwrap_err()
                .message
                .contains("s3cret")
        );
        let cause = "invalid type: string \"s3cret, expected x\", expected a sequence";
        assert_eq!(
            without_values(cause),
            "invalid type: string, expected a sequence"
        );
    }

    #[test]
    fn requests_and_answers_are_read_as_they_were_written() {
        let call = Call::UserAdd {
            jid: "a@b".into(),
            password: Secret("p\n".into()),
        };
        let line = write_request(&call);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let Call::UserAdd { jid, password } = parse_request(&line).unwrap() else {
            panic!()
        };
        assert_eq!((&*jid, &*password.0), ("a@b", "p\n"));
        assert!(!format!("{password:?}").contains('p'));

        let mut fields = Map::new();
        fields.insert("users".into(), vec!["a@b"].into());
        let line = write_answer(Ok(fields.clone()));
        assert_eq!(line, b"{\"ok\":true,\"users\":[\"a@b\"],\"v\":1}\n");
        assert_eq!(parse_answer(&line), Some(Ok(fields)));
        let refusal = Refusal::new("exists", "there already is a@b");
        let line = write_answer(Err(refusal.clone()));
        assert_eq!(parse_answer(&line), Some(Err(refusal)));
        assert_eq!(parse_answer(b"{\"v\":2,\"ok\":true}"), None);
    }
}
