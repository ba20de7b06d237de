use serde_json::{Value, json};

use super::plan::{Metric, Refreshing, Scaling};
use super::scaler::{Scaler, Standing};

/// What is read of a plan of the module, with 12 sessions a node.
fn plan() -> Value {
    let hook = |name: &str, seconds: u32| json!({ "name": name, "heartbeat_timeout": seconds });
    let metric = |namespace: &str, name: &str, dimensions: Value| {
        json!([{ "namespace": namespace, "metric_name": name, "dimensions": dimensions,
                 "period": 300, "stat": "Average" }])
    };
    let after = |kind: &str, after: Value| json!({ "type": kind, "change": { "after": after } });
    let sessions = json!({ "Domain": "localhost" });
    json!({ "resource_changes": [
        after("aws_autoscaling_group", json!({
            "min_size": 1, "max_size": 3,
            "initial_lifecycle_hook": [hook("ready", 300), hook("drain", 600)],
        })),
        after("terraform_data", json!({ "input": { "failed_launches": 3, "preferences": PREFERENCES } })),
        after("aws_autoscaling_policy", json!({
            "name": "chat-sessions", "policy_type": "TargetTrackingScaling",
            "target_tracking_configuration": [{
                "disable_scale_in": true, "target_value": 12,
                "customized_metric_specification": [{
                    "namespace": "Cirrus", "metric_name": "Sessions",
                    "metric_dimension": [{ "name": "Domain", "value": "localhost" }],
                }],
            }],
        })),
        after("aws_autoscaling_policy", json!({
            "name": "chat-cpu", "policy_type": "TargetTrackingScaling",
            "target_tracking_configuration": [{
                "disable_scale_in": true, "target_value": 60,
                "customized_metric_specification": [],
                "predefined_metric_specification": [
                    { "predefined_metric_type": "ASGAverageCPUUtilization" }
                ],
            }],
        })),
        after("aws_autoscaling_policy", json!({
            "name": "chat-fewer", "policy_type": "SimpleScaling",
            "adjustment_type": "ChangeInCapacity", "scaling_adjustment": -1, "cooldown": 300,
        })),
        after("aws_cloudwatch_metric_alarm", json!({
            "alarm_name": "chat-fewer", "evaluation_periods": 1, "threshold": 1,
            "comparison_operator": "GreaterThanOrEqualToThreshold",
            "treat_missing_data": "notBreaching",
            "metric_query": [
                { "id": "fewer", "return_data": true, "expression":
                  "IF(nodes > 1 AND sessions * nodes / (nodes - 1) < 9.6 \
                   AND cpu * nodes / (nodes - 1) < 48, 1, 0)" },
                { "id": "nodes", "metric": metric("AWS/AutoScaling", "GroupInServiceInstances", json!({})) },
                { "id": "sessions", "metric": metric("Cirrus", "Sessions", sessions) },
                { "id": "cpu", "metric": metric("AWS/EC2", "CPUUtilization", json!({})) },
            ],
        })),
    ] })
}

/// Those of a refresh, as the module hands them to its upgrade.
const PREFERENCES: &str = r#"{"AutoRollback":true,"CheckpointDelay":900,"CheckpointPercentages":[1,100],
    "InstanceWarmup":90,"MaxHealthyPercentage":110,"MinHealthyPercentage":100,"SkipMatching":true}"#;

/// A minute takes as long as it takes.
const MINUTE: u64 = 60_000;

fn scaling() -> Scaling {
    Scaling::of_plan(&plan(), MINUTE).unwrap()
}

/// A group without instances of its own: they come and go at once, or not at all.
struct World {
    scaler: Scaler,
    now_ms: u64,
    nodes: usize,
    /// Sessions of all nodes, if they are told.
    sessions: Option<f64>,
}

impl World {
    /// What is wanted in this minute, and does it.
    fn minute(&mut self) -> Option<usize> {
        self.now_ms += MINUTE;
        let standing = Standing {
            desired: self.nodes,
            in_service: self.nodes,
            busy: false,
        };
        let mean = |metric: &Metric, _: u64, _: u64| match metric.namespace.as_str() {
            "AWS/EC2" => Some(5.0),
            "AWS/AutoScaling" => Some(self.nodes as f64),
            _ => Some(self.sessions? / self.nodes as f64),
        };
        let decision = self.scaler.decide(self.now_ms, standing, &mean).unwrap();
        self.nodes = decision.as_ref().map_or(self.nodes, |it| it.desired);
        decision.map(|it| it.desired)
    }

    fn minutes(&mut self, count: usize) -> Vec<(usize, usize)> {
        let minutes = (1..=count).filter_map(|n| Some((n, self.minute()?)));
        minutes.collect()
    }
}

/// The load rises: as many nodes as it takes, at once, and no more than allowed. It falls: one node
/// goes at a time, each after the cooldown.
#[test]
fn nodes_come_at_once_and_go_one_by_one() {
    let mut world = World {
        scaler: Scaler::new(scaling()),
        now_ms: 0,
        nodes: 1,
        sessions: Some(8.0),
    };
    assert_eq!(world.minutes(10), []);
    world.sessions = Some(30.0);
    assert_eq!(world.minutes(3), [(1, 3)]);
    world.sessions = Some(100.0);
    assert_eq!(world.minutes(5), [], "it has all that it may have");
    world.sessions = Some(8.0);
    assert_eq!(world.minutes(20), [(1, 2), (7, 1)]);
    assert_eq!(world.minutes(20), [], "it has as few as it may have");
}

/// While nobody tells how many sessions there are, nothing changes.
#[test]
fn nothing_is_concluded_from_silence() {
    let mut world = World {
        scaler: Scaler::new(scaling()),
        now_ms: 0,
        nodes: 3,
        sessions: None,
    };
    assert_eq!(world.minutes(30), []);
}

/// Instances that come or go are waited for before one more goes, not before more come.
#[test]
fn what_is_under_way_is_waited_for() {
    let mut scaler = Scaler::new(scaling());
    let mut decide = |sessions: f64, in_service: usize, desired: usize| {
        let standing = Standing {
            desired,
            in_service,
            busy: true,
        };
        let mean = |metric: &Metric, _: u64, _: u64| match metric.namespace.as_str() {
            "AWS/EC2" => Some(5.0),
            "AWS/AutoScaling" => Some(in_service as f64),
            _ => Some(sessions),
        };
        let decision = scaler.decide(100 * MINUTE, standing, &mean).unwrap();
        decision.map(|it| it.desired)
    };
    assert_eq!(decide(1.0, 2, 3), None);
    assert_eq!(decide(30.0, 1, 2), Some(3));
    assert_eq!(decide(18.0, 2, 3), None, "those that come are enough");
}

#[test]
fn a_refresh_is_as_the_plan_has_it() {
    let expected = Refreshing {
        most_percent: 110,
        warmup_s: 90,
        checkpoints: vec![1, 100],
        delay_s: 900,
        failed_launches: 3,
    };
    assert_eq!(scaling().refreshing, expected);
}

#[test]
fn plans_that_are_not_played_are_named() {
    for (at, name, value, words) in [
        (
            2,
            "policy_type",
            json!("StepScaling"),
            "`StepScaling` is not played",
        ),
        (
            4,
            "adjustment_type",
            json!("ExactCapacity"),
            "chat-fewer does not add or take away",
        ),
        (5, "alarm_name", json!("other"), "chat-fewer has no alarm"),
        (
            5,
            "treat_missing_data",
            json!("breaching"),
            "the alarm chat-fewer compares otherwise",
        ),
        (
            0,
            "initial_lifecycle_hook",
            json!([]),
            "there is no hook `ready`",
        ),
        (0, "max_size", json!(null), "`max_size` is no number in"),
        (1, "input", json!({}), "`preferences` is no text in"),
        (
            1,
            "input",
            json!({ "failed_launches": 3, "preferences": PREFERENCES.replace("110", "100") }),
            "such a refresh is not played",
        ),
    ] {
        let mut plan = plan();
        plan["resource_changes"][at]["change"]["after"][name] = value;
        let error = Scaling::of_plan(&plan, MINUTE).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
