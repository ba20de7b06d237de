//! Plays dialogues against any XMPP server, to compare servers or to look into a failure:
//! `dialogue ADDRESS TLS-ADDRESS ADD-ACCOUNT FILE…`. ADD-ACCOUNT is a shell command that is run
//! with `$local`, `$host` and `$password` set.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

use std::net::SocketAddr;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use cirrus_tests::client::Identity;
use cirrus_tests::dialogue::parse;
use cirrus_tests::dialogue::play::{Stage, play};

struct Foreign {
    address: SocketAddr,
    tls_address: SocketAddr,
    add_account: String,
}

impl Stage for Foreign {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn tls_address(&self) -> SocketAddr {
        self.tls_address
    }

    fn add_account(&mut self, identity: &Identity) -> Result<()> {
        let status = Command::new("sh")
            .args(["-c", &self.add_account])
            .env("local", &identity.local)
            .env("host", &identity.host)
            .env("password", &identity.password)
            .status()?;
        ensure!(
            status.success(),
            "`{}` ended with {status}",
            self.add_account
        );
        Ok(())
    }

    fn restart(&mut self, _signal: &str) -> Result<()> {
        bail!("this server cannot be restarted from here")
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, tls_address, add_account, files @ ..] = arguments.as_slice() else {
        bail!("usage: dialogue ADDRESS TLS-ADDRESS ADD-ACCOUNT FILE…");
    };
    let mut stage = Foreign {
        address: address.parse().context("ADDRESS")?,
        tls_address: tls_address.parse().context("TLS-ADDRESS")?,
        add_account: add_account.clone(),
    };
    let mut failed = 0;
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.clone())?;
        let outcome = parse::dialogue(&text).and_then(|dialogue| play(&dialogue, &mut stage));
        match outcome {
            Ok(()) => println!("ok      {file}"),
            Err(error) => {
                failed += 1;
                eprintln!("FAILED  {file}: {error:#}");
            }
        }
    }
    println!("{} played, {failed} failed", files.len());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
