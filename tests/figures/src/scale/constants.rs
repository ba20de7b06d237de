//! The constants that the document reckons with, and where each is from.

use super::{
    BASE_MIB, BEATS, BETWEEN, LOGIN_READS, MEMORY, NEW_TABLE, NODE_MIB, PARTITION_READS,
    PARTITION_WRITES, TABLE, TARGETS,
};
use crate::cost::BURST;
use crate::day::{ASSUMED, peak};
use crate::document::{number, words};
use crate::measured::{
    ALONE_KIB, BEAT, COPIED_KIB, LOGIN_US, MESSAGE_US, SESSION_KIB, SOCKET_KIB, VIEW_MEMBER,
};

type Row = [String; 3];

fn row(what: &str, value: f64, unit: &str, from: &str) -> Row {
    let value = format!("{} {unit}", number(value));
    [
        what.to_owned(),
        value.trim_end().to_owned(),
        from.to_owned(),
    ]
}

/// The table.
pub(super) fn table() -> String {
    let rows = memory().into_iter().chain(work()).chain(aws());
    let rows: Vec<Vec<String>> = rows.map(Vec::from).collect();
    words(&["constant", "", "where from"], &rows)
}

fn memory() -> [Row; 5] {
    let most = (NODE_MIB * MEMORY - BASE_MIB) * 1_024.0 / (COPIED_KIB + SOCKET_KIB);
    let most = (most / 1_000.0).floor() * 1_000.0;
    let loopback = "measured: 9,000 idle connections over loopback, Linux 6.18, what slabs grew";
    [
        row(
            "an idle session over TLS and its copy, two nodes together, DynamoDB",
            COPIED_KIB,
            "KiB",
            "measured: `cirrus-bench nodes --memory`",
        ),
        row(
            "the same on one node, so without a copy",
            ALONE_KIB,
            "KiB",
            "measured: the same",
        ),
        row(
            "the same on one node with the embedded store",
            SESSION_KIB,
            "KiB",
            "measured: docs/PERFORMANCE.md",
        ),
        row("a connection in the kernel", SOCKET_KIB, "KiB", loopback),
        row(
            "sessions that a t4g.small (2 GiB) holds",
            most,
            "",
            "calculated: 80 % of the memory, less 200 MiB",
        ),
    ]
}

fn work() -> [Row; 8] {
    let assumed = "assumed, as in docs/COST.md";
    let performance = "measured: docs/PERFORMANCE.md";
    [
        row(
            "CPU of a message, archived, one node",
            MESSAGE_US,
            "us",
            performance,
        ),
        row(
            "the same between nodes, against one node",
            BETWEEN,
            "x",
            "assumed; measured without the archive: 2.41, and 2.2 to 3.1 beside other work",
        ),
        row("CPU of a login", LOGIN_US, "us", performance),
        row(
            "bytes of a member in the view",
            VIEW_MEMBER,
            "",
            "measured: tests/sim/README.md, 50 nodes",
        ),
        row(
            "bytes of a beat",
            BEAT,
            "",
            "calculated from what 10 and 50 nodes say there",
        ),
        row(
            "sessions in the busiest hour for each user of the day",
            ASSUMED.sessions,
            "",
            assumed,
        ),
        row("the busiest hour against the mean", peak(), "x", assumed),
        row("the busiest second against it", BURST, "x", assumed),
    ]
}

fn aws() -> [Row; 8] {
    let dynamodb = "AWS: DynamoDB's quotas";
    [
        row(
            "beats of a link in each direction, a second",
            BEATS,
            "",
            "`cluster.silence_ms`, four in it",
        ),
        row(
            "leases written and views read by a node, a second",
            1.0,
            "",
            "`cluster.renew_ms`",
        ),
        row(
            "read units of a login in the table `archive`",
            LOGIN_READS,
            "",
            "measured: tests/golden/requests.txt",
        ),
        row("units a second of a table", TABLE, "", dynamodb),
        row(
            "read units a second of a partition",
            PARTITION_READS,
            "",
            dynamodb,
        ),
        row(
            "write units a second of a partition",
            PARTITION_WRITES,
            "",
            dynamodb,
        ),
        row(
            "write units a second that a new table takes at once",
            NEW_TABLE,
            "",
            dynamodb,
        ),
        row(
            "targets of a balancer, zones together",
            TARGETS,
            "",
            "AWS: quotas of network load balancers",
        ),
    ]
}
