//! A machine that waits in the middle of its boot, before its network, cloud-init and Cirrus start.
//! It is kept as it is then, and goes on from there as often as wanted, each time as if nothing
//! had been before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::checked;
use super::disk::Disk;
use super::guest::{Card, Guest};

/// What the console shows when the machine waits.
const WAITS: &str = "MACHINE waits";
/// The name of its state.
const STATE: &str = "held";

const UNIT: &str = "\
[Unit]
DefaultDependencies=no
After=local-fs.target systemd-sysusers.service systemd-tmpfiles-setup.service systemd-sysctl.service
Before=systemd-networkd.service cloud-init-local.service
Before=cirrus-bootstrap.service cirrus-watch.service
[Service]
Type=oneshot
StandardOutput=journal+console
StandardError=journal+console
ExecStart=/bin/sh /etc/cirrus-test/hold.sh
";

/// It does what the line says that comes over the second serial port.
const SCRIPT: &str = r#"
exec < /dev/ttyS1
echo MACHINE waits
read -r order
eval "$order"
echo MACHINE goes on
"#;

/// A machine that waits.
#[derive(Debug)]
pub struct Held {
    file: PathBuf,
}

impl Held {
    /// Boots a disk until it waits. The disk itself stays as it is, but for the unit that waits.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn make(disk: &Disk) -> Result<Held> {
        let unit = "/etc/systemd/system/cirrus-test-hold.service";
        disk.add(&[
            ("/etc/cirrus-test/hold.sh", 0o644, SCRIPT.to_owned()),
            (unit, 0o644, UNIT.to_owned()),
        ])?;
        let wants = "/etc/systemd/system/sysinit.target.wants";
        disk.link(&format!("{wants}/cirrus-test-hold.service"), unit)?;
        let file = layer(disk.file())?;
        let guest = Guest::of("qcow2", &file, &Card::alone(), &[])?;
        guest.wait_for(WAITS)?;
        guest.keep(STATE)?;
        Ok(Held { file })
    }

    /// The machine, which goes on once it has done what a line for its shell says.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn go_on(&self, order: &str) -> Result<Guest> {
        let mut guest = Guest::of("qcow2", &self.file, &Card::alone(), &["-loadvm", STATE])?;
        guest.order(order)?;
        Ok(guest)
    }
}

/// A file that takes what is written to a disk, and keeps states.
pub(super) fn layer(disk: &Path) -> Result<PathBuf> {
    let file = disk.with_extension("qcow2");
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    create.arg(disk.canonicalize()?).arg(&file);
    checked(&mut create)?;
    Ok(file)
}
