//! The program `cirrus-bootstrap`: parses its arguments and runs the shell.

use std::process::ExitCode;

use cirrus_bootstrap::cli::Cli;
use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(cirrus_bootstrap::shell::run(cli.command));
    Ok(ExitCode::from(code))
}
