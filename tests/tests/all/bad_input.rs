//! Bad input of every kind: the exact answer, nothing changed, and the server still there.
//!
//! The cases are data, in `tests/bad-input`; docs/BAD-INPUT.md is made from them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::{Stage as _, play};
use cirrus_tests::dialogue::{parse, pattern};
use cirrus_tests::process::binary;
use cirrus_tests::server::{Options, Server};
use cirrus_tests::snapshot::{copy_folder, dump, files};
use serde_json::json;
use tempfile::TempDir;

/// The classes in the order of the document, and how many cases each must have at least.
const CLASSES: &[&str] = &[
    "user-data.txt",
    "configuration.txt",
    "xml-framing.xmpp",
    "xml-well-formedness.xmpp",
    "sasl.xmpp",
    "stanza-semantics.xmpp",
    "control-socket.txt",
];
const CASES_PER_CLASS: usize = 8;

/// The witness is nobody's correspondent; that it can log in shows that the server is up.
const WITNESS: (&str, &str) = ("witness@localhost", "I saw nothing");

#[test]
fn user_data() {
    check_all("user-data.txt", |case, input, expected| {
        let site = site();
        let before = files(site.path()).unwrap();
        let mut command = Command::new("timeout");
        command.arg("60").arg(binary("cirrus-bootstrap").unwrap());
        command.args(["run", "--no-metadata", "--user-data", "-", "--data-dir"]);
        command.arg(site.path());
        let (code, said) = run(&mut command, input);
        assert_eq!(code, expected.code, "{case}: {said}");
        let status: Vec<&str> = said
            .lines()
            .filter(|l| l.starts_with("CIRRUS-BOOT"))
            .collect();
        expected.compare(&status.join("\n"));
        assert_same(&before, &files(site.path()).unwrap());
    });
    assert_serves(site());
}

#[test]
fn configuration() {
    check_all("configuration.txt", |case, input, expected| {
        let site = site();
        std::fs::write(site.path().join("cirrus.yml"), input).unwrap();
        let before = files(site.path()).unwrap();
        let mut command = Command::new("timeout");
        command.arg("60").arg(binary("cirrus-server").unwrap());
        command
            .args(["run", "--config", "cirrus.yml"])
            .current_dir(site.path());
        let (code, said) = run(&mut command, b"");
        assert_eq!(code, expected.code, "{case}: {said}");
        expected.compare(said.trim_end());
        assert_same(&before, &files(site.path()).unwrap());
    });
    assert_serves(site());
}

#[test]
fn control_socket() {
    check_all("control-socket.txt", |_, input, expected| {
        let server = Server::start_in(site(), &Options::new(), Vec::new()).unwrap();
        let answer = server.control_line(input).unwrap();
        expected.compare(answer.trim_end());
        assert_unchanged(server);
    });
}

#[test]
fn xml_framing() {
    play_all("xml-framing.xmpp");
}

#[test]
fn xml_well_formedness() {
    play_all("xml-well-formedness.xmpp");
}

#[test]
fn sasl() {
    play_all("sasl.xmpp");
}

#[test]
fn stanza_semantics() {
    play_all("stanza-semantics.xmpp");
}

/// docs/BAD-INPUT.md says what is tested. `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_document_lists_every_case() {
    let mut text = String::from(HEAD);
    for class in CLASSES {
        let class = Class::read(class);
        assert!(
            class.cases.len() >= CASES_PER_CLASS,
            "{}: too few cases",
            class.title
        );
        let _ = write!(text, "\n## {}\n\n{}\n", class.title, class.about);
        for case in &class.cases {
            let _ = write!(
                text,
                "\n### {}\n\n```text\n{}\n```\n",
                case.name,
                case.body.trim()
            );
        }
    }
    let path = xtask::root().join("docs/BAD-INPUT.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, there,
        "docs/BAD-INPUT.md is out of date; UPDATE_GOLDEN=1 rewrites it"
    );
}

const HEAD: &str = "\
# Bad input

Made from the files in `tests/bad-input`, which drive the tests: each case is put to the real
program, and its answer must be exactly this one. After each case a sorted dump of all tables and
blobs is the same as before it, but for the time when a user was last seen, which every end of a
session writes; and another user can log in.

`${any}` stands for anything, `${hex …}`, `${repeat N …}` and `${gzip N …}` for bytes that are not
written out. In the first, second and last class the line `-- N` stands between what is put in and
what comes out; N is the exit code. The others are steps of a dialogue, whose form
[tests/dialogues](../tests/dialogues/README.md) describes; the text for people that may come with an
error is not compared there.
";

/// One file of cases.
struct Class {
    title: String,
    about: String,
    head: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    /// The line in the file that its body starts at.
    line: usize,
    body: String,
}

impl Class {
    fn read(file: &str) -> Class {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("bad-input")
            .join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let mut class = Class {
            title: String::new(),
            about: String::new(),
            head: String::new(),
            cases: vec![],
        };
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(name) = line.strip_prefix("== ") {
                let case = Case {
                    name: name.to_owned(),
                    line: number + 1,
                    body: String::new(),
                };
                class.cases.push(case);
            } else if let Some(case) = class.cases.last_mut() {
                case.body.push_str(line);
                case.body.push('\n');
            } else {
                class.head.push_str(line);
                class.head.push('\n');
            }
        }
        let mut words = Vec::new();
        for line in class.head.lines().take_while(|line| !line.starts_with('[')) {
            match line.strip_prefix("# ") {
                Some(title) if class.title.is_empty() => title.clone_into(&mut class.title),
                Some(comment) => words.push(comment),
                None => words.push(line.trim_start_matches('#')),
            }
        }
        class.about = words.join("\n").trim().to_owned();
        class
    }
}

/// What must come out of a case that is text in, text out.
struct Answer {
    case: String,
    code: i32,
    text: String,
}

impl Answer {
    fn compare(&self, actual: &str) {
        if let Err(error) = pattern::text(&self.text, actual, &mut pattern::Values::new()) {
            panic!("{}:\n{error}\n{actual}", self.case);
        }
    }
}

/// Puts every case of a file to `check`: its name, its bytes, and what must come out.
fn check_all(file: &str, check: impl Fn(&str, &[u8], &Answer)) {
    for case in Class::read(file).cases {
        let (input, answer) = match case.body.strip_prefix("-- ") {
            Some(answer) => ("", answer),
            None => case.body.split_once("\n-- ").unwrap(),
        };
        let (code, text) = answer.split_once('\n').unwrap();
        let name = format!("{file}:{}: {}", case.line, case.name);
        let answer = Answer {
            case: name.clone(),
            code: code.parse().unwrap(),
            text: text.trim().to_owned(),
        };
        check(&name, &bytes(input), &answer);
    }
}

/// Plays every case of a file.
fn play_all(file: &str) {
    let class = Class::read(file);
    for case in &class.cases {
        // As many lines before the steps as in the file, so that a fault names the right one.
        let padding = "\n".repeat(case.line - class.head.lines().count() - 2);
        let text = format!("{}{padding}---------\n{}", class.head, case.body);
        let mut dialogue = parse::dialogue(&text).unwrap();
        for role in &mut dialogue.clients {
            role.has_account = false; // The site has them.
        }
        let mut server = Server::start_in(site(), &dialogue.options, Vec::new()).unwrap();
        if let Err(error) = play(&dialogue, &mut server) {
            panic!(
                "{file}: {}: {error:#}\n{}",
                case.name,
                server.process().log()
            );
        }
        assert_unchanged(server);
    }
}

/// The server is up, and its store holds what the site held.
fn assert_unchanged(server: Server) {
    assert_answers(&server);
    let folder = server.into_folder("TERM").unwrap();
    assert_same(&site_lines(), &lines(folder.path()));
}

fn assert_serves(site: TempDir) {
    assert_answers(&Server::start_in(site, &Options::new(), Vec::new()).unwrap());
}

fn assert_answers(server: &Server) {
    let status = server
        .call(&json!({ "v": 1, "call": "server.status" }))
        .unwrap();
    assert_eq!(status["ok"], true, "{status}");
    let identity = Identity::new(WITNESS.0, WITNESS.1).unwrap();
    let mut witness = Client::connect(server.address(), identity).unwrap();
    witness.disconnect().unwrap();
}

fn assert_same(before: &[String], after: &[String]) {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter()
            .filter(|line| !other.contains(line))
            .cloned()
            .collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone: {gone:#?}\nnew: {new:#?}"
    );
}

/// A copy of a site: a server's folder with three accounts, from which each has logged in.
fn site() -> TempDir {
    let copy = TempDir::with_prefix("cirrus-bad-input-").unwrap();
    copy_folder(&original(), copy.path()).unwrap();
    copy
}

fn site_lines() -> Vec<String> {
    static LINES: OnceLock<Vec<String>> = OnceLock::new();
    LINES.get_or_init(|| lines(site().path())).clone()
}

fn original() -> PathBuf {
    static ORIGINAL: OnceLock<TempDir> = OnceLock::new();
    let folder = ORIGINAL.get_or_init(|| {
        let mut server = Server::start(&Options::new()).unwrap();
        let accounts = [
            ("romeo@localhost", "wherefore"),
            ("juliet@localhost", "lies"),
            WITNESS,
        ];
        for (jid, password) in accounts {
            server.add_user(jid, password).unwrap();
            let identity = Identity::new(jid, password).unwrap();
            Client::connect(server.address(), identity)
                .unwrap()
                .disconnect()
                .unwrap();
        }
        server.stop("TERM").unwrap();
        server.into_folder("TERM").unwrap()
    });
    folder.path().to_owned()
}

/// The store's content without the rows that say when a user was last seen.
fn lines(folder: &Path) -> Vec<String> {
    let mut lines = dump(&folder.join("store")).unwrap();
    lines.retain(|line| !(line.starts_with("item accounts[") && line.contains("][s] ")));
    lines
}

fn run(command: &mut Command, input: &[u8]) -> (i32, String) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

/// The bytes of an input: as in dialogues, and `${gzip N TEXT}`.
fn bytes(text: &str) -> Vec<u8> {
    let Some(zipped) = text
        .trim()
        .strip_prefix("${gzip ")
        .and_then(|t| t.strip_suffix('}'))
    else {
        return pattern::fill(text, &pattern::Values::new()).unwrap();
    };
    let (count, piece) = zipped.split_once(' ').unwrap();
    let content = piece.repeat(count.parse().unwrap());
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zip.write_all(content.as_bytes()).unwrap();
    zip.finish().unwrap()
}
