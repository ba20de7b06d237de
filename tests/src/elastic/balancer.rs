//! haproxy in front of the nodes: it asks each for its health, and a node that is not healthy keeps
//! the connections that it has.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::process::{Process, free_address};
use crate::{deadline, left};

/// How long a health check may take.
const CHECK: Duration = Duration::from_millis(500);

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Doors {
    /// For clients, with STARTTLS.
    pub c2s: SocketAddr,
    /// For clients, with TLS from the first byte.
    pub c2s_tls: SocketAddr,
    /// For health checks.
    pub health: SocketAddr,
}

impl Doors {
    /// Three addresses on which nobody listens.
    ///
    /// # Errors
    /// When there are none.
    pub fn free() -> Result<Doors> {
        Ok(Doors {
            c2s: free_address()?,
            c2s_tls: free_address()?,
            health: free_address()?,
        })
    }

    /// Whether the node there says that it serves.
    #[must_use]
    pub fn are_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.health, CHECK)?;
            stream.set_read_timeout(Some(CHECK))?;
            write!(
                stream,
                "GET /health HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

/// A running haproxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Balancer {
    /// Whether haproxy is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        let asked = Command::new("haproxy").arg("-v").output();
        asked.is_ok_and(|output| output.status.success())
    }

    /// Starts one in front of nodes that may or may not be there yet.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(nodes: &[Doors]) -> Result<Balancer> {
        Self::start_with(nodes, "")
    }

    /// As [`Self::start`]; it tells nodes for whom each connection is (PROXY protocol, version 2),
    /// and begins its health checks so too, as AWS's balancers do.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_telling(nodes: &[Doors]) -> Result<Balancer> {
        Self::start_with(nodes, " send-proxy-v2 check-send-proxy")
    }

    fn start_with(nodes: &[Doors], options: &str) -> Result<Balancer> {
        let folder = TempDir::with_prefix("haproxy-")?;
        let address = free_address()?;
        let mut text = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  \
             timeout client 1h\n  timeout server 1h\n  retries 3\n  option redispatch\n\
             listen c2s\n  bind {address}\n  balance leastconn\n  \
             option httpchk GET /health\n  \
             default-server check inter 250ms fall 1 rise 1\n"
        );
        for (n, doors) in nodes.iter().enumerate() {
            let (c2s, health) = (doors.c2s, doors.health.port());
            writeln!(text, "  server n{n} {c2s} port {health}{options}")?;
        }
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, text)?;
        let mut command = Command::new("haproxy");
        // In the foreground, as one process.
        command.arg("-db").arg("-f").arg(&path);
        let mut process = Process::start("haproxy", &mut command)?;
        let until = deadline();
        while TcpStream::connect(address).is_err() {
            if left(until).is_zero() || !process.runs()? {
                bail!("haproxy does not listen:\n{}", process.log());
            }
            std::thread::yield_now();
        }
        Ok(Balancer {
            address,
            _process: process,
            _folder: folder,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
