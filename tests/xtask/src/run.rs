//! Runs the parts of a verb, keeps the time and the outcome of each, and prints the table.

#![expect(clippy::print_stderr, reason = "a command line reports its progress")]

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The parts run so far.
#[derive(Debug)]
pub struct Run {
    root: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    took: Duration,
    outcome: Result<String, String>,
    skipped: bool,
}

impl Run {
    /// A run in the workspace at `root`; nothing has run yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Run {
        Run {
            root,
            parts: Vec::new(),
        }
    }

    /// The workspace's root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs one part and keeps its time. Its outcome is a note for the table, or what went wrong.
    pub fn part(&mut self, name: &str, work: impl FnOnce(&Run) -> Result<String, String>) {
        eprintln!("== {name}");
        let start = now();
        let outcome = work(self);
        if let Err(reason) = &outcome {
            eprintln!("== {name} failed: {reason}");
        }
        let took = now().duration_since(start);
        self.parts.push(Part {
            name: name.to_owned(),
            took,
            outcome,
            skipped: false,
        });
    }

    /// Runs a part that not every machine can do; where it fails, the table says `SKIPPED` and why.
    /// Whether it was done.
    pub fn attempt(
        &mut self,
        name: &str,
        work: impl FnOnce(&Run) -> Result<String, String>,
    ) -> bool {
        eprintln!("== {name}");
        let start = now();
        let outcome = work(self);
        let took = now().duration_since(start);
        let skipped = outcome.is_err();
        if let Err(reason) = &outcome {
            eprintln!("== {name} SKIPPED: {reason}");
        }
        self.parts.push(Part {
            name: name.to_owned(),
            took,
            outcome: outcome.or_else(Ok),
            skipped,
        });
        !skipped
    }

    /// Notes a part that cannot run here. The table says so and why; it is no failure.
    pub fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("== {name} SKIPPED: {reason}");
        self.parts.push(Part {
            name: name.to_owned(),
            took: Duration::ZERO,
            outcome: Ok(reason.to_owned()),
            skipped: true,
        });
    }

    /// Whether any part so far has failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.parts.iter().any(|part| part.outcome.is_err())
    }

    /// Runs cargo with these arguments in the workspace, its output passed through.
    ///
    /// # Errors
    /// When cargo cannot be started or its exit code is not 0.
    pub fn cargo(&self, arguments: &[&str]) -> Result<String, String> {
        eprintln!("   cargo {}", arguments.join(" "));
        let status = self
            .command(arguments)
            .status()
            .map_err(|error| format!("cargo could not be started: {error}"))?;
        if status.success() {
            Ok(String::new())
        } else {
            Err(format!("cargo ended with {status}"))
        }
    }

    /// Runs `cargo test --workspace` and keeps one part for each kind of test binary. Cargo's own
    /// output, its closing lines included, is passed through unchanged.
    pub fn tests(&mut self, filter: &[String]) {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--locked"];
        if !filter.is_empty() {
            arguments.push("--");
            arguments.extend(filter.iter().map(String::as_str));
        }
        eprintln!("== tests\n   cargo {}", arguments.join(" "));
        let mut command = self.command(&arguments);
        if io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let (parts, outcome) = time_tests(&mut command);
        self.parts.extend(parts);
        let took = Duration::ZERO;
        self.parts.push(Part {
            name: "cargo test's exit code".to_owned(),
            took,
            outcome,
            skipped: false,
        });
    }

    /// Starts a program of the workspace that only computes, to run beside parts that mostly wait.
    /// Whoever has it gives it to [`Run::finished`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn beside(&self, program: &str, arguments: &[&str]) -> io::Result<Child> {
        eprintln!("== beside the tests\n   {program} {}", arguments.join(" "));
        // Where cargo has put this program it has put the others.
        let program = std::env::current_exe()?.with_file_name(program);
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).args(arguments);
        command.current_dir(&self.root).stdin(Stdio::null());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Waits for what ran beside, and passes its output through.
    pub fn finished(&mut self, name: &str, beside: io::Result<Child>) {
        self.part(name, |_| {
            let ended = beside.and_then(Child::wait_with_output);
            let ended = ended.map_err(|error| format!("it could not be run: {error}"))?;
            for output in [&ended.stdout, &ended.stderr] {
                eprint!("{}", String::from_utf8_lossy(output));
            }
            if ended.status.success() {
                Ok(String::new())
            } else {
                Err(format!("it ended with {}", ended.status))
            }
        });
    }

    /// The table of minutes, one row for each part, with the sum.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from("\n  minutes  part\n");
        for part in &self.parts {
            let (sign, note) = match &part.outcome {
                Ok(reason) if part.skipped => ("SKIPPED", format!(": {reason}")),
                Ok(note) if note.is_empty() => ("ok", String::new()),
                Ok(note) => ("ok", format!(": {note}")),
                Err(reason) => ("FAILED", format!(": {reason}")),
            };
            let minutes = minutes(part.took);
            let _ = writeln!(table, "  {minutes:>7.2}  {} {sign}{note}", part.name);
        }
        let sum = minutes(self.parts.iter().map(|part| part.took).sum());
        let verdict = if self.failed() { "FAILED" } else { "ok" };
        let _ = writeln!(table, "  {sum:>7.2}  all {verdict}");
        table
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.root);
        command
    }
}

/// Starts cargo test, copies its progress lines through, and adds up the time between them by
/// kind of test binary.
fn time_tests(command: &mut Command) -> (Vec<Part>, Result<String, String>) {
    let mut child = match command.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            return (
                Vec::new(),
                Err(format!("cargo could not be started: {error}")),
            );
        }
    };
    let mut spent: Vec<(&'static str, Duration)> = Vec::new();
    let mut add = |kind: &'static str, took: Duration| match spent.iter_mut().find(|s| s.0 == kind)
    {
        Some(row) => row.1 += took,
        None => spent.push((kind, took)),
    };
    let (mut kind, mut since) = ("tests: build", now());
    if let Some(progress) = child.stderr.take() {
        for line in BufReader::new(progress).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if let Some(next) = kind_of_test(&line) {
                add(kind, now().duration_since(since));
                (kind, since) = (next, now());
            }
        }
    }
    let outcome = match child.wait() {
        Ok(status) if status.success() => Ok(String::new()),
        Ok(status) => Err(format!("cargo ended with {status}")),
        Err(error) => Err(format!("cargo could not be waited for: {error}")),
    };
    add(kind, now().duration_since(since));
    let part = |(name, took): (&str, Duration)| Part {
        name: name.to_owned(),
        took,
        outcome: Ok(String::new()),
        skipped: false,
    };
    (spent.into_iter().map(part).collect(), outcome)
}

/// Which kind of tests a progress line of cargo announces.
fn kind_of_test(line: &str) -> Option<&'static str> {
    if line.contains("Doc-tests ") {
        Some("tests: documentation")
    } else if line.contains("Running unittests ") {
        Some("tests: unit and contract")
    } else if line.contains("Running ") && line.contains("tests/") {
        Some("tests: integration")
    } else {
        None
    }
}

fn minutes(took: Duration) -> f64 {
    took.as_secs_f64() / 60.0
}

#[expect(
    clippy::disallowed_methods,
    reason = "the table of minutes is for people"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_of_cargo_are_told_apart() {
        let unit = "     Running unittests src/lib.rs (target/debug/deps/cirrus_jid-0f)";
        let integration = "     Running tests/all/main.rs (target/debug/deps/all-0f)";
        assert_eq!(kind_of_test(unit), Some("tests: unit and contract"));
        assert_eq!(kind_of_test(integration), Some("tests: integration"));
        assert_eq!(
            kind_of_test("   Doc-tests cirrus_jid"),
            Some("tests: documentation")
        );
        assert_eq!(kind_of_test("   Compiling cirrus-jid v0.1.0"), None);
    }

    #[test]
    fn one_failed_part_fails_the_run_and_says_why() {
        let mut run = Run::new(PathBuf::from("."));
        run.part("first", |_| Ok(String::new()));
        assert!(!run.failed());
        run.part("second", |_| Err("it broke".to_owned()));
        run.part("third", |_| Ok("a note".to_owned()));
        run.skip("fourth", "no such program");
        assert!(run.attempt("fifth", |_| Ok(String::new())));
        assert!(!run.attempt("sixth", |_| Err("no root".to_owned())));
        assert!(run.failed());
        let table = run.table();
        assert!(table.contains("second FAILED: it broke"), "{table}");
        assert!(table.contains("third ok: a note"), "{table}");
        assert!(table.contains("fourth SKIPPED: no such program"), "{table}");
        assert!(table.contains("fifth ok\n"), "{table}");
        assert!(table.contains("sixth SKIPPED: no root"), "{table}");
        assert!(table.contains("all FAILED"), "{table}");
    }

    #[test]
    fn a_failing_test_command_is_a_failure() {
        let (_, outcome) = time_tests(Command::new("false").stdout(Stdio::null()));
        assert!(outcome.is_err());
        let (_, outcome) = time_tests(Command::new("true").stdout(Stdio::null()));
        assert!(outcome.is_ok());
    }
}
