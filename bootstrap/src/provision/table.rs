//! One table: what it needs now.

use cirrus_schema::{Billing, KeyType, TableSpec};

use super::{Decision, Differences, switch};

/// A table as it is at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// What it does.
    pub status: TableStatus,
    /// Name and type (`B`, `S`, `N`) of the partition key.
    pub partition_key: (String, String),
    /// Name and type of the sort key, if it has one.
    pub sort_key: Option<(String, String)>,
    /// Paid per request.
    pub on_demand: bool,
    /// Protected from deletion.
    pub deletion_protection: bool,
    /// Continuous backups.
    pub point_in_time_recovery: bool,
    /// The attribute by which items expire, if expiry is on (or being switched on).
    pub ttl_attribute: Option<String>,
}

/// What a table does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStatus {
    /// It serves.
    Active,
    /// It is being made.
    Creating,
    /// It is being changed; it serves.
    Updating,
    /// It is being deleted.
    Deleting,
    /// Something else, which passes or needs an operator.
    Other,
}

/// A call that a table needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStep {
    /// CreateTable.
    Create,
    /// UpdateContinuousBackups.
    Recovery,
    /// UpdateTimeToLive: the last setting.
    Ttl,
}

impl TableStep {
    /// What the call does, for the progress.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Create => "making it",
            Self::Recovery => "switching point-in-time recovery on",
            Self::Ttl => "switching expiry on",
        }
    }
}

/// What a table needs now.
pub(super) fn decide(
    name: &str,
    spec: &TableSpec,
    found: Option<&FoundTable>,
) -> Decision<TableStep> {
    let Some(found) = found else {
        return Decision::Do(vec![TableStep::Create]);
    };
    if let Some(why) = other_keys(spec, found) {
        return Decision::Incompatible(why);
    }
    match found.status {
        TableStatus::Active | TableStatus::Updating => {}
        TableStatus::Creating => return Decision::Wait("being made"),
        TableStatus::Deleting => return Decision::Wait("being deleted"),
        TableStatus::Other => return Decision::Wait("neither active nor being made"),
    }
    if found.ttl_attribute.is_none() {
        return Decision::Do(unfinished(spec, found));
    }
    Decision::Ready(drift(name, spec, found))
}

fn unfinished(spec: &TableSpec, found: &FoundTable) -> Vec<TableStep> {
    let recovery = spec.point_in_time_recovery && !found.point_in_time_recovery;
    let recovery = recovery.then_some(TableStep::Recovery);
    recovery.into_iter().chain([TableStep::Ttl]).collect()
}

fn other_keys(spec: &TableSpec, found: &FoundTable) -> Option<String> {
    let expected = [key(spec.partition_key), key(spec.sort_key)];
    let words = |(name, kind): &(String, String)| format!("{name} ({kind})");
    let mut has = vec![words(&found.partition_key)];
    has.extend(found.sort_key.as_ref().map(words));
    let differ = has != expected;
    differ.then(|| {
        let (has, expected) = (has.join(", "), expected.join(", "));
        format!("its keys are {has}; Cirrus needs {expected}. It is not a table of Cirrus")
    })
}

fn key((name, kind): (&str, KeyType)) -> String {
    let letter = match kind {
        KeyType::Binary => "B",
    };
    format!("{name} ({letter})")
}

/// Encryption is not compared: it cannot be off, and a customer's key is the operator's choice.
fn drift(name: &str, spec: &TableSpec, found: &FoundTable) -> Vec<super::Drift> {
    let mut d = Differences::of(name);
    let expected = match spec.billing {
        Billing::OnDemand => "on demand",
    };
    d.compare(
        "billing",
        expected,
        if found.on_demand {
            "on demand"
        } else {
            "provisioned"
        },
    );
    d.compare(
        "deletion protection",
        switch(spec.deletion_protection),
        switch(found.deletion_protection),
    );
    d.compare(
        "point-in-time recovery",
        switch(spec.point_in_time_recovery),
        switch(found.point_in_time_recovery),
    );
    let ttl = found.ttl_attribute.as_deref().unwrap_or("none");
    d.compare("expiry attribute", spec.ttl_attribute, ttl);
    d.drift
}
