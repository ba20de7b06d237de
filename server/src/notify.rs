//! What the service manager is told (sd_notify): ready, alive, stopping, and a line for people.
//!
//! Without `NOTIFY_SOCKET` nothing happens. It never waits: a datagram that does not fit is lost,
//! as the next one says the same.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Names the socket of the service manager.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Microseconds after which the service manager takes silence for a hang.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// Signs of life within that time.
const BEATS: u32 = 3;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    beat: Option<Duration>,
}

impl Manager {
    /// As the environment says. A socket that can't be used is logged and then left alone.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = env::var(SOCKET).ok().filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let beat = beat(env::var(WATCHDOG).ok().as_deref());
        match connect(&name) {
            Ok(socket) => Self {
                socket: Some(socket),
                beat,
            },
            Err(error) => {
                tracing::warn!(%error, socket = name, "the service manager can't be told anything");
                Self::default()
            }
        }
    }

    /// How often a sign of life is expected; never, if there is no watchdog.
    pub(crate) fn beat(&self) -> Option<Duration> {
        self.beat
    }

    /// The control socket answers: the server serves, or joins others.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// What it does, for whoever asks the service manager.
    pub(crate) fn status(&self, words: &str) {
        let line: String = words.chars().filter(|c| !c.is_control()).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// It lives.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// It ends, within `deadline` at most.
    pub(crate) fn stopping(&self, deadline: Duration) {
        let micros = deadline.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // Nobody could do anything about it.
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn beat(micros: Option<&str>) -> Option<Duration> {
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros) / BEATS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_it_over_a_file_and_over_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("cirrus-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (ears, name) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.to_str().unwrap().to_owned(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{abstract_name}"),
            ),
        ] {
            let manager = Manager {
                socket: Some(connect(&name).unwrap()),
                beat: None,
            };
            manager.ready();
            assert_eq!(heard(&ears), "READY=1");
            manager.status("serves\nREADY=1");
            assert_eq!(heard(&ears), "STATUS=servesREADY=1");
            manager.alive();
            assert_eq!(heard(&ears), "WATCHDOG=1");
            manager.stopping(Duration::from_secs(60));
            assert_eq!(heard(&ears), "STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000");
        }
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let manager = Manager::default();
        manager.ready();
        assert_eq!(manager.beat(), None);
        assert!(connect("/nonexistent/notify").is_err());
    }

    #[test]
    fn a_third_of_the_watchdogs_time() {
        assert_eq!(beat(Some("30000000")), Some(Duration::from_secs(10)));
        for none in [None, Some(""), Some("0"), Some("soon")] {
            assert_eq!(beat(none), None);
        }
    }
}
