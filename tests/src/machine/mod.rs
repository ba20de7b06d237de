//! A whole emulated machine: the image's root on a disk, booted by QEMU as EC2 would boot it.
//!
//! Purpose: see the image come up from power-on, with nothing under it that the tests have not
//! made. [`base`] is Debian without Cirrus, [`disk`] a bootable disk of a root folder, [`guest`]
//! the running machine, [`scene`] what it finds around itself: its metadata at the link-local
//! address, DynamoDB and S3; [`held`] a machine in the middle of its boot, from where it goes on
//! as often as wanted, [`forms`] what it is then given, and [`trial`] what comes of it. [`pair`] is
//! two of them in one network. [`ami`] has Packer build one.
//!
//! What it does not do: it uses no kernel-based virtualisation, so its seconds are those of
//! emulation and several times a real instance's. It needs root: for the owners of files on the
//! disk, and for a network namespace of its own.

pub mod ami;
pub mod base;
pub mod disk;
pub mod forms;
pub mod guest;
pub mod held;
pub mod pair;
pub mod scene;
pub mod trial;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end; its output is kept for the error.
///
/// # Errors
/// When it can't be started or ends with another code than 0.
pub fn checked(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{shown} can't be started; `cargo xtask boot` installs it"))?;
    ensure!(
        output.status.success(),
        "{shown} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
