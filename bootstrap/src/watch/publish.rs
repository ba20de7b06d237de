//! What CloudWatch hears of a node, and when. The names are those of the policies and alarms in
//! `terraform/modules/cluster` and `terraform/modules/observability`.

use crate::control::NodeStatus;

/// Where the figures are.
pub const NAMESPACE: &str = "Cirrus";

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}

/// When figures are due, and what has been said about them.
#[derive(Debug)]
pub(super) struct Publisher {
    every_ms: u64,
    next_ms: u64,
    under_way: bool,
    failing: bool,
    /// Failures of the store that CloudWatch knows of, or that were there before the first look.
    failures: Option<u64>,
    /// Those that it knows of when it takes what is under way.
    sent: Option<u64>,
}

impl Publisher {
    pub(super) fn new(every_ms: u64) -> Self {
        Self {
            every_ms,
            next_ms: 0,
            under_way: false,
            failing: false,
            failures: None,
            sent: None,
        }
    }

    pub(super) fn configure(&mut self, every_ms: u64) {
        self.every_ms = every_ms;
    }

    /// Domain and figures, if they are due. A node that serves nobody has none, and one that drains
    /// or stops does not count among those that share the load.
    pub(super) fn figures(
        &mut self,
        status: &NodeStatus,
        now_ms: u64,
    ) -> Option<(String, Vec<Figure>)> {
        let due = self.every_ms > 0 && !self.under_way && now_ms >= self.next_ms;
        if !due || status.stopping {
            return None;
        }
        let (domain, sessions) = (status.hosts.first()?, status.sessions?);
        let shares = !status.draining;
        let failed = status.store_failures.map(|now| self.failed(now));
        self.sent = status.store_failures;
        let figure = |name, value: Option<f64>| value.map(|value| Figure { name, value });
        let whole = |value: Option<u64>| value.map(|value| value as f64);
        let figures = [
            figure("Sessions", shares.then_some(sessions as f64)),
            figure("EntitiesSingleCopy", whole(status.single_copy)),
            figure("StoreFailures", whole(failed)),
            figure(
                "CertificateDays",
                status.certificate_days.map(|it| it as f64),
            ),
            figure("UnsealedDays", whole(status.late_days)),
        ];
        self.under_way = true;
        self.next_ms = now_ms.saturating_add(self.every_ms);
        Some((domain.clone(), figures.into_iter().flatten().collect()))
    }

    /// Failures that CloudWatch does not know of yet, of so many since the server's start.
    fn failed(&mut self, now: u64) -> u64 {
        let before = *self.failures.get_or_insert(now);
        // A server that was started anew counts from zero.
        let before = if before > now { 0 } else { before };
        self.failures = Some(before);
        now - before
    }

    /// The server is gone: the next one counts anew.
    pub(super) fn lost(&mut self) {
        self.failures = None;
        self.sent = None;
    }

    /// What is to be said: only a change is.
    pub(super) fn published(&mut self, outcome: Result<(), String>) -> Option<String> {
        self.under_way = false;
        let sent = self.sent.take();
        if outcome.is_ok() && sent.is_some() {
            self.failures = sent;
        }
        let failing = std::mem::replace(&mut self.failing, outcome.is_err());
        match outcome {
            Ok(()) if failing => Some("CloudWatch takes figures again".into()),
            Err(why) if !failing => Some(format!(
                "warning: CloudWatch takes no figures, and is tried again: {why}"
            )),
            _ => None,
        }
    }
}
