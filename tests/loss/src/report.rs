//! The outcome of runs, for people and for machines. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::judge::Judgement;
use crate::ledger::{At, Ledger, Sessions, Window};

/// A wait of the script.
#[derive(Debug, Clone)]
pub struct Wait {
    /// The command that was waited for.
    pub command: String,
    /// Seconds into the load when it began.
    pub at: f64,
    /// How long it was.
    pub seconds: f64,
}

/// The outcome of one run.
#[derive(Debug, Clone)]
pub struct Report {
    /// What ran.
    pub name: String,
    /// What became of all that was sent.
    pub judgement: Judgement,
    /// Breaks and what followed.
    pub sessions: Sessions,
    /// Times of fault.
    pub windows: Vec<Window>,
    /// Waits of the script.
    pub waits: Vec<Wait>,
    /// Whether the server has an archive, if that was asked.
    pub archive: Option<bool>,
    /// How long the load lasted.
    pub load_seconds: f64,
    /// How long everything took to settle; none if it did not.
    pub settled_seconds: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        name: &str,
        judgement: Judgement,
        ledger: &Ledger,
        load_seconds: f64,
        settled_seconds: Option<f64>,
        waits: Vec<Wait>,
    ) -> Report {
        Report {
            name: name.to_owned(),
            judgement,
            sessions: ledger.sessions.clone(),
            windows: ledger.windows.clone(),
            waits,
            archive: ledger.archive,
            load_seconds,
            settled_seconds,
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let (it, sessions) = (&self.judgement, &self.sessions);
        let settled = self.settled_seconds;
        let count = |number: u64| number.to_string();
        vec![
            ("lost", count(it.lost)),
            ("- sent to one without connection", count(it.lost_cut_off)),
            ("doubled", count(it.doubled)),
            ("reordered", count(it.reordered)),
            ("ghost presence at the end", count(it.ghosts)),
            ("shown to leave, but had not", count(it.flaps)),
            ("accepted outside faults, %", percent(it.share())),
            ("messages", count(it.messages)),
            ("- seen live or by resumption", count(it.by_stream)),
            ("- both connected, p50 p99 max ms", times(&it.delivery)),
            ("- the same during faults", times(&it.delivery_in_faults)),
            ("- seen after an absence", count(it.by_offline)),
            ("- seen in the archive only", count(it.by_archive)),
            ("- repeated, rightly", count(it.repeated)),
            ("- not acknowledged, seen", count(it.unacknowledged_seen)),
            (
                "- not acknowledged, not seen",
                count(it.unacknowledged_unseen),
            ),
            ("- lost where none could know", count(it.lost_unmanaged)),
            ("- refused", count(it.refused)),
            ("- refused, outcome unknown", count(it.refused_unknown)),
            ("- refused, and yet seen", count(it.refused_but_seen)),
            ("pings", count(it.pings)),
            ("- answered", count(it.pings_answered)),
            ("- refused: the contact was away", count(it.pings_refused)),
            ("- refused, outcome unknown", count(it.pings_unknown)),
            ("- acknowledged, never answered", count(it.pings_unanswered)),
            ("changes of presence", count(it.presences)),
            ("seen, but sent by nobody", count(it.stray)),
            ("what no server may send", count(it.violations)),
            ("connections broken by the server", count(sessions.broke)),
            ("- by the client", count(sessions.broke_by_choice)),
            ("sessions resumed", count(sessions.resumed.len() as u64)),
            ("- p50, p99, max ms", times(&sessions.resumed)),
            (
                "- after the client's own breaks",
                count(sessions.resumed_by_choice.len() as u64),
            ),
            ("- p50, p99, max ms", times(&sessions.resumed_by_choice)),
            ("without a session, p50 p99 max ms", times(&sessions.gaps)),
            ("resumptions refused", count(sessions.resume_failed)),
            ("full logins, session lost", count(sessions.lost)),
            ("full logins, unmanaged", count(sessions.unmanaged)),
            ("absences by choice", count(sessions.left)),
            ("load, s", format!("{:.1}", self.load_seconds)),
            (
                "settled after, s",
                settled.map_or("never".to_owned(), |it| format!("{it:.1}")),
            ),
        ]
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let (it, sessions) = (&self.judgement, &self.sessions);
        let windows = self.windows.iter().map(|window| {
            json!({
                "name": window.name,
                "begin_s": seconds(window.begin),
                "end_s": window.end.map(seconds),
                "broke": window.broke,
                "resumed": window.resumed,
                "lost_sessions": window.lost,
                "under_way": window.under_way.len(),
            })
        });
        let waits = self.waits.iter().map(
            |wait| json!({ "command": wait.command, "at_s": wait.at, "seconds": wait.seconds }),
        );
        json!({
            "name": self.name,
            "clean": it.is_clean(),
            "lost": it.lost,
            "lost_cut_off": it.lost_cut_off,
            "doubled": it.doubled,
            "reordered": it.reordered,
            "ghosts": it.ghosts,
            "flaps": it.flaps,
            "accepted_share": it.share(),
            "messages": it.messages_json(),
            "pings": {
                "sent": it.pings,
                "answered": it.pings_answered,
                "refused": it.pings_refused,
                "unknown": it.pings_unknown,
                "unanswered": it.pings_unanswered,
            },
            "presences": it.presences,
            "stray": it.stray,
            "violations": it.violations,
            "sessions": {
                "broke": sessions.broke,
                "broke_by_choice": sessions.broke_by_choice,
                "resumed": sessions.resumed.len(),
                "resumed_ms": quantiles_json(&sessions.resumed),
                "resumed_by_choice": sessions.resumed_by_choice.len(),
                "resumed_by_choice_ms": quantiles_json(&sessions.resumed_by_choice),
                "gap_ms": quantiles_json(&sessions.gaps),
                "resume_failed": sessions.resume_failed,
                "lost": sessions.lost,
                "unmanaged": sessions.unmanaged,
                "left": sessions.left,
            },
            "archive": self.archive,
            "load_s": self.load_seconds,
            "settled_s": self.settled_seconds,
            "faults": windows.collect::<Vec<_>>(),
            "waits": waits.collect::<Vec<_>>(),
            "examples": it.examples,
        })
    }
}

impl Judgement {
    fn messages_json(&self) -> Value {
        json!({
            "sent": self.messages,
            "by_stream": self.by_stream,
            "delivery_ms": quantiles_json(&self.delivery),
            "delivery_in_faults_ms": quantiles_json(&self.delivery_in_faults),
            "by_offline": self.by_offline,
            "by_archive": self.by_archive,
            "repeated": self.repeated,
            "unacknowledged_seen": self.unacknowledged_seen,
            "unacknowledged_unseen": self.unacknowledged_unseen,
            "lost_unmanaged": self.lost_unmanaged,
            "refused": self.refused,
            "refused_unknown": self.refused_unknown,
            "refused_but_seen": self.refused_but_seen,
        })
    }

    /// The share of what was offered outside of faults that the server took.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self.offered {
            0 => 1.0,
            offered => self.accepted as f64 / offered as f64,
        }
    }
}

/// Runs side by side, and what they say of their faults.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    let width = 34;
    let _ = write!(text, "{:width$}", "");
    for report in reports {
        let _ = write!(text, "{:>22}", report.name);
    }
    let columns: Vec<Vec<(&str, String)>> = reports.iter().map(Report::rows).collect();
    let labels = columns
        .first()
        .into_iter()
        .flatten()
        .map(|(label, _)| *label);
    for (row, label) in labels.enumerate() {
        let _ = write!(text, "\n{label:width$}");
        for value in columns.iter().filter_map(|column| column.get(row)) {
            let _ = write!(text, "{:>22}", value.1);
        }
    }
    text.push('\n');
    for report in reports {
        for window in &report.windows {
            let end = window.end.unwrap_or(window.begin);
            let _ = writeln!(
                text,
                "{}: {} for {:.2} s, {} messages under way: {} broke, {} resumed, {} sessions lost",
                report.name,
                window.name,
                seconds(end.saturating_sub(window.begin)),
                window.under_way.len(),
                window.broke,
                window.resumed,
                window.lost
            );
        }
        for wait in &report.waits {
            let _ = writeln!(
                text,
                "{}: waited {:.2} s for `{}`",
                report.name, wait.seconds, wait.command
            );
        }
        for example in &report.judgement.examples {
            let _ = writeln!(text, "{}: {example}", report.name);
        }
    }
    text
}

fn percent(share: f64) -> String {
    // Never rounded up to all of it.
    format!("{:.2}", (share * 10_000.0).floor() / 100.0)
}

fn times(of: &[At]) -> String {
    match quantiles(of) {
        Some([p50, p99, max]) => format!("{p50:.0} {p99:.0} {max:.0}"),
        None => "-".to_owned(),
    }
}

fn quantiles_json(of: &[At]) -> Value {
    match quantiles(of) {
        Some([p50, p99, max]) => json!({ "p50": p50, "p99": p99, "max": max }),
        None => Value::Null,
    }
}

/// Median, 99th percentile and maximum, in milliseconds.
fn quantiles(of: &[At]) -> Option<[f64; 3]> {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let at = |percent: usize| sorted.get(last * percent / 100).copied();
    Some([at(50)?, at(99)?, at(100)?].map(|micros| micros as f64 / 1e3))
}

fn seconds(time: At) -> f64 {
    time as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, lost: u64) -> Report {
        let judgement = Judgement {
            lost,
            offered: 100_000,
            accepted: 99_999,
            ..Judgement::default()
        };
        let mut ledger = Ledger::new(&[true], |_| Vec::new());
        ledger.sessions.resumed = vec![3000, 1000, 2000];
        ledger.begin("kill", 1_000_000);
        ledger.end(3_500_000);
        Report::new(name, judgement, &ledger, 9.0, None, Vec::new())
    }

    #[test]
    fn runs_stand_side_by_side() {
        let text = table(&[report("one", 0), report("two", 7)]);
        let row = |label: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(label)).unwrap();
            line[34..].split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("lost"), ["0", "7"]);
        assert_eq!(row("accepted"), ["99.99", "99.99"]);
        assert_eq!(row("- p50"), ["2", "2", "3", "2", "2", "3"]);
        assert!(
            text.contains("two: kill for 2.50 s, 0 messages under way"),
            "{text}"
        );
    }

    #[test]
    fn machines_read_the_same() {
        let json = report("one", 7).json();
        assert_eq!(json["lost"], 7);
        assert_eq!(json["clean"], false);
        assert_eq!(json["sessions"]["resumed_ms"]["max"], 3.0);
        assert_eq!(json["faults"][0]["name"], "kill");
    }
}
