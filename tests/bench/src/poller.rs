//! epoll, level-triggered, with timeouts in nanoseconds.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Events fetched per wait.
const BATCH: usize = 256;

/// Watches sockets, each known by a token.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<MaybeUninit<Event>>,
}

impl Poller {
    /// A poller that watches nothing yet.
    pub(crate) fn new() -> io::Result<Poller> {
        let events = (0..BATCH).map(|_| MaybeUninit::uninit()).collect();
        Ok(Poller {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events,
        })
    }

    /// Watches for input; closing the socket ends it.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(token),
            EventFlags::IN,
        )?)
    }

    /// Watches for output too, or no more.
    pub(crate) fn watch_output(&self, socket: &TcpStream, token: u64, on: bool) -> io::Result<()> {
        let flags = if on {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Waits at most `nanoseconds` and appends the tokens that are ready.
    pub(crate) fn wait(&mut self, nanoseconds: u64, ready: &mut Vec<u64>) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
        };
        match epoll::wait(&self.epoll, &mut self.events[..], Some(&timeout)) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
