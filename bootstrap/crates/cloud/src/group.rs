//! The autoscaling group that an instance is a member of.

use aws_sdk_autoscaling::Client;

use crate::{Cloud, Refusal};

/// The transition of an instance that comes up.
const LAUNCHING: &str = "autoscaling:EC2_INSTANCE_LAUNCHING";

/// The transition of an instance that goes.
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";
/// What a hook that says nothing waits for, in seconds (PutLifecycleHook, HeartbeatTimeout).
const DEFAULT_HEARTBEAT_SECONDS: u64 = 3_600;

/// A hook at which instances that go are waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminateHook {
    /// Its name.
    pub name: String,
    /// Seconds for which it waits after the last heartbeat.
    pub heartbeat_seconds: u64,
}

/// An instance in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The group's name.
    pub group: String,
    /// The instance's state in it, as AWS names it: `Pending:Wait`.
    pub state: String,
}

impl Cloud {
    fn autoscaling(&self) -> Client {
        Client::new(&self.sdk)
    }

    /// The group of an instance; `None` if it is in none.
    ///
    /// # Errors
    /// A refused call.
    pub async fn member(&self, instance: &str) -> Result<Option<Member>, Refusal> {
        let request = self.autoscaling().describe_auto_scaling_instances();
        let sent = request.instance_ids(instance).send().await;
        let output = sent.map_err(|e| Refusal::of(instance, "DescribeAutoScalingInstances", &e))?;
        let found = output.auto_scaling_instances().first();
        Ok(found.map(|found| Member {
            group: found
                .auto_scaling_group_name()
                .unwrap_or_default()
                .to_owned(),
            state: found.lifecycle_state().unwrap_or_default().to_owned(),
        }))
    }

    /// The names of a group's hooks for instances that come up.
    ///
    /// # Errors
    /// A refused call.
    pub async fn launch_hooks(&self, group: &str) -> Result<Vec<String>, Refusal> {
        let request = self.autoscaling().describe_lifecycle_hooks();
        let sent = request.auto_scaling_group_name(group).send().await;
        let output = sent.map_err(|e| Refusal::of(group, "DescribeLifecycleHooks", &e))?;
        let hooks = output.lifecycle_hooks().iter();
        let launching = hooks.filter(|hook| hook.lifecycle_transition() == Some(LAUNCHING));
        let names = launching.filter_map(|hook| hook.lifecycle_hook_name());
        Ok(names.map(str::to_owned).collect())
    }

    /// A group's hooks for instances that go.
    ///
    /// # Errors
    /// A refused call.
    pub async fn terminate_hooks(&self, group: &str) -> Result<Vec<TerminateHook>, Refusal> {
        let request = self.autoscaling().describe_lifecycle_hooks();
        let sent = request.auto_scaling_group_name(group).send().await;
        let output = sent.map_err(|e| Refusal::of(group, "DescribeLifecycleHooks", &e))?;
        let hooks = output.lifecycle_hooks().iter();
        let terminating = hooks.filter(|hook| hook.lifecycle_transition() == Some(TERMINATING));
        let hooks = terminating.map(|hook| TerminateHook {
            name: hook.lifecycle_hook_name().unwrap_or_default().to_owned(),
            heartbeat_seconds: hook
                .heartbeat_timeout()
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or(DEFAULT_HEARTBEAT_SECONDS),
        });
        Ok(hooks.collect())
    }

    /// Has a hook wait anew for as long as it waits without a heartbeat.
    ///
    /// # Errors
    /// A refused call.
    pub async fn heartbeat(&self, group: &str, hook: &str, instance: &str) -> Result<(), Refusal> {
        let request = self.autoscaling().record_lifecycle_action_heartbeat();
        let request = request.auto_scaling_group_name(group).instance_id(instance);
        let sent = request.lifecycle_hook_name(hook).send().await;
        sent.map(drop)
            .map_err(|e| Refusal::of(group, "RecordLifecycleActionHeartbeat", &e))
    }

    /// Ends the wait at a hook; `result` is `CONTINUE` or `ABANDON`.
    ///
    /// # Errors
    /// A refused call.
    pub async fn complete(
        &self,
        group: &str,
        hook: &str,
        instance: &str,
        result: &str,
    ) -> Result<(), Refusal> {
        let request = self.autoscaling().complete_lifecycle_action();
        let request = request.auto_scaling_group_name(group).instance_id(instance);
        let request = request
            .lifecycle_hook_name(hook)
            .lifecycle_action_result(result);
        let sent = request.send().await;
        sent.map(drop)
            .map_err(|e| Refusal::of(group, "CompleteLifecycleAction", &e))
    }
}
