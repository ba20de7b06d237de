//! Debian 12 with the image's packages and without Cirrus, made once for each recipe.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use super::checked;

/// Of Debian.
const SUITE: &str = "bookworm";
/// What a machine of its own needs besides the image's packages.
const PACKAGES: &[&str] = &["initramfs-tools", "linux-image-cloud-amd64"];
/// Nothing of this is read by a program.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// What the recipe does besides the lists above; a change here makes every base anew.
const RECIPE: &str = "2: minbase, networkd by DHCP";

/// A network for a machine that has nothing else yet.
const NETWORK: &str =
    "[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\n";

/// The packages of the image, from the list in the repository.
fn packages(workspace: &Path) -> Result<Vec<String>> {
    let file = workspace.join("packer/packages.txt");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let listed = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let all = listed.chain(PACKAGES.iter().copied());
    Ok(all.map(str::to_owned).collect())
}

/// The root of the base as an archive, from the cache or made now.
///
/// # Errors
/// When it can't be made, for example without root or a Debian mirror.
pub fn archive(workspace: &Path, cache: &Path) -> Result<PathBuf> {
    let packages = packages(workspace)?.join(",");
    let recipe = format!("{SUITE}\n{packages}\n{EXCLUDED:?}\n{RECIPE}\n{NETWORK}");
    let hash = digest(&SHA256, recipe.as_bytes());
    let name = hash
        .as_ref()
        .iter()
        .take(8)
        .fold(String::new(), |mut name, byte| {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
            name
        });
    let archive = cache.join(format!("base-{name}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    fs::create_dir_all(cache)?;
    let network = cache.join("80-base.network");
    fs::write(&network, NETWORK)?;
    let new = cache.join(format!("base-{name}.new.tar"));
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--format=tar"]);
    command.arg(format!("--include={packages}"));
    command.arg("--aptopt=Acquire::Retries \"3\"");
    for path in EXCLUDED {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    let place = "/etc/systemd/network/80-base.network";
    command.arg(format!(
        "--customize-hook=upload {} {place}",
        network.display()
    ));
    command.arg("--customize-hook=chroot \"$1\" systemctl enable systemd-networkd.service");
    command.arg(SUITE).arg(&new);
    checked(&mut command)?;
    // Only whole archives have the name.
    fs::rename(&new, &archive)?;
    Ok(archive)
}

/// Unpacks an archive into a new folder.
///
/// # Errors
/// When it can't be unpacked.
pub fn unpack(archive: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--numeric-owner",
        "--same-owner",
        "--preserve-permissions",
    ]);
    tar.arg("--file").arg(archive).arg("--directory").arg(root);
    checked(&mut tar).map(drop)
}

/// Installs Cirrus into a root, as Packer's provisioners do on a running machine.
///
/// # Errors
/// When a file is missing or a script fails.
pub fn install(workspace: &Path, binaries: &Path, root: &Path, staging: &Path) -> Result<()> {
    fs::create_dir_all(staging)?;
    for program in ["cirrus-server", "cirrus-bootstrap"] {
        let built = binaries.join(program);
        ensure!(built.exists(), "{} is not built", built.display());
        // Line tables are of no use in there, and large.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(staging.join(program)).arg(&built);
        checked(&mut strip)?;
    }
    for part in ["root", "part_handler.py"] {
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .arg(workspace.join("cloud-init").join(part))
            .arg(staging);
        checked(&mut copy)?;
    }
    let script = |name: &str| {
        let mut sh = Command::new("sh");
        sh.arg(workspace.join("packer").join(name)).arg(root);
        sh
    };
    checked(script("install.sh").arg(staging))?;
    checked(&mut script("generalise.sh")).map(drop)
}
