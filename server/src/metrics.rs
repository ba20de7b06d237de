//! What a monitoring system hears, by name. Names are an interface: docs/OPERATIONS.md has them.

use std::sync::Arc;

use cirrus_c2s::shell::Counts;
use cirrus_runtime::{Census, Work};
use cirrus_store::Pacing;
use cirrus_store::meter::{Counters, Snapshot};
use cirrus_tls::Certificate;
use cirrus_web::{Kind, Metric, Sample};

/// Whether the node takes clients.
pub(crate) fn of_node(serving: bool, degraded: bool) -> Vec<Metric> {
    let gauge = |name, help, value: bool| Metric::one(Kind::Gauge, name, help, value.into());
    vec![
        gauge("cirrus_serving", "1 if clients are welcome", serving),
        gauge(
            "cirrus_store_degraded",
            "1 if the node serves on although the store does not answer",
            degraded,
        ),
    ]
}

/// Reads one number of the connections'.
type OfConnections = fn(&Counts) -> u64;

/// What came and went over connections.
const CONNECTIONS: [(Kind, &str, &str, OfConnections); 20] = [
    (
        Kind::Gauge,
        "cirrus_connections",
        "Connections of clients",
        |c| c.connections,
    ),
    (
        Kind::Gauge,
        "cirrus_connections_unauthenticated",
        "Connections of clients that have not logged in",
        |c| c.unauthenticated,
    ),
    (
        Kind::Counter,
        "cirrus_connections_accepted",
        "Connections that were accepted",
        |c| c.accepted,
    ),
    (
        Kind::Counter,
        "cirrus_connections_proxied",
        "Connections whose client's address a balancer has told",
        |c| c.proxied,
    ),
    (
        Kind::Counter,
        "cirrus_proxy_headers_refused",
        "Connections of balancers closed for want of a PROXY header",
        |c| c.proxy_headers_refused,
    ),
    (
        Kind::Counter,
        "cirrus_accept_pauses",
        "Times that accepting paused because descriptors or memory ran out",
        |c| c.accept_pauses,
    ),
    (
        Kind::Counter,
        "cirrus_tls_handshakes_failed",
        "TLS handshakes that failed or took too long",
        |c| c.handshakes_failed,
    ),
    (
        Kind::Counter,
        "cirrus_logins",
        "Streams that logged in",
        |c| c.logins,
    ),
    (
        Kind::Counter,
        "cirrus_accepts_paced",
        "Times that accepting waited because so many came at once",
        |c| c.accepts_paced,
    ),
    (
        Kind::Gauge,
        "cirrus_accepts_per_second",
        "Connections that are accepted a second when more come",
        |c| c.accepts_per_second,
    ),
    (
        Kind::Counter,
        "cirrus_logins_paced",
        "New sessions that waited for their turn",
        |c| c.logins_paced,
    ),
    (
        Kind::Counter,
        "cirrus_logins_put_off",
        "New sessions that were told to try again later",
        |c| c.logins_put_off,
    ),
    (
        Kind::Counter,
        "cirrus_clients_moved",
        "Connections closed so that their sessions go on on nodes with fewer",
        |c| c.moved,
    ),
    (
        Kind::Counter,
        "cirrus_slow_readers",
        "Connections closed because their client read too slowly",
        |c| c.slow_readers,
    ),
    (
        Kind::Counter,
        "cirrus_reads_throttled",
        "Times that reading paused because a client sent too much",
        |c| c.throttled,
    ),
    (
        Kind::Counter,
        "cirrus_connections_crashed",
        "Connections ended by a fault of this server",
        |c| c.crashed,
    ),
    (
        Kind::Counter,
        "cirrus_stanzas_received",
        "Stanzas received",
        |c| c.stanzas_in,
    ),
    (
        Kind::Counter,
        "cirrus_stanzas_sent",
        "Stanzas written",
        |c| c.stanzas_out,
    ),
    (
        Kind::Counter,
        "cirrus_bytes_received",
        "Bytes received, without TLS",
        |c| c.bytes_in,
    ),
    (
        Kind::Counter,
        "cirrus_bytes_sent",
        "Bytes written, without TLS",
        |c| c.bytes_out,
    ),
];

/// What is connected, what came, and what was turned away.
pub(crate) fn of_connections(counts: &Counts) -> Vec<Metric> {
    let one = |(kind, name, help, read): (Kind, _, _, OfConnections)| {
        Metric::one(kind, name, help, read(counts))
    };
    let refused = [
        ("connections", counts.refused_total),
        ("unauthenticated", counts.refused_unauthenticated),
        ("address", counts.refused_address),
    ];
    let refused = Metric {
        name: "cirrus_connections_refused",
        help: "Connections turned away, by the limit that was reached",
        kind: Kind::Counter,
        samples: refused
            .map(|(limit, value)| sample("limit", limit, value))
            .to_vec(),
    };
    CONNECTIONS.into_iter().map(one).chain([refused]).collect()
}

fn sample(label: &'static str, is: &str, value: u64) -> Sample {
    Sample {
        labels: vec![(label, is.to_owned())],
        value,
    }
}

/// What the store is asked for just now.
fn of_calls(census: &Census) -> [Metric; 4] {
    let gauge = |name, help, value| Metric::one(Kind::Gauge, name, help, value as u64);
    [
        gauge(
            "cirrus_store_operations",
            "Writes to the store under way",
            census.operations,
        ),
        gauge(
            "cirrus_store_reads",
            "Reads of the store under way",
            census.reads,
        ),
        gauge(
            "cirrus_store_reads_waiting",
            "Reads of the store that wait for their turn",
            census.reads_waiting,
        ),
        Metric::one(
            Kind::Counter,
            "cirrus_store_reads_refused",
            "Reads refused because too many waited",
            census.reads_refused,
        ),
    ]
}

/// What homes and copies have done, and what nodes have said to each other about it.
fn of_work(work: &Work) -> [Metric; 4] {
    let one = |name, help, label, values: &[(&str, u64)]| Metric {
        name,
        help,
        kind: Kind::Counter,
        samples: values
            .iter()
            .map(|(is, value)| sample(label, is, *value))
            .collect(),
    };
    [
        one(
            "cirrus_events",
            "Events that homes have taken, and copies after them",
            "at",
            &[("home", work.taken), ("copy", work.copied)],
        ),
        one(
            "cirrus_link_frames_sent",
            "Frames to other nodes, by what they say",
            "kind",
            &[
                ("entry", work.entries),
                ("message", work.messages),
                ("acks", work.acks),
                ("other", work.others),
            ],
        ),
        Metric::one(
            Kind::Counter,
            "cirrus_link_bytes_sent",
            "Bytes of frames to other nodes",
            work.bytes,
        ),
        Metric::one(
            Kind::Counter,
            "cirrus_states_too_large",
            "States of slots that did not go to another node as they were too large",
            work.too_large,
        ),
    ]
}

/// What is in memory.
pub(crate) fn of_home(census: &Census) -> Vec<Metric> {
    let gauge = |name, help, value| Metric::one(Kind::Gauge, name, help, value as u64);
    let sessions = [("attached", census.attached), ("detached", census.detached)];
    let samples = sessions.map(|(state, value)| sample("state", state, value as u64));
    let mut all = vec![
        gauge(
            "cirrus_entities",
            "Entities in memory",
            census.slots.entities,
        ),
        Metric {
            name: "cirrus_sessions",
            help: "Sessions with a connection, and those that wait to be resumed",
            kind: Kind::Gauge,
            samples: samples.to_vec(),
        },
        gauge(
            "cirrus_entities_single_copy",
            "Entities of which no other node has a copy",
            census.slots.single_copy,
        ),
        gauge(
            "cirrus_slots_home",
            "Slots whose home this node is",
            census.slots.homes,
        ),
        gauge(
            "cirrus_slots_copied",
            "Slots that this node keeps a copy of",
            census.slots.copies,
        ),
        gauge(
            "cirrus_slots_moving",
            "Slots that come to this node or leave it",
            census.slots.awaited + census.slots.leaving,
        ),
        gauge(
            "cirrus_cluster_members",
            "Members of the view",
            census.members,
        ),
        gauge(
            "cirrus_cluster_links",
            "Nodes with whom there is a link",
            census.linked,
        ),
        gauge(
            "cirrus_archive_segments_sealed",
            "Segments sealed by the homes that are here now",
            census.tally.sealed as usize,
        ),
        gauge(
            "cirrus_archive_seal_failures",
            "Times that those homes could not seal a segment and began anew",
            census.tally.seal_failures as usize,
        ),
        gauge(
            "cirrus_archive_unreadable",
            "Times that those homes met a segment that is missing or damaged",
            census.tally.unreadable as usize,
        ),
    ];
    all.extend(of_calls(census));
    all.extend(of_work(&census.slots.work));
    all
}

/// How far sealing is behind.
pub(crate) fn of_sweep(late_days: u64) -> Metric {
    Metric::one(
        Kind::Gauge,
        "cirrus_archive_late_days",
        "Days that the oldest list of archives to be sealed is overdue; at 91 messages are lost",
        late_days,
    )
}

/// Reads one number of what was counted.
type Read = fn(&Counters) -> u64;

/// What the store was asked, as the provider bills it, and how it answered.
const STORE: [(&str, &str, Read); 10] = [
    ("cirrus_store_requests", "Requests to the store", |c| {
        c.requests
    }),
    ("cirrus_store_write_units", "Write units billed", |c| {
        c.write_units
    }),
    ("cirrus_store_read_units", "Read units billed", |c| {
        c.read_units
    }),
    ("cirrus_store_written_bytes", "Bytes written", |c| c.written),
    ("cirrus_store_read_bytes", "Bytes read", |c| c.read),
    (
        "cirrus_store_conflicts",
        "Calls whose condition did not hold",
        |c| c.conflicts,
    ),
    (
        "cirrus_store_throttled",
        "Calls that ended with throttling",
        |c| c.throttled,
    ),
    (
        "cirrus_store_failed",
        "Calls that ended with another error",
        |c| c.failed,
    ),
    (
        "cirrus_store_calls",
        "Calls, however they ended",
        Counters::calls,
    ),
    (
        "cirrus_store_latency_microseconds",
        "Sum of the time that calls took",
        |c| c.latency_sum,
    ),
];

/// How much may be asked of the store at once.
pub(crate) fn of_pacing(pacing: Pacing) -> Vec<Metric> {
    let gauge = |name, help, value| Metric::one(Kind::Gauge, name, help, value as u64);
    vec![
        gauge(
            "cirrus_store_window",
            "Calls to the store that may be under way at once; fewer while it answers late",
            pacing.window,
        ),
        gauge(
            "cirrus_store_calls_waiting",
            "Calls to the store that wait because that many are under way",
            pacing.waiting,
        ),
    ]
}

/// The store's counters, by table or bucket and kind of request.
pub(crate) fn of_store(snapshot: &Snapshot) -> Vec<Metric> {
    let metric = |(name, help, read): (&'static str, &'static str, Read)| Metric {
        name,
        help,
        kind: Kind::Counter,
        samples: snapshot
            .iter()
            .map(|(target, counters)| Sample {
                labels: vec![
                    ("place", target.place_name().to_owned()),
                    ("request", target.kind_name().to_owned()),
                ],
                value: read(counters),
            })
            .collect(),
    };
    STORE.map(metric).to_vec()
}

/// How long each host's certificate lasts.
pub(crate) fn of_certificates(certificates: &[Arc<Certificate>], now_ms: u64) -> Metric {
    let days = |it: &Arc<Certificate>| sample("host", &it.host, it.days_left(now_ms));
    Metric {
        name: "cirrus_certificate_days_left",
        help: "Days until the end of a host's certificate",
        kind: Kind::Gauge,
        samples: certificates.iter().map(days).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every metric has its line in docs/OPERATIONS.md, with the words of its help, and no other
    /// is there.
    #[test]
    fn the_document_lists_every_metric() {
        let census = Census::default();
        let all = [
            of_node(true, false),
            of_connections(&Counts::default()),
            of_home(&census),
            vec![of_sweep(0)],
            of_store(&Snapshot::default()),
            of_pacing(Pacing::default()),
            vec![of_certificates(&[], 0)],
        ];
        let line = |metric: &Metric| {
            let total = if metric.kind == Kind::Counter {
                "_total"
            } else {
                ""
            };
            format!("| `{}{total}` | {} |", metric.name, metric.help)
        };
        let lines: Vec<String> = all.iter().flatten().map(line).collect();
        let document = include_str!("../../docs/OPERATIONS.md");
        let listed: Vec<&str> = document
            .lines()
            .filter(|line| line.starts_with("| `cirrus_"))
            .collect();
        assert_eq!(
            listed,
            lines,
            "docs/OPERATIONS.md is to list:\n{}",
            lines.join("\n")
        );
    }
}
