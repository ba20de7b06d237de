//! What many runs did.

use std::collections::BTreeMap;
use std::fmt;

use crate::Report;

/// Sums over runs, and the least of what every run must have.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Runs that showed what must not be.
    pub failed: u64,
    /// Fewest clients, operations, restarts and store faults of one run.
    pub least: [u64; 4],
    /// Fewest things that happened to nodes, and fewest views, of one run.
    pub least_nodes: [u64; 2],
    /// What happened to nodes, by kind.
    pub incidents: BTreeMap<&'static str, u64>,
    /// How many runs had so many of these.
    pub histogram: BTreeMap<u64, u64>,
    /// What happened to operations of the store, by kind.
    pub store: BTreeMap<&'static str, u64>,
    /// Views, and nodes that started.
    pub views: [u64; 2],
    sums: [u64; 15],
}

/// Names of the sums.
const NAMES: [&str; 15] = [
    "operations",
    "messages",
    "acknowledged",
    "delivered",
    "resumes",
    "kills",
    "stops",
    "erased",
    "takeovers",
    "snapshots",
    "store operations",
    "store faults",
    "events",
    "segments",
    "retracted",
];

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let least = [
            number(report.clients),
            number(report.operations),
            number(report.kills + report.stops),
            report.faults,
        ];
        for (sum, new) in self.least.iter_mut().zip(least) {
            *sum = if self.seeds == 0 { new } else { new.min(*sum) };
        }
        let happened = report.incidents.values().sum();
        *self.histogram.entry(happened).or_default() += 1;
        for (name, count) in &report.store_faults {
            *self.store.entry(name).or_default() += count;
        }
        for (sum, new) in self.least_nodes.iter_mut().zip([happened, report.views]) {
            *sum = if self.seeds == 0 { new } else { new.min(*sum) };
        }
        for (name, count) in &report.incidents {
            *self.incidents.entry(name).or_default() += count;
        }
        self.views[0] += report.views;
        self.views[1] += number(report.starts);
        let new = [
            number(report.operations),
            number(report.messages),
            number(report.accepted),
            number(report.delivered),
            number(report.resumes),
            number(report.kills),
            number(report.stops),
            number(report.erased),
            number(report.takeovers),
            number(report.snapshots),
            report.store_operations,
            report.faults,
            report.events,
            number(report.segments),
            number(report.retracted),
        ];
        for (sum, new) in self.sums.iter_mut().zip(new) {
            *sum += new;
        }
        self.seeds += 1;
        self.failed += u64::from(!report.violations.is_empty());
    }
}

impl Totals {
    /// Times that a copy took over.
    pub fn takeovers(&self) -> u64 {
        self.sum("takeovers")
    }

    /// Segments of archives that there were in the end.
    pub fn segments(&self) -> u64 {
        self.sum("segments")
    }

    /// Messages that archives showed as retracted in the end.
    pub fn retracted(&self) -> u64 {
        self.sum("retracted")
    }

    fn sum(&self, of: &str) -> u64 {
        let names = NAMES.iter().zip(self.sums);
        let sums = names.filter(|(name, _)| **name == of);
        sums.map(|(_, sum)| sum).sum()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds, {} failed;", self.seeds, self.failed)?;
        for (sum, name) in self.sums.iter().zip(NAMES) {
            write!(f, " {sum} {name},")?;
        }
        let [clients, operations, restarts, faults] = self.least;
        write!(
            f,
            " at least {clients} clients, {operations} operations, {restarts} restarts, \
             {faults} faults in each"
        )?;
        let [views, starts] = self.views;
        if views > 0 {
            let [happened, least] = self.least_nodes;
            write!(f, "; {views} views, {starts} starts of nodes,")?;
            for (name, count) in &self.incidents {
                write!(f, " {count} {name},")?;
            }
            write!(
                f,
                " at least {happened} of these and {least} views in each; of the store's operations"
            )?;
            for (name, count) in &self.store {
                write!(f, " {count} {name},")?;
            }
            write!(f, " so many seeds had so many things happen to nodes:")?;
            for (happened, seeds) in &self.histogram {
                write!(f, " {seeds}*{happened}")?;
            }
        }
        Ok(())
    }
}
