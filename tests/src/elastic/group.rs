//! The group: it starts instances and takes them away, through its hooks, as its policies want, and
//! replaces them by those of another version of its launch template.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::balancer::Doors;
use super::plan::{Metric, Refreshing, Scaling};
use super::records::publish;
use super::refresh::{Member as Standing, Outcome, Refresh, Stage, Step};
use super::scaler::{self, Decision, Scaler};
use crate::emulated::cloud::{Cloud, Node, Programs};
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

/// Minutes for which a node in service fails its health check, before an alarm is raised. At AWS it
/// is fewer; but here a minute is short, and a node that a busy machine has lost comes back in real
/// time.
const UNHEALTHY: u32 = 15;

/// How long things took.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// From the decision to the end of the launch hook's wait, for each instance.
    pub to_serve: Vec<Duration>,
    /// From the notice to the end of the terminate hook's wait, for each instance.
    pub to_go: Vec<Duration>,
    /// The most that were in service at once.
    pub most: usize,
    /// The fewest that were, since there were as many as there had to be.
    pub fewest: usize,
    /// Launches that were given up.
    pub given_up: usize,
}

/// A version of a launch template.
#[derive(Debug, Clone, Default)]
pub struct Version {
    /// The user-data of its instances.
    pub user_data: String,
    /// What runs on them.
    pub programs: Programs,
}

struct Instance {
    id: String,
    /// Which version it is of, from 0.
    version: usize,
    /// Which doors it has.
    place: usize,
    stage: Stage,
    since: Instant,
    /// Minutes in a row in which it failed its health check.
    unhealthy: u32,
    node: Node,
    watch: Process,
}

/// A running group. All its instances are killed when this is dropped.
pub struct Group {
    cloud: Cloud,
    network: Network,
    /// All versions of the launch template.
    versions: Vec<Version>,
    /// The one that is saved in the group.
    version: usize,
    refreshing: Refreshing,
    refresh: Option<Refresh>,
    refreshed: Option<Outcome>,
    /// Where the records of its nodes are kept.
    records: Option<PathBuf>,
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
    pub fn start(scaling: &Scaling, version: Version, doors: Vec<Doors>) -> Result<Group> {
        ensure!(doors.len() >= scaling.max, "{} doors", doors.len());
        let mut group = Group {
            cloud: Cloud::start()?,
            network: Network::default(),
            versions: vec![version],
            version: 0,
            refreshing: scaling.refreshing.clone(),
            refresh: None,
            refreshed: None,
            records: None,
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

    /// Keeps the records of its nodes in this file: as often as the policies are evaluated.
    pub fn publish_to(&mut self, file: PathBuf) {
        self.records = Some(file);
    }

    /// Has its nodes replaced by those of a new version.
    ///
    /// # Errors
    /// When that is under way already.
    pub fn upgrade(&mut self, version: Version) -> Result<()> {
        ensure!(self.refresh.is_none(), "a refresh is under way");
        self.versions.push(version);
        let ends = (self.version, self.versions.len() - 1);
        let minute_ms = u64::try_from(self.minute.as_millis())?;
        self.refresh = Some(Refresh::new(self.refreshing.clone(), minute_ms, ends));
        self.refreshed = None;
        self.say("a refresh begins");
        Ok(())
    }

    /// How the last refresh has ended; none while it is under way.
    #[must_use]
    pub fn refreshed(&self) -> Option<&Outcome> {
        self.refreshed.as_ref()
    }

    /// The version of each node that is there, from 0 for that of the beginning.
    #[must_use]
    pub fn versions(&self) -> Vec<usize> {
        self.instances.iter().map(|it| it.version).collect()
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
            if self.refresh.is_some() {
                self.check();
            }
            self.publish();
            if let Some(decision) = self.decide()? {
                let (from, to) = (self.desired, decision.desired);
                self.say(&format!("{from} -> {to}: {}", decision.why));
                self.desired = to;
            }
        }
        while self.staying() < self.desired {
            self.launch()?;
        }
        if self.refresh.is_some() {
            self.replace()?;
        }
        while self.refresh.is_none() && self.staying() > self.desired {
            self.take_away(None)?;
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
        let times = &mut self.times;
        let once_complete = times.most >= self.desired;
        times.fewest = if once_complete {
            times.fewest.min(count)
        } else {
            count
        };
        times.most = times.most.max(count);
    }

    /// Does what the refresh wants.
    fn replace(&mut self) -> Result<()> {
        let now_ms = self.millis();
        let since = |it: &Instance| it.since.duration_since(self.began).as_millis();
        let members: Vec<Standing> = self
            .instances
            .iter()
            .map(|it| Standing {
                version: it.version,
                stage: it.stage,
                since_ms: u64::try_from(since(it)).unwrap_or(u64::MAX),
            })
            .collect();
        let Some(refresh) = &mut self.refresh else {
            return Ok(());
        };
        let steps = refresh.step(now_ms, self.desired, &members);
        let wanted = refresh.wanted();
        for step in steps {
            match step {
                Step::Launch(count) => (0..count).try_for_each(|_| self.launch())?,
                Step::TakeAway(count) => {
                    for _ in 0..count.min(self.replaceable(wanted)) {
                        self.take_away(Some(wanted))?;
                    }
                }
                Step::Say(words) => self.say(&words),
                Step::Over(outcome) => {
                    self.say(&format!("the refresh is over: {outcome:?}"));
                    self.version = wanted;
                    self.refresh = None;
                    self.refreshed = Some(outcome);
                }
            }
        }
        Ok(())
    }

    /// Looks at the nodes' health as a balancer does. Its alarm ends a refresh.
    fn check(&mut self) {
        let mut raised = None;
        for it in &mut self.instances {
            let healthy = it.stage != Stage::InService || self.doors[it.place].are_healthy();
            it.unhealthy = if healthy { 0 } else { it.unhealthy + 1 };
            if it.unhealthy >= UNHEALTHY {
                raised = Some(format!("{} fails its health check", it.id));
            }
        }
        let Some(why) = raised else { return };
        if self.refresh.as_mut().is_some_and(|it| it.fail(&why)) {
            self.say(&format!("{why}: it goes back"));
        }
    }

    /// Says in the records which nodes there are; they stay as they are where the node that is
    /// asked can't tell.
    fn publish(&mut self) {
        if let (Some(file), Some(control)) = (&self.records, self.control())
            && let Err(error) = publish(&control, file)
        {
            self.say(&format!("the records stay as they are: {error:#}"));
        }
    }

    /// How many are in service and not of this version.
    fn replaceable(&self, wanted: usize) -> usize {
        let serve = |it: &&Instance| it.stage == Stage::InService && it.version != wanted;
        self.instances.iter().filter(serve).count()
    }

    fn decide(&mut self) -> Result<Option<Decision>> {
        let standing = scaler::Standing {
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
        let version = self.refresh.as_ref().map_or(self.version, Refresh::wanted);
        let Version {
            user_data,
            programs,
        } = &self.versions[version];
        let (network, cloud) = (&self.network, &self.cloud);
        let programs = programs.clone();
        let node = Node::launch_with(programs, network, number, cloud, &id, user_data, doors)?;
        // As its unit: it is there before there is a configuration.
        let watch = node.watch()?;
        self.say(&format!("{id} is launched, of version {version}"));
        self.instances.push(Instance {
            id,
            version,
            place,
            stage: Stage::Pending,
            since: now(),
            unhealthy: 0,
            node,
            watch,
        });
        Ok(())
    }

    /// The oldest one goes, of another version than this one.
    fn take_away(&mut self, but: Option<usize>) -> Result<()> {
        let mut instances = self.instances.iter_mut();
        let goes = |it: &&mut Instance| it.stage == Stage::InService && Some(it.version) != but;
        let oldest = instances.find(goes);
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
        for at in (0..self.instances.len()).rev() {
            let it = &mut self.instances[at];
            let member = self.cloud.services().member(&it.id).unwrap_or_default();
            let results = member.completed.iter();
            let heard = |hook: &str| results.clone().find(|(name, _)| name == hook);
            let seconds = it.since.elapsed();
            let runs = it.node.process().runs()?;
            let watched = it.watch.runs()?;
            let told = match it.stage {
                Stage::Pending => heard(READY).map(|(_, result)| result == "CONTINUE"),
                Stage::Terminating => heard(DRAIN).map(|_| true),
                Stage::InService => None,
            };
            match (it.stage, told) {
                (Stage::Pending, Some(true)) => self.serves(at, seconds),
                (Stage::Pending, Some(false)) => self.give_up(at)?,
                (Stage::Pending, None) if !runs => self.give_up(at)?,
                (Stage::Terminating, Some(_)) => {
                    // One that ends and is started again and again may be about to start.
                    let ended = !runs || it.unhealthy > 0;
                    ensure!(ended, "the group was told before {} had ended", it.id);
                    self.gone(at, seconds, member.heartbeats);
                }
                (Stage::InService, _) if !runs => {
                    // Others may find a node silent for too long on a busy machine; its service
                    // manager starts it again.
                    it.node.launch_again()?;
                    let words = format!("{} has ended, and is started anew", it.id);
                    self.say(&words);
                }
                _ => ensure!(watched, "a watch has ended:\n{}", it.watch.log()),
            }
        }
        Ok(())
    }

    fn serves(&mut self, at: usize, after: Duration) {
        let it = &mut self.instances[at];
        it.stage = Stage::InService;
        it.since = now();
        let words = format!(
            "{} is in service, {:.1} s after",
            it.id,
            after.as_secs_f64()
        );
        self.times.to_serve.push(after);
        self.say(&words);
    }

    fn gone(&mut self, at: usize, after: Duration, beats: u32) {
        let id = self.instances.remove(at).id;
        self.cloud.services().remove_member(&id);
        self.times.to_go.push(after);
        let seconds = after.as_secs_f64();
        self.say(&format!(
            "{id} is gone, {seconds:.1} s after, {beats} heartbeats"
        ));
    }

    /// One that will not serve is killed; a refresh that launched it counts it.
    fn give_up(&mut self, at: usize) -> Result<()> {
        let mut it = self.instances.remove(at);
        let refresh = self.refresh.as_mut();
        ensure!(
            refresh.is_some_and(|refresh| refresh.launch_failed(it.version)),
            "{} does not come up:\n{}",
            it.id,
            it.node.process().log()
        );
        self.cloud.services().remove_member(&it.id);
        self.times.given_up += 1;
        self.say(&format!("{} is given up", it.id));
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
