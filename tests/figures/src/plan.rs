//! What `terraform apply` of `terraform/examples/minimal` makes, as far as it costs or bounds.
//!
//! The plan's figures stand in `resources.txt`, because Terraform is not everywhere; where it is, a
//! test makes the plan and compares.

use serde_json::Value;

const RESOURCES: &str = include_str!("../resources.txt");

/// The figures of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// Type of the first choice of instances.
    pub instance: String,
    /// Nodes at least.
    pub nodes_min: f64,
    /// Nodes at most.
    pub nodes_max: f64,
    /// Sessions of a node beyond which another one is added.
    pub sessions_per_node: f64,
    /// GB of a node's volume.
    pub volume_gb: f64,
    /// Network load balancers.
    pub balancers: f64,
    /// Target groups, with each of which every node is registered.
    pub target_groups: f64,
    /// Zones, in each of which nodes are and the balancer has an address.
    pub zones: f64,
    /// Metrics that alarms look at.
    pub alarm_metrics: f64,
    /// Policies of target tracking, each of which makes two alarms of its own.
    pub trackings: f64,
    /// Dashboards.
    pub dashboards: f64,
    /// Nodes report each minute, which costs.
    pub monitored: bool,
    /// Tables are backed up all the time.
    pub backed_up: bool,
}

impl Resources {
    /// Those of the file.
    ///
    /// # Errors
    /// What the file does not have.
    pub fn of_file() -> Result<Self, String> {
        let text = |name: &str| {
            let line = RESOURCES.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.strip_prefix(": "));
            value.ok_or(format!("resources.txt has no `{name}`"))
        };
        let number = |name: &str| text(name)?.parse::<f64>().map_err(|_| name.to_owned());
        Ok(Self {
            instance: text("instance")?.to_owned(),
            nodes_min: number("nodes at least")?,
            nodes_max: number("nodes at most")?,
            sessions_per_node: number("sessions a node")?,
            volume_gb: number("GB of a volume")?,
            balancers: number("balancers")?,
            target_groups: number("target groups")?,
            zones: number("zones")?,
            alarm_metrics: number("metrics of alarms")?,
            trackings: number("target tracking policies")?,
            dashboards: number("dashboards")?,
            monitored: text("detailed monitoring")? == "yes",
            backed_up: text("point-in-time recovery")? == "yes",
        })
    }

    /// Those of a plan in Terraform's JSON.
    ///
    /// # Errors
    /// What the plan does not have.
    pub fn of_plan(plan: &Value) -> Result<Self, String> {
        let group = only(plan, "aws_autoscaling_group")?;
        let template = only(plan, "aws_launch_template")?;
        let volume = &template["block_device_mappings"][0]["ebs"][0];
        let policies = all(plan, "aws_autoscaling_policy");
        let tracking = |policy: &&Value| policy["policy_type"] == "TargetTrackingScaling";
        let targets = policies.iter().filter_map(|policy| {
            let tracking = &policy["target_tracking_configuration"][0];
            let custom = tracking["customized_metric_specification"][0]["metric_name"].as_str();
            (custom == Some("Sessions")).then_some(&tracking["target_value"])
        });
        let metrics = |alarm: &Value| {
            let queries = alarm["metric_query"].as_array();
            let asks = |query: &&Value| query["metric"].as_array().is_some_and(|it| !it.is_empty());
            let count = queries.map_or(0, |it| it.iter().filter(asks).count());
            count.max(1)
        };
        let alarms = all(plan, "aws_cloudwatch_metric_alarm");
        let backed_up = |table: &Value| table["point_in_time_recovery"][0]["enabled"] == true;
        let count = |kind: &str| all(plan, kind).len() as f64;
        Ok(Self {
            instance: template["instance_type"]
                .as_str()
                .ok_or("no instance type")?
                .to_owned(),
            nodes_min: number(&group["min_size"])?,
            nodes_max: number(&group["max_size"])?,
            sessions_per_node: targets
                .map(number)
                .next()
                .ok_or("no policy by sessions")??,
            volume_gb: number(&volume["volume_size"])?,
            balancers: count("aws_lb"),
            target_groups: count("aws_lb_target_group"),
            zones: count("aws_subnet"),
            alarm_metrics: alarms.into_iter().map(metrics).sum::<usize>() as f64,
            trackings: policies.iter().filter(|it| tracking(it)).count() as f64,
            dashboards: count("aws_cloudwatch_dashboard"),
            monitored: template["monitoring"][0]["enabled"] == true,
            backed_up: all(plan, "aws_dynamodb_table").into_iter().all(backed_up),
        })
    }

    /// As the file has them.
    #[must_use]
    pub fn lines(&self) -> String {
        let word = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "instance: {}\nnodes at least: {}\nnodes at most: {}\nsessions a node: {}\n\
             GB of a volume: {}\nbalancers: {}\ntarget groups: {}\nzones: {}\n\
             metrics of alarms: {}\ntarget tracking policies: {}\ndashboards: {}\n\
             detailed monitoring: {}\npoint-in-time recovery: {}\n",
            self.instance,
            self.nodes_min,
            self.nodes_max,
            self.sessions_per_node,
            self.volume_gb,
            self.balancers,
            self.target_groups,
            self.zones,
            self.alarm_metrics,
            self.trackings,
            self.dashboards,
            word(self.monitored),
            word(self.backed_up),
        )
    }
}

/// All resources of a type, as they will be.
fn all<'a>(plan: &'a Value, kind: &str) -> Vec<&'a Value> {
    let changes = plan["resource_changes"].as_array().into_iter().flatten();
    let its = changes.filter(|change| change["type"] == kind && change["mode"] == "managed");
    its.map(|change| &change["change"]["after"]).collect()
}

fn only<'a>(plan: &'a Value, kind: &str) -> Result<&'a Value, String> {
    match all(plan, kind).as_slice() {
        [one] => Ok(one),
        all => Err(format!("{} of {kind}", all.len())),
    }
}

/// A number, which Terraform may write as text.
fn number(value: &Value) -> Result<f64, String> {
    let text = value.as_str().map(str::parse::<f64>);
    let text = text.and_then(Result::ok);
    let number = value.as_f64().or(text);
    number.ok_or(format!("`{value}` is no number"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The file is the plan. `UPDATE_GOLDEN=1` writes it anew.
    #[test]
    fn the_file_is_what_terraform_plans() {
        let Some(plan) = xtask::terraform::minimal("figures").unwrap() else {
            println!("skipped: no program `terraform` here");
            return;
        };
        let lines = Resources::of_plan(&plan).unwrap().lines();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &lines).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(there, lines, "UPDATE_GOLDEN=1 rewrites resources.txt");
    }

    #[test]
    fn the_file_reads_as_it_is_written() {
        assert_eq!(Resources::of_file().unwrap().lines(), RESOURCES);
    }
}
