//! `cargo xtask terraform`: the infrastructure, checked as far as that is possible without an
//! account.
//!
//! | word | does | runs |
//! |---|---|---|
//! | `check` | format, validation, every `.tftest.hcl`, README's quick start; mocked | each push |
//! | `checkov` | checkov, with the reasons in `terraform/.checkov.yaml` | each night |
//! | `apply` | a life of `examples/minimal` against an emulated AWS | each night |
//!
//! Without a word all three. Everything happens in a copy below `target/terraform`. Where there is
//! no `terraform` the parts are shown as skipped; they never pass in silence.

mod apply;
mod plan;
pub(crate) mod python;
mod quick_start;
pub mod tables;

pub use plan::{minimal, plan};

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::Run;
use crate::tools;

/// Seconds after which a step of Terraform has failed. The slowest one, an apply, takes 2 minutes.
const STEP_SECONDS: u32 = 900;

/// Runs what the words ask for.
pub fn run(run: &mut Run, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            check(run);
            checkov(run);
            apply::run(run);
        }
        ["check"] => check(run),
        ["checkov"] => checkov(run),
        ["apply"] => apply::run(run),
        _ => run.part("terraform", |_| {
            Err("usage: cargo xtask terraform [check|checkov|apply]".to_owned())
        }),
    }
}

/// What needs no emulator: part of the continuous integration.
pub fn check(run: &mut Run) {
    let terraform = match Terraform::find(run.root(), "check") {
        Ok(terraform) => terraform,
        Err(reason) => return run.skip("terraform", &reason),
    };
    run.part("terraform: format", |_| {
        terraform.step(
            "cirrus/terraform",
            &["fmt", "-check", "-diff", "-recursive"],
        )
    });
    for folder in folders(&terraform.work.join("cirrus/terraform")) {
        let place = format!("cirrus/terraform/{folder}");
        run.part(&format!("terraform: {}", label(&folder)), |_| {
            terraform.step(&place, INIT)?;
            terraform.step(&place, &["validate"])?;
            if terraform.work.join(&place).join("tests").is_dir() {
                terraform.step(&place, &["test"])?;
            }
            Ok(String::new())
        });
    }
    run.part("terraform: README's quick start", |run| {
        quick_start::check(run.root(), &terraform)
    });
}

fn checkov(run: &mut Run) {
    run.part("checkov", |run| {
        let root = run.root();
        let venv = python::environment(root, "checkov")?;
        let mut command = Command::new(venv.join("bin/checkov"));
        command.current_dir(root.join("terraform"));
        command.args(["--directory", ".", "--config-file", ".checkov.yaml"]);
        checked(&mut command, "checkov")
    });
}

const INIT: &[&str] = &["init", "-backend=false", "-input=false"];

/// The root module, the modules below it, and the examples.
fn folders(module: &Path) -> Vec<String> {
    let mut found = vec![".".to_owned()];
    for group in ["modules", "examples"] {
        let entries = fs::read_dir(module.join(group)).into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        found.extend(names.map(|name| format!("{group}/{}", name.to_string_lossy())));
    }
    found.sort();
    found
}

fn label(folder: &str) -> &str {
    if folder == "." {
        "the whole module, examples with invented answers"
    } else {
        folder
    }
}

/// An installed Terraform and the folder that it works in.
struct Terraform {
    /// Holds a copy of the module as `cirrus/terraform`, and nothing that is in the tree.
    work: PathBuf,
    /// Says where providers come from.
    settings: PathBuf,
}

impl Terraform {
    /// Looks for the program, and copies the module into a new working folder of that name.
    fn find(root: &Path, name: &str) -> Result<Terraform, String> {
        if !tools::has(&["terraform", "version"]) {
            return Err("no program `terraform` here; see terraform/README.md".to_owned());
        }
        let work = root.join("target/terraform").join(name);
        let settings = root.join(format!("target/terraform/{name}.tfrc"));
        let text = settings_text(mirror().as_deref());
        let failed = |error: std::io::Error| format!("{}: {error}", work.display());
        if work.exists() {
            fs::remove_dir_all(&work).map_err(failed)?;
        }
        copy(&root.join("terraform"), &work.join("cirrus/terraform")).map_err(failed)?;
        fs::write(&settings, text).map_err(failed)?;
        Ok(Terraform { work, settings })
    }

    /// Runs one command in a folder below the working folder; its output is passed through.
    fn step(&self, place: &str, arguments: &[&str]) -> Result<String, String> {
        checked(
            &mut self.command(place, arguments),
            arguments.first().unwrap_or(&""),
        )
    }

    fn command(&self, place: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg(STEP_SECONDS.to_string()).arg("terraform");
        command.args(arguments).current_dir(self.work.join(place));
        if !std::io::stdout().is_terminal() && arguments.first() != Some(&"fmt") {
            command.arg("-no-color");
        }
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("AWS_") || name.starts_with("TF_")
        }) {
            command.env_remove(name);
        }
        command.env("TF_CLI_CONFIG_FILE", &self.settings);
        command
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1");
        command.stdin(Stdio::null());
        command
    }
}

/// Terraform's settings: providers from a folder of this machine if it has one, else from where
/// Terraform gets them by itself.
fn settings_text(mirror: Option<&Path>) -> String {
    mirror.map_or_else(String::new, |mirror| {
        let path = mirror.display();
        format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = \"{path}\"\n  }}\n}}\n"
        )
    })
}

/// A folder with the AWS provider in the layout of a mirror: `HOST/hashicorp/aws`.
fn mirror() -> Option<PathBuf> {
    let mut places = vec![
        PathBuf::from("/usr/local/share/terraform/plugins"),
        PathBuf::from("/usr/share/terraform/plugins"),
    ];
    places.extend(std::env::home_dir().map(|home| home.join(".terraform.d/plugins")));
    places.extend(children(Path::new("/opt")));
    places.into_iter().find(|place| {
        let mut hosts = children(place).into_iter();
        hosts.any(|host| host.join("hashicorp/aws").is_dir())
    })
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Copies a folder without what Terraform left in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let left = name.to_string_lossy();
        if left.starts_with(".terraform") || left.contains(".tfstate") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(&name))?;
        } else {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

fn checked(command: &mut Command, what: &str) -> Result<String, String> {
    let status = command
        .status()
        .map_err(|error| format!("{what} could not be started: {error}"))?;
    if status.success() {
        Ok(String::new())
    } else {
        Err(format!("{what} ended with {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_mirror_or_nothing() {
        assert_eq!(settings_text(None), "");
        let text = settings_text(Some(Path::new("/opt/mirror")));
        assert!(text.contains("path = \"/opt/mirror\""), "{text}");
    }

    #[test]
    fn every_module_and_example_is_checked() {
        let folders = folders(&crate::root().join("terraform"));
        for folder in [
            ".",
            "modules/cluster",
            "examples/minimal",
            "examples/dns-only",
        ] {
            assert!(folders.iter().any(|found| found == folder), "{folder}");
        }
    }

    /// A finding is skipped for a reason that stands beside it.
    #[test]
    fn every_skipped_finding_has_its_reason() {
        let path = crate::root().join("terraform/.checkov.yaml");
        let text = fs::read_to_string(path).unwrap();
        let skipped: Vec<&str> = text.lines().filter(|l| l.contains("- CKV")).collect();
        assert!(!skipped.is_empty());
        for line in skipped {
            let reason = line.split_once(" # ").map_or("", |(_, reason)| reason);
            assert!(reason.len() > 15, "no reason: {line}");
        }
    }
}
