//! The group: it starts instances and takes them away, through its hooks, as its policies want.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::balancer::Doors;
use super::plan::{Metric, Scaling};
use super::scaler::{Decision, Scaler, Standing};
use crate::emulated::cloud::{Cloud, Node};
use crate::emulated::network::Network;
use crate::emulated::services::Group as Member;
use crate::process::Process;

/// Its name.
const NAME: &str = "example-nodes";
/// What an instance of it is told by its metadata.
const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";
/// Its hooks, as the plan has them.
const READY: &str = "ready";
const DRAIN: &str = "drain";
/// Percent of the processor that every instance is said to use: nothing here tells one instance's
/// share of the machine.
const CPU: f64 = 5.0;

/// How long things took.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// From the decision to the end of the launch hook's wait, for each instance.
    pub to_serve: Vec<Duration>,
    /// From the notice to the end of the terminate hook's wait, for each instance.
    pub to_go: Vec<Duration>,
    /// The most that were in service at once.
    pub most: usize,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    InService,
    Terminating,
}

struct Instance {
    id: String,
    /// Which doors it has.
    place: usize,
    stage: Stage,
    since: Instant,
    node: Node,
    watch: Process,
}

/// A running group. All its instances are killed when this is dropped.
pub struct Group {
    cloud: Cloud,
    network: Network,
    user_data: String,
    doors: Vec<Doors>,
    heartbeat_seconds: u32,
    minute: Duration,
    scaler: Scaler,
    desired: usize,
    instances: Vec<Instance>,
    launched: u8,
    began: Instant,
    began_ms: u64,
    evaluated: Instant,
    /// How many were in service, and since when in milliseconds.
    in_service: Vec<(u64, usize)>,
    times: Times,
    said: Vec<String>,
}

impl Group {
    /// Starts a group with as many nodes as there are to be at least. Doors are as many as there
    /// may be at most.
    ///
    /// # Errors
    /// When a node cannot be launched.
    pub fn start(scaling: &Scaling, user_data: &str, doors: Vec<Doors>) -> Result<Group> {
        ensure!(doors.len() >= scaling.max, "{} doors", doors.len());
        let mut group = Group {
            cloud: Cloud::start()?,
            network: Network::default(),
            user_data: user_data.to_owned(),
            doors,
            heartbeat_seconds: scaling.heartbeat_seconds,
            minute: Duration::from_millis(scaling.minute_ms),
            scaler: Scaler::new(scaling.clone()),
            desired: scaling.min,
            instances: Vec::new(),
            launched: 0,
            began: now(),
            began_ms: wall_ms(),
            evaluated: now(),
            in_service: vec![(0, 0)],
            times: Times::default(),
            said: Vec::new(),
        };
        group.tick()?;
        Ok(group)
    }

    /// Instances in service; none of them may be coming or going.
    #[must_use]
    pub fn settled_at(&self) -> Option<usize> {
        let settled = self.instances.iter().all(|it| it.stage == Stage::InService);
        (settled && self.instances.len() == self.desired).then_some(self.desired)
    }

    /// The control socket of a node that is in service.
    #[must_use]
    pub fn control(&self) -> Option<PathBuf> {
        let serving = self
            .instances
            .iter()
            .find(|it| it.stage == Stage::InService);
        serving.map(|it| it.node.control())
    }

    /// How long things took so far.
    #[must_use]
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// What it has done, a line each, with seconds since its start.
    #[must_use]
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// What all nodes and watches have printed.
    #[must_use]
    pub fn log(&mut self) -> String {
        let one = |it: &mut Instance| {
            let (node, watch) = (it.node.process().log(), it.watch.log());
            format!("{} ({:?}):\n{node}\n{watch}\n", it.id, it.stage)
        };
        self.instances.iter_mut().map(one).collect()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When an instance cannot be launched, or has ended although nobody wanted it to.
    pub fn tick(&mut self) -> Result<()> {
        self.look()?;
        if self.evaluated.elapsed() >= self.minute {
            self.evaluated = now();
            if let Some(decision) = self.decide()? {
                let (from, to) = (self.desired, decision.desired);
                self.say(&format!("{from} -> {to}: {}", decision.why));
                self.desired = to;
            }
        }
        while self.staying() < self.desired {
            self.launch()?;
        }
        while self.staying() > self.desired {
            self.take_away()?;
        }
        self.count();
        Ok(())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn say(&mut self, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.said.push(format!("{seconds:6.1} s  {what}"));
    }

    fn staying(&self) -> usize {
        let staying = self.instances.iter();
        staying.filter(|it| it.stage != Stage::Terminating).count()
    }

    fn serving(&self) -> usize {
        let serving = self.instances.iter();
        serving.filter(|it| it.stage == Stage::InService).count()
    }

    fn count(&mut self) {
        let count = self.serving();
        if self
            .in_service
            .last()
            .is_none_or(|(_, last)| *last != count)
        {
            let at = self.millis();
            self.in_service.push((at, count));
        }
        self.times.most = self.times.most.max(count);
    }

    fn decide(&mut self) -> Result<Option<Decision>> {
        let standing = Standing {
            desired: self.desired,
            in_service: self.serving(),
            busy: self.settled_at().is_none(),
        };
        let at = self.millis();
        let figures = self.cloud.services().metrics();
        let mean = |metric: &Metric, from: u64, to: u64| match metric.namespace.as_str() {
            "AWS/EC2" => Some(CPU),
            "AWS/AutoScaling" => Some(mean_of_steps(&self.in_service, from, to)),
            _ => {
                let is = |it: &&crate::emulated::services::Metric| {
                    let at = it.at_ms.saturating_sub(self.began_ms);
                    it.namespace == metric.namespace
                        && it.name == metric.name
                        && it.dimensions == metric.dimensions
                        && (from..to).contains(&at)
                };
                let values: Vec<f64> = figures.iter().filter(is).map(|it| it.value).collect();
                let sum: f64 = values.iter().sum();
                (!values.is_empty()).then(|| sum / values.len() as f64)
            }
        };
        let decided = self.scaler.decide(at, standing, &mean);
        decided.map_err(|error| anyhow!(error))
    }

    fn launch(&mut self) -> Result<()> {
        let taken = |place: &usize| self.instances.iter().all(|it| it.place != *place);
        let place = (0..self.doors.len()).find(taken);
        let place = place.context("every door is taken: an instance is still going")?;
        self.launched += 1;
        let number = self.launched;
        let id = format!("i-{number:017x}");
        self.cloud.services().put_member(Member {
            name: NAME.into(),
            instance: id.clone(),
            states: vec!["Pending:Wait"],
            hooks: vec![READY],
            heartbeat_seconds: self.heartbeat_seconds,
            ..Member::default()
        });
        let doors = self.doors[place];
        let (network, cloud) = (&self.network, &self.cloud);
        let node = Node::launch_behind(network, number, cloud, &id, &self.user_data, doors)?;
        // As its unit: it is there before there is a configuration.
        let watch = node.watch()?;
        self.say(&format!("{id} is launched"));
        self.instances.push(Instance {
            id,
            place,
            stage: Stage::Pending,
            since: now(),
            node,
            watch,
        });
        Ok(())
    }

    /// The oldest one goes, if others serve.
    fn take_away(&mut self) -> Result<()> {
        let mut instances = self.instances.iter_mut();
        let oldest = instances.find(|it| it.stage == Stage::InService);
        let it = oldest.context("none of those that there are can be taken away")?;
        self.cloud.services().change(&it.id, |member| {
            member.states = vec!["Terminating:Wait"];
        });
        it.node.metadata().set(LIFECYCLE, Some(b"Terminated"));
        it.stage = Stage::Terminating;
        it.since = now();
        let words = format!("{} is to go", it.id);
        self.say(&words);
        Ok(())
    }

    /// What instances have told the group.
    fn look(&mut self) -> Result<()> {
        let mut said = Vec::new();
        let mut gone = Vec::new();
        for (at, it) in self.instances.iter_mut().enumerate() {
            let member = self.cloud.services().member(&it.id).unwrap_or_default();
            let heard = |hook: &str| member.completed.iter().any(|(name, _)| name == hook);
            let seconds = it.since.elapsed();
            match it.stage {
                Stage::Pending if heard(READY) => {
                    let result = &member.completed[0].1;
                    ensure!(
                        result == "CONTINUE",
                        "{}: {result}",
                        it.node.process().log()
                    );
                    it.stage = Stage::InService;
                    self.times.to_serve.push(seconds);
                    let words = format!(
                        "{} is in service, {:.1} s after",
                        it.id,
                        seconds.as_secs_f64()
                    );
                    said.push(words);
                }
                Stage::Terminating if heard(DRAIN) => {
                    self.times.to_go.push(seconds);
                    let beats = member.heartbeats;
                    said.push(format!(
                        "{} is gone, {:.1} s after, {beats} heartbeats",
                        it.id,
                        seconds.as_secs_f64()
                    ));
                    gone.push(at);
                }
                Stage::Pending => {
                    let runs = it.node.process().runs()?;
                    ensure!(runs, "{} has ended:\n{}", it.id, it.node.process().log());
                }
                Stage::InService if !it.node.process().runs()? => {
                    // Others may find a node silent for too long on a busy machine; its service
                    // manager starts it again.
                    it.node.launch_again()?;
                    said.push(format!("{} has ended, and is started anew", it.id));
                }
                Stage::InService | Stage::Terminating => {}
            }
            ensure!(
                it.watch.runs()?,
                "the watch of {} has ended:\n{}",
                it.id,
                it.watch.log()
            );
        }
        for at in gone.into_iter().rev() {
            let mut instance = self.instances.remove(at);
            let ended = !instance.node.process().runs()?;
            ensure!(
                ended,
                "the group was told before the server of {} had ended",
                instance.id
            );
            self.cloud.services().remove_member(&instance.id);
        }
        for words in said {
            self.say(&words);
        }
        Ok(())
    }
}

/// The mean of a value that changes at these times, between two times.
fn mean_of_steps(steps: &[(u64, usize)], from: u64, to: u64) -> f64 {
    let ends = steps.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
    let sum: f64 = steps
        .iter()
        .zip(ends)
        .map(|((begin, value), end)| {
            let time = end.min(to).saturating_sub((*begin).max(from));
            time as f64 * *value as f64
        })
        .sum();
    sum / to.saturating_sub(from).max(1) as f64
}

#[expect(clippy::disallowed_methods, reason = "real programs take real time")]
fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, in which figures are told.
#[expect(clippy::disallowed_methods, reason = "real programs take real time")]
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::mean_of_steps;

    #[test]
    fn means_of_what_changes() {
        let steps = [(0, 0), (100, 1), (200, 3)];
        for ((from, to), mean) in [((100, 200), 1.0), ((150, 250), 2.0), ((300, 400), 3.0)] {
            assert!(
                (mean_of_steps(&steps, from, to) - mean).abs() < 1e-9,
                "{from}"
            );
        }
    }
}
