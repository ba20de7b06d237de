//! The command lines: what documents name runs, and what `--help` says is what was agreed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cirrus_tests::process::binary;
use xtask::tidy::docs;

/// Our programs with every subcommand that has a help of its own.
const PROGRAMS: &[(&str, &[&str])] = &[
    (
        "cirrus-server",
        &[
            "",
            "run",
            "check",
            "user",
            "user add",
            "user passwd",
            "user delete",
            "user list",
            "cluster",
            "cluster status",
            "cluster drain",
            "cluster abort",
            "cluster dns",
        ],
    ),
    (
        "cirrus-bootstrap",
        &["", "run", "check", "plan", "render", "watch"],
    ),
];

/// `--help` is an interface: a change of it is a change of its golden file. `UPDATE_GOLDEN=1`
/// writes the files anew.
#[test]
fn help_is_what_was_agreed() {
    for (program, subcommands) in PROGRAMS {
        for subcommand in *subcommands {
            let words: Vec<&str> = subcommand.split_whitespace().collect();
            let output = help(program, &words);
            assert!(
                output.status.success(),
                "{program} {subcommand} --help: {output:?}"
            );
            let text = String::from_utf8(output.stdout).unwrap();
            let name = [&[*program], &words[..]].concat().join("-");
            check_golden(&format!("help/{name}.txt"), &text);
        }
    }
}

/// Every command of ours in a document: its subcommands are there, and its options.
#[test]
fn documents_name_only_commands_that_run() {
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for command in docs::commands(&text) {
            let (program, rest) = command.words.split_first().unwrap();
            if !PROGRAMS.iter().any(|(ours, _)| ours == program) {
                continue;
            }
            let place = format!(
                "{}:{}: {}",
                path.display(),
                command.line,
                command.words.join(" ")
            );
            check_command(program, rest, &place);
        }
    }
}

/// A planted command that is not there is found.
#[test]
#[should_panic(expected = "planted")]
fn a_command_that_is_not_there_is_found() {
    check_command("cirrus-server", &["frobnicate".to_owned()], "planted");
}

#[test]
#[should_panic(expected = "planted")]
fn an_option_that_is_not_there_is_found() {
    check_command(
        "cirrus-server",
        &["run".to_owned(), "--frobnicate".to_owned()],
        "planted",
    );
}

fn check_command(program: &str, words: &[String], place: &str) {
    let known = PROGRAMS
        .iter()
        .find(|(ours, _)| *ours == program)
        .unwrap()
        .1;
    let mut subcommand: Vec<&str> = Vec::new();
    for word in words.iter().take_while(|word| !word.starts_with('-')) {
        let longer = [&subcommand[..], &[word.as_str()]].concat();
        if known.contains(&longer.join(" ").as_str()) {
            subcommand = longer;
        }
    }
    let options = words
        .iter()
        .filter(|word| word.starts_with('-') && word.len() > 1);
    let options: Vec<&str> = options
        .map(|word| word.split('=').next().unwrap())
        .collect();
    let global = ["--help", "--version", "-h", "-V"];
    let is_global = options.iter().any(|option| global.contains(option));
    assert!(
        !subcommand.is_empty() || is_global,
        "{place}: no such subcommand"
    );
    let output = help(program, &subcommand);
    assert!(output.status.success(), "{place}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == ',' || c == '=')
        .collect();
    for option in options {
        assert!(listed.contains(&option), "{place}: no option {option}");
    }
}

fn help(program: &str, subcommand: &[&str]) -> Output {
    // The width is the same on every machine.
    Command::new(binary(program).unwrap())
        .args(subcommand)
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

fn documents() -> Vec<PathBuf> {
    let root = xtask::root();
    let mut found = vec![
        root.join("README.md"),
        root.join("tests/dialogues/README.md"),
    ];
    let folder = std::fs::read_dir(root.join("docs")).unwrap();
    found.extend(folder.map(|entry| entry.unwrap().path()));
    found.retain(|path| path.extension().is_some_and(|kind| kind == "md"));
    found
}

/// Compares a text with its golden file, or writes that.
pub(crate) fn check_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        golden,
        "{} is not so any more; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}
