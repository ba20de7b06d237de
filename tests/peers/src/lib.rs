//! The servers that loads run against: how each is configured, given accounts, started on loopback,
//! killed and stopped.
//!
//! Cirrus from a binary, ejabberd and prosody from their Debian packages, each with a configuration
//! of its own in a folder of the caller, and none that runs already is touched. It knows their
//! command lines, and nothing of what is sent to them.

pub mod cirrus;
pub mod ejabberd;
mod process;
pub mod prosody;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

pub use process::{Running, Signal};

/// The one host of every server.
pub const HOST: &str = "bench.test";
/// The password of every account.
pub const PASSWORD: &str = "bench-password";

/// The name of an account, by its number from 0.
#[must_use]
pub fn account(user: u32) -> String {
    format!("u{user}")
}

/// A server.
pub trait Server {
    /// The name on the command line and in the tables.
    fn name(&self) -> &'static str;

    /// It speaks XMPP; otherwise only the bare limits are measured.
    fn is_xmpp(&self) -> bool {
        true
    }

    /// Version, and what a reader must know to judge the numbers: modules, collector, durability.
    fn description(&self) -> Result<String>;

    /// Creates the accounts by the server's own tool, once; every start gets a copy of them.
    fn prepare(&mut self, lab: &Lab) -> Result<()>;

    /// Starts with fresh data that holds the accounts only.
    fn start(&self, lab: &Lab, archive: bool) -> Result<Running>;
}

/// Where servers run.
pub struct Lab {
    folder: PathBuf,
    server_cpu: Option<usize>,
    accounts: u32,
    /// The certificate, PEM, readable by every server.
    pub certificate: PathBuf,
    /// Its key, PEM, readable by every server.
    pub key: PathBuf,
}

impl Lab {
    /// Makes the certificate: ECDSA P-256, self-signed, the same for every server.
    /// Servers run on `server_cpu` alone if that is given, and have this many accounts.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn new(folder: &Path, server_cpu: Option<usize>, accounts: u32) -> Result<Lab> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let mut parameters = rcgen::CertificateParams::new([HOST.to_owned()])?;
        // The default, year 4096, makes ejabberd refuse the certificate.
        parameters.not_after = rcgen::date_time_ymd(2049, 1, 1);
        let signing_key = rcgen::KeyPair::generate()?;
        let certified = parameters.self_signed(&signing_key)?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&certificate, certified.pem())?;
        fs::write(&key, signing_key.serialize_pem())?;
        for path in [&certificate, &key] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(Lab {
            folder: folder.to_owned(),
            server_cpu,
            accounts,
            certificate,
            key,
        })
    }

    /// An empty folder that belongs to `owner` where we may give it away.
    pub fn fresh_folder(&self, name: &str, owner: Option<&str>) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        self.give(&folder, owner)?;
        Ok(folder)
    }

    /// Copies a folder, owners included.
    pub fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let to = self.folder.join(name);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        let status = Command::new("cp").arg("-a").arg(from).arg(&to).status()?;
        ensure!(
            status.success(),
            "can't copy {} to {}",
            from.display(),
            to.display()
        );
        Ok(to)
    }

    /// Writes a file below the lab's folder that a server of this owner may read.
    pub fn write(&self, path: &Path, text: &str, owner: Option<&str>) -> Result<()> {
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        self.give(path, owner)
    }

    fn give(&self, path: &Path, owner: Option<&str>) -> Result<()> {
        if let Some(owner) = owner.filter(|_| is_root()) {
            let (user, group) = ids(owner)?;
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// A command on the server's core, as `owner` where we are root, that dies with this thread.
    ///
    /// taskset and setpriv replace themselves by the program, so the child's id is the program's.
    pub fn command(&self, program: &str, owner: Option<&str>) -> Result<Command> {
        let mut command = match self.server_cpu {
            Some(cpu) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpu.to_string()).arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        if let Some(owner) = owner.filter(|_| is_root()) {
            let (user, group) = ids(owner)?;
            command
                .arg(format!("--reuid={user}"))
                .arg(format!("--regid={group}"));
            command.arg("--clear-groups");
        }
        command.args(["--pdeathsig", "KILL", "--", program]);
        command.stdin(Stdio::null()).current_dir(&self.folder);
        Ok(command)
    }

    /// Starts a server's process with its output in `log`, and waits until `port` is open.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub fn run(&self, command: Command, port: u16, data: PathBuf, log: &Path) -> Result<Running> {
        Running::start(command, port, data, log)
    }
}

/// A port that nothing listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Runs a tool to its end and gives its output.
pub fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// User and group id of a system account.
fn ids(name: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))
        .with_context(|| format!("no system account {name}: is the Debian package installed?"))?;
    let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(group))) => Ok((user, group)),
        _ => bail!("the /etc/passwd line of {name} has no ids"),
    }
}

/// This process is root and can give servers users of their own.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
