//! The limit on this machine: a process that only forwards, with the TLS library that Cirrus uses.
//!
//! It reads records of one session and writes them to the partner's, one write per read, and knows
//! nothing else.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use cirrus_peers::{Lab, Running, Server, free_port};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::link::{Link, Received};
use crate::poller::Poller;
use crate::wire::{self, Cutter};

/// The forwarder as a measured server: this program again.
pub(crate) struct Forwarder;

impl Server for Forwarder {
    fn name(&self) -> &'static str {
        "limit"
    }

    fn is_xmpp(&self) -> bool {
        false
    }

    fn description(&self) -> Result<String> {
        Ok(
            "limit: a bare forwarder over rustls, one write per read; its login is the TLS \
            handshake alone, its session is what rustls and an empty buffer hold."
                .to_owned(),
        )
    }

    fn prepare(&mut self, _: &Lab) -> Result<()> {
        Ok(())
    }

    fn start(&self, lab: &Lab, _: bool) -> Result<Running> {
        let folder = lab.fresh_folder("limit", None)?;
        let port = free_port()?;
        let program = std::env::current_exe()?;
        let program = program
            .to_str()
            .context("the path of this program is not UTF-8")?;
        let mut command = lab.command(program, None)?;
        command.arg("forward").arg("--port").arg(port.to_string());
        command
            .arg("--certificate")
            .arg(&lab.certificate)
            .arg("--key")
            .arg(&lab.key);
        lab.run(command, port, folder.clone(), &folder.join("output"))
    }
}

const LISTENER: u64 = u64::MAX;

struct Peer {
    link: Link,
    cutter: Cutter,
    user: Option<u32>,
}

struct Forwarding {
    config: Arc<ServerConfig>,
    poller: Poller,
    peers: HashMap<u64, Peer>,
    by_user: HashMap<u32, u64>,
    next_token: u64,
}

/// Forwards until the process is ended.
pub(crate) fn serve(port: u16, certificate: &Path, key: &Path) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    config.send_tls13_tickets = 0;
    let mut forwarding = Forwarding {
        config: Arc::new(config),
        poller: Poller::new()?,
        peers: HashMap::new(),
        by_user: HashMap::new(),
        next_token: 0,
    };
    forwarding.poller.add(&listener, LISTENER)?;
    let mut ready = Vec::new();
    loop {
        ready.clear();
        forwarding.poller.wait(1_000_000_000, &mut ready)?;
        for token in &ready {
            if *token == LISTENER {
                forwarding.accept(&listener)?;
            } else if !matches!(forwarding.read(*token), Ok(Received::Some)) {
                forwarding.forget(*token);
            }
        }
    }
}

impl Forwarding {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut link = Link::from_socket(socket)?;
            link.upgrade(ServerConnection::new(self.config.clone())?.into())?;
            let token = self.next_token;
            self.next_token += 1;
            self.poller.add(link.socket(), token)?;
            self.peers.insert(
                token,
                Peer {
                    link,
                    cutter: Cutter::default(),
                    user: None,
                },
            );
        }
    }

    fn read(&mut self, token: u64) -> Result<Received> {
        let Some(peer) = self.peers.get_mut(&token) else {
            return Ok(Received::Some);
        };
        let received = peer.link.receive(peer.cutter.input())?;
        let Some(user) = peer.user else {
            if let Some(piece) = peer.cutter.next() {
                let number = wire::attribute(peer.cutter.piece(piece), "n").context("no name")?;
                let user = std::str::from_utf8(number)?.parse()?;
                peer.cutter.restart();
                peer.user = Some(user);
                peer.link.send(b"<ready/>")?;
                self.by_user.insert(user, token);
            }
            return Ok(received);
        };
        let bytes = std::mem::take(peer.cutter.input());
        if !bytes.is_empty() {
            let partner = self
                .by_user
                .get(&(user ^ 1))
                .and_then(|token| self.peers.get_mut(token));
            let partner = partner.context("the partner is not there")?;
            partner.link.send(&bytes)?;
            ensure!(!partner.link.wants_write(), "the partner does not read");
        }
        if let Some(peer) = self.peers.get_mut(&token) {
            *peer.cutter.input() = bytes;
            peer.cutter.restart();
        }
        Ok(received)
    }

    fn forget(&mut self, token: u64) {
        if let Some(peer) = self.peers.remove(&token)
            && let Some(user) = peer.user
            && self.by_user.get(&user) == Some(&token)
        {
            self.by_user.remove(&user);
        }
    }
}
