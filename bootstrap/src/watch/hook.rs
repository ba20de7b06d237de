//! The terminate hook of an autoscaling group: how an instance that goes is waited for. A pure
//! machine; the calls are in the shell.
//!
//! The group waits as long as heartbeats come, each in time (EC2 Auto Scaling API,
//! RecordLifecycleActionHeartbeat). The known race: the metadata may say that the instance is to go
//! before the group has begun to wait. Until then AWS answers that there is no active lifecycle
//! action, so that is asked again, within `watch.hook_seconds` after the server's end.
//!
//! Where there is a balancer that is the rule: the group first waits for it to let go of the
//! instance, for as long as its target groups say, and only then for the hook (EC2 Auto Scaling
//! User Guide, "How lifecycle hooks work"). As long as it does, the instance is `Terminating`.

use super::{FIRST_PAUSE_MS, Settings};

/// The hook that is ours where a group has several.
const OURS: &str = "drain";
/// Heartbeats in the time that the hook waits for one.
const BEATS: u64 = 3;
/// For so many milliseconds an instance may be `Terminating`: a balancer's longest delay, an hour,
/// and some.
const LEAVES_MS: u64 = 3_900_000;
/// Permissions reach every part of AWS within so many milliseconds; until then a refusal may pass.
const REFUSED_MS: u64 = 60_000;
/// Milliseconds between two heartbeats, at least.
const MIN_BEAT_MS: u64 = 10_000;

/// A hook of the group for instances that go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminateHook {
    /// Its name.
    pub name: String,
    /// Seconds for which it waits for a heartbeat.
    pub heartbeat_seconds: u64,
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look where the instance is in its group.
    Look,
    /// List the terminate hooks of this group.
    List(String),
    /// Tell this hook of this group that the instance is still at it.
    Heartbeat(String, String),
    /// Complete this hook of this group.
    Complete(String, String),
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The instance is in no group.
    NoGroup,
    /// Its group, and its state there.
    State(String, String),
    /// The group's terminate hooks.
    Hooks(Vec<TerminateHook>),
    /// The hook has heard the heartbeat.
    Beaten,
    /// The hook is complete.
    Completed,
    /// AWS knows no active action of this instance.
    NoAction,
    /// It may work in a moment.
    Passing(String),
    /// It will not work.
    Refused(String),
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody waits.
    Idle,
    /// Looking for the group and whether it waits.
    Looking,
    /// The group waits, with which hook is not known.
    Listing,
    /// The hook waits.
    Holding,
    /// It is over.
    Over,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Hook {
    phase: Phase,
    /// When the next step is due; none while one is under way.
    next_ms: Option<u64>,
    pause_ms: u64,
    most_ms: u64,
    patience_ms: u64,
    group: String,
    name: String,
    beat_ms: u64,
    beats: u32,
    /// A heartbeat is under way.
    beating: bool,
    /// Since when it is to be completed.
    complete_ms: Option<u64>,
    /// A heartbeat's refusal has been said.
    told: bool,
    /// Since when the instance is to go.
    began_ms: u64,
    /// Since when every step was refused.
    refused_ms: Option<u64>,
}

impl Hook {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            phase: Phase::Idle,
            next_ms: None,
            pause_ms: FIRST_PAUSE_MS,
            most_ms: settings.backoff_ms,
            patience_ms: settings.hook_ms,
            group: String::new(),
            name: String::new(),
            beat_ms: 0,
            beats: 0,
            beating: false,
            complete_ms: None,
            told: false,
            began_ms: 0,
            refused_ms: None,
        }
    }

    pub(super) fn configure(&mut self, settings: &Settings) {
        self.most_ms = settings.backoff_ms;
        self.patience_ms = settings.hook_ms;
    }

    /// The group wants the instance gone.
    pub(super) fn begin(&mut self, now_ms: u64) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Looking;
            self.next_ms = Some(now_ms);
            self.began_ms = now_ms;
        }
    }

    /// The server has ended: the group need not wait any more.
    pub(super) fn complete(&mut self, now_ms: u64) {
        self.begin(now_ms);
        if self.complete_ms.is_none() {
            self.complete_ms = Some(now_ms);
            self.pause_ms = FIRST_PAUSE_MS;
            self.next_ms = self.next_ms.map(|_| now_ms);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.next_ms
    }

    /// The step that is due.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<Step> {
        let next = self.next_ms?;
        if next > now_ms {
            return None;
        }
        self.next_ms = None;
        let (group, name) = (self.group.clone(), self.name.clone());
        match self.phase {
            Phase::Idle | Phase::Over => None,
            Phase::Looking => Some(Step::Look),
            Phase::Listing => Some(Step::List(group)),
            Phase::Holding if self.complete_ms.is_some() => Some(Step::Complete(group, name)),
            Phase::Holding => {
                self.beating = true;
                Some(Step::Heartbeat(group, name))
            }
        }
    }

    /// Takes what came of a step; what is to be said.
    pub(super) fn seen(&mut self, seen: Seen, now_ms: u64) -> Option<String> {
        let beating = std::mem::take(&mut self.beating);
        let refused_ms = match seen {
            Seen::Refused(_) => *self.refused_ms.get_or_insert(now_ms),
            _ => {
                self.refused_ms = None;
                now_ms
            }
        };
        match seen {
            Seen::NoGroup => self.over("no hook waits: the instance is in no autoscaling group"),
            Seen::State(group, state) => self.state(group, &state, now_ms),
            Seen::Hooks(hooks) => self.hooks(hooks, now_ms),
            Seen::Beaten => {
                self.beats += 1;
                self.pause_ms = FIRST_PAUSE_MS;
                self.told = false;
                self.next_ms = Some(self.after_beat_ms(now_ms));
                None
            }
            Seen::Completed => {
                let (name, group) = (&self.name, &self.group);
                let beats = match self.beats {
                    0 => String::new(),
                    1 => ", after 1 heartbeat".into(),
                    beats => format!(", after {beats} heartbeats"),
                };
                let words = format!("the hook {name} of {group} is complete: CONTINUE{beats}");
                self.over(&words)
            }
            Seen::NoAction => {
                // It may not wait yet, or not any more.
                self.phase = Phase::Looking;
                self.again(
                    "AWS knows no active lifecycle action of this instance",
                    now_ms,
                )
            }
            Seen::Passing(why) => self.again(&why, now_ms),
            Seen::Refused(why) if beating => {
                // A role may lack this one right; without heartbeats there is less time.
                self.next_ms = Some(self.after_beat_ms(now_ms));
                let told = std::mem::replace(&mut self.told, true);
                (!told).then(|| format!("warning: the hook takes no heartbeat: {why}"))
            }
            Seen::Refused(why) if now_ms.saturating_sub(refused_ms) < REFUSED_MS => {
                self.again(&why, now_ms)
            }
            Seen::Refused(why) => self.failed(&why),
        }
    }

    /// When the step after a heartbeat is due: at once, if the server has ended meanwhile.
    fn after_beat_ms(&self, now_ms: u64) -> u64 {
        match self.complete_ms {
            Some(_) => now_ms,
            None => now_ms.saturating_add(self.beat_ms),
        }
    }

    fn state(&mut self, group: String, state: &str, now_ms: u64) -> Option<String> {
        self.group = group;
        match state.strip_prefix("Warmed:").unwrap_or(state) {
            "Terminating:Wait" => {
                self.phase = if self.name.is_empty() {
                    Phase::Listing
                } else {
                    Phase::Holding
                };
                self.next_ms = Some(now_ms);
                None
            }
            "Terminating:Proceed" | "Terminated" => {
                let words = format!("no hook waits; in {} it is {state}", self.group);
                self.over(&words)
            }
            leaving => {
                if leaving == "Terminating" && now_ms.saturating_sub(self.began_ms) < LEAVES_MS {
                    // The patience is for what comes then.
                    self.complete_ms = self.complete_ms.map(|_| now_ms);
                }
                self.again(&format!("it is {state}, which no hook holds"), now_ms)
            }
        }
    }

    fn hooks(&mut self, mut hooks: Vec<TerminateHook>, now_ms: u64) -> Option<String> {
        let ours = hooks.iter().position(|hook| hook.name == OURS);
        let hook = match (ours, hooks.len()) {
            (Some(at), _) => hooks.swap_remove(at),
            (None, 1) => hooks.remove(0),
            (None, 0) => {
                let words = format!("no hook waits: {} has no terminate hook", self.group);
                return self.over(&words);
            }
            _ => {
                let names: Vec<_> = hooks.iter().map(|hook| hook.name.as_str()).collect();
                let names = names.join(", ");
                let why = format!("which of {names} is ours? The one named {OURS} would be");
                return self.failed(&why);
            }
        };
        self.beat_ms = (hook.heartbeat_seconds.saturating_mul(1_000) / BEATS).max(MIN_BEAT_MS);
        self.name = hook.name;
        self.phase = Phase::Holding;
        // How long it has waited already is not known.
        self.next_ms = Some(now_ms);
        let (name, group, beat) = (&self.name, &self.group, self.beat_ms / 1_000);
        Some(format!(
            "the hook {name} of {group} waits; it gets a heartbeat every {beat} s"
        ))
    }

    fn again(&mut self, why: &str, now_ms: u64) -> Option<String> {
        if let Some(since) = self.complete_ms
            && now_ms.saturating_sub(since).saturating_add(self.pause_ms) > self.patience_ms
        {
            let seconds = self.patience_ms / 1_000;
            return self.failed(&format!("not within {seconds} s: {why}"));
        }
        self.next_ms = Some(now_ms.saturating_add(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(self.most_ms);
        None
    }

    fn failed(&mut self, why: &str) -> Option<String> {
        self.over(&format!("warning: the hook could not be completed: {why}"))
    }

    fn over(&mut self, words: &str) -> Option<String> {
        self.phase = Phase::Over;
        self.next_ms = None;
        Some(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    /// The server ends while a heartbeat is under way: whatever becomes of that, the group hears of the
    /// end.
    #[test]
    fn a_heartbeat_that_the_end_overtakes() {
        let settings = crate::watch::tests::settings();
        for outcome in [
            Seen::Beaten,
            Seen::Refused("not allowed".into()),
            Seen::Passing("throttled".into()),
        ] {
            let mut hook = Hook::new(&settings);
            hook.begin(0);
            assert_eq!(hook.due(0), Some(Step::Look));
            hook.seen(Seen::State("g".into(), "Terminating:Wait".into()), 0);
            assert_eq!(hook.due(0), Some(Step::List("g".into())));
            let hooks = vec![TerminateHook {
                name: "drain".into(),
                heartbeat_seconds: 90,
            }];
            hook.seen(Seen::Hooks(hooks), 0);
            assert!(matches!(hook.due(0), Some(Step::Heartbeat(..))));
            hook.complete(SECOND);
            hook.seen(outcome.clone(), 2 * SECOND);
            let step = hook.due(3 * SECOND);
            assert!(
                matches!(step, Some(Step::Complete(..))),
                "{outcome:?}: {step:?}"
            );
        }
    }
}
