//! The tables: medians over the valid runs, ratios of medians, and what was wrong.

use std::fmt::Write as _;

use crate::load::Outcome;
use crate::plan::{Measure, Results};

/// From this share of its core on, the generator may be what is measured.
const GENERATOR_LIMIT: f64 = 0.9;

/// From this share of a core on, used by others, a run is told to have been disturbed.
const QUIET_LIMIT: f64 = 0.1;

/// The product whose ratios are told.
const SUBJECT: &str = "cirrus";
/// The servers it is compared with.
const PEERS: [&str; 2] = ["ejabberd", "prosody"];

type Field = fn(&Outcome) -> Option<f64>;

struct Row {
    title: &'static str,
    measure: Measure,
    archive: bool,
    field: Field,
    unit: &'static str,
    /// Higher is better: the ratio is turned so that it always says how often better the subject
    /// is.
    more: bool,
}

const CPU: Field = |outcome| outcome.cpu;
const RATE: Field = |outcome| outcome.rate;

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let row = |title, measure, archive, field, unit, more| {
        Row { title, measure, archive, field, unit, more }
    };
    use Measure::{Closed, ClosedSm, Idle, Login, Paced};
    vec![
        row("login, CPU", Login, false, CPU, "us", false),
        row("login, rate", Login, false, RATE, "/s", true),
        row("idle TLS session, PSS", Idle, false, |o| o.pss, "KiB", false),
        row("idle TLS session, RSS", Idle, false, |o| o.rss, "KiB", false),
        row("1:1, CPU", Closed, false, CPU, "us", false),
        row("1:1, rate", Closed, false, RATE, "/s", true),
        row("1:1 + stream management, CPU", ClosedSm, false, CPU, "us", false),
        row("1:1 + stream management, rate", ClosedSm, false, RATE, "/s", true),
        row("1:1, archive, CPU", Closed, true, CPU, "us", false),
        row("1:1, archive, rate", Closed, true, RATE, "/s", true),
        row("1:1, archive, data folder", Closed, true, |o| o.stored, "bytes", false),
        row("1:1 + stream management, archive, CPU", ClosedSm, true, CPU, "us", false),
        row("1:1 + stream management, archive, rate", ClosedSm, true, RATE, "/s", true),
        row("2,000 msg/s, CPU", Paced, false, CPU, "us", false),
        row("2,000 msg/s, p50", Paced, false, |o| o.p50, "ms", false),
        row("2,000 msg/s, p99", Paced, false, |o| o.p99, "ms", false),
        row("2,000 msg/s, archive, CPU", Paced, true, CPU, "us", false),
        row("2,000 msg/s, archive, p50", Paced, true, |o| o.p50, "ms", false),
        row("2,000 msg/s, archive, p99", Paced, true, |o| o.p99, "ms", false),
    ]
}

/// The whole report as Markdown.
pub(crate) fn markdown(
    results: &Results,
    servers: &[&'static str],
    machine: &str,
    descriptions: &[String],
) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "Machine: {machine}\n");
    for description in descriptions {
        let _ = writeln!(text, "- {description}");
    }
    let _ = writeln!(text, "\n{}", main_table(results, servers));
    let _ = writeln!(text, "{}", use_table(results, servers));
    let _ = writeln!(text, "{}", bars(results));
    let faults = faults(results);
    if !faults.is_empty() {
        let _ = writeln!(text, "Not counted, or to be read with care:\n");
        for fault in faults {
            let _ = writeln!(text, "- {fault}");
        }
    }
    text
}

/// Around the tables in a document.
const MARKERS: [&str; 2] = ["<!-- bench: begin -->", "<!-- bench: end -->"];

/// The document with the report between its markers; the report alone where there are none.
pub(crate) fn into_document(document: &str, report: &str) -> String {
    let [begin, end] = MARKERS;
    let parts = document
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    match parts {
        Some((before, after)) => {
            let report = report.trim_end();
            format!("{before}{begin}\n\n{report}\n\n{end}{after}")
        }
        None => report.to_owned(),
    }
}

fn main_table(results: &Results, servers: &[&'static str]) -> String {
    let mut text = String::from("| median |");
    for server in servers {
        let _ = write!(text, " {server} |");
    }
    let peers: Vec<&str> = PEERS
        .into_iter()
        .filter(|peer| servers.contains(peer))
        .collect();
    let compared = servers.contains(&SUBJECT);
    if compared {
        for peer in &peers {
            let _ = write!(text, " x better than {peer} |");
        }
    }
    let columns = servers.len() + if compared { peers.len() } else { 0 };
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns));
    for row in rows() {
        let value = |server| median(results, server, row.archive, row.measure, row.field);
        let values: Vec<_> = servers.iter().map(|server| value(server)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "| {} |", row.title);
        for found in values {
            let _ = write!(text, " {} |", number(found, row.unit));
        }
        if compared {
            for peer in &peers {
                let ratio = value(SUBJECT).zip(value(peer)).map(|(own, other)| {
                    if row.more { own / other } else { other / own }
                });
                let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
                let _ = write!(text, " {ratio} |");
            }
        }
        text.push('\n');
    }
    text
}

/// How busy each side was, which says what limited a rate.
fn use_table(results: &Results, servers: &[&'static str]) -> String {
    let mut text = String::from("| core used: server / generator |");
    for server in servers {
        let _ = write!(text, " {server} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(servers.len()));
    let lines = [
        ("login", Measure::Login, false),
        ("1:1", Measure::Closed, false),
        ("1:1 + stream management", Measure::ClosedSm, false),
        ("1:1, archive", Measure::Closed, true),
        ("1:1 + stream management, archive", Measure::ClosedSm, true),
        ("2,000 msg/s", Measure::Paced, false),
        ("2,000 msg/s, archive", Measure::Paced, true),
    ];
    for (title, measure, archive) in lines {
        let cell = |server, field: Field| median(results, server, archive, measure, field);
        let found: Vec<String> = servers
            .iter()
            .map(|server| {
                let own = cell(server, |outcome| outcome.generator_busy);
                let flag = if own.is_some_and(|busy| busy >= GENERATOR_LIMIT) {
                    " (generator-bound)"
                } else {
                    ""
                };
                let own = number(own.map(|busy| busy * 100.0), "%");
                let server = cell(server, |outcome| outcome.server_busy);
                format!(
                    "{} / {own}{flag}",
                    number(server.map(|busy| busy * 100.0), "%")
                )
            })
            .collect();
        if found.iter().any(|cell| cell != "- / -") {
            let _ = writeln!(text, "| {title} | {} |", found.join(" | "));
        }
    }
    text
}

/// The bars that the product sets itself.
fn bars(results: &Results) -> String {
    let value = |server, archive, measure, field| median(results, server, archive, measure, field);
    let mut lines = Vec::new();
    let mut bar = |what: &str, own: Option<f64>, limit: Option<f64>, at_most: bool| {
        if let Some((own, limit)) = own.zip(limit) {
            let held = if at_most { own <= limit } else { own >= limit };
            let sign = if at_most { "<=" } else { ">=" };
            let verdict = if held { "held" } else { "**missed**" };
            lines.push(format!("- {verdict}: {what}: {own:.2} {sign} {limit:.2}"));
        }
    };
    let peer_cpu = PEERS
        .iter()
        .filter_map(|peer| value(peer, false, Measure::Closed, CPU))
        .reduce(f64::min);
    bar(
        "CPU per 1:1 message with the durable archive, against half of the faster peer without one",
        value(SUBJECT, true, Measure::Closed, CPU),
        peer_cpu.map(|cpu| cpu / 2.0),
        true,
    );
    for (peer, factor) in PEERS.into_iter().zip([10.0, 3.0]) {
        bar(
            &format!("messages/s, archive on everywhere, against {factor} x {peer}"),
            value(SUBJECT, true, Measure::Closed, RATE),
            value(peer, true, Measure::Closed, RATE).map(|rate| rate * factor),
            false,
        );
    }
    bar(
        "CPU per login, against half of ejabberd",
        value(SUBJECT, false, Measure::Login, CPU),
        value(PEERS[0], false, Measure::Login, CPU).map(|cpu| cpu / 2.0),
        true,
    );
    let pss: Field = |outcome| outcome.pss;
    bar(
        "KiB per idle session",
        value(SUBJECT, false, Measure::Idle, pss),
        Some(24.0),
        true,
    );
    let p99: Field = |outcome| outcome.p99;
    for (archive, title) in [(false, "archive off"), (true, "archive on")] {
        bar(
            &format!("p99 at 2,000 msg/s, {title}, against ejabberd"),
            value(SUBJECT, archive, Measure::Paced, p99),
            value(PEERS[0], archive, Measure::Paced, p99),
            true,
        );
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("Bars:\n\n{}\n", lines.join("\n"))
}

fn faults(results: &Results) -> Vec<String> {
    let mut lines = results.notes.clone();
    for (cell, outcomes) in &results.outcomes {
        let title = cell.to_string();
        for (run, outcome) in outcomes.iter().enumerate() {
            let run = run + 1;
            if !outcome.faults.is_empty() {
                let faults = outcome.faults.join(", ");
                lines.push(format!("{title}, run {run} is invalid: {faults}"));
            }
            if outcome.overrun {
                lines.push(format!("{title}, run {run}: did not keep up with the pace"));
            }
            if outcome
                .generator_busy
                .is_some_and(|busy| busy >= GENERATOR_LIMIT)
            {
                lines.push(format!("{title}, run {run}: the generator was the limit"));
            }
            if let Some(others) = outcome.others_busy.filter(|others| *others >= QUIET_LIMIT) {
                let percent = others * 100.0;
                lines.push(format!(
                    "{title}, run {run}: others used {percent:.0} % of a core"
                ));
            }
        }
    }
    lines
}

/// The median over the valid runs.
fn median(
    results: &Results,
    server: &str,
    archive: bool,
    measure: Measure,
    field: Field,
) -> Option<f64> {
    let (_, outcomes) = results.outcomes.iter().find(|(cell, _)| {
        cell.server == server && cell.archive == archive && cell.measure == measure
    })?;
    let mut values: Vec<f64> = outcomes
        .iter()
        .filter(|outcome| outcome.faults.is_empty())
        .filter_map(field)
        .collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn number(value: Option<f64>, unit: &str) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if unit == "%" => format!("{value:.0} %"),
        Some(value) if unit == "ms" => format!("{value:.2} ms"),
        Some(value) if value >= 100.0 => format!("{value:.0} {unit}"),
        Some(value) => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cell;

    fn with_cpu(cpu: f64) -> Outcome {
        Outcome {
            cpu: Some(cpu),
            ..Outcome::default()
        }
    }

    fn cell(server: &'static str) -> Cell {
        Cell {
            server,
            archive: false,
            measure: Measure::Login,
        }
    }

    #[test]
    fn invalid_runs_do_not_count() {
        let mut results = Results::default();
        let bad = Outcome {
            faults: vec!["1 lost".to_owned()],
            ..with_cpu(1.0)
        };
        results.outcomes.insert(
            cell("cirrus"),
            vec![with_cpu(30.0), bad, with_cpu(10.0), with_cpu(20.0)],
        );
        assert_eq!(
            median(&results, "cirrus", false, Measure::Login, CPU),
            Some(20.0)
        );
        assert_eq!(median(&results, "cirrus", true, Measure::Login, CPU), None);
        assert_eq!(
            faults(&results),
            ["cirrus, archive off, Login, run 2 is invalid: 1 lost"]
        );
    }

    #[test]
    fn the_report_goes_between_the_markers() {
        let document = "a\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nz\n";
        let new = into_document(document, "new\n\n");
        assert_eq!(
            new,
            "a\n<!-- bench: begin -->\n\nnew\n\n<!-- bench: end -->\nz\n"
        );
        assert_eq!(into_document(&new, "new"), new);
        assert_eq!(into_document("no markers", "new"), "new");
    }

    #[test]
    fn ratios_say_how_often_better() {
        let mut results = Results::default();
        results
            .outcomes
            .insert(cell("cirrus"), vec![with_cpu(10.0)]);
        results
            .outcomes
            .insert(cell("ejabberd"), vec![with_cpu(40.0)]);
        let table = main_table(&results, &["cirrus", "ejabberd"]);
        assert!(
            table.contains("| login, CPU | 10.0 us | 40.0 us | 4.00 |"),
            "{table}"
        );
        assert!(
            bars(&results).contains("held: CPU per login"),
            "{}",
            bars(&results)
        );
    }
}
