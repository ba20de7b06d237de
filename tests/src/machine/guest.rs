//! A running machine, by QEMU without acceleration, with the names that EC2 gives to its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::disk::Disk;
use crate::process::Process;
use crate::{deadline_in, left};

/// Where the machine's port 5222 is reached from outside.
pub const C2S: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_222);
/// The machine's network card.
pub const MAC: &str = "52:54:00:12:34:56";
/// What EC2 machines have for a serial number begins so; cloud-init looks at it. Twelve digits more
/// make it whole, those of the network card's address.
const UUID: &str = "ec2c1225-b007-4c4c-9a9a-";
/// For anything that a machine is waited for. Only a failing boot comes near it.
const PATIENCE: Duration = Duration::from_secs(240);

/// A machine's network card, and what it is plugged into.
#[derive(Debug, Clone)]
pub struct Card {
    mac: String,
    backend: String,
}

impl Card {
    /// One in a network that has nothing in it but the loopback of this one, with a way in at
    /// [`C2S`].
    #[must_use]
    pub fn alone() -> Card {
        Card {
            mac: MAC.to_owned(),
            backend: format!("user,id=net,hostfwd=tcp:{C2S}-:5222,hostfwd=tcp::22-:22"),
        }
    }

    /// One whose other end is an interface of this machine, which is there.
    #[must_use]
    pub fn tap(mac: &str, interface: &str) -> Card {
        Card {
            mac: mac.to_owned(),
            backend: format!("tap,id=net,ifname={interface},script=no,downscript=no"),
        }
    }
}

/// A running machine. It is switched off when this is dropped.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    started: Instant,
    monitor: PathBuf,
    orders: PathBuf,
    /// What is not read yet would be lost with it.
    port: Option<UnixStream>,
    _folder: TempDir,
}

impl Guest {
    /// Switches a machine with this disk on.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn start(disk: &Disk) -> Result<Guest> {
        Guest::with(disk, &Card::alone())
    }

    /// Switches a machine with this disk and this card on.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn with(disk: &Disk, card: &Card) -> Result<Guest> {
        Guest::of("raw", disk.file(), card, &[])
    }

    /// Switches a machine on whose disk is a file of this format, with further options of QEMU.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub(super) fn of(format: &str, file: &Path, card: &Card, more: &[&str]) -> Result<Guest> {
        let folder = TempDir::with_prefix("cirrus-guest-")?;
        let socket = |name: &str| folder.path().join(name);
        let (monitor, orders) = (socket("monitor"), socket("orders"));
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
        // Its second serial line; the first one is the console.
        qemu.arg("-serial")
            .arg(format!("unix:{},server,nowait", orders.display()));
        let file = file.display();
        qemu.arg("-drive").arg(format!(
            "file={file},id=root,if=none,format={format},cache=unsafe"
        ));
        qemu.args(["-device", "virtio-blk-pci,drive=root"]);
        let Card { mac, backend } = card;
        qemu.arg("-netdev").arg(backend);
        qemu.arg("-device")
            .arg(format!("virtio-net-pci,netdev=net,mac={mac},romfile="));
        qemu.args(["-smbios", "type=0,vendor=Amazon EC2"]);
        let uuid = format!("{UUID}{}", mac.replace(':', ""));
        let system =
            format!("type=1,manufacturer=Amazon EC2,product=t3.small,serial={uuid},uuid={uuid}");
        qemu.arg("-smbios").arg(system);
        qemu.args(["-smbios", "type=3,manufacturer=Amazon EC2,asset=Amazon EC2"]);
        qemu.args(more);
        let started = now();
        let process = Process::start("the machine", &mut qemu)?.with_patience(PATIENCE);
        Ok(Guest {
            process,
            started,
            monitor,
            orders,
            port: None,
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

    /// Writes a line into its second serial port.
    ///
    /// # Errors
    /// When QEMU does not take it.
    pub(super) fn order(&mut self, line: &str) -> Result<()> {
        // QEMU makes the socket while it starts.
        let until = deadline_in(PATIENCE);
        let mut port = loop {
            match UnixStream::connect(&self.orders) {
                Ok(port) => break port,
                Err(error) if left(until).is_zero() => return Err(error).context("QEMU's port"),
                Err(_) => thread::yield_now(),
            }
        };
        writeln!(port, "{line}").context("QEMU's port")?;
        self.port = Some(port);
        Ok(())
    }

    /// Keeps the machine as it is now under a name on its disk, and ends it without its knowing.
    ///
    /// # Errors
    /// When QEMU can't, for one because the disk's format keeps no states.
    pub(super) fn keep(mut self, name: &str) -> Result<()> {
        command(&self.monitor, &format!("savevm {name}"))?;
        let mut monitor = UnixStream::connect(&self.monitor).context("QEMU's monitor")?;
        prompt(&mut monitor)?;
        writeln!(monitor, "quit")?;
        self.process.wait().map(drop)
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
