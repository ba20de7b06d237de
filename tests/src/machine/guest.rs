//! A running machine, by QEMU without acceleration, with the names that EC2 gives to its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::disk::Disk;
use crate::process::Process;

/// Where the machine's port 5222 is reached from outside.
pub const C2S: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_222);
/// The machine's network card.
pub const MAC: &str = "52:54:00:12:34:56";
/// What EC2 machines have for a serial number begins so; cloud-init looks at it.
const UUID: &str = "ec2c1225-b007-4c4c-9a9a-0123456789ab";
/// For anything that a machine is waited for. Only a failing boot comes near it.
const PATIENCE: Duration = Duration::from_secs(240);

/// A running machine. It is switched off when this is dropped.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    started: Instant,
    monitor: PathBuf,
    _folder: TempDir,
}

impl Guest {
    /// Switches a machine with this disk on.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn start(disk: &Disk) -> Result<Guest> {
        let folder = TempDir::with_prefix("cirrus-guest-")?;
        let monitor = folder.path().join("monitor");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        qemu.args(["-accel", "tcg,thread=multi,tb-size=256"]);
        qemu.args([
            "-display",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]);
        qemu.args(["-serial", "stdio", "-device", "virtio-rng-pci"]);
        qemu.arg("-monitor")
            .arg(format!("unix:{},server,nowait", monitor.display()));
        let file = disk.file().display();
        qemu.arg("-drive").arg(format!(
            "file={file},id=root,if=none,format=raw,cache=unsafe"
        ));
        qemu.args(["-device", "virtio-blk-pci,drive=root"]);
        qemu.arg("-netdev")
            .arg(format!("user,id=net,hostfwd=tcp:{C2S}-:5222"));
        qemu.arg("-device")
            .arg(format!("virtio-net-pci,netdev=net,mac={MAC},romfile="));
        qemu.args(["-smbios", "type=0,vendor=Amazon EC2"]);
        let system =
            format!("type=1,manufacturer=Amazon EC2,product=t3.small,serial={UUID},uuid={UUID}");
        qemu.arg("-smbios").arg(system);
        qemu.args(["-smbios", "type=3,manufacturer=Amazon EC2,asset=Amazon EC2"]);
        let started = now();
        let process = Process::start("the machine", &mut qemu)?.with_patience(PATIENCE);
        Ok(Guest {
            process,
            started,
            monitor,
            _folder: folder,
        })
    }

    /// Waits until its console shows a line with these words; the line and the seconds since
    /// power-on.
    ///
    /// # Errors
    /// When it does not come: with what the console showed.
    pub fn wait_for(&self, words: &str) -> Result<(f64, String)> {
        let found = |line: &str| line.contains(words).then(|| line.trim().to_owned());
        let line = self.process.wait_for(words, found)?;
        Ok((self.seconds(), line))
    }

    /// Seconds since power-on.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        now().duration_since(self.started).as_secs_f64()
    }

    /// What its console showed, as far as it is kept.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        self.process.lines()
    }

    /// The most memory of this machine that QEMU has used, in MiB.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmHWM")?;
        Ok(kibibytes.parse::<u64>()? / 1_024)
    }

    /// Presses the power button and waits until the machine is off.
    ///
    /// # Errors
    /// When it does not go off.
    pub fn power_off(mut self) -> Result<()> {
        command(&self.monitor, "system_powerdown")?;
        self.process.wait().map(drop)
    }
}

/// Gives QEMU a command between two of its prompts: it forgets what a caller says who is gone.
fn command(monitor: &Path, words: &str) -> Result<()> {
    let mut monitor = UnixStream::connect(monitor).context("QEMU's monitor")?;
    monitor.set_read_timeout(Some(PATIENCE))?;
    prompt(&mut monitor)?;
    writeln!(monitor, "{words}")?;
    prompt(&mut monitor)
}

fn prompt(monitor: &mut UnixStream) -> Result<()> {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"(qemu) ") {
        monitor.read_exact(&mut byte).context("QEMU's prompt")?;
        said.extend(byte);
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a machine's seconds are real ones"
)]
fn now() -> Instant {
    Instant::now()
}
