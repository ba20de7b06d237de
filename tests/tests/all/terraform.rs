//! The user-data that the Terraform module renders is what the programs read, and what it runs for an
//! upgrade says how that ends.
//!
//! The module's own tests hold its output equal to the files in `terraform/tests/user-data`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use cirrus_tests::process::binary;
use tempfile::TempDir;

#[test]
fn every_rendered_user_data_is_understood() {
    let folder = xtask::root().join("terraform/tests/user-data");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let output = Command::new(binary("cirrus-bootstrap").unwrap())
            .args(["check", "--no-metadata", "--user-data"])
            .arg(format!("@{}", path.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());
        assert!(
            said.contains("CIRRUS-BOOT ok"),
            "{}: {said}",
            path.display()
        );
        assert!(text.len() < 1024, "{}: not small", path.display());
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// What stands for AWS's command line in a folder: it notes what it is asked, tells one line of
/// `looks` after the other and stays with the last one, fails at `?`, and rolls back when it is told.
const AWS: &str = r#"#!/bin/sh
echo "$*" >> FOLDER/calls
case $2 in
describe-auto-scaling-groups) printf 'lt-1\t4\n' ;;
start-instance-refresh) echo refresh-1 ;;
describe-scaling-activities) cat FOLDER/failed ;;
rollback-instance-refresh) echo RollbackSuccessful > FOLDER/looks ;;
describe-instance-refreshes)
  case $* in *StartTime*) echo 2026-11-29T15:00:00Z; exit ;; esac
  read -r line < FOLDER/looks
  sed -i '1{$!d}' FOLDER/looks
  [ "$line" != '?' ] && echo "$line"
  ;;
esac
"#;

/// Runs the module's upgrade from version 4 of a template to this one: whether it has succeeded, what
/// it said, and what it asked of AWS.
fn upgrade(version: u32, told: (&str, u32), start: bool) -> (bool, String, String) {
    upgrade_with(AWS, version, told, start)
}

/// The same, with something else for AWS's command line.
fn upgrade_with(
    aws: &str,
    version: u32,
    (looks, failed): (&str, u32),
    start: bool,
) -> (bool, String, String) {
    let folder = TempDir::with_prefix("cirrus-upgrade-").unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, text) in [
        ("looks", looks.replace(", ", "\n") + "\n"),
        ("failed", failed.to_string()),
        ("calls", String::new()),
        ("aws", aws.replace("FOLDER", &at("").display().to_string())),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    std::fs::set_permissions(at("aws"), Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder.path().display());
    let (succeeded, said) = run(version, start, &path);
    let calls = std::fs::read_to_string(at("calls")).unwrap();
    (succeeded, said, calls)
}

/// Whether it has succeeded, and what it said, with programs from these folders.
fn run(version: u32, start: bool, path: &str) -> (bool, String) {
    let output = Command::new("/bin/sh")
        .arg(xtask::root().join("terraform/modules/cluster/upgrade.sh"))
        .env("PATH", path)
        .env("CIRRUS_REGION", "eu-west-1")
        .env("CIRRUS_GROUP", "chat")
        .env("CIRRUS_TEMPLATE", "lt-1")
        .env("CIRRUS_VERSION", version.to_string())
        .env("CIRRUS_CONFIGURATION", "{\"that\":1}")
        .env("CIRRUS_PREFERENCES", "{\"how\":1}")
        .env("CIRRUS_FAILED_LAUNCHES", "3")
        .env("CIRRUS_START", start.to_string())
        .env("CIRRUS_SECONDS", "0")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[test]
fn an_upgrade_without_the_command_line_of_aws_says_so() {
    let (succeeded, said) = run(5, true, "/nowhere");
    assert!(
        !succeeded && said.contains("nothing was changed in chat"),
        "{said}"
    );
}

#[test]
fn an_upgrade_that_cannot_begin_says_that_nothing_was_changed() {
    for (answer, instead, expected) in [
        (
            r"printf 'lt-1\t4\n'",
            "echo None",
            "AWS knows no group chat",
        ),
        (
            r"printf 'lt-1\t4\n'",
            "exit 255",
            "AWS does not say which version",
        ),
        ("echo refresh-1", "exit 254", "it did not begin"),
    ] {
        let aws = AWS.replace(answer, instead);
        let (succeeded, said, calls) = upgrade_with(&aws, 5, ("Successful", 0), true);
        assert!(!succeeded && said.contains(expected), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(!calls.contains("describe-instance-refreshes"), "{calls}");
    }
}

/// It says how far it is, and ends when it is over: well, or with the reason.
#[test]
fn an_upgrade_says_how_far_it_is_and_how_it_ends() {
    let under_way = "Pending, InProgress 0 it begins, InProgress 33 it waits";
    for (end, failed, well, expected) in [
        ("Successful 100", 0, true, "all nodes are of version 5"),
        ("Successful 100", 2, true, "InProgress 33 it waits"),
        (
            "RollbackInProgress 33 an alarm, RollbackSuccessful 100",
            0,
            false,
            "it was rolled back: the nodes are of version 4",
        ),
        ("Cancelled 33", 0, false, "some nodes of either version"),
        ("RollbackFailed", 0, false, "some nodes of either version"),
        ("?", 0, false, "AWS does not say how far it is"),
        (
            "InProgress 33 it waits",
            3,
            false,
            "3 new nodes did not come up",
        ),
    ] {
        let looks = format!("{under_way}, ?, {end}");
        let (succeeded, said, calls) = upgrade(5, (&looks, failed), true);
        assert_eq!(succeeded, well, "{end}: {said}");
        assert!(said.contains(expected), "{expected} is not in:\n{said}");
        let started = "--preferences {\"how\":1} --desired-configuration {\"that\":1}";
        assert!(calls.contains(started), "{calls}");
        let told = calls.matches("rollback-instance-refresh").count();
        assert_eq!(told, usize::from(failed >= 3), "{end}: {calls}");
    }
}

/// Who may not see the group's launches hears that once, and the upgrade goes on.
#[test]
fn an_upgrade_that_cannot_count_launches_says_so_once() {
    let aws = AWS.replace("cat FOLDER/failed", "echo AccessDenied >&2; exit 254");
    let looks = "InProgress 0 it begins, InProgress 33 it waits, Successful 100";
    let (succeeded, said, calls) = upgrade_with(&aws, 5, (looks, 3), true);
    assert!(succeeded, "{said}");
    assert_eq!(said.matches("can't be counted").count(), 1, "{said}");
    assert!(said.contains("AccessDenied"), "{said}");
    assert!(!calls.contains("rollback-instance-refresh"), "{calls}");
}

#[test]
fn an_upgrade_does_nothing_where_there_is_nothing_to_do() {
    for (version, start, expected, asked) in [
        (1, true, "", 0),
        (4, true, "chat has version 4 already", 1),
        (5, false, "aws autoscaling start-instance-refresh", 1),
    ] {
        let (succeeded, said, calls) = upgrade(version, ("Successful", 0), start);
        assert!(succeeded && said.contains(expected), "{said}");
        assert_eq!(calls.lines().count(), asked, "{calls}");
    }
}
