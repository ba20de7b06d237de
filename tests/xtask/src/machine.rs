//! The verbs that boot the image. The work is done by the program `machine` of the tests.

use std::ffi::OsStr;
use std::process::Command;

use crate::run::Run;
use crate::tools;

/// Where bases and disks are kept, below the workspace's root.
const CACHE: &str = "target/image";
/// The feature with which an image's programs are built; docs/IMAGE.md says what it costs.
const EC2: &str = "cirrus-bootstrap/ec2";

/// Boots the image with programs built now.
pub fn boot(run: &mut Run) {
    run.part("tools", tools::install_machine);
    if run.failed() {
        return;
    }
    // What the tests build, so that nothing is compiled twice.
    run.part("build", |run| {
        run.cargo(&["build", "--workspace", "--all-targets", "--locked"])
    });
    if run.failed() {
        return;
    }
    run.part("boot", |run| {
        program(
            run,
            "target/debug/machine",
            &["boot", "target/debug", CACHE],
        )
    });
}

/// Builds the local image with Packer, and boots it.
pub fn nightly(run: &mut Run) {
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
        program(
            run,
            "packer",
            &[
                "build",
                "-force",
                "-only=qemu.cirrus",
                "packer/cirrus.pkr.hcl",
            ],
        )
    });
    if run.failed() {
        return;
    }
    run.part("boot", |run| {
        let (image, disk) = (
            format!("{CACHE}/qemu/cirrus.qcow2"),
            format!("{CACHE}/disk.raw"),
        );
        program(run, "qemu-img", &["convert", "-O", "raw", &image, &disk])?;
        program(run, "target/debug/machine", &["image", &disk])
    });
}

/// Runs a program in the workspace, its output passed through.
fn program<S: AsRef<OsStr>>(run: &Run, name: &str, arguments: &[S]) -> Result<String, String> {
    let status = Command::new(name)
        .args(arguments)
        .current_dir(run.root())
        .status()
        .map_err(|error| format!("{name} could not be started: {error}"))?;
    if status.success() {
        Ok(String::new())
    } else {
        Err(format!("{name} ended with {status}"))
    }
}
