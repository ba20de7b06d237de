//! A life of the minimal example against an emulated AWS: made, found unchanged, found complete by
//! a node, changed, destroyed.
//!
//! The emulator has no permissions, starts no machine and measures nothing: that the calls are
//! accepted and that a second plan is empty is all that this shows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Terraform, checked, python, quick_start};
use crate::run::Run;

const PLACE: &str = "cirrus/terraform/examples/minimal";
const PLAN: &[&str] = &["plan", "-input=false", "-detailed-exitcode"];
const APPLY: &[&str] = &[
    "apply",
    "-input=false",
    "-auto-approve",
    "-compact-warnings",
];
const DESTROY: &[&str] = &[
    "destroy",
    "-input=false",
    "-auto-approve",
    "-compact-warnings",
];

/// Seven tables and three buckets.
const OBJECTS: usize = 10;

/// An option that changes the nodes: a new version of the launch template, and an upgrade to it.
const CHANGE: &str = "  options  = { \"log.level\" = \"debug\" }\n";
/// What lets everything be destroyed.
const WORDS: &str = "  destroy_data = \"destroy all data of example.com\"\n";

/// The whole life, each step a part of its own.
pub(super) fn run(run: &mut Run) {
    let terraform = match Terraform::find(run.root(), "apply") {
        Ok(terraform) => terraform,
        Err(reason) => return run.skip("terraform apply", &reason),
    };
    // Never beside Terraform: both need the machine's memory.
    run.part("apply: build bootstrap", |run| {
        run.cargo(&["build", "--locked", "--package", "cirrus-bootstrap"])
    });
    let mut emulator = None;
    run.part("apply: start the emulated AWS", |run| {
        emulator = Some(Emulator::start(run.root())?);
        Ok(String::new())
    });
    let Some(emulator) = emulator.filter(|_| !run.failed()) else {
        return;
    };
    let endpoint = &emulator.endpoint;
    let step = |arguments: &[&str]| {
        let mut command = terraform.command(PLACE, arguments);
        checked(
            emulated(&mut command, endpoint),
            arguments.join(" ").as_str(),
        )
    };
    let edit = |line: &str| edit(&terraform.work.join(PLACE).join("main.tf"), line);
    let steps: Vec<Step<'_>> = vec![
        ("init", Box::new(|_| step(&["init", "-input=false"]))),
        ("validate", Box::new(|_| step(&["validate"]))),
        ("apply", Box::new(|_| step(APPLY))),
        ("second plan is empty", Box::new(|_| step(PLAN))),
        (
            "a node finds everything",
            Box::new(|run| node_finds_everything(run.root(), endpoint)),
        ),
        (
            "change",
            Box::new(|_| edit(CHANGE).and_then(|()| step(APPLY))),
        ),
        ("plan after it is empty", Box::new(|_| step(PLAN))),
        (
            "the words that let data go",
            Box::new(|_| edit(WORDS).and_then(|()| step(APPLY))),
        ),
        ("destroy", Box::new(|_| step(DESTROY))),
        (
            "README's quick start plans",
            Box::new(|run| quick_start_plans(run.root(), &terraform, endpoint)),
        ),
    ];
    for (name, work) in steps {
        if run.failed() {
            return;
        }
        run.part(&format!("apply: {name}"), work);
    }
}

type Step<'a> = (&'a str, Box<dyn Fn(&Run) -> Result<String, String> + 'a>);

/// The commands of README, with `apply` stopped before it changes anything.
fn quick_start_plans(root: &Path, terraform: &Terraform, endpoint: &str) -> Result<String, String> {
    let start = quick_start::read(root)?;
    quick_start::write(&start, &terraform.work.join("chat"))?;
    for typed in &start.commands {
        let typed = typed.replace("terraform apply", "terraform plan -input=false");
        let command = terraform.command("chat", &[]);
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &typed])
            .current_dir(terraform.work.join("chat"));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        checked(emulated(&mut shell, endpoint), &typed)?;
    }
    Ok(String::new())
}

/// What a node would make where Terraform has made everything: nothing.
fn node_finds_everything(root: &Path, endpoint: &str) -> Result<String, String> {
    let user_data = "domain=example.com\nstore.backend=aws\nstore.region=eu-west-1\n\
                     store.account=123456789012\n";
    let mut command = Command::new(root.join("target/debug/cirrus-bootstrap"));
    command.args([
        "plan",
        "--no-metadata",
        "--user-data",
        user_data,
        "--data-dir",
    ]);
    command.arg(root.join("target/terraform/node"));
    let output = emulated(&mut command, endpoint)
        .output()
        .map_err(|error| format!("cirrus-bootstrap could not be started: {error}"))?;
    let found = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && is_complete(&found) {
        Ok(String::new())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("a node would not leave it alone:\n{found}{said}"))
    }
}

/// Whether a plan says of every table and bucket that it exists, and nothing else of any.
fn is_complete(plan: &str) -> bool {
    let exist = |line: &str| line.ends_with(": exists");
    plan.lines().count() == OBJECTS && plan.lines().all(exist)
}

/// Adds a line to the module's block.
fn edit(path: &Path, line: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(failed)?;
    let domain = "  domain = \"example.com\"\n";
    let changed = text.replace(domain, &format!("{domain}{line}"));
    if changed == text {
        return Err(format!("{}: no line `{}`", path.display(), domain.trim()));
    }
    fs::write(path, changed).map_err(failed)
}

fn emulated<'a>(command: &'a mut Command, endpoint: &str) -> &'a mut Command {
    // AWS's command line, which upgrades take.
    let programs = crate::root().join("target/terraform/aws/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:{}", programs.display()))
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
}

/// The emulated AWS. It ends with this value.
struct Emulator {
    child: Child,
    endpoint: String,
}

impl Emulator {
    fn start(root: &Path) -> Result<Emulator, String> {
        let venv = python::environment(root, "aws")?;
        let failed = |error: std::io::Error| format!("the emulated AWS: {error}");
        let mut child = Command::new(venv.join("bin/python"))
            .arg(root.join("tests/emulators/aws.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let endpoint = line.trim().to_owned();
        let emulator = Emulator { child, endpoint };
        if emulator.endpoint.starts_with("http://") {
            Ok(emulator)
        } else {
            Err("the emulated AWS did not say where it listens".to_owned())
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_anything_to_make_or_to_name_is_not_complete() {
        let whole = "table  example.com-accounts: exists\n".repeat(OBJECTS);
        assert!(is_complete(&whole));
        assert!(!is_complete(&whole.replacen("exists", "would be made", 1)));
        assert!(!is_complete(&format!(
            "{whole}drift  b: access without TLS is allowed\n"
        )));
        assert!(!is_complete(""));
    }

    #[test]
    fn the_example_has_the_line_that_changes_follow() {
        let path = crate::root().join("terraform/examples/minimal/main.tf");
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("  domain = \"example.com\"\n"), "{text}");
    }
}
