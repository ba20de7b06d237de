//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::client::schedule::Means;
use crate::ledger::{Account, At};
use crate::script;

/// Numbered messages, pings and presences between many accounts while faults happen; then: what was
/// lost, doubled or reordered. The exit code is 1 if anything was, 2 if the run came to nothing.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Arguments {
    /// Starts these servers itself, one after the other, on loopback
    #[arg(long, value_delimiter = ',', conflicts_with = "servers")]
    pub(crate) start: Vec<Name>,
    /// Addresses of servers, host:port with STARTTLS; clients take them in turn
    #[arg(
        long = "server",
        value_name = "ADDRESS",
        required_unless_present_any = ["start", "records"]
    )]
    pub(crate) servers: Vec<String>,
    /// SRV records of the servers instead, as lines of a zone file; read again for every connection
    #[arg(long, value_name = "FILE", conflicts_with_all = ["start", "servers"])]
    pub(crate) records: Option<PathBuf>,
    /// Domain of the accounts
    #[arg(long, default_value = "localhost")]
    pub(crate) domain: String,
    /// User names; {} is the account's number, from 0
    #[arg(long, default_value = "u{}")]
    pub(crate) users: String,
    /// File with the password of all accounts in its first line
    #[arg(long, required_unless_present = "start")]
    pub(crate) password_file: Option<PathBuf>,
    /// Authorities that the servers' certificate is checked against, PEM
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub(crate) authorities: PathBuf,
    /// Takes any certificate
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Accounts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) accounts: u32,
    /// Accounts that know each other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=50))]
    pub(crate) group: u32,
    /// Percent of the accounts that do no stream management
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) unmanaged: u8,

    /// First logins a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) logins: u32,
    /// Messages a second, of all accounts together
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Pings of contacts a second
    #[arg(long, default_value_t = 5.0)]
    pub(crate) pings: f64,
    /// Changes of presence a second
    #[arg(long, default_value_t = 2.0)]
    pub(crate) presences: f64,
    /// Clients that end their session a second, and come back
    #[arg(long, default_value_t = 0.2)]
    pub(crate) leaves: f64,
    /// Clients that drop their connection a second, and come back
    #[arg(long, default_value_t = 0.5)]
    pub(crate) breaks: f64,
    /// Longest absence by choice
    #[arg(long, default_value = "4s", value_parser = script::duration)]
    pub(crate) away: Duration,

    /// The load lasts so long at least
    #[arg(long, default_value = "10s", value_parser = script::duration)]
    pub(crate) time: Duration,
    /// So many messages are sent at least
    #[arg(long, default_value_t = 0)]
    pub(crate) messages: u64,
    /// Script of faults; - reads it from the standard input as it comes
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Longest time for everything to settle after the load
    #[arg(long, default_value = "60s", value_parser = script::duration)]
    pub(crate) drain: Duration,
    /// Longest time for load and faults
    #[arg(long, default_value = "30m", value_parser = script::duration)]
    pub(crate) limit: Duration,
    /// A server that owes an answer for so long is gone
    #[arg(long, default_value = "5s", value_parser = script::duration)]
    pub(crate) silence: Duration,
    /// Stanzas that a client keeps to be acknowledged; past it, it waits
    #[arg(long, default_value_t = 1_000)]
    pub(crate) unacknowledged: usize,
    /// Seed of the clients' choices
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// With --start: the program cirrus-server; the one beside this program if absent
    #[arg(long)]
    pub(crate) cirrus: Option<PathBuf>,
    /// With --start: servers keep no archive
    #[arg(long)]
    pub(crate) without_archive: bool,
    /// With --start: where the servers' folders are made
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// With --start: keeps the servers' folders
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A server that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    Cirrus,
    Ejabberd,
    Prosody,
}

impl Arguments {
    /// Whether JSON is wanted.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }

    /// When an account logs in for the first time, in microseconds since the beginning.
    pub(crate) fn begins(&self, account: Account) -> At {
        u64::from(account) * 1_000_000 / u64::from(self.logins)
    }

    /// The mean times of one client, from the rates of all.
    pub(crate) fn means(&self) -> Means {
        let rates = [
            self.rate,
            self.pings,
            self.presences,
            self.leaves,
            self.breaks,
        ];
        Means(rates.map(|rate| {
            let mean = f64::from(self.accounts) / rate;
            Duration::try_from_secs_f64(mean)
                .ok()
                .filter(|mean| !mean.is_zero())
        }))
    }

    /// Which accounts do stream management: the others are spread evenly.
    pub(crate) fn managed(&self) -> Vec<bool> {
        let share = u64::from(self.unmanaged);
        let up_to = |account: u64| account * share / 100;
        (0..u64::from(self.accounts))
            .map(|account| up_to(account + 1) == up_to(account))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(more: &[&str]) -> Arguments {
        let all = ["cirrus-loss", "--start", "cirrus"].iter().chain(more);
        Arguments::try_parse_from(all).unwrap()
    }

    #[test]
    fn rates_are_of_all_accounts_together() {
        let arguments = arguments(&["--accounts", "100", "--rate", "50", "--pings", "0"]);
        let Means(means) = arguments.means();
        assert_eq!(means[0], Some(Duration::from_secs(2)));
        assert_eq!(means[1], None);
    }

    #[test]
    fn those_without_stream_management_are_spread() {
        let managed = arguments(&["--unmanaged", "25", "--accounts", "8"]).managed();
        let [yes, no] = [true, false];
        assert_eq!(managed, [yes, yes, yes, no, yes, yes, yes, no]);
        assert!(!arguments(&["--unmanaged", "0"]).managed().contains(&no));
        assert!(!arguments(&["--unmanaged", "100"]).managed().contains(&yes));
    }

    #[test]
    fn servers_need_a_password_and_it_is_no_argument() {
        let parsed = Arguments::try_parse_from(["cirrus-loss", "--server", "localhost:5222"]);
        assert!(parsed.unwrap_err().to_string().contains("--password-file"));
    }
}
