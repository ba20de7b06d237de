//! pen in front of the nodes, a balancer that knows TCP and nothing else, and what an operator's
//! script does for it: nodes are asked for their health, and the weight of one that is not healthy
//! becomes 0, so that no more clients come to it and those that it has stay.

#![expect(
    clippy::print_stderr,
    reason = "what goes wrong beside a test is told in its output"
)]

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::balancer::Doors;
use crate::process::{Process, free_address};
use crate::{deadline, left};

/// Between two looks at the nodes' health.
const LOOKS: Duration = Duration::from_millis(250);
/// Connections at most.
const CONNECTIONS: &str = "2000";

/// A running pen and its script. Both end when this is dropped.
#[derive(Debug)]
pub struct Pen {
    address: SocketAddr,
    _process: Process,
    stop: Option<Sender<()>>,
    script: Option<JoinHandle<Result<()>>>,
}

impl Pen {
    /// Starts one in front of nodes that may or may not be there yet.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(nodes: &[Doors]) -> Result<Pen> {
        let (address, control) = (free_address()?, free_address()?);
        let mut command = Command::new("pen");
        // In the foreground; to the node with the fewest connections for its weight, and not where
        // the client's address was before: here all clients have one. As root it has a control port
        // only if told who it is to be.
        command.args(["-f", "-r", "-W", "-u", &user()?, "-x", CONNECTIONS]);
        command.args(["-O", "tcp_nodelay", "-C", &control.to_string()]);
        command.arg(address.to_string());
        // Nobody is healthy before it was asked. The fields between are bounds: none.
        let nodes = nodes.to_vec();
        command.args(nodes.iter().map(|doors| format!("{}:0:0:0", doors.c2s)));
        let mut process = Process::start("pen", &mut command)?;
        let until = deadline();
        while TcpStream::connect(control).is_err() {
            if left(until).is_zero() || !process.runs()? {
                bail!("pen does not listen:\n{}", process.log());
            }
            thread::yield_now();
        }
        let (stop, stopped) = mpsc::channel();
        let script = thread::spawn(move || {
            let mut healthy = vec![false; nodes.len()];
            while stopped.recv_timeout(LOOKS) == Err(RecvTimeoutError::Timeout) {
                for (n, (doors, was)) in nodes.iter().zip(&mut healthy).enumerate() {
                    let is = doors.are_healthy();
                    if is != *was {
                        weigh(control, n, is)?;
                        *was = is;
                    }
                }
            }
            Ok(())
        });
        Ok(Pen {
            address,
            _process: process,
            stop: Some(stop),
            script: Some(script),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.stop = None;
        match self.script.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("pen's script: {error:#}"),
            Some(Err(_)) => eprintln!("pen's script has panicked"),
            _ => {}
        }
    }
}

/// The name of whoever runs this.
fn user() -> Result<String> {
    let said = Command::new("id").arg("-un").output()?;
    ensure!(said.status.success(), "id: {}", said.status);
    Ok(String::from_utf8(said.stdout)?.trim().to_owned())
}

/// Tells pen whether new clients may come to a node.
fn weigh(control: SocketAddr, node: usize, healthy: bool) -> Result<()> {
    let weight = u8::from(healthy).to_string();
    let arguments = [
        &control.to_string(),
        "server",
        &node.to_string(),
        "weight",
        &weight,
    ];
    let told = Command::new("penctl").args(arguments).status()?;
    ensure!(told.success(), "penctl {}: {told}", arguments.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Longest time for an answer.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// A node that says its name to clients and whether it is well to whoever asks.
    fn node(name: u8, well: &Arc<AtomicBool>) -> Doors {
        let doors = Doors::free().unwrap();
        let (clients, health) = (doors.c2s, doors.health);
        let (clients, health) = (
            TcpListener::bind(clients).unwrap(),
            TcpListener::bind(health).unwrap(),
        );
        let well = Arc::clone(well);
        // They end with the process.
        thread::spawn(move || {
            for mut asked in health.incoming().flatten() {
                let status = if well.load(Ordering::Acquire) {
                    200
                } else {
                    503
                };
                let mut request = [0; 256];
                let _ = asked.read(&mut request);
                let _ = write!(asked, "HTTP/1.1 {status} .\r\n\r\n");
            }
        });
        thread::spawn(move || {
            let mut kept = Vec::new();
            for mut client in clients.incoming().flatten() {
                let _ = client.write_all(&[name]);
                kept.push(client);
            }
        });
        doors
    }

    /// Who answers a client of pen, unless nobody does. It may keep one for whom it has no node.
    fn who(pen: &Pen) -> Option<(u8, TcpStream)> {
        let mut client = TcpStream::connect(pen.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut name = [0];
        client.read_exact(&mut name).ok()?;
        Some((name[0], client))
    }

    /// Connects until this one answers.
    fn until(pen: &Pen, name: u8) -> TcpStream {
        let end = deadline();
        loop {
            match who(pen) {
                Some((it, client)) if it == name => return client,
                _ => assert!(!left(end).is_zero(), "{} never answers", name as char),
            }
            thread::yield_now();
        }
    }

    #[test]
    fn no_more_clients_come_to_a_node_that_is_not_well_and_those_it_has_stay() {
        if std::env::var_os("CIRRUS_ELASTIC_PEN").is_none() {
            eprintln!("skipped: CIRRUS_ELASTIC_PEN asks for pen");
            return;
        }
        let [first, second] = [true, false].map(|it| Arc::new(AtomicBool::new(it)));
        let doors = [node(b'1', &first), node(b'2', &second)];
        let pen = Pen::start(&doors).unwrap();
        let mut stays = until(&pen, b'1');
        until(&pen, b'1');
        second.store(true, Ordering::Release);
        until(&pen, b'2');
        first.store(false, Ordering::Release);
        // It is looked at the first one before the second has been well for another look.
        let end = deadline();
        let mut in_a_row = 0;
        while in_a_row < 20 {
            let name = who(&pen).map(|it| it.0);
            in_a_row = if name == Some(b'2') { in_a_row + 1 } else { 0 };
            assert!(!left(end).is_zero(), "clients still come to the first");
        }
        stays.set_nonblocking(true).unwrap();
        let broken = stays.read(&mut [0]);
        assert!(
            broken.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "its client was cut off"
        );
    }
}
