//! The commands about the cluster.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::cli::{Cluster, Dns};
use crate::control::Call;
use crate::dns;
use crate::users::{UserError, connect};

/// Carries out a command about the cluster.
pub(crate) fn run(command: Cluster) -> Result<(), UserError> {
    match command {
        Cluster::Status(status) => {
            let answer = connect(&status.server)?.call(&Call::ClusterStatus {
                jid: status.account,
            })??;
            let text = match status.json {
                true => format!("{}\n", Value::Object(answer)),
                false => describe(&answer),
            };
            io::stdout().write_all(text.as_bytes())?;
        }
        Cluster::Drain(server) => {
            connect(&server)?.call(&Call::ClusterDrain {})??;
        }
        Cluster::Abort(server) => {
            connect(&server)?.call(&Call::ClusterAbort {})??;
        }
        Cluster::Dns(asked) => print_records(&asked)?,
    }
    Ok(())
}

/// The records that lead clients to the nodes.
fn print_records(asked: &Dns) -> Result<(), UserError> {
    let mut client = connect(&asked.server)?;
    let status = client.call(&Call::ServerStatus {})??;
    let answer = client.call(&Call::ClusterStatus { jid: None })??;
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
    let hosts = list(status.get("hosts")).ok_or(UserError::Answer("hosts"))?;
    let nodes = list(answer.get("nodes")).unwrap_or_default();
    let hosts = hosts.iter().filter_map(Value::as_str);
    let hosts = hosts.filter(|host| asked.domain.as_deref().is_none_or(|it| it == *host));
    let records = dns::records(hosts, &nodes);
    if records.is_empty() {
        return Err(UserError::NoRecords);
    }
    let text = match asked.json {
        true => format!("{}\n", dns::change_batch(&records, asked.ttl)),
        false => dns::zone_lines(&records, asked.ttl),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// One line for each field, the nodes last.
fn describe(answer: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in answer {
        match value {
            Value::Array(_) => {}
            Value::Object(place) => {
                let field = |name: &str| place.get(name).and_then(Value::as_str).unwrap_or("none");
                let (home, copy) = (field("home"), field("copy"));
                text += &format!("{name:<20} home {home}, copy {copy}\n");
            }
            Value::String(value) => text += &format!("{name:<20} {value}\n"),
            value => text += &format!("{name:<20} {value}\n"),
        }
    }
    let nodes = answer.get("nodes").and_then(Value::as_array);
    for node in nodes.into_iter().flatten() {
        let field = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
        let here = if node.get("here") == Some(&Value::Bool(true)) {
            "  (this one)"
        } else {
            ""
        };
        text += &format!(
            "node                 {} {} {} {}{here}\n",
            field("instance"),
            field("address"),
            field("zone"),
            field("state"),
        );
        text += &about(node);
    }
    text
}

/// Before the lines below a node's own.
const INDENT: &str = "                     ";

/// What a node says of itself: for the first seconds of a link, and of a version before this one,
/// nothing.
fn about(node: &Value) -> String {
    let Some(about) = node.get("about").and_then(Value::as_object) else {
        return format!("{INDENT}has not said anything of itself\n");
    };
    let number = |name: &str| about.get(name).and_then(Value::as_u64).unwrap_or_default();
    let format = |at: usize| about.get("formats").and_then(|it| it.get(at)?.as_u64());
    let version = about.get("version").and_then(Value::as_str);
    format!(
        "{INDENT}version {}, formats {} to {}, lease for {:.1} s\n\
         {INDENT}slots {}, copies {}, sessions {}; slots coming {}, leaving {}\n",
        version.unwrap_or_default(),
        format(0).unwrap_or_default(),
        format(1).unwrap_or_default(),
        number("lease_ms") as f64 / 1_000.0,
        number("slots"),
        number("copies"),
        number("sessions"),
        number("slots_coming"),
        number("slots_leaving"),
    )
}
