//! The server's control socket: one JSON object a line, over a unix socket.
//!
//! Used for the first account and to learn whether the server serves. A password goes into the
//! request and nowhere else: not into arguments, not into a log.

mod node;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub use node::{Member, NodeStatus, abort, drain, node_status, stop};

/// The version of the calls.
const VERSION: u32 = 1;
/// One call; a password's derivation takes some 10 ms.
const CALL: Duration = Duration::from_secs(15);
/// Members that a view has at most.
const MEMBERS: u64 = 256;
/// Bytes that an answer has for each member at most: some 600, with addresses that clients reach
/// and what the member says of itself; and room for what a later version says.
const MEMBER: u64 = 4_096;
/// Bytes of an answer.
const MAX_ANSWER: u64 = MEMBERS * MEMBER;

/// A call.
#[derive(Serialize)]
#[serde(tag = "call")]
enum Call<'a> {
    #[serde(rename = "user.add")]
    UserAdd {
        v: u32,
        jid: &'a str,
        password: &'a str,
    },
    #[serde(rename = "server.status")]
    Status { v: u32 },
    #[serde(rename = "server.stop")]
    Stop {
        v: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline_seconds: Option<u64>,
    },
    #[serde(rename = "cluster.status")]
    Cluster { v: u32 },
    #[serde(rename = "cluster.drain")]
    Drain { v: u32 },
    #[serde(rename = "cluster.abort")]
    Abort { v: u32 },
}

/// The answer to a call.
#[derive(Debug, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    message: Option<String>,
    /// What it serves; a server that is starting does not say.
    #[serde(default)]
    hosts: Option<Vec<String>>,
}

/// What the server said instead of yes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be used.
    #[error("the control socket {path} cannot be used")]
    Socket {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended before an answer did.
    #[error("the control socket {path} ended before it had answered")]
    Ended {
        /// Its path.
        path: String,
    },
    /// No answer in time.
    #[error("the control socket {path} gave no answer within {} s", CALL.as_secs())]
    Silent {
        /// Its path.
        path: String,
    },
    /// Somebody else answers.
    #[error("the control socket {path} is another server's, process {peer}")]
    Another {
        /// Its path.
        path: String,
        /// Who answers.
        peer: u32,
    },
    /// An answer that is none.
    #[error("the control socket gave an answer that makes no sense: {reason}")]
    Nonsense {
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(Refusal),
}

impl ControlError {
    /// Whether nobody is there: no socket, nobody who listens on it, or an end before the answer.
    /// Who is late, refuses or says what nobody understands is there all the same.
    pub fn is_of_absence(&self) -> bool {
        match self {
            Self::Ended { .. } => true,
            Self::Socket { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ),
            _ => false,
        }
    }
}

/// What the server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It serves: its sockets are open.
    Serving,
    /// It is not that far; the message says what it does.
    Starting(String),
}

/// What became of a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// It was made.
    Created,
    /// There was one of this name.
    Exists,
}

/// Makes an account.
///
/// # Errors
/// No answer, or a refusal other than that it exists.
pub async fn user_add(socket: &Path, jid: &str, password: &str) -> Result<Account, ControlError> {
    let request = Call::UserAdd {
        v: VERSION,
        jid,
        password,
    };
    let (answer, _) = call(socket, &request).await?;
    match outcome(answer) {
        Ok(_) => Ok(Account::Created),
        Err(ControlError::Refused(r)) if is_conflict(&r.code) => Ok(Account::Exists),
        Err(error) => Err(error),
    }
}

/// What the server that is the process `pid` does.
///
/// # Errors
/// No answer, a refusal, or an answer from another process: a server that was there before.
pub async fn status(socket: &Path, pid: Option<u32>) -> Result<ServerState, ControlError> {
    let (answer, peer) = call(socket, &Call::Status { v: VERSION }).await?;
    if let (Some(pid), Some(peer)) = (pid, peer)
        && pid != peer
    {
        let path = socket.display().to_string();
        return Err(ControlError::Another { path, peer });
    }
    let answer = outcome(answer)?;
    let message = answer.message.unwrap_or_default();
    Ok(match answer.state.as_deref() {
        Some("serving") if answer.hosts.is_some() => ServerState::Serving,
        _ => ServerState::Starting(message),
    })
}

fn is_conflict(code: &str) -> bool {
    matches!(code, "conflict" | "exists")
}

fn outcome(answer: Answer) -> Result<Answer, ControlError> {
    if answer.ok {
        return Ok(answer);
    }
    let unnamed = || Refusal {
        code: "unnamed".into(),
        message: "without a reason".into(),
    };
    Err(ControlError::Refused(answer.error.unwrap_or_else(unnamed)))
}

/// The answer, and the process that gave it.
async fn call(socket: &Path, call: &Call<'_>) -> Result<(Answer, Option<u32>), ControlError> {
    let (line, peer) = line(socket, call).await?;
    Ok((read(&line)?, peer))
}

fn read<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, ControlError> {
    serde_json::from_str(line).map_err(|e| ControlError::Nonsense {
        reason: e.to_string(),
    })
}

/// The line of the answer, and the process that gave it.
async fn line(socket: &Path, call: &Call<'_>) -> Result<(String, Option<u32>), ControlError> {
    let path = socket.display().to_string();
    let (line, peer) = match tokio::time::timeout(CALL, exchange(socket, call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) if is_end(&source) => return Err(ControlError::Ended { path }),
        Ok(Err(source)) => return Err(ControlError::Socket { path, source }),
        Err(_) => return Err(ControlError::Silent { path }),
    };
    if line.ends_with('\n') {
        return Ok((line, peer));
    }
    if line.len() as u64 == MAX_ANSWER {
        let reason = format!("it has more than {MAX_ANSWER} bytes");
        return Err(ControlError::Nonsense { reason });
    }
    Err(ControlError::Ended { path })
}

/// Whether the other side has closed.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

async fn exchange(socket: &Path, call: &Call<'_>) -> io::Result<(String, Option<u32>)> {
    let mut request = serde_json::to_vec(call).map_err(io::Error::other)?;
    request.push(b'\n');
    let mut stream = UnixStream::connect(socket).await?;
    let peer = stream.peer_cred()?.pid();
    match stream.write_all(&request).await {
        // A server with too much to do answers before it is asked, and closes.
        Err(error) if !is_end(&error) => return Err(error),
        _ => {}
    }
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_line(&mut line)
        .await?;
    Ok((line, peer.and_then(|pid| u32::try_from(pid).ok())))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A server that answers one call, and gives the request.
    async fn answer(
        dir: &Path,
        reply: &'static str,
    ) -> (std::path::PathBuf, tokio::task::JoinHandle<String>) {
        let path = dir.join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let seen = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
            line
        });
        (path, seen)
    }

    async fn add(reply: &'static str) -> (Result<Account, String>, String) {
        let dir = tempfile::tempdir().unwrap();
        let (path, seen) = answer(dir.path(), reply).await;
        let result = user_add(&path, "me@localhost", "p\"w").await;
        (result.map_err(|e| e.to_string()), seen.await.unwrap())
    }

    #[tokio::test]
    async fn accounts() {
        let request = r#"{"call":"user.add","v":1,"jid":"me@localhost","password":"p\"w"}"#;
        for (reply, expected) in [
            ("{\"v\":1,\"ok\":true}\n", Ok(Account::Created)),
            (
                "{\"v\":1,\"ok\":false,\"error\":{\"code\":\"conflict\",\"message\":\"it exists\"}}\n",
                Ok(Account::Exists),
            ),
            (
                "{\"v\":1,\"ok\":false,\"error\":{\"code\":\"store\",\"message\":\"no\"}}\n",
                Err("the server refused: no (store)"),
            ),
            (
                "{\"ok\":false}\n",
                Err("the server refused: without a reason (unnamed)"),
            ),
        ] {
            let (result, seen) = add(reply).await;
            assert_eq!(result, expected.map_err(str::to_owned));
            assert_eq!(seen.trim_end(), request);
        }
        for (reply, words) in [
            ("", "ended before it had answered"),
            ("{\"v\":1,\"ok\":tr", "ended before it had answered"),
            ("hello\n", "makes no sense"),
            ("{}\n", "makes no sense"),
            ("[1]\n", "makes no sense"),
        ] {
            let (result, _) = add(reply).await;
            let error = result.unwrap_err();
            assert!(error.contains(words), "{reply}: {error}");
            assert!(!error.contains("p\"w"));
        }
    }

    #[tokio::test]
    async fn states() {
        let starting = |what: &str| ServerState::Starting(what.into());
        for (reply, expected) in [
            (
                "{\"ok\":true,\"state\":\"serving\",\"hosts\":[\"localhost\"]}\n",
                ServerState::Serving,
            ),
            (
                "{\"ok\":true,\"state\":\"serving\",\"message\":\"it serves\"}\n",
                starting("it serves"),
            ),
            (
                "{\"ok\":true,\"state\":\"joining\",\"message\":\"it looks\"}\n",
                starting("it looks"),
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (path, _) = answer(dir.path(), reply).await;
            assert_eq!(
                status(&path, Some(std::process::id())).await.unwrap(),
                expected
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = answer(dir.path(), "{\"ok\":true}\n").await;
        let error = status(&path, Some(1)).await.unwrap_err();
        assert!(error.to_string().contains("is another server's, process"));
    }

    /// Who says nothing useful is there; only an end, a socket without a server, and none are absence.
    #[tokio::test]
    async fn absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let is_absent = async |path: &Path| status(path, None).await.unwrap_err().is_of_absence();
        assert!(is_absent(&path).await);
        let listener = UnixListener::bind(&path).unwrap();
        let busy = "{\"v\":1,\"ok\":false,\"error\":{\"code\":\"busy\",\"message\":\"later\"}}\n";
        let long = "x".repeat(MAX_ANSWER as usize + 1);
        for (reply, expected) in [
            (busy, false),
            ("hello\n", false),
            (&*long, false),
            ("", true),
        ] {
            // It does not wait for the request.
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(reply.as_bytes()).await;
            };
            let (absent, ()) = tokio::join!(is_absent(&path), server);
            assert_eq!(absent, expected, "{:?}", &reply[..reply.len().min(80)]);
        }
        drop(listener);
        assert!(path.exists() && is_absent(&path).await);
        let path = String::new();
        assert!(!ControlError::Silent { path }.is_of_absence());
    }
}
