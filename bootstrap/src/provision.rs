//! What must exist at AWS, what does, and what follows: pure decisions here, calls in [`aws`].
//!
//! Made is only what is missing. An object whose last setting is there was finished by someone:
//! it is left alone, and where it differs from the schema that is reported as drift. An object
//! that lacks its last setting was begun and not finished (by another bootstrap that still works,
//! or that died): it is finished. So any number of bootstraps may work at once, and each may be
//! repeated.

pub mod aws;
mod bucket;
mod names;
mod table;

use std::fmt;

pub use bucket::{BucketStep, FoundBucket, FoundRule, Policy};
pub use names::Names;
pub use table::{FoundTable, TableStatus, TableStep};

/// What an object needs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<Step> {
    /// These calls, in this order; then look again.
    Do(Vec<Step>),
    /// Some time; the word says what happens meanwhile.
    Wait(&'static str),
    /// Nothing. The differences that are left alone.
    Ready(Vec<Drift>),
    /// It cannot be used, for this reason.
    Incompatible(String),
}

/// A setting of an object that exists and differs from the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The table or bucket.
    pub object: String,
    /// The setting.
    pub field: String,
    /// What the schema says.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            object,
            field,
            expected,
            found,
        } = self;
        write!(
            f,
            "{object}: {field} is {found}, the schema says {expected}; left alone"
        )
    }
}

/// Collects the differences of one object.
#[derive(Default)]
struct Differences {
    object: String,
    drift: Vec<Drift>,
}

impl Differences {
    fn of(object: &str) -> Self {
        Self {
            object: object.to_owned(),
            drift: Vec::new(),
        }
    }

    fn compare(&mut self, field: &str, expected: &str, found: &str) {
        if expected != found {
            self.drift.push(Drift {
                object: self.object.clone(),
                field: field.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
    }
}

/// `on` or `off`.
fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What provisioning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that this run made.
    pub created: Vec<String>,
    /// Objects that were begun by another run and finished by this one.
    pub finished: Vec<String>,
    /// Objects that were there.
    pub unchanged: Vec<String>,
    /// Differences that were left alone.
    pub drift: Vec<Drift>,
}

impl Report {
    /// One line for the log.
    pub fn summary(&self) -> String {
        let drift = match self.drift.len() {
            0 => String::new(),
            1 => "; 1 setting differs from the schema".to_owned(),
            n => format!("; {n} settings differ from the schema"),
        };
        let there = self.unchanged.len();
        if self.created.is_empty() && self.finished.is_empty() {
            return format!("{there} tables and buckets exist, nothing changed{drift}");
        }
        let mut parts = Vec::new();
        if !self.created.is_empty() {
            parts.push(format!("made {}", self.created.join(", ")));
        }
        if !self.finished.is_empty() {
            parts.push(format!("finished {}", self.finished.join(", ")));
        }
        if there > 0 {
            parts.push(format!("{there} were there"));
        }
        format!("{}{drift}", parts.join("; "))
    }

    fn add(&mut self, one: Self) {
        self.created.extend(one.created);
        self.finished.extend(one.finished);
        self.unchanged.extend(one.unchanged);
        self.drift.extend(one.drift);
    }

    fn sort(&mut self) {
        for list in [&mut self.created, &mut self.finished, &mut self.unchanged] {
            list.sort();
        }
        self.drift
            .sort_by(|a, b| (&a.object, &a.field).cmp(&(&b.object, &b.field)));
    }
}

#[cfg(test)]
mod tests;
