//! The faults, as lines of text. Pure.
//!
//! ```text
//! # what is broken, when, and how to see that it is whole again
//! at 5s fault kill
//! run: kill -9 4711
//! until 0 within 60s: ./copies-missing
//! end
//! wait 2s
//! repeat 20
//!   …
//! again
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// How long `until` waits if the line doesn't say.
const WITHIN: Duration = Duration::from_secs(60);
/// Steps that a block of repetitions may have, written out.
const MAX_STEPS: usize = 10_000;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Not before this time after the load began.
    pub(crate) at: Option<Duration>,
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing for a while.
    Wait(Duration),
    /// From here on something is broken on purpose.
    Begin(String),
    /// It is whole again.
    End,
    /// A command for the shell.
    Run(String),
    /// A command that is repeated until it prints this.
    Until {
        expected: String,
        within: Duration,
        command: String,
    },
    /// Something to do to the server that was started here.
    Server(Verb),
}

/// What can be done to a server that was started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and wait for its end.
    Stop,
    /// The same command again, and wait until its port is open.
    Start,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Continue,
}

/// Reads lines as they come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Blocks that are open: how often, and what is in them so far.
    open: Vec<(usize, Vec<Step>)>,
}

impl Reader {
    /// The steps that a line completes: none while a block is open, all of it when that ends.
    pub(crate) fn line(&mut self, line: &str) -> Result<Vec<Step>> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Vec::new());
        }
        let context = || format!("in the line {line:?}");
        if let Some(times) = line.strip_prefix("repeat ") {
            let times = times.parse().context("a number after repeat");
            self.open.push((times.with_context(context)?, Vec::new()));
            return Ok(Vec::new());
        }
        let steps = if line == "again" {
            let (times, block) = self.open.pop().context("again without repeat")?;
            let steps = times.saturating_mul(block.len());
            ensure!(
                steps <= MAX_STEPS,
                "{steps} steps; {MAX_STEPS} are the most"
            );
            std::iter::repeat_n(block, times).flatten().collect()
        } else {
            vec![step(line).with_context(context)?]
        };
        match self.open.last_mut() {
            Some((_, block)) => {
                block.extend(steps);
                Ok(Vec::new())
            }
            None => Ok(steps),
        }
    }

    /// The end of the lines.
    pub(crate) fn end(&self) -> Result<()> {
        ensure!(self.open.is_empty(), "repeat without again");
        Ok(())
    }
}

fn step(line: &str) -> Result<Step> {
    let (at, rest) = match line.strip_prefix("at ") {
        Some(rest) => {
            let (time, rest) = rest.split_once(' ').context("what to do at that time")?;
            (Some(duration(time)?), rest.trim_start())
        }
        None => (None, line),
    };
    Ok(Step {
        at,
        action: action(rest)?,
    })
}

fn action(text: &str) -> Result<Action> {
    if text == "end" {
        return Ok(Action::End);
    }
    if let Some(time) = text.strip_prefix("wait ") {
        return Ok(Action::Wait(duration(time.trim())?));
    }
    if let Some(name) = text.strip_prefix("fault ") {
        return Ok(Action::Begin(name.trim().to_owned()));
    }
    let (head, command) = text.split_once(':').context("expected `name: command`")?;
    let command = command.trim();
    ensure!(!command.is_empty(), "nothing after the colon");
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        ["run"] => Ok(Action::Run(command.to_owned())),
        ["server"] => Ok(Action::Server(verb(command)?)),
        ["until", expected] => Ok(until(expected, WITHIN, command)),
        ["until", expected, "within", time] => Ok(until(expected, duration(time)?, command)),
        _ => bail!(
            "expected `wait TIME`, `fault NAME`, `end`, `run: COMMAND`, `server: VERB`, `until \
             TEXT [within TIME]: COMMAND`, `repeat N` or `again`"
        ),
    }
}

fn until(expected: &str, within: Duration, command: &str) -> Action {
    Action::Until {
        expected: expected.to_owned(),
        within,
        command: command.to_owned(),
    }
}

fn verb(name: &str) -> Result<Verb> {
    Ok(match name {
        "kill" => Verb::Kill,
        "stop" => Verb::Stop,
        "start" => Verb::Start,
        "pause" => Verb::Pause,
        "continue" => Verb::Continue,
        _ => bail!("expected kill, stop, start, pause or continue, not {name:?}"),
    })
}

/// A time as in `5s`, `0.5s`, `200ms` or `2m`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()?, seconds)));
    let time = found.and_then(|(count, unit)| Duration::try_from_secs_f64(count * unit).ok());
    time.with_context(|| format!("expected a time as in 5s, 200ms or 2m, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Step>> {
        let mut reader = Reader::default();
        let mut steps = Vec::new();
        for line in text.lines() {
            steps.extend(reader.line(line)?);
        }
        reader.end().map(|()| steps)
    }

    #[test]
    fn each_kind_of_line_is_read() {
        let steps = read(
            "# a comment\n\nat 5s fault kill\nserver: kill\nrun: echo a:b\nwait 200ms\n\
             until 0 within 2m: count\nuntil up: state\nend",
        );
        let steps = steps.unwrap();
        assert_eq!(steps[0].at, Some(Duration::from_secs(5)));
        let actions: Vec<Action> = steps.into_iter().map(|step| step.action).collect();
        let expected = [
            Action::Begin("kill".to_owned()),
            Action::Server(Verb::Kill),
            Action::Run("echo a:b".to_owned()),
            Action::Wait(Duration::from_millis(200)),
            until("0", Duration::from_secs(120), "count"),
            until("up", WITHIN, "state"),
            Action::End,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn blocks_are_written_out_and_may_stand_in_each_other() {
        let steps = read("repeat 2\nwait 1s\nrepeat 3\nend\nagain\nagain\nwait 2s").unwrap();
        assert_eq!(steps.len(), 2 * (1 + 3) + 1);
        assert!(read("repeat 2\nwait 1s").is_err());
        assert!(read("again").is_err());
        assert!(read("repeat 9999999\nend\nagain").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in [
            "wait",
            "wait 5",
            "run:",
            "server: dance",
            "at 5s",
            "until: x",
            "frob",
            "wait -1s",
        ] {
            let error = read(bad).unwrap_err();
            assert!(format!("{error:#}").contains(bad), "{error:#}");
        }
    }
}
