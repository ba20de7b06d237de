//! The servers: how each is configured, given accounts, started on its core and stopped.

pub(crate) mod cirrus;
pub(crate) mod ejabberd;
pub(crate) mod forwarder;
pub(crate) mod prosody;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::session::HOST;
use crate::sys;

/// The password of every account.
pub(crate) const PASSWORD: &str = "bench-password";

/// Longest time for a server to accept its first connection.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for a server to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A server that can be measured.
pub(crate) trait Server {
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
pub(crate) struct Lab {
    folder: PathBuf,
    server_cpu: usize,
    /// Certificate and key, PEM, readable by every server.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Lab {
    /// Makes the certificate: ECDSA P-256, self-signed, the same for every server.
    pub(crate) fn new(folder: &Path, server_cpu: usize) -> Result<Lab> {
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
            certificate,
            key,
        })
    }

    /// An empty folder that belongs to `owner` where we may give it away.
    pub(crate) fn fresh_folder(&self, name: &str, owner: Option<&str>) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        self.give(&folder, owner)?;
        Ok(folder)
    }

    /// Copies a folder, owners included.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
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
    pub(crate) fn write(&self, path: &Path, text: &str, owner: Option<&str>) -> Result<()> {
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        self.give(path, owner)
    }

    fn give(&self, path: &Path, owner: Option<&str>) -> Result<()> {
        if let Some(owner) = owner.filter(|_| sys::is_root()) {
            let (user, group) = ids(owner)?;
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// A command on the server's core, as `owner` where we are root, that dies with this process.
    ///
    /// taskset and setpriv replace themselves by the program, so the child's id is the program's.
    pub(crate) fn command(&self, program: &str, owner: Option<&str>) -> Result<Command> {
        let mut command = Command::new("taskset");
        command
            .arg("-c")
            .arg(self.server_cpu.to_string())
            .arg("setpriv");
        if let Some(owner) = owner.filter(|_| sys::is_root()) {
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
    pub(crate) fn run(
        &self,
        mut command: Command,
        port: u16,
        data: PathBuf,
        log: &Path,
    ) -> Result<Running> {
        let output = fs::File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("can't start {command:?}"))?;
        let mut running = Running { child, port, data };
        let end = sys::now() + START_PATIENCE.as_nanos() as u64;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = running.child.try_wait()?;
            if ended.is_some() || sys::now() > end {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{command:?} does not open port {port}: {ended:?}\n{said}");
            }
            sys::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

/// A server that runs; dropped, it is stopped.
pub(crate) struct Running {
    child: Child,
    /// Where clients connect.
    pub(crate) port: u16,
    /// Its data folder.
    pub(crate) data: PathBuf,
}

impl Running {
    /// The root of its process tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it cleanly, and waits for its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        sys::terminate(self.child.id());
        let end = sys::now() + STOP_PATIENCE.as_nanos() as u64;
        while sys::now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            sys::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left to do about a child that can't be killed.
        let _ = self.end();
    }
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Runs a tool to its end and gives its output.
pub(crate) fn output(mut command: Command) -> Result<String> {
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
