//! Documents: no command that doesn't run, no link to nowhere.

use super::Fault;
use crate::VERBS;

/// Programs that a document may use without a check of what follows: a Unix system's, and those
/// of the services that the text is about.
const FOREIGN: &[&str] = &[
    "apt-get",
    "aws",
    "cat",
    "cd",
    "cp",
    "curl",
    "cut",
    "diff",
    "dig",
    "docker",
    "echo",
    "export",
    "git",
    "go-sendxmpp",
    "grep",
    "gzip",
    "head",
    "jq",
    "journalctl",
    "kill",
    "ls",
    "mkdir",
    "nc",
    "packer",
    "pen",
    "penctl",
    "pip",
    "printf",
    "profanity",
    "ps",
    "python3",
    "rm",
    "rustup",
    "scp",
    "sed",
    "sleep",
    "sort",
    "ss",
    "ssh",
    "sudo",
    "systemctl",
    "tail",
    "tar",
    "terraform",
    "test",
    "wc",
];

/// Our own programs. What follows them is checked against the programs themselves, by the test
/// that has them built.
const OWN: &[&str] = &["cirrus-bootstrap", "cirrus-server"];

/// Subcommands of cargo that need nothing installed besides the toolchain, and those that the
/// documents install before they use them.
const CARGO: &[&str] = &[
    "bench", "build", "clippy", "deny", "fmt", "fuzz", "install", "metadata", "run", "test",
    "tree", "xtask",
];

/// One command line in a document: program and arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The line of the document, from 1.
    pub line: usize,
    /// The words; the first is the program, without its folder.
    pub words: Vec<String>,
}

/// The faults of one document. `exists` says whether a path from the root is there.
pub fn check(place: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults: Vec<Fault> = commands(text)
        .iter()
        .filter_map(|command| {
            let what = fault_of(command)?;
            Some(Fault::at(place, command.line, what))
        })
        .collect();
    let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (line, target) in links(text) {
        let path = join(folder, target);
        if !exists(&path) {
            faults.push(Fault::at(
                place,
                line,
                format!("links to {target}, which is not there"),
            ));
        }
    }
    faults
}

/// The commands in the fenced `sh`, `bash` and `console` blocks of a document. In a `console`
/// block only the lines after a prompt are commands.
#[must_use]
pub fn commands(text: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    let mut pending = String::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if let Some(language) = text.strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(language)
            };
            pending.clear();
            continue;
        }
        let typed = match block {
            Some("sh" | "bash" | "shell") => Some(text),
            Some("console") if !pending.is_empty() => Some(text),
            Some("console") => text.strip_prefix("$ ").or_else(|| text.strip_prefix("# ")),
            _ => None,
        };
        let Some(typed) = typed.filter(|typed| !typed.starts_with('#') || block == Some("console"))
        else {
            continue;
        };
        if let Some(open) = typed.strip_suffix('\\') {
            pending.push_str(open);
            continue;
        }
        pending.push_str(typed);
        found.extend(split(&pending, line));
        pending.clear();
    }
    found
}

/// One typed line may hold several commands.
fn split(typed: &str, line: usize) -> Vec<Command> {
    let typed = typed.split(" # ").next().unwrap_or(typed);
    let typed = typed
        .replace("&&", "\n")
        .replace("||", "\n")
        .replace(['|', ';'], "\n");
    let mut found = Vec::new();
    for part in typed.lines() {
        let part = part.trim().trim_end_matches('&');
        let mut words: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
        let leading = words.iter().take_while(|word| is_prefix(word)).count();
        words.drain(..leading);
        if let Some(program) = words.first_mut() {
            if let Some((_, name)) = program.rsplit_once('/') {
                *program = name.to_owned();
            }
            found.push(Command { line, words });
        }
    }
    found
}

/// `NAME=value` before a command, and words that only start another.
fn is_prefix(word: &str) -> bool {
    let assigns = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    });
    assigns || word == "sudo" || word == "time"
}

/// What is wrong with a command as far as its words show it.
fn fault_of(command: &Command) -> Option<String> {
    let word = |at: usize| command.words.get(at).map_or("", String::as_str);
    match word(0) {
        "cargo" if !CARGO.contains(&word(1)) => Some(format!("no `cargo {}`", word(1))),
        "cargo" if word(1) == "xtask" && !VERBS.iter().any(|(verb, _)| *verb == word(2)) => {
            Some(format!("no `cargo xtask {}`", word(2)))
        }
        "cargo" | "run" => None,
        program if OWN.contains(&program) || FOREIGN.contains(&program) => None,
        program => Some(format!("`{program}` is no program known to run here")),
    }
}

/// The links of a document that point into the tree, without their fragments.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, text) in (1..).zip(text.lines()) {
        fenced ^= text.trim_start().starts_with("```");
        for part in text.split("](").skip(1).filter(|_| !fenced) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target));
            }
        }
    }
    found
}

/// A path from the root, for a link in a document of that folder.
fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let here = |path: &str| path == "docs/CI.md";
        check("docs/A.md", text, here)
            .iter()
            .map(Fault::to_string)
            .collect()
    }

    #[test]
    fn a_verb_or_a_program_that_is_not_there_is_a_fault() {
        assert_eq!(
            faults("```sh\ncargo xtask test\n# words\nRUST_LOG=info cargo run\n```"),
            [""; 0]
        );
        assert_eq!(
            faults("```sh\ncargo xtask fly\n```"),
            ["docs/A.md:2: no `cargo xtask fly`"]
        );
        assert_eq!(
            faults("```sh\ncargo frob\n```"),
            ["docs/A.md:2: no `cargo frob`"]
        );
        let unknown = faults("```console\n$ frobnicate --all\noutput\n```");
        assert_eq!(
            unknown,
            ["docs/A.md:2: `frobnicate` is no program known to run here"]
        );
        assert_eq!(faults("```text\nfrobnicate\n```\nfrobnicate\n"), [""; 0]);
    }

    #[test]
    fn joined_continued_and_prefixed_commands_are_taken_apart() {
        let text =
            "```sh\nA=1 sudo ./target/release/cirrus-server \\\n  run -c x && ls | wc -l\n```";
        let words: Vec<Vec<String>> = commands(text).into_iter().map(|c| c.words).collect();
        let expected: [&[&str]; 3] = [&["cirrus-server", "run", "-c", "x"], &["ls"], &["wc", "-l"]];
        assert_eq!(
            words,
            expected.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        );
    }

    #[test]
    fn a_link_to_nowhere_is_a_fault() {
        let text = "[a](CI.md#budget) [b](../docs/CI.md) [c](https://example.org/) [d](GONE.md)";
        assert_eq!(
            faults(text),
            ["docs/A.md:1: links to GONE.md, which is not there"]
        );
    }
}
