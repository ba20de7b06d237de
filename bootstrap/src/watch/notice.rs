//! What the metadata says about the instance's end.

use std::fmt;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a spot notice leaves, in seconds; more than that is another clock's (EC2 User Guide, "Spot
/// Instance interruption notices").
pub const MAX_SPOT_SECONDS: u64 = 120;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// `autoscaling/target-lifecycle-state`; an instance that no group has launched has none.
    pub lifecycle: Option<String>,
    /// `spot/instance-action`.
    pub spot: Option<Spot>,
    /// Whether there is `events/recommendations/rebalance`.
    pub rebalance: bool,
}

/// A spot notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// Seconds that are left.
    pub left_seconds: u64,
}

#[derive(Deserialize)]
struct Document {
    action: String,
    time: String,
}

impl Spot {
    /// Reads a notice such as `{"action": "terminate", "time": "2026-11-29T08:22:00Z"}`, at this
    /// time in milliseconds since 1970. One that makes no sense is a notice all the same, with the
    /// time that notices leave.
    pub fn parse(body: &[u8], wall_ms: u64) -> Self {
        let document: Option<Document> = serde_json::from_slice(body).ok();
        let at = document
            .as_ref()
            .and_then(|it| OffsetDateTime::parse(&it.time, &Rfc3339).ok());
        let now = i64::try_from(wall_ms / 1_000).unwrap_or(i64::MAX);
        let left = at.map(|at| u64::try_from(at.unix_timestamp().saturating_sub(now)).unwrap_or(0));
        let action = document.map_or_else(String::new, |it| it.action);
        let known = ["terminate", "stop", "hibernate"].contains(&action.as_str());
        Self {
            action: if known { action } else { "unknown".into() },
            left_seconds: left.unwrap_or(MAX_SPOT_SECONDS).min(MAX_SPOT_SECONDS),
        }
    }
}

impl Spot {
    /// Takes into account that it came at most so many milliseconds ago, so that most of what
    /// notices leave is still left. What is to be said if this machine's clock knew of less.
    pub(super) fn came_within(&mut self, ms: u64) -> Option<String> {
        let least = MAX_SPOT_SECONDS.saturating_sub(ms.div_ceil(1_000));
        let left = self.left_seconds;
        self.left_seconds = left.max(least);
        (left < least).then(|| {
            format!(
                "warning: by this machine's clock a spot notice that has just come leaves {left} \
                 s, which cannot be: it leaves at least {least} s"
            )
        })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} s", self.action, self.left_seconds)
    }
}

impl Notices {
    /// Whether the group wants the instance gone. An instance of a warm pool has the same states
    /// behind `Warmed:`.
    pub fn is_terminated(&self) -> bool {
        let state = self.lifecycle.as_deref().unwrap_or_default();
        state.strip_prefix("Warmed:").unwrap_or(state) == "Terminated"
    }

    /// What is new, a sentence each.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let mut said = Vec::new();
        if self.lifecycle != before.lifecycle {
            said.push(match &self.lifecycle {
                Some(state) => format!("its autoscaling group wants this instance {state}"),
                None => "its autoscaling group says nothing of this instance any more".into(),
            });
        }
        match (&before.spot, &self.spot) {
            (None, Some(spot)) => said.push(format!("spot notice: {spot}")),
            (Some(_), None) => said.push("the spot notice is gone".into()),
            _ => {}
        }
        if self.rebalance != before.rebalance {
            let words = if self.rebalance {
                "EC2 recommends to rebalance: spot capacity is short"
            } else {
                "EC2 recommends to rebalance no more"
            };
            said.push(words.into());
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spot_notices() {
        // 2026-11-29T08:20:00Z
        let now = 1_795_940_400_000;
        for (body, action, left) in [
            (
                r#"{"action": "terminate", "time": "2026-11-29T08:22:00Z"}"#,
                "terminate",
                120,
            ),
            (
                r#"{"action":"stop","time":"2026-11-29T08:20:30Z"}"#,
                "stop",
                30,
            ),
            (
                r#"{"action":"hibernate","time":"2026-11-29T08:19:00Z"}"#,
                "hibernate",
                0,
            ),
            (
                r#"{"action":"terminate","time":"2027-11-29T08:19:00Z"}"#,
                "terminate",
                120,
            ),
            (r#"{"action":"dance","time":"soon"}"#, "unknown", 120),
            ("<html>", "unknown", 120),
        ] {
            let spot = Spot::parse(body.as_bytes(), now);
            assert_eq!((&*spot.action, spot.left_seconds), (action, left), "{body}");
        }
    }

    #[test]
    fn lifecycle_states() {
        for (state, terminated) in [
            (Some("InService"), false),
            (Some("Terminated"), true),
            (Some("Warmed:Terminated"), true),
            (Some("Warmed:Stopped"), false),
            (Some("Standby"), false),
            (None, false),
        ] {
            let notices = Notices {
                lifecycle: state.map(str::to_owned),
                ..Notices::default()
            };
            assert_eq!(notices.is_terminated(), terminated, "{state:?}");
        }
    }
}
