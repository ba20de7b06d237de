//! The launch hook of an autoscaling group: how an instance says that it serves, or that it never
//! will. A pure machine; the calls are in the shell.
//!
//! The known race: an instance may be done before its group has begun to wait for it. Until then
//! AWS answers that there is no active lifecycle action, so that is asked again, within
//! [`PATIENCE_MS`].

use std::fmt;

/// How long it is tried, in milliseconds. A group waits for 300 s at least where our Terraform
/// made the hook, and a boot takes some 60 s of them.
pub const PATIENCE_MS: u64 = 120_000;
/// Pauses between attempts: 250 ms, 500 ms, 1 s, … 8 s.
const FIRST_PAUSE_MS: u64 = 250;
const LAST_PAUSE_MS: u64 = 8_000;
/// Permissions reach every part of AWS within so many milliseconds; until then a refusal may pass.
const REFUSED_MS: u64 = 20_000;
/// The hook that is ours where a group has several.
const OURS: &str = "ready";

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look where the instance is in its group.
    Look,
    /// List the launch hooks of this group.
    List(String),
    /// Complete this hook.
    Complete {
        /// The group.
        group: String,
        /// The hook.
        hook: String,
    },
    /// Wait for so many milliseconds, then look.
    Pause(u64),
    /// Nothing more.
    Over(Outcome),
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The instance is in no group.
    NoGroup,
    /// Its group, and its state there.
    State(String, String),
    /// The names of the group's launch hooks.
    Hooks(Vec<String>),
    /// The hook is complete.
    Completed,
    /// AWS knows no active action of this instance.
    NoAction,
    /// The pause is over.
    Waited,
    /// It may work in a moment.
    Passing(String),
    /// It will not work.
    Refused(String),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to say, for this reason.
    Nothing(String),
    /// The hook is complete.
    Completed {
        /// The group.
        group: String,
        /// The hook.
        hook: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// It could not be completed: a warning.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(why) => f.write_str(why),
            Self::Completed {
                group,
                hook,
                attempts: 1,
            } => write!(f, "the hook {hook} of {group} is complete"),
            Self::Completed {
                group,
                hook,
                attempts,
            } => write!(
                f,
                "the hook {hook} of {group} is complete, after {attempts} attempts"
            ),
            Self::Failed(why) => write!(f, "warning: the hook could not be completed: {why}"),
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Launch {
    began_ms: u64,
    pause_ms: u64,
    attempts: u32,
    group: String,
    hook: Option<String>,
    /// Why it was not done yet.
    last: String,
}

impl Launch {
    /// Begins.
    pub fn new(now_ms: u64) -> (Self, Step) {
        let launch = Self {
            began_ms: now_ms,
            pause_ms: FIRST_PAUSE_MS,
            attempts: 0,
            group: String::new(),
            hook: None,
            last: String::new(),
        };
        (launch, Step::Look)
    }

    /// Takes what came of the last step.
    pub fn step(&mut self, seen: Seen, now_ms: u64) -> Step {
        match seen {
            Seen::NoGroup => nothing("in no autoscaling group"),
            Seen::State(group, state) => self.state(group, &state, now_ms),
            Seen::Hooks(names) => self.hooks(names),
            Seen::Completed => Step::Over(Outcome::Completed {
                group: self.group.clone(),
                hook: self.hook.clone().unwrap_or_default(),
                attempts: self.attempts,
            }),
            Seen::NoAction => {
                let why = "AWS knows no active lifecycle action of this instance";
                self.again(why.into(), now_ms)
            }
            Seen::Waited => Step::Look,
            Seen::Passing(why) => self.again(why, now_ms),
            Seen::Refused(why) if now_ms.saturating_sub(self.began_ms) < REFUSED_MS => {
                self.again(why, now_ms)
            }
            Seen::Refused(why) => Step::Over(Outcome::Failed(why)),
        }
    }

    fn state(&mut self, group: String, state: &str, now_ms: u64) -> Step {
        self.group = group;
        // An instance of a warm pool has the same states behind `Warmed:`.
        let own = state.strip_prefix("Warmed:").unwrap_or(state);
        match (own, &self.hook) {
            ("Pending:Wait", None) => Step::List(self.group.clone()),
            ("Pending:Wait", Some(_)) => self.complete(),
            ("Pending", _) => {
                let why = format!("it is {state}, which no hook holds");
                self.again(why, now_ms)
            }
            _ => nothing(&format!("no hook waits; in {} it is {state}", self.group)),
        }
    }

    fn hooks(&mut self, mut names: Vec<String>) -> Step {
        let ours = names.iter().position(|name| name == OURS);
        let hook = match (ours, names.len()) {
            (_, 0) => return nothing("its group has no launch hook"),
            (Some(at), _) => names.swap_remove(at),
            (None, 1) => names.swap_remove(0),
            (None, _) => {
                let names = names.join(", ");
                let why = format!("its group has the launch hooks {names}, none named `{OURS}`");
                return Step::Over(Outcome::Failed(why));
            }
        };
        self.hook = Some(hook);
        self.complete()
    }

    fn complete(&mut self) -> Step {
        self.attempts += 1;
        Step::Complete {
            group: self.group.clone(),
            hook: self.hook.clone().unwrap_or_default(),
        }
    }

    fn again(&mut self, why: String, now_ms: u64) -> Step {
        self.last = why;
        let pause = self.pause_ms;
        if now_ms.saturating_sub(self.began_ms) + pause > PATIENCE_MS {
            let seconds = PATIENCE_MS / 1_000;
            let why = format!("not within {seconds} s: {}", self.last);
            return Step::Over(Outcome::Failed(why));
        }
        self.pause_ms = (pause * 2).min(LAST_PAUSE_MS);
        Step::Pause(pause)
    }
}

fn nothing(why: &str) -> Step {
    Step::Over(Outcome::Nothing(why.to_owned()))
}

#[cfg(test)]
mod tests;
