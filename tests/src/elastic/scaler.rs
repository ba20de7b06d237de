//! When a group grows and shrinks: its policies, evaluated on metrics. Pure: metrics and time are
//! arguments.
//!
//! Target tracking adds as soon as three means of a minute in a row are above the target, and at
//! once as many as bring the mean down to it. A simple policy changes by its step when its alarm
//! holds, and not again before its cooldown, which begins when what it began is done; while
//! instances come or go it waits.

use std::collections::BTreeMap;

use super::expression::evaluate;
use super::plan::{Metric, Scaling, Stepping, Tracking};

/// Means in a row above the target, before target tracking adds.
const ABOVE: u64 = 3;

/// What a policy wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Nodes that there shall be.
    pub desired: usize,
    /// Which policy, and what it saw.
    pub why: String,
}

/// How a group stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) desired: usize,
    pub(super) in_service: usize,
    /// Instances come or go.
    pub(super) busy: bool,
}

/// The mean of a metric between two times, in milliseconds; none where nobody has told.
pub(super) type Mean<'a> = &'a dyn Fn(&Metric, u64, u64) -> Option<f64>;

/// The policies at work.
#[derive(Debug)]
pub struct Scaler {
    scaling: Scaling,
    /// When a simple policy may act again.
    free_ms: u64,
    stepped: bool,
}

impl Scaler {
    /// With the policies of a plan.
    #[must_use]
    pub fn new(scaling: Scaling) -> Scaler {
        Scaler {
            scaling,
            free_ms: 0,
            stepped: false,
        }
    }

    /// What is wanted now, if that is something else than before.
    ///
    /// # Errors
    /// When an alarm's expression is not understood.
    pub(super) fn decide(
        &mut self,
        now_ms: u64,
        standing: Standing,
        mean: Mean<'_>,
    ) -> Result<Option<Decision>, String> {
        if self.stepped && !standing.busy {
            // What the last step began is done.
            self.stepped = false;
            let cooldowns = self.scaling.stepping.iter().map(|it| it.cooldown_s).max();
            self.free_ms = now_ms + self.scaling.millis(cooldowns.unwrap_or(0));
        }
        let tracked = self.scaling.tracking.iter();
        let grown = tracked.filter_map(|it| self.track(it, now_ms, standing, mean));
        if let Some(decision) = grown.max_by_key(|it| it.desired) {
            return Ok(Some(decision));
        }
        if standing.busy || now_ms < self.free_ms {
            return Ok(None);
        }
        for policy in self.scaling.stepping.clone() {
            if let Some(decision) = self.step(&policy, now_ms, standing, mean)? {
                self.stepped = true;
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }

    fn track(
        &self,
        policy: &Tracking,
        now_ms: u64,
        standing: Standing,
        mean: Mean<'_>,
    ) -> Option<Decision> {
        let period = self.scaling.millis(policy.period_s);
        let means: Option<Vec<f64>> = (0..ABOVE)
            .map(|n| {
                let to = now_ms.checked_sub(n * period)?;
                mean(&policy.metric, to.checked_sub(period)?, to)
            })
            .collect();
        let means = means?;
        if !means.iter().all(|it| *it > policy.target) {
            return None;
        }
        let last = means.first()?;
        let wanted = (standing.in_service as f64 * last / policy.target).ceil();
        let desired = (wanted as usize).min(self.scaling.max);
        let why = format!("{}: {last:.1} above {}", policy.name, policy.target);
        (desired > standing.desired).then_some(Decision { desired, why })
    }

    fn step(
        &self,
        policy: &Stepping,
        now_ms: u64,
        standing: Standing,
        mean: Mean<'_>,
    ) -> Result<Option<Decision>, String> {
        let alarm = &policy.alarm;
        let period = self.scaling.millis(alarm.period_s);
        for n in 0..alarm.periods {
            let Some(from) = now_ms.checked_sub((n + 1) * period) else {
                return Ok(None);
            };
            let values = alarm.metrics.iter().filter_map(|(name, metric)| {
                Some((name.clone(), mean(metric, from, from + period)?))
            });
            let values: BTreeMap<String, f64> = values.collect();
            let value = evaluate(&alarm.expression, &values)?;
            // Missing data is not breaching.
            if value.is_none_or(|value| value < alarm.threshold) {
                return Ok(None);
            }
        }
        let wanted = standing.desired as i64 + policy.adjustment;
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let desired = wanted.clamp(self.scaling.min, self.scaling.max);
        let why = format!("{}: its alarm holds", policy.name);
        Ok((desired != standing.desired).then_some(Decision { desired, why }))
    }
}
