//! The effect `Report`: AWS hears how the boot went. Nothing here fails a boot: what is refused is
//! a warning.

use std::time::Duration;

use cirrus_cloud::{Class, Cloud, Refusal};
use tokio::task::JoinHandle;

use super::discover::metadata;
use super::{Clock, Shell, Signals, say};
use crate::launch::{Launch, Outcome, PATIENCE_MS, Seen, Step};
use crate::metadata::Identity;
use crate::phases::Report;

/// The tag that tells how the last boot went.
const TAG: &str = "cirrus:boot";
/// How long the metadata is asked whether the instance is in a group.
const PROBE: Duration = Duration::from_secs(2);
/// How long the end of a boot waits for its report: all attempts, and one call more.
const LAST: Duration = Duration::from_millis(PATIENCE_MS + 20_000);
/// There once an autoscaling group has launched the instance.
pub(super) const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";

impl Shell {
    /// Begins to tell AWS, if this is an instance.
    pub(super) fn report(&mut self, report: Report) {
        if let Some(identity) = self.identity.clone() {
            self.reporting = Some(tokio::spawn(tell(identity, report)));
        }
    }

    /// Waits until AWS has been told, or a signal ends that.
    pub(super) async fn reported(&mut self, signals: &mut Signals) {
        if let Some(mut task) = self.reporting.take() {
            let done = tokio::select! {
                done = tokio::time::timeout(LAST, &mut task) => done.is_ok(),
                () = signals.end() => false,
            };
            if !done {
                task.abort();
                say("report: given up");
            }
        }
    }
}

/// A report under way.
pub(super) type Reporting = JoinHandle<()>;

async fn tell(identity: Identity, report: Report) {
    let cloud = Cloud::new(&identity.region).await;
    let instance = &identity.instance_id;
    tokio::join!(
        hook(&cloud, instance, &report),
        tag(&cloud, instance, &report)
    );
}

async fn tag(cloud: &Cloud, instance: &str, report: &Report) {
    let value = report.tag();
    match cloud.tag(instance, TAG, &value).await {
        Ok(true) => say(&format!("report: the tag {TAG} of {instance} is `{value}`")),
        // Built without the SDK for it; docs/BOOT.md says so.
        Ok(false) => {}
        Err(refusal) => say(&format!(
            "report: warning: the tag {TAG} could not be set: {refusal}"
        )),
    }
}

async fn hook(cloud: &Cloud, instance: &str, report: &Report) {
    let may_be_in_group = may_be_in_group().await;
    let clock = Clock::start();
    let (mut launch, mut step) = Launch::new(clock.millis());
    let result = report.hook_result();
    loop {
        let seen = match step {
            Step::Over(outcome) => {
                let result = match outcome {
                    Outcome::Completed { .. } => format!(": {result}"),
                    _ => String::new(),
                };
                say(&format!("report: {outcome}{result}"));
                return;
            }
            Step::Pause(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Seen::Waited
            }
            Step::Look => match cloud.member(instance).await {
                Ok(Some(member)) => Seen::State(member.group, member.state),
                Ok(None) if may_be_in_group => Seen::NoGroup,
                // Nobody expects a report.
                Ok(None) => return,
                // Who is in no group need not have its permissions.
                Err(refusal) if !may_be_in_group && refusal.class == Class::Refused => return,
                Err(refusal) => seen(&refusal),
            },
            Step::List(group) => match cloud.launch_hooks(&group).await {
                Ok(names) => Seen::Hooks(names),
                Err(refusal) => seen(&refusal),
            },
            Step::Complete { group, hook } => {
                match cloud.complete(&group, &hook, instance, result).await {
                    Ok(()) => Seen::Completed,
                    Err(refusal) => seen(&refusal),
                }
            }
        };
        step = launch.step(seen, clock.millis());
    }
}

/// Whether a group may have launched this instance, as far as its metadata knows; that learns of it
/// some time after the launch.
async fn may_be_in_group() -> bool {
    match metadata(PROBE) {
        Ok(mut client) => !matches!(client.get(LIFECYCLE).await, Ok(None)),
        Err(_) => true,
    }
}

/// Whether a group does not wait for the instance: not yet, or not any more.
pub(super) fn is_without_action(refusal: &Refusal) -> bool {
    refusal.code.as_deref() == Some("ValidationError")
        && refusal.message.contains("No active Lifecycle Action found")
}

fn seen(refusal: &Refusal) -> Seen {
    match refusal.class {
        _ if is_without_action(refusal) => Seen::NoAction,
        Class::Again => Seen::Passing(refusal.to_string()),
        Class::Refused => Seen::Refused(refusal.to_string()),
    }
}
