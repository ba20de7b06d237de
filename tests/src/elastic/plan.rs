//! The scaling policies in the JSON of a plan: Terraform's plan representation, of which
//! `resource_changes` is read.

use serde_json::Value;

/// Seconds of a metric that target tracking looks at.
const TRACKING_SECONDS: u64 = 60;

/// Why a plan can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(pub String);

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the plan: {}", self.0)
    }
}

impl std::error::Error for PlanError {}

/// A metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Names and values, `Domain=example.com`. What only the group's making will tell is left out.
    pub dimensions: Vec<String>,
}

/// Target tracking: nodes are added while the mean of a metric is above its target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tracking {
    pub(super) name: String,
    pub(super) metric: Metric,
    pub(super) target: f64,
    pub(super) period_s: u64,
}

/// A step up or down when an alarm holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stepping {
    pub(super) name: String,
    pub(super) adjustment: i64,
    pub(super) cooldown_s: u64,
    pub(super) alarm: Alarm,
}

/// An alarm on an expression over metrics.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alarm {
    pub(super) expression: String,
    /// By the names that the expression has for them.
    pub(super) metrics: Vec<(String, Metric)>,
    pub(super) threshold: f64,
    pub(super) periods: u64,
    pub(super) period_s: u64,
}

/// How an instance refresh goes: what is read of its preferences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshing {
    /// Percent of the nodes that there may be, with those that come.
    pub most_percent: u64,
    /// Seconds for which a node in service is not counted yet.
    pub warmup_s: u64,
    /// Percent of new nodes at which it stops for a while; the last one is its end.
    pub checkpoints: Vec<u64>,
    /// Seconds for which it stops.
    pub delay_s: u64,
    /// Launches that may fail before it has failed.
    pub failed_launches: u64,
}

/// What a group does by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Nodes at least.
    pub min: usize,
    /// Nodes at most.
    pub max: usize,
    /// Seconds that the terminate hook waits for a heartbeat.
    pub heartbeat_seconds: u32,
    /// Milliseconds that a minute of the policies takes here.
    pub minute_ms: u64,
    /// How a group's nodes are replaced by those of another version.
    pub refreshing: Refreshing,
    pub(super) tracking: Vec<Tracking>,
    pub(super) stepping: Vec<Stepping>,
}

impl Scaling {
    /// Reads a plan.
    ///
    /// # Errors
    /// Which part of it is not as expected.
    pub fn of_plan(plan: &Value, minute_ms: u64) -> Result<Scaling, PlanError> {
        let group = only(plan, "aws_autoscaling_group")?;
        let hooks = array(group, "initial_lifecycle_hook");
        let hook = |name: &str| {
            let found = hooks.iter().find(|hook| hook["name"] == name);
            found.ok_or_else(|| PlanError(format!("there is no hook `{name}`")))
        };
        hook("ready")?;
        let policies = all(plan, "aws_autoscaling_policy");
        let mut scaling = Scaling {
            min: number(group, "min_size")? as usize,
            max: number(group, "max_size")? as usize,
            heartbeat_seconds: number(hook("drain")?, "heartbeat_timeout")? as u32,
            minute_ms,
            refreshing: refreshing(plan)?,
            tracking: Vec::new(),
            stepping: Vec::new(),
        };
        for policy in policies {
            let name = text(policy, "name")?;
            match text(policy, "policy_type")?.as_str() {
                "TargetTrackingScaling" => scaling.tracking.push(tracking(name, policy)?),
                "SimpleScaling" => scaling.stepping.push(stepping(name, policy, plan)?),
                other => return Err(PlanError(format!("`{other}` is not played"))),
            }
        }
        Ok(scaling)
    }

    pub(super) fn millis(&self, seconds: u64) -> u64 {
        seconds * self.minute_ms / 60
    }
}

/// What the module hands to its upgrade, which starts instance refreshes.
fn refreshing(plan: &Value) -> Result<Refreshing, PlanError> {
    let upgrade = &only(plan, "terraform_data")?["input"];
    let preferences = text(upgrade, "preferences")?;
    let preferences: Value = serde_json::from_str(&preferences)
        .map_err(|error| PlanError(format!("the preferences of a refresh: {error}")))?;
    let whole = |name: &str| number(&preferences, name).map(|it| it as u64);
    let checkpoints = array(&preferences, "CheckpointPercentages").iter();
    let it = Refreshing {
        most_percent: whole("MaxHealthyPercentage")?,
        warmup_s: whole("InstanceWarmup")?,
        checkpoints: checkpoints.filter_map(Value::as_u64).collect(),
        delay_s: whole("CheckpointDelay")?,
        failed_launches: number(upgrade, "failed_launches")? as u64,
    };
    let known = whole("MinHealthyPercentage")? == 100
        && it.most_percent > 100
        && it.checkpoints.last() == Some(&100)
        && preferences["AutoRollback"] == true
        && preferences["SkipMatching"] == true;
    known
        .then_some(it)
        .ok_or_else(|| PlanError("such a refresh is not played".into()))
}

fn tracking(name: String, policy: &Value) -> Result<Tracking, PlanError> {
    let tracking = first(policy, "target_tracking_configuration")?;
    if tracking["disable_scale_in"] != true {
        return Err(PlanError(format!("{name} also takes nodes away")));
    }
    let metric = match array(tracking, "customized_metric_specification") {
        [custom] => {
            let dimensions = array(custom, "metric_dimension").iter();
            let pair = |it: &Value| Ok(format!("{}={}", text(it, "name")?, text(it, "value")?));
            Metric {
                namespace: text(custom, "namespace")?,
                name: text(custom, "metric_name")?,
                dimensions: dimensions.map(pair).collect::<Result<_, PlanError>>()?,
            }
        }
        _ => {
            let predefined = first(tracking, "predefined_metric_specification")?;
            if predefined["predefined_metric_type"] != "ASGAverageCPUUtilization" {
                return Err(PlanError(format!("{name} tracks something unheard of")));
            }
            Metric {
                namespace: "AWS/EC2".into(),
                name: "CPUUtilization".into(),
                dimensions: Vec::new(),
            }
        }
    };
    Ok(Tracking {
        name,
        metric,
        target: number(tracking, "target_value")?,
        period_s: TRACKING_SECONDS,
    })
}

/// A simple policy and the alarm of the same name, which is what triggers it: the identifier that
/// ties the two is not known before they are made.
fn stepping(name: String, policy: &Value, plan: &Value) -> Result<Stepping, PlanError> {
    if policy["adjustment_type"] != "ChangeInCapacity" {
        return Err(PlanError(format!("{name} does not add or take away")));
    }
    let alarms = all(plan, "aws_cloudwatch_metric_alarm");
    let alarm = alarms
        .into_iter()
        .find(|it| it["alarm_name"] == name.as_str());
    let alarm = alarm.ok_or_else(|| PlanError(format!("{name} has no alarm")))?;
    Ok(Stepping {
        adjustment: number(policy, "scaling_adjustment")? as i64,
        cooldown_s: number(policy, "cooldown")? as u64,
        alarm: self::alarm(&name, alarm)?,
        name,
    })
}

fn alarm(name: &str, alarm: &Value) -> Result<Alarm, PlanError> {
    let known = alarm["comparison_operator"] == "GreaterThanOrEqualToThreshold"
        && alarm["treat_missing_data"] == "notBreaching";
    if !known {
        return Err(PlanError(format!("the alarm {name} compares otherwise")));
    }
    let queries = array(alarm, "metric_query");
    let result = queries.iter().find(|it| it["return_data"] == true);
    let result = result.ok_or_else(|| PlanError(format!("the alarm {name} has no result")))?;
    let mut metrics = Vec::new();
    let mut period_s = 0;
    for query in queries.iter().filter(|it| it["return_data"] != true) {
        let metric = first(query, "metric")?;
        if metric["stat"] != "Average" {
            return Err(PlanError(format!("the alarm {name} has no mean")));
        }
        period_s = number(metric, "period")? as u64;
        let pairs = metric["dimensions"].as_object().into_iter().flatten();
        let pair = |(name, value): (&String, &Value)| Some(format!("{name}={}", value.as_str()?));
        let it = Metric {
            namespace: text(metric, "namespace")?,
            name: text(metric, "metric_name")?,
            dimensions: pairs.filter_map(pair).collect(),
        };
        metrics.push((text(query, "id")?, it));
    }
    Ok(Alarm {
        expression: text(result, "expression")?,
        metrics,
        threshold: number(alarm, "threshold")?,
        periods: number(alarm, "evaluation_periods")? as u64,
        period_s,
    })
}

/// What all resources of a type will be.
fn all<'a>(plan: &'a Value, kind: &str) -> Vec<&'a Value> {
    let changes = array(plan, "resource_changes").iter();
    let of_kind = changes.filter(|it| it["type"] == kind);
    of_kind.map(|it| &it["change"]["after"]).collect()
}

fn only<'a>(plan: &'a Value, kind: &str) -> Result<&'a Value, PlanError> {
    match all(plan, kind).as_slice() {
        [it] => Ok(it),
        them => Err(PlanError(format!("{} resources {kind}", them.len()))),
    }
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn first<'a>(value: &'a Value, name: &str) -> Result<&'a Value, PlanError> {
    let missing = || PlanError(format!("`{name}` is missing in {value}"));
    array(value, name).first().ok_or_else(missing)
}

fn text(value: &Value, name: &str) -> Result<String, PlanError> {
    let missing = || PlanError(format!("`{name}` is no text in {value}"));
    value[name].as_str().map(str::to_owned).ok_or_else(missing)
}

fn number(value: &Value, name: &str) -> Result<f64, PlanError> {
    let missing = || PlanError(format!("`{name}` is no number in {value}"));
    value[name].as_f64().ok_or_else(missing)
}
