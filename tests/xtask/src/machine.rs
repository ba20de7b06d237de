//! The verbs that boot the image. The work is done by the program `machine` of the tests.

use std::ffi::OsStr;
use std::process::Command;

use crate::run::Run;
use crate::terraform::{self, python};
use crate::tools;

/// Where bases and disks are kept, below the workspace's root.
const CACHE: &str = "target/image";
/// Where cargo puts programs.
const DEBUG: &str = "target/debug";
const RELEASE: &str = "target/release";
/// The feature with which an image's programs are built; docs/IMAGE.md says what it costs.
const EC2: &str = "cirrus-bootstrap/ec2";

/// What `cargo xtask boot` takes.
const USAGE: &str = "cargo xtask boot takes nothing, `pair`, `forms [WORDS]...` or `--if-possible`";

/// Boots the image with programs built now: twice, as two of a group, or with every form of
/// user-data.
pub fn boot(run: &mut Run, arguments: &[String]) {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let verb = match words.as_slice() {
        [] => "boot",
        ["pair"] => "pair",
        ["forms", ..] => "forms",
        ["--if-possible"] => return boot_if_possible(run),
        _ => return run.part("boot", |_| Err(USAGE.to_owned())),
    };
    run.part("tools", tools::install_machine);
    if run.failed() {
        return;
    }
    build(run);
    // Two nodes watch each other: an unoptimised one, emulated, is too slow to be heard.
    let binaries = match verb {
        "pair" => RELEASE,
        _ => DEBUG,
    };
    if binaries == RELEASE && !run.failed() {
        run.part("build optimised", |run| {
            let packages = [
                "--package",
                "cirrus-server",
                "--package",
                "cirrus-bootstrap",
            ];
            run.cargo(&[&["build", "--release", "--locked"][..], &packages].concat())
        });
    }
    if run.failed() {
        return;
    }
    run.part(verb, |run| {
        programs(run, verb, binaries, words.get(1..).unwrap_or_default())
    });
}

/// Boots the image where that can be done; elsewhere the table says why not. A boot that goes wrong
/// is a failure everywhere.
pub fn boot_if_possible(run: &mut Run) {
    let able = run.attempt("boot: tools", |run| {
        tools::install_machine(run)?;
        let namespace = ["unshare", "--net", "--", "ip", "link", "set", "lo", "up"];
        if tools::has(&namespace) {
            Ok(String::new())
        } else {
            Err("no network namespace of its own; this needs root".to_owned())
        }
    });
    if !able {
        return;
    }
    build(run);
    if run.failed() {
        return;
    }
    // It needs a Debian mirror, and what mmdebstrap may do.
    let base = |run: &Run| program(run, "target/debug/machine", &["archive", CACHE]);
    if run.attempt("boot: base", base) {
        run.part("boot", |run| programs(run, "boot", DEBUG, &[]));
    }
}

fn build(run: &mut Run) {
    // What the tests build, so that nothing is compiled twice.
    run.part("build", |run| {
        run.cargo(&["build", "--workspace", "--all-targets", "--locked"])
    });
}

/// The program `machine` with the programs just built.
fn programs(run: &Run, verb: &str, binaries: &str, words: &[&str]) -> Result<String, String> {
    let arguments = [&[verb, binaries, CACHE], words].concat();
    program(run, "target/debug/machine", &arguments)
}

/// Seeds of simulated clusters, and nodes of the one that grows.
const SEEDS: &str = "10000";
const NODES: &str = "50";

/// All that takes too long for each push.
pub fn nightly(run: &mut Run) {
    // Each whatever came of the one before.
    image(run);
    terraform::run(run, &[]);
    simulate(run);
}

/// Builds the local image with Packer, and boots it.
pub fn image(run: &mut Run) {
    run.part("tools", tools::install_machine);
    run.part("packer", tools::install_packer);
    run.part("build", |run| {
        // An image's bootstrap tags its instance.
        run.cargo(&["build", "--release", "--locked", "--features", EC2])?;
        run.cargo(&["build", "--locked", "--package", "cirrus-tests", "--bins"])
    });
    if run.failed() {
        return;
    }
    run.part("base", |run| {
        program(run, "target/debug/machine", &["base", CACHE])
    });
    run.part("image", |run| {
        let mut packer = Command::new("packer");
        packer.args(["build", "-force", "-only=qemu.cirrus"]);
        packer.arg("packer/cirrus.pkr.hcl");
        packer.env("PACKER_CACHE_DIR", run.root().join(CACHE).join("packer"));
        finish(run, &mut packer)
    });
    if run.failed() {
        return;
    }
    run.part("AMI in an emulated EC2", |run| {
        let venv = python::environment(run.root(), "aws")?;
        let python = venv.join("bin/python").display().to_string();
        let arguments = ["ami", "target/release", CACHE, &python];
        program(run, "target/debug/machine", &arguments)
    });
    for (part, verb) in [
        ("boot", "image"),
        ("pair", "image-pair"),
        ("forms", "image-forms"),
    ] {
        run.part(part, |run| {
            // Each begins with an image that has never booted.
            let image = format!("{CACHE}/qemu/cirrus.qcow2");
            let disk = format!("{CACHE}/disk.raw");
            program(run, "qemu-img", &["convert", "-O", "raw", &image, &disk])?;
            program(run, "target/debug/machine", &[verb, &disk])
        });
    }
}

fn simulate(run: &mut Run) {
    let simulation = [
        "run",
        "--release",
        "--locked",
        "--package",
        "cirrus-sim",
        "--",
    ];
    let parts = [
        ("simulated clusters", ["cluster", "1", SEEDS].as_slice()),
        ("growth", ["grow", NODES].as_slice()),
    ];
    for (name, arguments) in parts {
        run.part(name, |run| run.cargo(&[&simulation, arguments].concat()));
    }
    run.part("planted bugs of clusters", |run| {
        let test = ["test", "--release", "--locked", "--package", "cirrus-sim"];
        run.cargo(&[&test[..], &["--test", "clusters", "--", "--ignored"]].concat())
    });
}

/// Runs a program in the workspace, its output passed through.
fn program<S: AsRef<OsStr>>(run: &Run, name: &str, arguments: &[S]) -> Result<String, String> {
    finish(run, Command::new(name).args(arguments))
}

fn finish(run: &Run, command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(run.root())
        .status()
        .map_err(|error| format!("{name} could not be started: {error}"))?;
    if status.success() {
        Ok(String::new())
    } else {
        Err(format!("{name} ended with {status}"))
    }
}
