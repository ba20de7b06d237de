//! The user commands: what is typed becomes calls on the control socket.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{Account, List, Server, User};
use crate::control::client::{Client, ClientError};
use crate::control::{Call, Refusal, Secret};
use crate::load;
use crate::password::{self, PasswordError};

/// Why a user command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// The server can't be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The configuration, which would say where the socket is, can't be used.
    #[error(transparent)]
    Config(#[from] load::LoadError),
    /// The answer lacks what was asked for.
    #[error("the server's answer has no {0}")]
    Answer(&'static str),
    /// Clients can be led to no node.
    #[error("no node that serves has told where clients reach it (cluster.public_address)")]
    NoRecords,
    /// Nobody reads the output.
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

/// Carries out a user command.
pub(crate) fn run(user: User) -> Result<(), UserError> {
    match user {
        User::Add(account) => {
            let mut client = connect(&account.server)?;
            let password = Secret(password::read(&account.jid)?);
            client.call(&Call::UserAdd {
                jid: account.jid,
                password,
            })??;
        }
        User::Passwd(account) => {
            let mut client = connect(&account.server)?;
            let password = Secret(password::read(&account.jid)?);
            client.call(&Call::UserPasswd {
                jid: account.jid,
                password,
            })??;
        }
        User::Delete(Account { jid, server }) => {
            connect(&server)?.call(&Call::UserDelete { jid })??;
        }
        User::List(List { host, server }) => list(host, &server)?,
    }
    Ok(())
}

fn list(host: Option<String>, server: &Server) -> Result<(), UserError> {
    let mut client = connect(server)?;
    let hosts = match host {
        Some(host) => vec![host],
        None => {
            let status = client.call(&Call::ServerStatus {})??;
            texts(status.get("hosts")).ok_or(UserError::Answer("hosts"))?
        }
    };
    let mut out = io::stdout().lock();
    for host in hosts {
        let mut after = None;
        loop {
            let call = Call::UserList {
                host: host.clone(),
                after,
            };
            let page = client.call(&call)??;
            for user in texts(page.get("users")).ok_or(UserError::Answer("users"))? {
                writeln!(out, "{user}")?;
            }
            match page.get("after").and_then(Value::as_str) {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
    }
    Ok(())
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    value?
        .as_array()?
        .iter()
        .map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

pub(crate) fn connect(server: &Server) -> Result<Client, UserError> {
    Ok(Client::connect(&socket(server)?)?)
}

fn socket(server: &Server) -> Result<PathBuf, UserError> {
    if let Some(path) = &server.control {
        return Ok(path.clone());
    }
    match load::load(&server.config) {
        Ok(config) => Ok(config.listen.control),
        // Without a configuration there is still the place where the socket usually is.
        Err(load::LoadError::Read { .. }) if is_default(&server.config) => {
            Ok(load::usual_control())
        }
        Err(error) => Err(error.into()),
    }
}

fn is_default(config: &Path) -> bool {
    config == Path::new(crate::cli::DEFAULT_CONFIG)
}
