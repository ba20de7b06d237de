//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::code;
use crate::phases::Command;

/// From one line of user-data to a running XMPP server.
///
/// Reads user-data, makes the tables and buckets (or the folder) that are missing, writes the
/// server's configuration, starts the server, and says so when an XMPP stream opens. Every step can
/// be repeated without harm: what exists is left alone.
///
/// On EC2 the user-data comes from the instance metadata, and everything durable is in DynamoDB
/// and S3. Elsewhere it comes from --user-data, and everything is in one folder.
#[derive(Debug, Parser)]
#[command(name = "cirrus-bootstrap", version, max_term_width = 100)]
#[command(after_help = short_help(), after_long_help = long_help())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Do everything, then stay until the server ends
    Run(RunArgs),
    /// Read the user-data and name every fault; change nothing
    Check(SourceArgs),
    /// Say which tables, buckets or folders `run` would make; change nothing
    Plan(SourceArgs),
    /// Print the server's configuration, complete; change nothing
    Render(SourceArgs),
    /// On an instance: watch for its end and have the server stop in time; publish its sessions
    ///
    /// It looks at the instance metadata. When the autoscaling group wants the instance gone, or a
    /// spot notice comes, it has the server stop over the control socket, within the time that is
    /// left; it sends the terminate hook heartbeats until the server has ended, and then completes
    /// it. Each minute CloudWatch hears how many sessions the node has. All periods are options in
    /// the section `watch` of the configuration.
    ///
    /// It may be started anew at any time. Where no instance metadata answers, it says so and ends
    /// with exit code 30.
    #[command(after_long_help = WATCH)]
    Watch(WatchArgs),
    /// Become the server, and end with the process that asked for it
    #[command(hide = true)]
    Become(BecomeArgs),
}

/// Options of `watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// The server's configuration, which says where its control socket is; it may come later
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/cirrus/cirrus.yaml"
    )]
    pub config: PathBuf,
}

/// A verb that is no boot.
#[derive(Debug, Clone)]
pub enum Other {
    /// `become`.
    Become(BecomeArgs),
    /// `watch`.
    Watch(WatchArgs),
}

/// What `run` starts itself with, to become the server.
#[derive(Debug, Clone, Args)]
pub struct BecomeArgs {
    /// The server's program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// The process to end with.
    pub parent: u32,
}

/// Where the user-data comes from, and where things go.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The user-data itself, @FILE to read a file, or - for standard input
    ///
    /// A domain (`example.com`), key=value lines (`domain=example.com`), a whole YAML
    /// configuration (docs/CONFIGURATION.md), or an ejabberd.yml, each optionally gzipped or as a
    /// part of a MIME multipart; or where one of them is (`config=s3://bucket/key`). Without this
    /// option the instance metadata is asked.
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub user_data: Option<String>,

    /// The folder for everything: configuration, store, certificates, control socket
    ///
    /// Default: ~/.local/share/cirrus/<domain>. On EC2: /etc/cirrus, /var/lib/cirrus, /run/cirrus.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Do not ask the instance metadata: this machine is no EC2 instance
    #[arg(long, requires = "user_data")]
    pub no_metadata: bool,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where from, where to.
    #[command(flatten)]
    pub source: SourceArgs,

    /// The server's program [default: beside this one, else in PATH]
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,

    /// Start the server as this unit of systemd, and end when an XMPP stream opens
    ///
    /// The unit runs `cirrus-server run` on the configuration written here; systemd keeps it. It is
    /// restarted if the configuration has changed. No account is made.
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["server", "account"])]
    pub unit: Option<String>,

    /// The first account's name [default: me; on EC2, none is made]
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,

    /// Make no account
    #[arg(long, conflicts_with = "account")]
    pub no_account: bool,

    /// Seconds to wait for the first XMPP stream to open
    #[arg(long, value_name = "N", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ready_seconds: u64,
}

impl CliCommand {
    /// The command as the boot knows it, and its options; those of `run` are at their defaults
    /// elsewhere.
    ///
    /// # Errors
    /// What else was asked for.
    pub fn boot(self) -> Result<(Command, RunArgs), Other> {
        let (command, source) = match self {
            Self::Run(args) if args.unit.is_some() => return Ok((Command::Launch, args)),
            Self::Run(args) => return Ok((Command::Run, args)),
            Self::Become(args) => return Err(Other::Become(args)),
            Self::Watch(args) => return Err(Other::Watch(args)),
            Self::Check(source) => (Command::Check, source),
            Self::Plan(source) => (Command::Plan, source),
            Self::Render(source) => (Command::Render, source),
        };
        let args = RunArgs {
            source,
            server: None,
            unit: None,
            account: None,
            no_account: true,
            ready_seconds: 60,
        };
        Ok((command, args))
    }
}

const EXAMPLES: &str = "\
Examples:
  cirrus-bootstrap run --user-data domain=localhost
      a server on this machine, its data in ~/.local/share/cirrus/localhost
  cirrus-bootstrap check --user-data @cirrus.yaml
      every fault of a configuration, with line and column
  cirrus-bootstrap plan
      on an instance: the tables and buckets that `run` would make
  cirrus-bootstrap render --user-data example.com
      the configuration that the server would get
  cirrus-bootstrap watch
      on an instance, beside the server: has it stop in time when the instance is to go";

const WATCH: &str = "\
Examples:
  cirrus-bootstrap watch
      as cirrus-watch.service does; `journalctl -u cirrus-watch` shows what it says
  cirrus-bootstrap watch --config ~/.local/share/cirrus/example.com/cirrus.yaml
      beside a server that `cirrus-bootstrap run` has started as a child

What it says when the autoscaling group takes the instance away:
  watch: its autoscaling group wants this instance Terminated
  watch: the server is to stop within 60 s
  watch: the hook drain of GROUP waits; it gets a heartbeat every 200 s
  watch: the server answers no more
  watch: the server has ended, 23 s after it was to stop
  watch: the hook drain of GROUP is complete: CONTINUE, after 1 heartbeat

Exit codes: 0 a signal ended it; 2 the command line is wrong; 30 no instance metadata answers;
31 the instance metadata answers nonsense; 99 a fault of cirrus-bootstrap itself.";

const STATUS: &str = "\
Every run but `watch` prints one status line on standard error:
  CIRRUS-BOOT ok|fail phase=PHASE code=CODE seconds=S [message=\"…\"]
with the phases discover, parse, validate, provision, secrets, render, start, ready.";

const ENVIRONMENT: &str = "\
Environment:
  AWS_EC2_METADATA_SERVICE_ENDPOINT  where the instance metadata is, instead of EC2's address
  AWS_EC2_METADATA_DISABLED=true     as --no-metadata
  AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL_SSM, …,
  AWS_REGION, AWS_ACCESS_KEY_ID, …   as every AWS program reads them";

fn short_help() -> String {
    format!("{EXAMPLES}\n\n--help says more, and lists the exit codes.")
}

fn long_help() -> String {
    format!(
        "{EXAMPLES}\n\n{STATUS}\n\nExit codes, and the CODE of the status line:\n{}\
         After the server was ready, the exit code is the server's (128 + n after signal n).\n\n\
         {ENVIRONMENT}",
        code::help()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let run = parse("cirrus-bootstrap run --user-data domain=localhost").unwrap();
        let (command, args) = run.command.boot().unwrap();
        assert_eq!(command, Command::Run);
        assert_eq!(args.source.user_data.as_deref(), Some("domain=localhost"));
        assert!(parse("cirrus-bootstrap check --user-data -").is_ok());
        assert!(parse("cirrus-bootstrap run --no-metadata").is_err());
        let launch = parse("cirrus-bootstrap run --unit cirrus-server.service").unwrap();
        assert_eq!(launch.command.boot().unwrap().0, Command::Launch);
        assert!(parse("cirrus-bootstrap run --unit a.service --account me").is_err());
        assert!(parse("cirrus-bootstrap run --ready-seconds 0").is_err());
        assert!(parse("cirrus-bootstrap").is_err());
        let watch = parse("cirrus-bootstrap watch").unwrap().command.boot();
        let Err(Other::Watch(args)) = watch else {
            panic!("{watch:?}")
        };
        assert_eq!(args.config.to_str(), Some("/etc/cirrus/cirrus.yaml"));
    }

    #[test]
    fn help_teaches() {
        let help = Cli::command().render_long_help().to_string();
        for word in [
            "run --user-data domain=localhost",
            "CIRRUS-BOOT",
            "user-data-gzip",
            "Plan",
        ] {
            let found = help.to_lowercase().contains(&word.to_lowercase());
            assert!(found, "{word} is not in:\n{help}");
        }
    }
}
