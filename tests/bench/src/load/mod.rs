//! The loads, and what they have in common: the measured window and the ledger of numbered
//! messages.

pub(crate) mod closed;
pub(crate) mod idle;
pub(crate) mod login;
pub(crate) mod paced;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use cirrus_peers::{HOST, account};

use crate::fleet::Fleet;
use crate::session::Arrival;
use crate::sys;
use crate::wire::{self, Mark};

/// Sessions of a message load; user 2i talks with user 2i + 1.
pub(crate) const SESSIONS: u32 = 200;

/// With stream management a session asks for an ack with every fifth message, as common client
/// libraries do.
const ACK_EVERY: u32 = 5;

/// Longest wait for messages under way once sending has stopped.
const DRAIN: Duration = Duration::from_secs(10);

/// What one measurement gave. A unit is a login, a session or a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Units finished in a second.
    pub(crate) rate: Option<f64>,
    /// Server CPU per unit, in microseconds.
    pub(crate) cpu: Option<f64>,
    /// The part of it that was not spent in the kernel.
    pub(crate) user: Option<f64>,
    /// Share of its core that the server used.
    pub(crate) server_busy: Option<f64>,
    /// Share of its core that the generator used.
    pub(crate) generator_busy: Option<f64>,
    /// CPU that neither of them used, in cores: other processes on the machine, or its hypervisor.
    pub(crate) others_busy: Option<f64>,
    /// Latency in milliseconds: median and 99th percentile.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Memory per session in KiB.
    pub(crate) pss: Option<f64>,
    pub(crate) rss: Option<f64>,
    /// Messages that arrived, in and around the window.
    pub(crate) delivered: u64,
    /// Growth of the data folder per message in bytes.
    pub(crate) stored: Option<f64>,
    /// Why the run counts for nothing: lost, doubled, stray or unacknowledged messages.
    pub(crate) faults: Vec<String>,
    /// The server did not keep up with the paced load.
    pub(crate) overrun: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [
            (self.rate, "/s"),
            (self.cpu, "us CPU each"),
            (self.p50, "ms p50"),
            (self.p99, "ms p99"),
            (self.pss, "KiB PSS"),
        ];
        for (figure, unit) in figures {
            if let Some(figure) = figure {
                write!(f, "{figure:.2} {unit}  ")?;
            }
        }
        if self.overrun {
            write!(f, "did not keep up  ")?;
        }
        write!(f, "{}", self.faults.join(", "))
    }
}

impl Outcome {
    fn from_window(spent: &Spent, units: u64) -> Outcome {
        Outcome {
            rate: Some(units as f64 / spent.seconds),
            cpu: Some(spent.server / units.max(1) as f64 * 1e6),
            user: Some(spent.user / units.max(1) as f64 * 1e6),
            server_busy: Some(spent.server / spent.seconds),
            generator_busy: Some(spent.generator / spent.seconds),
            others_busy: Some(spent.others / spent.seconds),
            ..Outcome::default()
        }
    }
}

/// A stretch of time and the CPU used in it.
struct Window {
    servers: Vec<u32>,
    start: u64,
    server_cpu: (f64, f64),
    own_cpu: f64,
    machine_cpu: f64,
}

struct Spent {
    seconds: f64,
    server: f64,
    /// The part of it that was not spent in the kernel.
    user: f64,
    generator: f64,
    others: f64,
}

impl Window {
    fn open(servers: &[u32]) -> Result<Window> {
        let own_cpu = sys::own_cpu_seconds();
        let server_cpu = cpu_of(servers)?;
        let machine_cpu = sys::machine_cpu_seconds()?;
        Ok(Window {
            servers: servers.to_vec(),
            start: sys::now(),
            server_cpu,
            own_cpu,
            machine_cpu,
        })
    }

    fn close(&self) -> Result<Spent> {
        let seconds = (sys::now() - self.start) as f64 / 1e9;
        let (user, kernel) = cpu_of(&self.servers)?;
        let user = user - self.server_cpu.0;
        let server = user + kernel - self.server_cpu.1;
        let generator = sys::own_cpu_seconds() - self.own_cpu;
        let machine = sys::machine_cpu_seconds()? - self.machine_cpu;
        let others = (machine - server - generator).max(0.0);
        Ok(Spent {
            seconds,
            server,
            user,
            generator,
            others,
        })
    }
}

/// Seconds in user mode and in the kernel.
fn cpu_of(servers: &[u32]) -> Result<(f64, f64)> {
    let mut sum = (0.0, 0.0);
    for server in servers {
        let (user, kernel) = sys::cpu_seconds(*server)?;
        sum = (sum.0 + user, sum.1 + kernel);
    }
    Ok(sum)
}

/// Checks that every message arrives once, in order, at the one it was for.
struct Ledger {
    run: u32,
    sent: Vec<u32>,
    seen: Vec<u32>,
    delivered: u64,
    lost: u64,
    doubled: u64,
    stray: u64,
}

impl Ledger {
    fn new(run: u32) -> Ledger {
        let none = vec![0; SESSIONS as usize];
        Ledger {
            run,
            sent: none.clone(),
            seen: none,
            delivered: 0,
            lost: 0,
            doubled: 0,
            stray: 0,
        }
    }

    /// Numbers the next message of a user.
    fn next(&mut self, from: u32) -> Mark {
        let sequence = &mut self.sent[from as usize];
        *sequence += 1;
        Mark {
            run: self.run,
            from,
            sequence: *sequence,
        }
    }

    /// Books an arrival; false when the message does not count.
    fn book(&mut self, arrival: &Arrival) -> bool {
        let mark = arrival.mark;
        if mark.run != self.run || partner(mark.from) != arrival.to {
            self.stray += 1;
            return false;
        }
        let seen = &mut self.seen[mark.from as usize];
        if mark.sequence <= *seen {
            self.doubled += 1;
            return false;
        }
        self.lost += u64::from(mark.sequence - *seen - 1);
        *seen = mark.sequence;
        self.delivered += 1;
        true
    }

    /// Messages sent and not yet seen.
    fn under_way(&self) -> u64 {
        self.sent
            .iter()
            .zip(&self.seen)
            .map(|(sent, seen)| u64::from(sent - seen))
            .sum()
    }

    fn faults(&self) -> Vec<String> {
        let lost = self.lost + self.under_way();
        [
            (lost, "lost"),
            (self.doubled, "doubled"),
            (self.stray, "stray"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }
}

/// The other one of the pair.
fn partner(user: u32) -> u32 {
    user ^ 1
}

/// Sends numbered messages, one write each.
struct Sender {
    addresses: Vec<String>,
    stream_management: bool,
    buffer: Vec<u8>,
}

impl Sender {
    fn new(stream_management: bool) -> Sender {
        let addresses = (0..SESSIONS).map(|user| format!("{}@{HOST}", account(partner(user))));
        Sender {
            addresses: addresses.collect(),
            stream_management,
            buffer: Vec::new(),
        }
    }

    fn send(&mut self, fleet: &mut Fleet, mark: Mark) -> Result<()> {
        self.buffer.clear();
        wire::write_message(&mut self.buffer, &self.addresses[mark.from as usize], mark);
        if self.stream_management && mark.sequence.is_multiple_of(ACK_EVERY) {
            self.buffer.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
        fleet.send(mark.from as usize, &self.buffer)
    }
}

/// Receives what is still under way.
fn drain(fleet: &mut Fleet, ledger: &mut Ledger) -> Result<()> {
    let end = sys::now() + DRAIN.as_nanos() as u64;
    let mut arrivals = Vec::new();
    while ledger.under_way() > 0 && sys::now() < end {
        fleet.pump(10_000_000)?;
        fleet.take_arrivals(&mut arrivals);
        for arrival in &arrivals {
            ledger.book(arrival);
        }
    }
    // A second copy would come right behind the first.
    quiet(fleet, Duration::from_millis(50))?;
    fleet.take_arrivals(&mut arrivals);
    for arrival in &arrivals {
        ledger.book(arrival);
    }
    Ok(())
}

/// Pumps for a while without sending.
pub(crate) fn quiet(fleet: &mut Fleet, time: Duration) -> Result<()> {
    let end = sys::now() + time.as_nanos() as u64;
    loop {
        let now = sys::now();
        if now >= end {
            return Ok(());
        }
        fleet.pump(end - now)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(from: u32, sequence: u32) -> Arrival {
        Arrival {
            to: partner(from),
            mark: Mark {
                run: 1,
                from,
                sequence,
            },
            at: 0,
        }
    }

    #[test]
    fn a_clean_run_has_no_faults() {
        let mut ledger = Ledger::new(1);
        for _ in 0..3 {
            let mark = ledger.next(4);
            assert!(ledger.book(&arrival(4, mark.sequence)));
        }
        assert!(ledger.faults().is_empty());
        assert_eq!(ledger.delivered, 3);
    }

    #[test]
    fn lost_doubled_and_stray_are_told_apart() {
        let mut ledger = Ledger::new(1);
        for _ in 0..4 {
            ledger.next(4);
        }
        ledger.book(&arrival(4, 1));
        ledger.book(&arrival(4, 1));
        ledger.book(&arrival(4, 3));
        ledger.book(&Arrival {
            to: 9,
            ..arrival(4, 4)
        });
        // 2 was skipped, 4 never reached its receiver.
        assert_eq!(ledger.faults(), ["2 lost", "1 doubled", "1 stray"]);
    }
}
