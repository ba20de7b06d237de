//! The records by which clients find a cluster's nodes where no balancer stands in front: SRV
//! (RFC 2782) for STARTTLS (RFC 6120 section 3.2.1) and for TLS from the first byte (XEP-0368).
//!
//! A node's weight is its weight in the view, so that clients are shared out as slots are. One that
//! drains has no record: a weight of 0 would not keep clients away.

use std::net::IpAddr;

use cirrus_acme::Subject;
use serde_json::{Value, json};

/// All records are equally good.
const PRIORITY: u16 = 0;
/// Longest label of a name (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// Below this label of a domain are names of nodes that have none.
const NODES: &str = "xmpp";

/// All records of one name and type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordSet {
    /// Without a dot at its end.
    name: String,
    kind: &'static str,
    values: Vec<String>,
}

/// A node that clients may come to.
struct Node<'a> {
    instance: &'a str,
    weight: u64,
    host: &'a str,
    c2s: Option<u64>,
    c2s_tls: Option<u64>,
}

impl<'a> Node<'a> {
    /// A node of the answer to `cluster.status`, unless it drains or has told no address.
    fn of(node: &'a Value) -> Option<Self> {
        let public = &node["public"];
        Some(Self {
            instance: node["instance"].as_str()?,
            weight: node["weight"].as_u64().filter(|it| *it > 0)?,
            host: public["host"].as_str()?,
            c2s: public["c2s"].as_u64(),
            c2s_tls: public["c2s_tls"].as_u64(),
        })
    }

    /// The name that leads to it, and its address if that name is one of ours.
    fn target(&self, domain: &str) -> (String, Option<IpAddr>) {
        match self.host.parse::<IpAddr>() {
            Ok(address) => {
                let label = label(self.instance);
                (format!("{label}.{NODES}.{domain}"), Some(address))
            }
            // An SRV record points to a name.
            Err(_) => (self.host.trim_end_matches('.').to_ascii_lowercase(), None),
        }
    }
}

/// A machine's name as a label.
fn label(instance: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let label: String = instance.chars().map(letter).take(MAX_LABEL).collect();
    label.trim_matches('-').to_owned()
}

/// The records of these domains, where `nodes` are those of the answer to `cluster.status`. None if
/// there is no node that clients may come to: a name without nodes would be worse than an old one.
pub(crate) fn records<'a>(
    domains: impl IntoIterator<Item = &'a str>,
    nodes: &[Value],
) -> Vec<RecordSet> {
    let nodes: Vec<Node<'_>> = nodes.iter().filter_map(Node::of).collect();
    let mut records = Vec::new();
    for domain in domains {
        // An address has no records.
        let Some(name) = Subject::new(domain, &[]).ok().map(|it| it.names.concat()) else {
            continue;
        };
        let mut add = |kind, name: String, values: Vec<String>| {
            if !values.is_empty() {
                records.push(RecordSet { name, kind, values });
            }
        };
        type Port = fn(&Node<'_>) -> Option<u64>;
        let services: [(&str, Port); 2] = [
            ("_xmpp-client._tcp", |node| node.c2s),
            ("_xmpps-client._tcp", |node| node.c2s_tls),
        ];
        for (service, port) in services {
            let value = |node: &Node<'_>| {
                let (port, (target, _)) = (port(node)?, node.target(&name));
                Some(format!("{PRIORITY} {} {port} {target}.", node.weight))
            };
            let mut values: Vec<String> = nodes.iter().filter_map(value).collect();
            values.sort();
            add("SRV", format!("{service}.{name}"), values);
        }
        for node in &nodes {
            let (target, Some(address)) = node.target(&name) else {
                continue;
            };
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            add(kind, target, vec![address.to_string()]);
        }
    }
    records
}

/// As lines of a zone file.
pub(crate) fn zone_lines(records: &[RecordSet], ttl: u32) -> String {
    let mut text = String::new();
    for RecordSet { name, kind, values } in records {
        for value in values {
            text += &format!("{name}. {ttl} IN {kind} {value}\n");
        }
    }
    text
}

/// As a change of a hosted zone of Route 53, which replaces what the zone has of these names.
pub(crate) fn change_batch(records: &[RecordSet], ttl: u32) -> Value {
    let change = |RecordSet { name, kind, values }: &RecordSet| {
        let values = values.iter().map(|value| json!({ "Value": value }));
        json!({
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": format!("{name}."),
                "Type": kind,
                "TTL": ttl,
                "ResourceRecords": values.collect::<Vec<_>>(),
            },
        })
    };
    json!({ "Changes": records.iter().map(change).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(instance: &str, weight: u8, host: &str) -> Value {
        let public = json!({ "host": host, "c2s": 5222, "c2s_tls": 5223 });
        json!({ "instance": instance, "weight": weight, "public": public })
    }

    #[test]
    fn clients_are_shared_out_as_slots_are() {
        let mut closed = node("i-4", 1, "four.example.net");
        closed["public"]["c2s"] = Value::Null;
        let nodes = [
            node("i-2", 2, "Two.example.net."),
            node("i-1", 1, "192.0.2.1"),
            node("Node_3.", 1, "2001:db8::3"),
            closed,
            node("i-5", 0, "drains.example.net"),
            json!({ "instance": "i-6", "weight": 1, "public": null }),
        ];
        let records = records(["münchen.example", "[192.0.2.9]"], &nodes);
        let expected = "\
_xmpp-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 1 5222 i-1.xmpp.xn--mnchen-3ya.example.
_xmpp-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 1 5222 node-3.xmpp.xn--mnchen-3ya.example.
_xmpp-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 2 5222 two.example.net.
_xmpps-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 1 5223 four.example.net.
_xmpps-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 1 5223 i-1.xmpp.xn--mnchen-3ya.example.
_xmpps-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 1 5223 node-3.xmpp.xn--mnchen-3ya.example.
_xmpps-client._tcp.xn--mnchen-3ya.example. 60 IN SRV 0 2 5223 two.example.net.
i-1.xmpp.xn--mnchen-3ya.example. 60 IN A 192.0.2.1
node-3.xmpp.xn--mnchen-3ya.example. 60 IN AAAA 2001:db8::3
";
        assert_eq!(zone_lines(&records, 60), expected);
        let batch = change_batch(&records[..1], 30);
        let values = [
            "0 1 5222 i-1.xmpp.xn--mnchen-3ya.example.",
            "0 1 5222 node-3.xmpp.xn--mnchen-3ya.example.",
            "0 2 5222 two.example.net.",
        ];
        let set = json!({
            "Name": "_xmpp-client._tcp.xn--mnchen-3ya.example.",
            "Type": "SRV",
            "TTL": 30,
            "ResourceRecords": values.map(|value| json!({ "Value": value })),
        });
        let change = json!({ "Action": "UPSERT", "ResourceRecordSet": set });
        assert_eq!(batch, json!({ "Changes": [change] }));
    }

    #[test]
    fn where_nobody_serves_nothing_is_said() {
        let nodes = [node("i-1", 0, "192.0.2.1"), json!({ "instance": "i-2" })];
        assert_eq!(records(["example.com"], &nodes), []);
    }
}
