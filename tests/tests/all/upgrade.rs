//! A group whose nodes are replaced by those of another version, with clients that talk all the time.
//! That it goes so here is no evidence about AWS.
//!
//! `CIRRUS_ELASTIC_BEFORE` names a folder with the programs of an earlier build: then it is those
//! that the first version runs. Otherwise the two versions differ by an option.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what was measured, and why a test was skipped"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use cirrus_loss::report::{Report, table};
use cirrus_tests::elastic::{Balancer, Doors, Group, Outcome, Scaling, Version};
use cirrus_tests::emulated::cloud::Programs;
use cirrus_tests::process::binary;
use cirrus_tests::server::call;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::ONE;
use crate::elastic::{
    Ends, Front, MINUTE_MS, PATIENCE, add, go_on, nothing_happened, over, pause, talk, until,
};

const NODES: usize = 3;
const SESSIONS: usize = 24;
/// Places for nodes: for those there are, one that comes, and some that are still going.
const PLACES: usize = NODES + 3;

/// What was seen of an upgrade.
struct Seen {
    outcome: Outcome,
    group: Group,
    reports: Vec<Report>,
}

/// Three nodes and a load, and what becomes of them with another version, whose first node is watched
/// for so many of the plan's minutes; `None` where something that it takes is missing.
fn upgrade(
    name: &str,
    canary_minutes: usize,
    next: impl FnOnce(Version) -> Version,
    mut look: impl FnMut(&Group),
) -> Option<Seen> {
    if !Balancer::is_installed() {
        eprintln!("skipped: no haproxy on this machine, and it could not be installed");
        return None;
    }
    let size = format!("{{ min = {NODES}, max = {NODES} }}");
    let variables = [
        ("domains", "[\"localhost\"]".to_owned()),
        ("size", size),
        (
            "upgrade",
            format!("{{ canary_minutes = {canary_minutes} }}"),
        ),
    ];
    let Some(plan) = xtask::terraform::plan(name, &variables).unwrap() else {
        eprintln!("skipped: no terraform on this machine");
        return None;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scaling = Scaling::of_plan(&plan, MINUTE_MS).unwrap();
    let doors: Vec<Doors> = (0..PLACES).map(|_| Doors::free().unwrap()).collect();
    let front = Front::new(&doors);
    let mut group = Group::start(&scaling, before(front.version()), doors).unwrap();
    front.follow(&mut group);
    until(&mut group, NODES);
    let folder = TempDir::with_prefix("cirrus-upgrade-").unwrap();
    std::fs::write(folder.path().join("password"), "wherefore\n").unwrap();
    add(&group, "a", SESSIONS);
    let arguments = talk("a{}", (SESSIONS, SESSIONS * 2), &front, folder.path());
    let (outcome, reports) = std::thread::scope(|scope| {
        let _ends = Ends(folder.path());
        let run = scope.spawn(|| cirrus_loss::run(&arguments, &|_| {}));
        go_on(&mut group, Duration::from_secs(3));
        group.upgrade(next(front.version())).unwrap();
        let outcome = refreshed(&mut group, &mut look);
        go_on(&mut group, Duration::from_secs(3));
        over("a{}", folder.path());
        while !run.is_finished() {
            go_on(&mut group, Duration::from_millis(100));
        }
        (outcome, run.join().unwrap().unwrap())
    });
    for line in group.said() {
        println!("{line}");
    }
    println!("{}", table(&reports));
    Some(Seen {
        outcome,
        group,
        reports,
    })
}

/// A server's program that is killed as soon as there is a file, and so is whatever takes its place.
fn killed_by(flag: &Path, folder: &Path) -> PathBuf {
    let (program, server) = (folder.join("server"), binary("cirrus-server").unwrap());
    let (flag, server) = (flag.display(), server.display());
    let lines = format!(
        "#!/bin/sh\n(while kill -0 $$ && [ ! -e {flag} ]; do sleep 0.1; done; kill -9 $$) &\n\
         exec {server} \"$@\"\n"
    );
    std::fs::write(&program, lines).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

/// The version that is upgraded.
fn before(version: Version) -> Version {
    let folder = std::env::var_os("CIRRUS_ELASTIC_BEFORE").map(PathBuf::from);
    let bootstrap = folder.map(|it| it.join("cirrus-bootstrap"));
    Version {
        programs: Programs {
            bootstrap,
            server: None,
        },
        ..version
    }
}

/// Lets the group do what it does until the refresh is over.
fn refreshed(group: &mut Group, look: &mut impl FnMut(&Group)) -> Outcome {
    let end = cirrus_tests::deadline_in(PATIENCE);
    loop {
        if let Some(outcome) = group.refreshed() {
            return outcome.clone();
        }
        let ticked = group.tick();
        look(group);
        if ticked.is_err() || cirrus_tests::left(end).is_zero() {
            let said = group.said().join("\n");
            panic!("it is not over: {ticked:?}\n{said}\n{}", group.log());
        }
        pause();
    }
}

/// One node of the next version comes, and is alone with it for a while; then the others follow.
/// Everybody has to move, and nobody notices.
#[test]
fn nobody_notices_an_upgrade() {
    let next = |version: Version| Version {
        user_data: format!("{}\ndrain.closes_per_second=50", version.user_data),
        ..version
    };
    let Some(seen) = upgrade("upgrade", 5, next, |_| {}) else {
        return;
    };
    let Seen {
        outcome,
        group,
        reports,
    } = seen;
    assert_eq!(outcome, Outcome::Successful, "{:?}", group.said());
    assert_eq!(group.versions(), [1; NODES]);
    let times = group.times();
    assert_eq!((times.fewest, times.most), (NODES, NODES + 1));
    nothing_happened(&reports);
    let sessions = &reports[0].sessions;
    assert!(sessions.broke > 0, "somebody had to move");
    assert_eq!(sessions.resume_failed, 0);
    let status = json!({ "v": 1, "call": "server.status" });
    let status = call(&group.control().unwrap(), &status).unwrap();
    println!("they run version {} now", status["version"]);
}

/// Nodes of the next version can't read their user-data: none of those that serve is touched.
#[test]
fn a_version_that_does_not_come_up_replaces_nobody() {
    let next = |version: Version| Version {
        user_data: format!("{}\nno.such.option=1", version.user_data),
        ..version
    };
    let Some(seen) = upgrade("upgrade-fails", 5, next, |_| {}) else {
        return;
    };
    let Seen {
        outcome,
        group,
        reports,
    } = seen;
    let why = "3 new nodes did not come up".to_owned();
    assert_eq!(outcome, Outcome::RolledBack(why), "{:?}", group.said());
    assert_eq!(group.versions(), [0; NODES]);
    let times = group.times();
    assert_eq!((times.given_up, times.fewest), (3, NODES));
    assert!(times.to_go.is_empty(), "nobody had to go");
    nothing_happened(&reports);
    assert_eq!(reports[0].sessions.broke, 0);
}

/// A node of the next version comes up, serves, and then ends again and again while it is watched. An
/// old one comes in its place, and nobody else follows.
#[test]
fn a_version_that_fails_its_health_check_is_rolled_back() {
    let folder = TempDir::with_prefix("cirrus-upgrade-").unwrap();
    let flag = folder.path().join("over");
    let program = killed_by(&flag, folder.path());
    let next = |version: Version| Version {
        programs: Programs {
            bootstrap: None,
            server: Some(program),
        },
        ..version
    };
    let fail = |group: &Group| {
        let watched = group.said().iter().any(|line| line.ends_with("it waits"));
        if watched && group.versions().contains(&1) && !flag.exists() {
            std::fs::write(&flag, "").unwrap();
        }
    };
    let Some(seen) = upgrade("upgrade-back", 120, next, fail) else {
        return;
    };
    let Seen {
        outcome,
        group,
        reports,
    } = seen;
    let Outcome::RolledBack(why) = outcome else {
        panic!("{:?}", group.said())
    };
    assert!(why.ends_with("fails its health check"), "{why}");
    assert_eq!(group.versions(), [0; NODES]);
    // The first one of the old version went for it, before it failed.
    assert_eq!(group.times().to_go.len(), 2, "{:?}", group.said());
    nothing_happened(&reports);
}
