//! prosody from Debian, with the generational collector.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{HOST, Lab, PASSWORD, Running, Server, free_port, output};

const USER: Option<&str> = Some("prosody");

/// What prosody waits for sockets with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Backend {
    /// Its own binding of epoll, the default.
    Epoll,
    /// libevent through lua-event.
    Event,
}

/// Where prosody keeps its archive.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ArchiveStore {
    /// Its own files, the default: one list per user, appended to.
    Internal,
    /// SQLite through lua-dbi.
    Sqlite,
}

/// prosody and its variants.
pub struct Prosody {
    backend: Backend,
    archive: ArchiveStore,
    template: PathBuf,
}

impl Prosody {
    /// Not yet prepared.
    pub fn new(backend: Backend, archive: ArchiveStore) -> Prosody {
        Prosody {
            backend,
            archive,
            template: PathBuf::new(),
        }
    }

    fn start_in(&self, lab: &Lab, folder: &Path, archive: bool) -> Result<Running> {
        let port = self.configure(lab, folder, archive)?;
        let mut command = lab.command("/usr/bin/prosody", USER)?;
        command
            .arg("-F")
            .arg("--config")
            .arg(folder.join("prosody.cfg.lua"));
        lab.run(command, port, folder.to_owned(), &folder.join("output"))
    }

    fn configure(&self, lab: &Lab, folder: &Path, archive: bool) -> Result<u16> {
        let port = free_port()?;
        let store = match self.archive {
            _ if !archive => "",
            ArchiveStore::Internal => "default_archive_policy = true",
            ArchiveStore::Sqlite => {
                "default_archive_policy = true\nstorage = { archive = \"sql\" }\n\
                 sql = { driver = \"SQLite3\", database = \"archive.sqlite\" }"
            }
        };
        let backend = match self.backend {
            Backend::Epoll => "epoll",
            Backend::Event => "event",
        };
        let configuration = include_str!("prosody.cfg.lua")
            .replace("@FOLDER@", &folder.to_string_lossy())
            .replace("@HOST@", HOST)
            .replace("@CERTIFICATE@", &lab.certificate.to_string_lossy())
            .replace("@KEY@", &lab.key.to_string_lossy())
            .replace("@PORT@", &port.to_string())
            .replace("@BACKEND@", backend)
            .replace("@ARCHIVE@", store)
            .replace("@MAM@", if archive { "\"mam\";" } else { "" });
        lab.write(&folder.join("prosody.cfg.lua"), &configuration, USER)?;
        Ok(port)
    }
}

impl Server for Prosody {
    fn name(&self) -> &'static str {
        "prosody"
    }

    fn description(&self) -> Result<String> {
        let version = fs::read_to_string("/usr/lib/prosody/prosody.version")
            .context("is the Debian package prosody installed?")?;
        let store = match self.archive {
            ArchiveStore::Internal => {
                "archive = mod_mam in its own files, the default. No fsync: it appends only"
            }
            ArchiveStore::Sqlite => {
                "archive = mod_mam in SQLite, rollback journal: four fdatasync per archived copy"
            }
        };
        let backend = self.backend;
        Ok(format!(
            "prosody {}: generational collector, network backend {backend:?}, storage \
             internal; {store}.",
            version.trim()
        ))
    }

    fn prepare(&mut self, lab: &Lab) -> Result<()> {
        let folder = lab.fresh_folder("prosody-accounts", USER)?;
        let plugins = folder.join("plugins");
        for subfolder in [&folder.join("data"), &plugins] {
            fs::create_dir(subfolder)?;
            lab.give(subfolder, USER)?;
        }
        let plugin = plugins.join("mod_bench_accounts.lua");
        lab.write(&plugin, include_str!("prosody_accounts.lua"), USER)?;
        self.configure(lab, &folder, false)?;
        let mut command = lab.command("/usr/bin/prosodyctl", USER)?;
        command.arg("--config").arg(folder.join("prosody.cfg.lua"));
        let wanted = lab.accounts;
        command.args(["mod_bench_accounts", HOST, &wanted.to_string(), PASSWORD]);
        let said = output(command)?;
        let made = fs::read_dir(folder.join("data/bench%2etest/accounts"))
            .map_or(0, |accounts| accounts.flatten().count());
        if made != wanted as usize {
            bail!("prosodyctl made {made} of {wanted} accounts: {said}");
        }
        self.template = folder;
        Ok(())
    }

    fn start(&self, lab: &Lab, archive: bool) -> Result<Running> {
        let folder = lab.copy(&self.template, "prosody")?;
        self.start_in(lab, &folder, archive)
    }
}
