//! A certificate authority on this machine: pebble, Let's Encrypt's own test server, with a DNS
//! that leads every name to the loopback address. It checks signatures, nonces and challenges
//! strictly, and refuses many good nonces on purpose.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::process::{Process, free_address};

/// Percent of good nonces that it refuses.
const NONCES_REFUSED: &str = "20";

/// A port on which nobody is.
const NOBODY: u16 = 1;

/// A running authority. It ends when this is dropped.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    address: SocketAddr,
    process: Process,
    _names: Option<Process>,
}

impl Authority {
    /// Starts an authority that asks its questions on these ports: by HTTP-01, by TLS-ALPN-01.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(http_port: u16, tls_port: u16) -> Result<Authority> {
        let (dns, control) = (free_address()?, free_address()?);
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]);
        names.args(["-dns01", &dns.to_string()]);
        names.args(["-management", &control.to_string()]);
        let names = Process::start("pebble-challtestsrv", &mut names)?;
        names.wait_for("that it runs", |line| {
            line.contains("Starting management server").then_some(())
        })?;
        Authority::run((http_port, tls_port), dns, Some(names))
    }

    /// Starts an authority that asks this name server, and nobody else.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_with_names(dns: SocketAddr) -> Result<Authority> {
        Authority::run((NOBODY, NOBODY), dns, None)
    }

    fn run(
        (http_port, tls_port): (u16, u16),
        dns: SocketAddr,
        names: Option<Process>,
    ) -> Result<Authority> {
        let folder = TempDir::with_prefix("pebble-")?;
        let key = KeyPair::generate()?;
        let own = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        std::fs::write(folder.path().join("own.pem"), own.self_signed(&key)?.pem())?;
        std::fs::write(folder.path().join("own.key"), key.serialize_pem())?;
        let (address, management) = (free_address()?, free_address()?);
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.path().join("own.pem"),
            "privateKey": folder.path().join("own.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let path = folder.path().join("pebble.json");
        std::fs::write(&path, config.to_string())?;
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(&path);
        pebble.args(["-strict", "-dnsserver", &dns.to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        pebble.env("PEBBLE_WFE_NONCEREJECT", NONCES_REFUSED);
        let process = Process::start("pebble", &mut pebble)?;
        process.wait_for("that it runs", |line| {
            line.contains("ACME directory available").then_some(())
        })?;
        ensure!(address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST), "{address}");
        Ok(Authority {
            folder,
            address,
            process,
            _names: names,
        })
    }

    /// URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The certificate of its own address.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("own.pem")
    }

    /// How many certificates it has issued.
    #[must_use]
    pub fn issued(&self) -> usize {
        let lines = self.process.lines();
        lines
            .iter()
            .filter(|line| line.contains("Issued certificate"))
            .count()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}
