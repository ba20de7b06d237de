//! Packer's builder for EC2, against an emulated EC2: Debian's image there is our base, and the
//! instance is an emulated machine that lets Packer's key in, as an instance does.
//!
//! What it can't show: the emulated EC2 keeps no disks, so that the AMI is a name; and it asks for
//! no permissions.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::disk::Disk;
use super::guest::{Card, Guest, MAC};
use super::held::layer;
use crate::emulated::metadata::{Instance, Metadata};
use crate::process::Process;

/// For the whole of a build, in an emulated machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(900);
/// What Debian's image has in it.
const USER_DATA: &str = "#cloud-config\nsystem_info:\n  default_user:\n    name: admin\n    \
    lock_passwd: true\n    sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]\n    shell: /bin/bash\n";
/// The variables that no build may inherit.
const CREDENTIALS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// Runs Packer on the template with these programs. The base is a disk; `python` has the emulated
/// EC2's packages. Gives the AMI's name, as the manifest has it.
///
/// # Errors
/// When it does not come to an AMI: with what Packer said.
pub fn build(workspace: &Path, base: &Disk, binaries: &Path, python: &Path) -> Result<String> {
    let mut emulator = Command::new(python);
    emulator.arg(workspace.join("tests/emulators/aws.py"));
    let emulator = Process::start("the emulated EC2", &mut emulator)?;
    let address = |line: &str| line.starts_with("http://").then(|| line.trim().to_owned());
    let endpoint = emulator.wait_for("its address", address)?;
    let link_local = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
    let metadata =
        Metadata::start_at(link_local, &Instance::default(), Some(USER_DATA.as_bytes()))?;
    let interface = format!("meta-data/network/interfaces/macs/{MAC}");
    metadata.set(&format!("{interface}/mac"), Some(MAC.as_bytes()));

    let output = base.file().with_file_name("ami");
    fs::create_dir_all(&output)?;
    let mut packer = Command::new("packer");
    packer.args(["build", "-color=false", "-only=amazon-ebs.cirrus"]);
    for (name, value) in [
        ("ec2_endpoint", endpoint),
        ("binaries", binaries.display().to_string()),
        ("output", output.display().to_string()),
    ] {
        packer.arg("-var").arg(format!("{name}={value}"));
    }
    packer
        .arg("packer/cirrus.pkr.hcl")
        .current_dir(workspace)
        .env("PACKER_CACHE_DIR", output.join("packer"))
        .envs(CREDENTIALS);
    let mut packer = Process::start("packer", &mut packer)?.with_patience(PATIENCE);

    let key = |line: &str| line.strip_prefix("key ").map(|key| key.trim().to_owned());
    let key = emulator
        .wait_for("Packer's key", key)
        .with_context(|| packer.log())?;
    metadata.set("meta-data/public-keys/", Some(b"0=packer"));
    let place = "meta-data/public-keys/0/openssh-key";
    metadata.set(place, Some(key.as_bytes()));
    let guest = Guest::of("qcow2", &layer(base.file())?, &Card::alone(), &[])?;
    let ended = packer.wait_for("the end of the build", |line| {
        let last = line.starts_with("==> Builds finished") || line.contains("Build was cancelled");
        let wrong = line.contains("errored") || line.contains("didn't complete");
        (last || wrong).then_some(())
    });
    let status = ended.and_then(|()| packer.wait())?;
    ensure!(
        status.success(),
        "packer ended with {status}:\n{}\nthe instance's console:\n{}",
        packer.log(),
        guest.console().join("\n")
    );
    let manifest = fs::read_to_string(output.join("manifest.json"))?;
    let manifest: Value = serde_json::from_str(&manifest)?;
    let build = manifest["builds"]
        .as_array()
        .and_then(|builds| builds.last());
    let artifact = build.and_then(|build| build["artifact_id"].as_str());
    let artifact = artifact.context("the manifest names no artifact")?;
    ensure!(artifact.contains(":ami-"), "no AMI but {artifact}");
    Ok(artifact.to_owned())
}
