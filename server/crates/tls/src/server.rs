//! The certificates of all hosts, and the TLS settings made of them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};

use crate::certificate::Certificate;
use crate::challenge::{self, Proofs};
use crate::name::HostName;
use crate::self_signed;
use crate::ticket::{SharedSecrets, TicketSecrets, Ticketer};
use crate::{Clock, TlsError};

/// Protocol name of direct TLS for clients (XEP-0368, section 3).
const ALPN_CLIENT: &[u8] = b"xmpp-client";
/// Tickets sent after a handshake: a client uses one for its next connection and then gets another.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// What [`ServerTls`] is built from.
#[derive(Clone)]
pub struct Options {
    /// The hosts; the first serves clients that name no host, or an unknown one, on direct TLS.
    pub hosts: Vec<HostTls>,
    /// Where certificates made here are kept, for hosts without files; `None`: such a host is an
    /// error.
    pub folder: Option<PathBuf>,
    /// Oldest version accepted.
    pub min_version: MinVersion,
    /// Secrets of tickets; `None` turns resumption off.
    pub tickets: Option<TicketSecrets>,
    /// Where the time comes from.
    pub clock: Clock,
}

/// One host and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTls {
    /// The host, normalised as in XMPP addresses.
    pub host: String,
    /// Its certificate; `None`: a self-signed one is made and kept in [`Options::folder`].
    pub files: Option<PemFiles>,
}

/// A certificate chain and its key. One file may hold both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemFiles {
    /// PEM: the host's certificate first, then its intermediates.
    pub chain: PathBuf,
    /// PEM: the private key, without passphrase.
    pub key: PathBuf,
}

/// A certificate that came over the network: PEM, as in [`PemFiles`].
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedPem {
    /// The host's certificate first, then its intermediates.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for IssuedPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedPem").finish_non_exhaustive()
    }
}

/// The oldest TLS version accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// TLS for all hosts of this server. Shared by all listeners.
pub struct ServerTls {
    options: Options,
    provider: Arc<CryptoProvider>,
    secrets: Option<Arc<SharedSecrets>>,
    current: RwLock<Arc<Hosts>>,
    issued: RwLock<HashMap<String, IssuedPem>>,
    proofs: OnceLock<Arc<dyn Proofs>>,
}

/// What a reload replaces as a whole.
struct Hosts {
    /// By the host as configured and by its A-labels.
    by_name: HashMap<String, Arc<Host>>,
    /// In the order of the options; never empty.
    all: Vec<Arc<Host>>,
    stamps: Vec<Stamp>,
}

/// One host, ready for handshakes.
pub(crate) struct Host {
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) starttls: Arc<ServerConfig>,
    pub(crate) direct: Arc<ServerConfig>,
}

/// What shows that a file has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl ServerTls {
    /// Reads or makes the certificates. Blocking.
    ///
    /// # Errors
    /// Any [`TlsError`] but the handshake's: the first host that has no usable certificate.
    pub fn build(options: Options) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(default_provider());
        let secrets = options
            .tickets
            .clone()
            .map(|it| Arc::new(SharedSecrets::new(it)));
        let hosts = Hosts::build(&options, &HashMap::new(), &provider, secrets.as_ref())?;
        let current = RwLock::new(Arc::new(hosts));
        Ok(ServerTls {
            options,
            provider,
            secrets,
            current,
            issued: RwLock::default(),
            proofs: OnceLock::new(),
        })
    }

    /// Uses this certificate for a host without files, instead of a self-signed one, for
    /// handshakes from now on and across reloads. Whether it is another than before. Blocking.
    ///
    /// # Errors
    /// [`TlsError::UnknownHost`] where there is no such host or it has files; else as
    /// [`ServerTls::build`]. The certificates in use then stay in use.
    pub fn install(&self, host: &str, pem: IssuedPem) -> Result<bool, TlsError> {
        let takes = |known: &&HostTls| known.host == host && known.files.is_none();
        if !self.options.hosts.iter().any(|known| takes(&known)) {
            return Err(TlsError::UnknownHost {
                host: host.to_owned(),
            });
        }
        let mut issued = self.issued();
        if issued.get(host) == Some(&pem) {
            return Ok(false);
        }
        issued.insert(host.to_owned(), pem);
        self.rebuild(&issued)?;
        *self.issued.write().unwrap_or_else(PoisonError::into_inner) = issued;
        Ok(true)
    }

    /// Reads all certificates again and uses them for handshakes from now on; connections that
    /// stand are not touched. Blocking.
    ///
    /// # Errors
    /// As [`ServerTls::build`]; the certificates in use then stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.rebuild(&self.issued())
    }

    fn issued(&self) -> HashMap<String, IssuedPem> {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        issued.clone()
    }

    fn rebuild(&self, issued: &HashMap<String, IssuedPem>) -> Result<(), TlsError> {
        let secrets = self.secrets.as_ref();
        let hosts = Hosts::build(&self.options, issued, &self.provider, secrets)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
        Ok(())
    }

    /// [`ServerTls::reload`] if a file has changed since the last one; whether it has. Blocking.
    ///
    /// # Errors
    /// As [`ServerTls::reload`].
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if self.hosts().stamps.iter().all(Stamp::is_current) {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Answers an authority's questions on direct TLS from now on. Without effect a second time.
    pub fn answer_challenges(&self, proofs: Arc<dyn Proofs>) {
        // Nobody sets them twice.
        let _ = self.proofs.set(proofs);
    }

    /// TLS for an authority that asks about this name, if the answer is known.
    pub(crate) async fn challenge(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let proof = self.proofs.get()?.proof(name).await?;
        challenge::config(name, &proof, &self.provider)
            .inspect_err(|error| tracing::error!(%error, "an authority's question"))
            .ok()
    }

    /// Uses other secrets for tickets from now on. Without effect where tickets are off.
    pub fn set_ticket_secrets(&self, secrets: TicketSecrets) {
        if let Some(shared) = &self.secrets {
            shared.replace(secrets);
        }
    }

    /// The certificates in use, in the order of the options.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.hosts()
            .all
            .iter()
            .map(|host| Arc::clone(&host.certificate))
            .collect()
    }

    /// The host that `host` names: as configured, or in A-labels.
    pub(crate) fn host(&self, host: &str) -> Option<Arc<Host>> {
        self.hosts().by_name.get(host).cloned()
    }

    /// The host for a server name indication: the first one where there is none or it is unknown.
    /// The client then sees a certificate for another name and decides.
    pub(crate) fn host_for_sni(&self, sni: Option<&str>) -> Result<Arc<Host>, TlsError> {
        let hosts = self.hosts();
        let named = sni.and_then(|sni| hosts.by_name.get(&sni.to_ascii_lowercase()));
        named
            .or_else(|| hosts.all.first())
            .cloned()
            .ok_or(TlsError::NoHosts)
    }

    fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("hosts", &self.options.hosts)
            .finish_non_exhaustive()
    }
}

impl Hosts {
    fn build(
        options: &Options,
        issued: &HashMap<String, IssuedPem>,
        provider: &Arc<CryptoProvider>,
        secrets: Option<&Arc<SharedSecrets>>,
    ) -> Result<Hosts, TlsError> {
        if options.hosts.is_empty() {
            return Err(TlsError::NoHosts);
        }
        let mut hosts = Hosts {
            by_name: HashMap::new(),
            all: Vec::new(),
            stamps: Vec::new(),
        };
        for HostTls { host, files } in &options.hosts {
            // Stamped before they are read: a change in between is found next time.
            let paths = files.iter().flat_map(|files| [&files.chain, &files.key]);
            hosts
                .stamps
                .extend(paths.map(|path| Stamp::of(path.clone())));
            let issued = issued.get(host).filter(|_| files.is_none());
            let certificate = match (files, issued, &options.folder) {
                (Some(files), _, _) => Certificate::load(host, files, provider)?,
                (None, Some(pem), _) => from_authority(host, pem, provider)?,
                (None, None, Some(folder)) => {
                    self_signed::load_or_make(host, folder, &options.clock, provider)?
                }
                (None, None, None) => return Err(TlsError::NoFiles { host: host.clone() }),
            };
            if files.is_none() && issued.is_none() {
                hosts.stamps.push(Stamp::of(certificate.path.clone()));
            }
            let ready = Arc::new(Host::new(certificate, options, provider, secrets)?);
            hosts
                .by_name
                .insert(HostName::parse(host)?.ascii, Arc::clone(&ready));
            hosts.by_name.insert(host.clone(), Arc::clone(&ready));
            hosts.all.push(ready);
        }
        Ok(hosts)
    }
}

fn from_authority(
    host: &str,
    pem: &IssuedPem,
    provider: &CryptoProvider,
) -> Result<Certificate, TlsError> {
    // Not a file; it stands where messages name one.
    let origin = PathBuf::from("(from the certificate authority)");
    let files = PemFiles {
        chain: origin.clone(),
        key: origin,
    };
    Certificate::parse(host, &files, (&pem.chain, &pem.key), provider)
}

impl Host {
    fn new(
        certificate: Certificate,
        options: &Options,
        provider: &Arc<CryptoProvider>,
        secrets: Option<&Arc<SharedSecrets>>,
    ) -> Result<Host, TlsError> {
        let versions: &[_] = match options.min_version {
            MinVersion::V12 => &[&TLS13, &TLS12],
            MinVersion::V13 => &[&TLS13],
        };
        let time = Arc::new(Time(Arc::clone(&options.clock)));
        let mut config = ServerConfig::builder_with_details(Arc::clone(provider), time)
            .with_protocol_versions(versions)
            .map_err(TlsError::Settings)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
                &certificate.key,
            ))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        if let Some(secrets) = secrets {
            config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
            config.ticketer = Arc::new(Ticketer::new(
                Arc::clone(secrets),
                Arc::clone(&options.clock),
                &certificate.host,
                &certificate.sha256,
            ));
        }
        let mut direct = config.clone();
        direct.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        Ok(Host {
            certificate: Arc::new(certificate),
            starttls: Arc::new(config),
            direct: Arc::new(direct),
        })
    }
}

impl Stamp {
    fn of(path: PathBuf) -> Stamp {
        let seen = std::fs::metadata(&path)
            .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
            .ok();
        Stamp(path, seen)
    }

    fn is_current(&self) -> bool {
        Stamp::of(self.0.clone()) == *self
    }
}

/// The clock as rustls wants it: it decides about the age of tickets.
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            Duration::from_millis((self.0)()),
        ))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

#[cfg(test)]
mod tests;
