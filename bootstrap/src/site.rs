//! Settles what user-data left open: where this machine is, where things lie on it, and what
//! follows for the server's configuration. Pure: all that is known comes in as arguments.
//!
//! What user-data gave is never changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cirrus_config::{Backend, Config, Given};

use crate::metadata::Identity;

/// What the process knows about its machine.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `$XDG_DATA_HOME`, else `~/.local/share`.
    pub data_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$AWS_REGION`, else `$AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// The machine's name.
    pub host_name: Option<String>,
    /// Where the world reaches this machine, if somebody has looked.
    pub public_address: Option<String>,
    /// Whether IPv6 sockets can be bound.
    pub ipv6: bool,
}

/// Everything settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// The server's configuration, complete.
    pub config: Config,
    /// Where the configuration is written.
    pub config_file: PathBuf,
    /// The folder that holds everything of this site; `None` on an instance without `--data-dir`,
    /// where each part has its own place in the system.
    pub data_dir: Option<PathBuf>,
    /// Whether this is an EC2 instance.
    pub on_ec2: bool,
}

/// Why a sound configuration cannot work here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// DynamoDB and S3 need to know where and whose.
    #[error(
        "{option} is needed for `store.backend: aws` and there is no {missing} to take it from"
    )]
    Needed {
        /// The option.
        option: &'static str,
        /// Where it could have come from.
        missing: &'static str,
    },
    /// No home folder.
    #[error("there is no home folder to put data in; give --data-dir")]
    NoFolder,
    /// The control socket's path does not fit.
    #[error("the path of the control socket is too long ({path}); set listen.control")]
    SocketPath {
        /// The path.
        path: String,
    },
}

/// Bytes of a unix socket's path (`sun_path` less the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// Settles everything.
///
/// # Errors
/// Names the option that is missing, or the folder.
pub fn settle(
    given: &Given,
    identity: Option<&Identity>,
    around: &Surroundings,
) -> Result<Site, SiteError> {
    let mut config = given.config.clone();
    let on_ec2 = identity.is_some();
    if !given.has("store.backend") {
        config.store.backend = if on_ec2 {
            Backend::Aws
        } else {
            Backend::Embedded
        };
    }
    let data_dir = data_dir(&config, on_ec2, around)?;
    if let Some(dir) = &data_dir {
        place_in(dir, given, around, &mut config)?;
    }
    if config.store.backend == Backend::Aws {
        aws(identity, around, &mut config)?;
    }
    node(given, identity, around, &mut config);
    if on_ec2 && !given.has("acme.enabled") {
        config.acme.enabled = config.domains.iter().any(|domain| {
            let files = &config.tls.certificates;
            is_public(domain.as_str()) && !files.iter().any(|files| files.host == *domain)
        });
    }
    if !on_ec2 && config.domains.iter().all(|d| is_loopback(d.as_str())) {
        loopback(given, around, &mut config);
    } else if !around.ipv6 {
        without_ipv6(given, &mut config);
    }
    let in_dir = data_dir.as_deref().map(|dir| dir.join("cirrus.yaml"));
    let config_file = in_dir.unwrap_or_else(|| Path::new("/etc/cirrus/cirrus.yaml").into());
    Ok(Site {
        config,
        config_file,
        data_dir,
        on_ec2,
    })
}

/// One folder for everything, except on an instance, where the system's places are used.
fn data_dir(
    config: &Config,
    on_ec2: bool,
    around: &Surroundings,
) -> Result<Option<PathBuf>, SiteError> {
    match (&around.data_dir, on_ec2) {
        (Some(dir), _) => Ok(Some(dir.clone())),
        (None, true) => Ok(None),
        (None, false) => {
            let home = around.data_home.as_ref().ok_or(SiteError::NoFolder)?;
            let domain = config.domains.first().map_or("", |d| d.as_str());
            Ok(Some(home.join("cirrus").join(domain)))
        }
    }
}

fn place_in(
    dir: &Path,
    given: &Given,
    around: &Surroundings,
    config: &mut Config,
) -> Result<(), SiteError> {
    if !given.has("store.path") {
        config.store.path = dir.join("store");
    }
    if !given.has("tls.folder") {
        config.tls.folder = dir.join("tls");
    }
    if given.has("listen.control") {
        return Ok(());
    }
    let fits = |path: &PathBuf| path.as_os_str().len() <= MAX_SOCKET_PATH;
    let beside = dir.join("control.sock");
    let domain = config.domains.first().map_or("", |d| d.as_str());
    let runtime = || {
        Some(
            around
                .runtime_dir
                .as_ref()?
                .join(format!("cirrus-{domain}.sock")),
        )
    };
    let path = Some(beside.clone())
        .filter(fits)
        .or_else(|| runtime().filter(fits));
    let too_long = || SiteError::SocketPath {
        path: beside.display().to_string(),
    };
    config.listen.control = path.ok_or_else(too_long)?;
    Ok(())
}

fn aws(
    identity: Option<&Identity>,
    around: &Surroundings,
    config: &mut Config,
) -> Result<(), SiteError> {
    let store = &mut config.store;
    let region = identity
        .map(|i| i.region.clone())
        .or_else(|| around.region.clone());
    store.region = store.region.take().or(region);
    store.account = store
        .account
        .take()
        .or_else(|| identity.map(|i| i.account.clone()));
    let missing = "instance metadata";
    if store.region.is_none() {
        return Err(SiteError::Needed {
            option: "store.region",
            missing,
        });
    }
    if store.account.is_none() {
        return Err(SiteError::Needed {
            option: "store.account",
            missing,
        });
    }
    Ok(())
}

/// Who this node is.
fn node(given: &Given, identity: Option<&Identity>, around: &Surroundings, config: &mut Config) {
    let cluster = &mut config.cluster;
    let host = around
        .host_name
        .as_deref()
        .map(plain)
        .filter(|name| !name.is_empty());
    if !given.has("cluster.node") {
        cluster.node = identity.map(|i| i.instance_id.clone()).or(host);
    }
    if !given.has("cluster.address") {
        cluster.address = identity.map(|i| i.private_address.to_string());
    }
    if !given.has("cluster.zone") {
        cluster.zone = identity.map(|i| i.zone.clone());
    }
    if cluster.seeks_public_host() {
        cluster.public_address.clone_from(&around.public_address);
    }
}

/// A host name with only what a node's name may have.
fn plain(name: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().filter(allowed).take(64).collect()
}

/// A domain that only this machine can reach: nobody else needs to, and its user may make
/// accounts without asking.
fn loopback(given: &Given, around: &Surroundings, config: &mut Config) {
    let here = |port| {
        let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        if around.ipv6 { vec![v4, v6] } else { vec![v4] }
    };
    if !given.has("listen.c2s") {
        config.listen.c2s = here(5222);
    }
    if !given.has("listen.c2s_tls") {
        config.listen.c2s_tls = here(5223);
    }
    let all = config.listen.c2s.iter().chain(&config.listen.c2s_tls);
    if !given.has("registration.enabled") {
        config.registration.enabled = all.clone().all(|a| a.ip().is_loopback());
    }
}

/// On a machine without IPv6, "every address" is every IPv4 address.
fn without_ipv6(given: &Given, config: &mut Config) {
    let to_v4 = |address: &mut SocketAddr| {
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            address.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
    };
    if !given.has("listen.c2s") {
        config.listen.c2s.iter_mut().for_each(to_v4);
    }
    if !given.has("listen.c2s_tls") {
        config.listen.c2s_tls.iter_mut().for_each(to_v4);
    }
}

/// Names that belong to nobody in the world's domain name system (RFC 6761, RFC 6762, RFC 7686,
/// RFC 8375, ICANN's `internal`): their last labels.
const NOBODYS: [&str; 9] = [
    "alt",
    "arpa",
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// Whether an authority of the world could certify a domain.
fn is_public(domain: &str) -> bool {
    let address = domain.starts_with('[') || domain.parse::<IpAddr>().is_ok();
    let last = domain.rsplit_once('.').map(|(_, last)| last);
    !address && last.is_some_and(|last| !NOBODYS.contains(&last))
}

/// Whether a domain always means this machine (RFC 6761 6.3, loopback addresses).
fn is_loopback(domain: &str) -> bool {
    let literal = domain.trim_start_matches('[').trim_end_matches(']');
    let address = literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    address || domain == "localhost" || domain.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
