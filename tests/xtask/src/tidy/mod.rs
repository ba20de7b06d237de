//! What a reader may rely on everywhere in the tree, checked.
//!
//! Each rule is a module with a pure check on text, proven by unit tests on planted violations;
//! this module walks the tree and applies them.

pub mod docs;
pub mod edges;
pub mod layout;
pub mod lex;
pub mod policy;
pub mod size;
pub mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, relative to the root, or the crate.
    pub place: String,
    /// The line, from 1; 0 where the whole place is meant.
    pub line: usize,
    /// What is wrong, with the figure and the limit.
    pub what: String,
}

impl Fault {
    /// A fault at a line of a file.
    pub fn at(place: &str, line: usize, what: impl Into<String>) -> Fault {
        Fault {
            place: place.to_owned(),
            line,
            what: what.into(),
        }
    }

    /// A fault of a file or crate as a whole.
    pub fn of(place: &str, what: impl Into<String>) -> Fault {
        Fault::at(place, 0, what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// Applies every rule to the workspace at `root`; the faults in the order of their places.
///
/// # Errors
/// When the tree or cargo's account of it cannot be read.
pub fn check(root: &Path) -> Result<Vec<Fault>, String> {
    let mut faults = layout::check(&entries(root)?);
    for path in files(root)? {
        let place = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if place.ends_with(".rs") {
            faults.extend(size::check(&place, &text));
            faults.extend(layout::check_file_name(&place));
        }
        if words::applies_to(&place) {
            faults.extend(words::check(&place, &text));
        }
        if place.ends_with(".md") {
            faults.extend(docs::check(&place, &text, |target| {
                root.join(target).exists()
            }));
        }
    }
    let metadata = cargo(root, &["metadata", "--format-version", "1", "--locked"])?;
    let metadata = serde_json::from_str(&metadata).map_err(|error| format!("metadata: {error}"))?;
    faults.extend(edges::check(&metadata));
    let rules =
        fs::read_to_string(root.join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    faults.extend(policy::check(&policy::Rules::parse(&rules), &tree(root)?));
    faults.sort();
    Ok(faults)
}

/// What cargo says it compiles for Linux: everything, and what the server alone needs.
fn tree(root: &Path) -> Result<policy::Tree, String> {
    let list = |package: &[&str], edges: &str| {
        let mut arguments = vec!["tree", "--locked", "--prefix", "none", "--edges", edges];
        arguments.extend([
            "--target",
            "x86_64-unknown-linux-gnu",
            "--format",
            "{p}|{l}",
        ]);
        arguments.extend(package);
        cargo(root, &arguments).map(|text| policy::packages(&text))
    };
    Ok(policy::Tree {
        all: list(&["--workspace"], "all")?,
        server: list(&["--package", "cirrus-server"], "normal,build")?,
    })
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The names in the root folder, but for what version control ignores.
fn entries(root: &Path) -> Result<Vec<String>, String> {
    let names = fs::read_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !ignored(name)).collect())
}

/// Every file below `root`, but for what version control ignores.
fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let unread = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if ignored(&name) || name == ".git" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The same names as in `.gitignore`.
fn ignored(name: &str) -> bool {
    name.starts_with("target") || name.ends_with(".log") || [".venv", "__pycache__"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree itself keeps the rules: the test that stands for `cargo xtask tidy`.
    #[test]
    fn the_tree_is_tidy() {
        let faults = check(&crate::root()).unwrap();
        let listed: Vec<String> = faults.iter().map(Fault::to_string).collect();
        assert!(faults.is_empty(), "\n{}\n", listed.join("\n"));
    }

    #[test]
    fn the_walk_sees_this_file_and_no_build_output() {
        let files = files(&crate::root()).unwrap();
        assert!(
            files
                .iter()
                .any(|path| path.ends_with("tests/xtask/src/tidy/mod.rs"))
        );
        assert!(files.iter().any(|path| path.ends_with(".ci/run")));
        assert!(
            !files
                .iter()
                .any(|path| path.to_string_lossy().contains("/target/"))
        );
    }

    #[test]
    fn a_fault_shows_its_place() {
        assert_eq!(Fault::at("a.rs", 7, "long").to_string(), "a.rs:7: long");
        assert_eq!(Fault::of("a.rs", "long").to_string(), "a.rs: long");
    }
}
