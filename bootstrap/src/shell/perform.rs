//! The phases after `discover`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cirrus_config::Backend;

use super::discover::{public_address, surroundings};
use super::{Failure, Shell, on_terminal, print_err, print_out, say};
use crate::code::Code;
use crate::control::{self, Account, ServerState};
use crate::files::{FileError, check_writable, make_folder, write_file, write_secret};
use crate::greeting::FirstAccount;
use crate::password::{RANDOM, password};
use crate::phases::{Command, Event, Phase};
use crate::provision::aws::{Progress, Provisioner};
use crate::ready::stream_opens;
use crate::reference::place_files;
use crate::server::{self, Server};
use crate::site::{Site, settle};

/// The name of the first account off EC2.
const FIRST_ACCOUNT: &str = "me";
/// Between two looks at a server that is not ready.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Bytes read of a file with certificates; a chain has some thousands.
const MAX_PEM_BYTES: u64 = 1_048_576;
/// Of a folder that a pattern looks into.
const MAX_NAMES: usize = 4_096;

/// What the rendered file begins with.
const RENDERED: &str = "\
# Written by cirrus-bootstrap from the user-data; each boot writes it anew.
# docs/CONFIGURATION.md says what every option does.
";

impl Shell {
    /// Performs a phase.
    pub(super) async fn perform(&mut self, phase: Phase) -> Event {
        let done = match phase {
            Phase::Discover => self.discover().await,
            Phase::Parse => {
                let around = surroundings(self.args.source.data_dir.clone());
                self.parse(&around).await
            }
            Phase::Validate => self.validate().await,
            Phase::Provision => self.provision().await,
            Phase::Secrets => self.secrets(),
            Phase::Render => self.render(),
            Phase::Start if self.command == Command::Launch => self.launch().await,
            Phase::Start => self.start(),
            Phase::Ready if self.command == Command::Launch => return self.launched().await,
            Phase::Ready => return self.ready().await,
        };
        match done {
            Ok(line) => Event::Done(line),
            Err(Failure { code, message }) => Event::Failed(code, message),
        }
    }

    async fn validate(&mut self) -> Result<String, Failure> {
        let Some(data) = &self.user_data else {
            return Err(Failure::new(Code::Internal, "no configuration after parse"));
        };
        let mut around = surroundings(self.args.source.data_dir.clone());
        if data.data.given.config.cluster.seeks_public_host() {
            around.public_address = match self.identity {
                Some(_) => public_address().await,
                None => None,
            };
            if around.public_address.is_none() {
                say("validate: cluster.public_address: this machine knows of no public address");
            }
        }
        let mut site = settle(&data.data.given, self.identity.as_ref(), &around)
            .map_err(|e| Failure::of(Code::ConfigImpossible, &e))?;
        let folder = site.config.tls.folder.clone();
        place_files(&mut site.config, &data.files, &folder);
        let ours: Vec<PathBuf> = data.files.iter().map(|f| folder.join(f.path())).collect();
        for certificate in &site.config.tls.certificates {
            let files = [&certificate.chain, &certificate.key].into_iter();
            for file in files.filter(|file| !ours.contains(file)) {
                std::fs::File::open(file).map_err(|e| {
                    let message = format!("tls.certificates: {}: {e}", file.display());
                    Failure::new(Code::ConfigImpossible, message)
                })?;
            }
        }
        if self.command == Command::Run {
            self.program = Some(self.find_server()?);
        }
        let line = match site.config.store.backend {
            Backend::Aws => {
                let region = site.config.store.region.as_deref().unwrap_or_default();
                format!(
                    "DynamoDB and S3 in {region}, names begin with {}",
                    site.config.prefix()
                )
            }
            Backend::Embedded => format!("embedded store in {}", site.config.store.path.display()),
            Backend::Memory => "in memory: everything is lost when the server ends".into(),
        };
        self.site = Some(site);
        Ok(line)
    }

    fn find_server(&self) -> Result<PathBuf, Failure> {
        let this = std::env::current_exe().ok();
        let path = std::env::var_os("PATH");
        server::find(
            self.args.server.as_deref(),
            this.as_deref(),
            path.as_deref(),
        )
        .map_err(|e| Failure::of(Code::ServerMissing, &e))
    }

    pub(super) fn site(&self) -> Result<&Site, Failure> {
        self.site
            .as_ref()
            .ok_or_else(|| Failure::new(Code::Internal, "nothing was validated"))
    }

    async fn provision(&self) -> Result<String, Failure> {
        let site = self.site()?;
        let plan = self.command == Command::Plan;
        if site.config.store.backend != Backend::Aws {
            return if plan {
                Ok(plan_folders(site))
            } else {
                make_folders(site)
            };
        }
        let provisioner = Provisioner::new(&site.config).await;
        let provisioner = provisioner.map_err(|e| Failure::of(e.code(), &e))?;
        if plan {
            let lines = provisioner
                .plan()
                .await
                .map_err(|e| Failure::of(e.code(), &e))?;
            print_out(&format!("{}\n", lines.join("\n")));
            return Ok(format!("{} lines; nothing was changed", lines.len()));
        }
        make_folders(site)?;
        let report = provisioner.provision(&progress()).await;
        clear_progress();
        let report = report.map_err(|e| Failure::of(e.code(), &e))?;
        for drift in &report.drift {
            say(&format!("provision: {drift}"));
        }
        Ok(report.summary())
    }

    /// Nobody should have to choose, or to type into user-data, what is made here.
    fn secrets(&mut self) -> Result<String, Failure> {
        let mut made = Vec::new();
        match self.write_key_files()? {
            0 => {}
            1 => made.push("1 file of a certificate"),
            _ => made.push("the files of certificates"),
        }
        if self.account_name()?.is_some() {
            let mut random = [0u8; RANDOM];
            draw(&mut random)?;
            self.password = Some(password(&random));
            made.push("a password for the first account");
        }
        Ok(match made.as_slice() {
            [] => "none needed".into(),
            made => made.join(", "),
        })
    }

    /// Certificate chains and keys that were fetched.
    fn write_key_files(&self) -> Result<usize, Failure> {
        let files = self.user_data.as_ref().map_or(&[][..], |d| &d.files);
        let folder = &self.site()?.config.tls.folder;
        for file in files {
            let written = write_secret(&folder.join(file.path()), &file.text);
            written.map_err(|e| unwritten(Code::SecretsFailed, &e))?;
        }
        Ok(files.len())
    }

    /// The first account's name, if one is to be made.
    fn account_name(&self) -> Result<Option<&str>, Failure> {
        if self.args.no_account || self.command == Command::Launch {
            return Ok(None);
        }
        let default = (!self.site()?.on_ec2).then_some(FIRST_ACCOUNT);
        Ok(self.args.account.as_deref().or(default))
    }

    fn render(&mut self) -> Result<String, Failure> {
        let site = self.site()?;
        let text = format!("{RENDERED}{}", site.config.render());
        if self.command == Command::Render {
            // What came from a secret is not for whoever reads this.
            let hidden = self.user_data.as_ref().map(|d| &d.hidden);
            let text = match hidden.filter(|hidden| !hidden.is_empty()) {
                Some(hidden) => format!("{RENDERED}{}", site.config.render_with(hidden)),
                None => text,
            };
            print_out(&text);
            return Ok("printed".into());
        }
        let file = site.config_file.display();
        let written = write_file(&site.config_file, &text);
        let written = written.map_err(|e| unwritten(Code::RenderFailed, &e))?;
        let what = if written {
            "written"
        } else {
            "is as it should be"
        };
        let line = format!("{file} {what}");
        self.rendered = written;
        Ok(line)
    }

    fn start(&mut self) -> Result<String, Failure> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => self.find_server()?,
        };
        let this = std::env::current_exe().ok();
        let server = Server::start(&program, &self.site()?.config_file, this.as_deref());
        self.server = Some(server.map_err(|e| Failure::of(Code::ServerMissing, &e))?);
        Ok(format!("started {}", program.display()))
    }

    async fn ready(&mut self) -> Event {
        let (Some(mut server), Some(site)) = (self.server.take(), self.site.clone()) else {
            return Event::Failed(Code::Internal, "no server after start".into());
        };
        let pid = server.id();
        let patience = Duration::from_secs(self.args.ready_seconds);
        let mut last = String::from("nothing yet");
        let outcome = tokio::select! {
            ended = server.ended() => Outcome::Ended(ended.unwrap_or(255)),
            seen = watch(&site, pid, &mut last) => Outcome::Seen(seen),
            () = tokio::time::sleep(patience) => Outcome::Late,
        };
        self.server = Some(server);
        match outcome {
            Outcome::Ended(code) => Event::ServerEnded(code),
            Outcome::Late => {
                let seconds = patience.as_secs();
                let why = format!("no XMPP stream opened within {seconds} s; last: {last}");
                Event::Failed(Code::ServerSilent, why)
            }
            Outcome::Seen(line) => match self.first_account(&site).await {
                Ok(()) => Event::Done(line),
                Err(Failure { code, message }) => Event::Failed(code, message),
            },
        }
    }

    async fn first_account(&mut self, site: &Site) -> Result<(), Failure> {
        let Some(name) = self.account_name()? else {
            return Ok(());
        };
        let domain = site.config.domains.first().map_or("", |d| d.as_str());
        let jid = format!("{name}@{domain}");
        let password = self.password.clone().unwrap_or_default();
        let made = control::user_add(&site.config.listen.control, &jid, &password).await;
        let made = made.map_err(|e| {
            let Failure { code, message } = Failure::of(Code::AccountFailed, &e);
            Failure::new(code, format!("{jid}: {message}"))
        })?;
        self.account = match made {
            Account::Created => FirstAccount::Created { jid, password },
            Account::Exists => FirstAccount::Exists { jid },
        };
        Ok(())
    }
}

enum Outcome {
    Ended(u8),
    Late,
    Seen(String),
}

/// Looks until a stream opens; gives a line that says where.
///
/// The control socket is asked first: it tells whether it is *our* server that answers, which a
/// stream does not (another server may have the port, and ours is about to fail for it).
pub(super) async fn watch(site: &Site, pid: Option<u32>, last: &mut String) -> String {
    loop {
        match look(site, pid).await {
            Ok(seen) => return seen,
            Err(why) => *last = why,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One look at the server.
async fn look(site: &Site, pid: Option<u32>) -> Result<String, String> {
    let state = control::status(&site.config.listen.control, pid).await;
    let state = state.map_err(|e| Failure::of(Code::ServerSilent, &e).message)?;
    match state {
        ServerState::Serving => {}
        ServerState::Starting(what) => return Err(format!("not serving yet: {what}")),
    }
    let Some(address) = site.config.listen.c2s.first() else {
        // Nothing but TLS from the first byte: the server's own word has to do.
        return Ok("the server says that it serves".into());
    };
    let domain = site.config.domains.first().map_or("", |d| d.as_str());
    let balancers = &site.config.listen.proxy_networks;
    let opened = stream_opens(*address, domain, balancers).await;
    opened.map_err(|e| Failure::of(Code::ServerSilent, &e).message)?;
    Ok(format!("an XMPP stream opens at {address}"))
}

/// Reads a file that should be small, such as one with a certificate.
pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_PEM_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names in a folder: the first of them, where there are very many.
pub(super) fn names_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.flatten().take(MAX_NAMES);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.collect())
}

/// A file or folder that could not be made: for this reason, or for want of room.
fn unwritten(code: Code, error: &FileError) -> Failure {
    let Failure { code, message } = Failure::of(code, error);
    if !error.is_of_room() {
        return Failure::new(code, message);
    }
    let remedy = "make room on the disk, or give the machine a larger one";
    Failure::new(Code::DiskFull, format!("{message}; {remedy}"))
}

/// The folders that a site needs.
fn folders(site: &Site) -> Vec<PathBuf> {
    let config = &site.config;
    let parent = |file: &Path| file.parent().map(Path::to_owned);
    let store = (config.store.backend == Backend::Embedded).then(|| config.store.path.clone());
    let all = [
        site.data_dir.clone(),
        store,
        Some(config.tls.folder.clone()),
        parent(&config.listen.control),
        parent(&site.config_file),
    ];
    let mut out: Vec<PathBuf> = all.into_iter().flatten().collect();
    let mut seen = std::collections::HashSet::new();
    out.retain(|path| seen.insert(path.clone()));
    out
}

fn make_folders(site: &Site) -> Result<String, Failure> {
    let mut made = Vec::new();
    let failed = |e| unwritten(Code::FolderUnusable, &e);
    for folder in folders(site) {
        if make_folder(&folder).map_err(failed)? {
            made.push(folder.display().to_string());
        }
        check_writable(&folder).map_err(failed)?;
    }
    Ok(match made.as_slice() {
        [] => "every folder exists, nothing changed".into(),
        made => format!("made {}", made.join(", ")),
    })
}

fn plan_folders(site: &Site) -> String {
    let line = |folder: PathBuf| {
        let what = if folder.is_dir() {
            "exists"
        } else {
            "would be made"
        };
        format!("folder {}: {what}\n", folder.display())
    };
    let lines: String = folders(site).into_iter().map(line).collect();
    print_out(&lines);
    "nothing was changed".into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell draws; the password is a pure function of it"
)]
fn draw(random: &mut [u8]) -> Result<(), Failure> {
    aws_lc_rs::rand::fill(random)
        .map_err(|_| Failure::new(Code::SecretsFailed, "the system gives no randomness"))
}

/// On a terminal one line that changes, elsewhere a line for each object that is done.
fn progress() -> Progress {
    if on_terminal() {
        Arc::new(|object, what| print_err(&format!("\r\x1b[K  {object}: {what}")))
    } else {
        Arc::new(|object, what| {
            if what == "ready" {
                say(&format!("provision: {object}: {what}"));
            }
        })
    }
}

fn clear_progress() {
    if on_terminal() {
        print_err("\r\x1b[K");
    }
}
