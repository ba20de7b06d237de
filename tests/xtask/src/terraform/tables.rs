//! The tables of variables and outputs in `terraform/README.md`, made from the modules themselves.
//!
//! It reads HCL as `terraform fmt` writes it, which the checks hold: a block begins and ends at
//! the first column, and its arguments are indented by two.

use std::fmt::Write as _;
use std::path::Path;

/// The lines between which the tables stand.
pub const START: &str = "<!-- generated: UPDATE_GOLDEN=1 cargo test -p xtask writes the tables -->";
/// The end of the tables.
pub const END: &str = "<!-- end -->";

/// The sub-modules in the order of the document.
const MODULES: &[&str] = &["network", "data", "cluster", "dns", "observability"];

/// One `variable` or `output`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    arguments: Vec<(String, String)>,
}

impl Entry {
    fn argument(&self, name: &str) -> Option<&str> {
        let found = self.arguments.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn description(&self) -> String {
        let text = self.argument("description").unwrap_or_default();
        text.trim_matches('"')
            .replace("\\\"", "\"")
            .replace('|', "\\|")
    }
}

/// The document with its tables made anew.
///
/// # Errors
/// When the document has no place for them, or a module cannot be read.
pub fn render(document: &str, terraform: &Path) -> Result<String, String> {
    let (head, rest) = document
        .split_once(START)
        .ok_or("no line that begins the tables")?;
    let (_, tail) = rest.split_once(END).ok_or("no line that ends the tables")?;
    let mut text = format!("{head}{START}\n\n## Variables\n\n{}", variables(terraform)?);
    let _ = write!(text, "\n## Outputs\n\n{}", outputs(terraform)?);
    for module in MODULES {
        let folder = terraform.join("modules").join(module);
        let _ = write!(
            text,
            "\n## modules/{module}\n\n{}\n{}",
            variables(&folder)?,
            outputs(&folder)?
        );
    }
    Ok(format!("{text}\n{END}{tail}"))
}

fn variables(folder: &Path) -> Result<String, String> {
    let mut table = String::from("| variable | type | default | meaning |\n|---|---|---|---|\n");
    for entry in entries(&folder.join("variables.tf"), "variable")? {
        let kind = entry.argument("type").unwrap_or("any");
        let default = entry.argument("default");
        let default = default.map_or("required".to_owned(), |value| format!("`{value}`"));
        let (name, meaning) = (&entry.name, entry.description());
        let _ = writeln!(table, "| `{name}` | `{kind}` | {default} | {meaning} |");
    }
    Ok(table)
}

fn outputs(folder: &Path) -> Result<String, String> {
    let mut table = String::from("| output | meaning |\n|---|---|\n");
    for entry in entries(&folder.join("outputs.tf"), "output")? {
        let _ = writeln!(table, "| `{}` | {} |", entry.name, entry.description());
    }
    Ok(table)
}

fn entries(file: &Path, kind: &str) -> Result<Vec<Entry>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let found = parse(&text, kind);
    if let Some(entry) = found.iter().find(|entry| entry.description().is_empty()) {
        return Err(format!(
            "{}: {} has no description",
            file.display(),
            entry.name
        ));
    }
    Ok(found)
}

/// The blocks of one kind with their arguments, each on one line.
fn parse(text: &str, kind: &str) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(&format!("{kind} \"")) {
            inside = true;
            found.push(Entry {
                name: rest.split('"').next().unwrap_or_default().to_owned(),
                arguments: Vec::new(),
            });
        } else if line == "}" {
            inside = false;
        } else if inside && let Some(entry) = found.last_mut() {
            argument(&mut entry.arguments, line);
        }
    }
    found
}

/// Takes one line of a block: an argument, or more of the one before.
fn argument(arguments: &mut Vec<(String, String)>, line: &str) {
    let indent = line.len() - line.trim_start().len();
    let line = line.trim();
    match line.split_once(" = ") {
        Some((key, value)) if indent == 2 => {
            arguments.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        _ if indent == 2 && line.ends_with('{') => arguments.push((line.to_owned(), String::new())),
        _ => {
            if let Some((_, value)) = arguments.last_mut().filter(|_| !line.is_empty()) {
                join(value, line);
            }
        }
    }
}

/// Continues a value that has several lines.
fn join(value: &mut String, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let opened = value.ends_with('{') || value.ends_with('(');
    let closes = line.starts_with('}') || line.starts_with(')');
    value.push_str(if opened || closes { " " } else { ", " });
    value.push_str(&words.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_read_whole() {
        let text = "variable \"size\" {\n  type = object({\n    min = optional(number, 2)\n    \
                    max = optional(number, 8)\n  })\n  default     = {}\n  \
                    description = \"How \\\"many\\\" | so.\"\n\n  validation {\n    \
                    condition     = true\n    error_message = \"no\"\n  }\n}\n";
        let found = parse(text, "variable");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].argument("type"),
            Some("object({ min = optional(number, 2), max = optional(number, 8) })")
        );
        assert_eq!(found[0].argument("default"), Some("{}"));
        assert_eq!(found[0].description(), "How \"many\" \\| so.");
        assert_eq!(found[0].argument("error_message"), None);
    }

    /// The tables say what the modules are. `UPDATE_GOLDEN=1` writes them anew.
    #[test]
    fn the_readme_has_every_variable_and_output() {
        let folder = crate::root().join("terraform");
        let path = folder.join("README.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let expected = render(&document, &folder).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap();
        assert!(
            there == expected,
            "terraform/README.md is out of date; UPDATE_GOLDEN=1 rewrites its tables"
        );
    }
}
