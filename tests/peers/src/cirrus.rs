//! Cirrus itself: the release binary beside this program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{HOST, Lab, PASSWORD, Running, Server, account, free_port, output};

/// Where Cirrus keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// Its files, with fsync: what is compared with the others.
    Embedded,
    /// Nowhere: shows what storage costs.
    Memory,
}

/// Cirrus with its defaults, but for the rate limits, which the closed loop would meet.
pub struct Cirrus {
    program: PathBuf,
    store: Store,
    template: PathBuf,
}

impl Cirrus {
    /// Runs `program`, or `cirrus-server` from the folder of this program.
    pub fn new(program: Option<PathBuf>, store: Store) -> Result<Cirrus> {
        let program = match program {
            Some(program) => program,
            None => std::env::current_exe()?.with_file_name("cirrus-server"),
        };
        Ok(Cirrus {
            program,
            store,
            template: PathBuf::new(),
        })
    }

    fn program(&self) -> Result<&str> {
        let program = self.program.to_str();
        program.context("the path of cirrus-server is not UTF-8")
    }

    /// `cirrus-server user add`, which reads the password from its standard input.
    fn add(&self, folder: &Path, user: u32) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["user", "add", "--config"])
            .arg(configuration_file(folder))
            .arg(format!("{}@{HOST}", account(user)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        writeln!(input, "{PASSWORD}")?;
        drop(input);
        let ended = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{}: {said}", ended.status);
        Ok(())
    }

    fn add_all(&self, lab: &Lab, folder: &Path) -> Result<()> {
        for user in 0..lab.accounts {
            self.add(folder, user)
                .with_context(|| format!("can't add {}", account(user)))?;
        }
        Ok(())
    }

    fn start_in(&self, lab: &Lab, folder: &Path, archive: bool) -> Result<Running> {
        let port = free_port()?;
        let store = match self.store {
            Store::Embedded => "embedded",
            Store::Memory => "memory",
        };
        let configuration = include_str!("cirrus.yml")
            .replace("@FOLDER@", &folder.to_string_lossy())
            .replace("@HOST@", HOST)
            .replace("@CERTIFICATE@", &lab.certificate.to_string_lossy())
            .replace("@KEY@", &lab.key.to_string_lossy())
            .replace("@PORT@", &port.to_string())
            .replace("@STORE@", store)
            .replace("@ARCHIVE@", if archive { "true" } else { "false" });
        let file = configuration_file(folder);
        lab.write(&file, &configuration, None)?;
        let mut command = lab.command(self.program()?, None)?;
        command.arg("run").arg("--config").arg(&file);
        lab.run(command, port, folder.to_owned(), &folder.join("output"))
    }
}

impl Server for Cirrus {
    fn name(&self) -> &'static str {
        "cirrus"
    }

    fn description(&self) -> Result<String> {
        ensure!(
            self.program.exists(),
            "{} is not built: cargo build --release -p cirrus-server",
            self.program.display()
        );
        let mut version = Command::new(&self.program);
        version.arg("--version");
        let version = output(version)?;
        let store = match self.store {
            Store::Embedded => {
                "embedded store, its writer thread on the server's core; archive = the message \
                 log of both users. fsync per group commit, before a message is handled"
            }
            Store::Memory => "store in memory: nothing is durable",
        };
        Ok(format!("{}: {store}.", version.trim()))
    }

    fn prepare(&mut self, lab: &Lab) -> Result<()> {
        let folder = lab.fresh_folder("cirrus-accounts", None)?;
        let running = self.start_in(lab, &folder, false)?;
        if self.store == Store::Embedded {
            self.add_all(lab, &folder)?;
        }
        running.stop()?;
        self.template = folder;
        Ok(())
    }

    fn start(&self, lab: &Lab, archive: bool) -> Result<Running> {
        let folder = lab.copy(&self.template, "cirrus")?;
        let running = self.start_in(lab, &folder, archive)?;
        if self.store == Store::Memory {
            self.add_all(lab, &folder)?;
        }
        Ok(running)
    }
}

fn configuration_file(folder: &Path) -> PathBuf {
    folder.join("cirrus.yml")
}
