//! The program `cirrus-bootstrap`: parses its arguments and runs the shell.

use std::process::ExitCode;

use cirrus_bootstrap::cli::{Cli, Other};
use cirrus_bootstrap::{server, shell};
use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; they are no outcome of a boot.
            error.print()?;
            if error.use_stderr() {
                shell::tell_usage(&error.kind().to_string());
            }
            return Ok(ExitCode::from(u8::try_from(error.exit_code())?));
        }
    };
    let asked = cli.command.boot();
    if let Err(Other::Become(args)) = &asked {
        let error = server::become_server(&args.program, &args.config, args.parent);
        return Err(error.into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = match asked {
        Ok((command, args)) => runtime.block_on(shell::run(command, args)),
        Err(Other::Watch(args)) => runtime.block_on(shell::watch(args)),
        // It has become another program, or ended.
        Err(Other::Become(_)) => 0,
    };
    Ok(ExitCode::from(code))
}
