//! What the watch asks of a node: where it stands, and that it stops.

use std::path::Path;

use serde::Deserialize;

use super::{Answer, Call, ControlError, VERSION, call, line, outcome, read};

/// Where a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// A word for it: `serving`, `joining`.
    pub state: String,
    /// What it serves, the first one first; a server that is starting does not say.
    pub hosts: Vec<String>,
    /// Whether it gives its slots away.
    pub draining: bool,
    /// Whether it stops, which nothing takes back.
    pub stopping: bool,
    /// Sessions with a connection, of the accounts whose home it is.
    pub sessions: Option<u64>,
    /// Entities of which no other node has a copy.
    pub single_copy: Option<u64>,
    /// Days until the first certificate ends.
    pub certificate_days: Option<i64>,
    /// Days that the oldest list of archives to be sealed is overdue.
    pub late_days: Option<u64>,
    /// Calls of the store that failed, since the server's start.
    pub store_failures: Option<u64>,
    /// Members of the view, as this node sees it; empty if it has none yet.
    pub members: Vec<Member>,
}

/// A member of the view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Member {
    /// Its instance.
    pub instance: String,
    /// Where other nodes reach it.
    pub address: String,
    /// What it does.
    pub state: String,
}

#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    state: String,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    stopping: bool,
    sessions: Option<u64>,
    entities_single_copy: Option<u64>,
    archive_late_days: Option<u64>,
    store_failures: Option<u64>,
    #[serde(default)]
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
struct Certificate {
    days_left: i64,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    nodes: Vec<Member>,
}

/// Where the node stands.
///
/// # Errors
/// No answer, or one that makes no sense.
pub async fn node_status(socket: &Path) -> Result<NodeStatus, ControlError> {
    let (text, _) = line(socket, &Call::Status { v: VERSION }).await?;
    outcome(read::<Answer>(&text)?)?;
    let server: Server = read(&text)?;
    Ok(NodeStatus {
        state: server.state,
        hosts: server.hosts,
        draining: server.draining,
        stopping: server.stopping,
        sessions: server.sessions,
        single_copy: server.entities_single_copy,
        certificate_days: server.certificates.iter().map(|c| c.days_left).min(),
        late_days: server.archive_late_days,
        store_failures: server.store_failures,
        members: members(socket).await?,
    })
}

/// The members of the view. A node that joins refuses: it has none. Where they cannot be had, the
/// node has said where it stands all the same, unless it is gone since.
async fn members(socket: &Path) -> Result<Vec<Member>, ControlError> {
    match view(socket).await {
        Err(error) if !error.is_of_absence() => Ok(Vec::new()),
        members => members,
    }
}

async fn view(socket: &Path) -> Result<Vec<Member>, ControlError> {
    let (text, _) = line(socket, &Call::Cluster { v: VERSION }).await?;
    outcome(read::<Answer>(&text)?)?;
    let mut members = read::<Cluster>(&text)?.nodes;
    members.sort();
    Ok(members)
}

/// Has the server stop, within so many seconds if that is less than it is configured to take.
///
/// # Errors
/// No answer, or a refusal.
pub async fn stop(socket: &Path, deadline_seconds: Option<u64>) -> Result<(), ControlError> {
    let request = Call::Stop {
        v: VERSION,
        deadline_seconds,
    };
    ask(socket, &request).await
}

/// Has the server give its slots away. It answers when they are gone, which may take as long as a
/// drain does: one that says nothing for as long as a call may take is at it.
///
/// # Errors
/// Nobody is there, or a refusal.
pub async fn drain(socket: &Path) -> Result<(), ControlError> {
    under_way(ask(socket, &Call::Drain { v: VERSION }).await)
}

fn under_way(outcome: Result<(), ControlError>) -> Result<(), ControlError> {
    match outcome {
        Err(ControlError::Silent { .. }) => Ok(()),
        outcome => outcome,
    }
}

/// Takes [`drain`] back.
///
/// # Errors
/// No answer, or a refusal.
pub async fn abort(socket: &Path) -> Result<(), ControlError> {
    ask(socket, &Call::Abort { v: VERSION }).await
}

async fn ask(socket: &Path, request: &Call<'_>) -> Result<(), ControlError> {
    let (answer, _) = call(socket, request).await?;
    outcome(answer).map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers two calls, and gives them.
    async fn asked(replies: [&'static str; 2]) -> (NodeStatus, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let mut seen = Vec::new();
            for reply in replies {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
                seen.push(line.trim_end().to_owned());
            }
            seen
        });
        let status = node_status(&path).await.unwrap();
        (status, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_node_that_serves() {
        let (status, asked) = asked([
            "{\"v\":1,\"ok\":true,\"state\":\"serving\",\"hosts\":[\"a.example\",\"b.example\"],\
             \"sessions\":7,\"entities_single_copy\":0,\"stopping\":true,\"certificates\":\
             [{\"days_left\":60},{\"days_left\":-1}]}\n",
            "{\"v\":1,\"ok\":true,\"nodes\":[{\"instance\":\"i-b\",\"address\":\"10.0.0.2\",\
             \"zone\":\"\",\"state\":\"serving\",\"here\":true},{\"instance\":\"i-a\",\
             \"address\":\"10.0.0.1\",\"state\":\"leaving\"}]}\n",
        ])
        .await;
        assert_eq!(
            asked,
            [
                "{\"call\":\"server.status\",\"v\":1}",
                "{\"call\":\"cluster.status\",\"v\":1}"
            ]
        );
        assert_eq!(status.hosts[0], "a.example");
        assert_eq!(
            (status.sessions, status.certificate_days),
            (Some(7), Some(-1))
        );
        assert!(status.stopping && !status.draining);
        let members: Vec<&str> = status.members.iter().map(|m| &*m.instance).collect();
        assert_eq!(members, ["i-a", "i-b"]);
    }

    /// Members that cannot be had leave the rest as it is.
    #[tokio::test]
    async fn a_view_that_makes_no_sense() {
        let (status, _) = asked([
            "{\"v\":1,\"ok\":true,\"state\":\"serving\",\"stopping\":true}\n",
            "{\"v\":1,\"ok\":true,\"nodes\":7}\n",
        ])
        .await;
        assert!(status.stopping && status.members.is_empty());
    }

    /// A view of as many members as there can be, each of which says all that it can.
    #[tokio::test]
    async fn the_largest_view() {
        let text = "x".repeat(64);
        let member = format!(
            "{{\"instance\":\"{text}\",\"address\":\"{text}\",\"state\":\"serving\",\
             \"zone\":\"{text}\",\"public\":{{\"host\":\"{}\",\"c2s\":5222,\"c2s_tls\":443}},\
             \"about\":{{\"version\":\"{text}\",\"formats\":[9,10],\"lease_ms\":{max},\
             \"slots\":{max},\"copies\":{max},\"slots_coming\":{max},\"slots_leaving\":{max},\
             \"sessions\":{max}}},\"connections\":{max},\"weight\":{max},\"here\":false}}",
            "x".repeat(255),
            max = u64::MAX,
        );
        let members = vec![member; 256].join(",");
        let view = format!("{{\"v\":1,\"ok\":true,\"nodes\":[{members}]}}\n");
        let (status, _) = asked(["{\"v\":1,\"ok\":true}\n", view.leak()]).await;
        assert_eq!(status.members.len(), 256);
    }

    /// The answer to a drain comes when it is over.
    #[test]
    fn a_drain_that_is_under_way() {
        let path = || "control.sock".to_owned();
        assert!(under_way(Err(ControlError::Silent { path: path() })).is_ok());
        assert!(under_way(Err(ControlError::Ended { path: path() })).is_err());
    }

    #[tokio::test]
    async fn a_node_that_joins() {
        let (status, _) = asked([
            "{\"v\":1,\"ok\":true,\"state\":\"joining\",\"message\":\"it looks\"}\n",
            "{\"v\":1,\"ok\":false,\"error\":{\"code\":\"joining\",\"message\":\"it looks\"}}\n",
        ])
        .await;
        let expected = NodeStatus {
            state: "joining".into(),
            ..NodeStatus::default()
        };
        assert_eq!(status, expected);
    }
}
