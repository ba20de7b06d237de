//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Where the configuration is unless told otherwise.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/cirrus/cirrus.yaml";

const AFTER: &str = "\
Examples:
  cirrus-server check --config cirrus.yaml    say what is wrong with a configuration
  cirrus-server run --config cirrus.yaml      run in the foreground; stop with Ctrl-C or SIGTERM
  cirrus-server user add ada@example.com      create an account, asking for its password
  echo 's3cret' | cirrus-server user passwd ada@example.com
  cirrus-server user list example.com
  cirrus-server cluster status                nodes, slots, sessions and copies
  cirrus-server cluster dns                   records that lead clients to the nodes

The user and cluster commands speak to the running server through its control socket, so they need
the rights to open it (the server's user, or root).

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 no server is running;
4 the configuration is wrong.";

/// An XMPP server whose accounts, rosters and messages live in a store that needs no operator.
#[derive(Debug, Parser)]
#[command(name = "cirrus-server", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server in the foreground
    ///
    /// SIGTERM and SIGINT end it: clients are told, what is under way is stored, and it exits
    /// with 0. SIGHUP reads the certificates again. Logs go to standard error: text on a
    /// terminal, JSON otherwise.
    Run(Config),
    /// Read the configuration, say what is wrong with it, and exit
    Check(Config),
    /// Create, change, remove and list accounts of the running server
    #[command(subcommand)]
    User(User),
    /// Show the cluster that the running server is in, and take the server out of it
    #[command(subcommand)]
    Cluster(Cluster),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show nodes, slots, sessions and copies, as the running server sees them
    Status(Status),
    /// Give the server's slots to other nodes, and wait until that is done
    ///
    /// The server stays a member and keeps its connections; it is not healthy any more, so that a
    /// balancer sends no new clients. SIGTERM does the same and then breaks the connections whose
    /// sessions can go on elsewhere.
    Drain(Server),
    /// Take a drain back: the server is to have slots again
    ///
    /// If it moves clients to nodes that have fewer it stops that, until nodes come or go.
    Abort(Server),
    /// Print the DNS records that lead clients to the nodes, as lines of a zone file
    ///
    /// For clusters without a balancer: every node that serves and has told an address
    /// (cluster.public_address) is in them, with the weight that it has for accounts. There is no
    /// node in them that drains. If no node can be told, that is an error, and nothing is printed.
    Dns(Dns),
}

/// What resolvers may be told.
fn ttl() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=86_400)
}

#[derive(Debug, Args)]
pub(crate) struct Dns {
    /// A change of a hosted zone of Route 53, as JSON, instead of lines
    #[arg(long)]
    pub(crate) json: bool,
    /// One domain; all that are served if absent
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// Seconds that resolvers keep a record
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = ttl())]
    pub(crate) ttl: u32,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Say where this account has its home and its copy, too
    #[arg(long, value_name = "JID")]
    pub(crate) account: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Create an account
    ///
    /// The password is asked for on a terminal, else it is the first line of standard input. It
    /// is never an argument: arguments can be read by every user of the machine.
    Add(Account),
    /// Set an account's password
    ///
    /// The password is asked for on a terminal, else it is the first line of standard input.
    /// Connections that have logged in already stay.
    Passwd(Account),
    /// Remove an account with its roster and messages, and end its sessions
    ///
    /// There is no way back.
    Delete(Account),
    /// List accounts, one a line
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Account {
    /// The account's address, as in ada@example.com
    #[arg(value_name = "JID")]
    pub(crate) jid: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// One domain; all that are served if absent
    #[arg(value_name = "DOMAIN")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Which running server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The server's configuration file, which says where its control socket is
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// The control socket itself; the configuration is not read then
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}
