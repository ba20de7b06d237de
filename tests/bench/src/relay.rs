//! The limit between nodes: processes in a row that read from one socket and write to the next, on
//! loopback, without TLS. A message goes from the generator through three of them and back: four
//! hops, as from a client to its node, to the sender's home, to the recipient's, and to the
//! recipient.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::load::paced::percentile;
use crate::sys;

/// Processes in a row.
const RELAYS: usize = 3;
/// Bytes of a message: what a short one has inside of its TLS record.
const MESSAGE: usize = 200;
/// Nanoseconds that the row may take to stand.
const PATIENCE: u64 = 10_000_000_000;

/// Passes on, from one connection to `port` to one to `to`, until it ends.
pub(crate) fn serve(port: u16, to: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let (mut from, _) = listener.accept()?;
    let mut to = connect(to)?;
    let mut chunk = [0; 4_096];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            length => to.write_all(&chunk[..length])?,
        }
    }
}

/// Connects to a process that may not listen yet.
fn connect(port: u16) -> Result<TcpStream> {
    let patience = sys::now() + PATIENCE;
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) if sys::now() > patience => return Err(error).context("a relay"),
            Err(_) => pause(Duration::from_millis(1)),
        }
    }
}

/// Waits for the last process of the row, but not for ever: one of them may have ended.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let patience = sys::now() + PATIENCE;
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(error) if sys::now() > patience => return Err(error).context("the last relay"),
            Err(_) => pause(Duration::from_millis(1)),
        }
    }
}

struct Row(Vec<Child>);

impl Drop for Row {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It has ended if it can't be killed.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Median and 99th percentile in milliseconds, at so many messages a second.
pub(crate) fn measure(
    relay_cpu: usize,
    generator_cpu: usize,
    rate: u64,
    time: Duration,
) -> Result<(f64, f64)> {
    let end = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut to = end.local_addr()?.port();
    sys::pin_self(relay_cpu)?;
    let mut row = Row(Vec::new());
    for _ in 0..RELAYS {
        let port = cirrus_peers::free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").args(["--port", &port.to_string()]);
        command.args(["--to", &to.to_string()]).stdin(Stdio::null());
        row.0.push(command.spawn()?);
        to = port;
    }
    sys::pin_self(generator_cpu)?;
    let (mut first, mut last) = (connect(to)?, accept(&end)?);
    let messages = u64::try_from(time.as_nanos())? * rate / 1_000_000_000;
    let (mut message, mut times) = ([b'x'; MESSAGE], Vec::new());
    let began = sys::now();
    for n in 0..messages {
        let due = began + n * 1_000_000_000 / rate;
        if let Some(rest) = due.checked_sub(sys::now()) {
            pause(Duration::from_nanos(rest));
        }
        let sent = sys::now();
        first.write_all(&message)?;
        last.read_exact(&mut message)?;
        times.push(sys::now() - sent);
    }
    times.sort_unstable();
    let at = |percent| percentile(&times, percent).context("no message was sent");
    Ok((at(50)?, at(99)?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pace of a load, and between two tries"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
