//! ejabberd from Debian: the VM is started as ejabberdctl starts it, without the cluster's port
//! mapper.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{HOST, Lab, PASSWORD, Running, Server, account, free_port, output};

const USER: Option<&str> = Some("ejabberd");
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// ejabberd with Mnesia.
#[derive(Default)]
pub struct Ejabberd {
    template: PathBuf,
}

impl Server for Ejabberd {
    fn name(&self) -> &'static str {
        "ejabberd"
    }

    fn description(&self) -> Result<String> {
        let mut query = std::process::Command::new("dpkg-query");
        query.args(["-W", "-f", "${Version}", "ejabberd"]);
        let version = output(query).context("is the Debian package ejabberd installed?")?;
        Ok(format!(
            "ejabberd {version}: Mnesia on disc; archive = mod_mam, `default: always`, in Mnesia's \
             disc_only_copies (DETS). No fsync per message: written to \
             the kernel, synced when Mnesia dumps its log."
        ))
    }

    fn prepare(&mut self, lab: &Lab) -> Result<()> {
        let spool = lab.fresh_folder("ejabberd-accounts", USER)?;
        let http = free_port()?;
        let running = start(lab, &spool, false, Some(http))?;
        for user in 0..lab.accounts {
            register(http, user).with_context(|| format!("can't register {}", account(user)))?;
        }
        running.stop()?;
        self.template = spool;
        Ok(())
    }

    fn start(&self, lab: &Lab, archive: bool) -> Result<Running> {
        let spool = lab.copy(&self.template, "ejabberd")?;
        start(lab, &spool, archive, None)
    }
}

fn start(lab: &Lab, spool: &Path, archive: bool, http: Option<u16>) -> Result<Running> {
    let port = free_port()?;
    let http = http.map_or(String::new(), |port| {
        format!(
            "  - port: {port}\n    ip: \"127.0.0.1\"\n    module: ejabberd_http\n    \
             request_handlers: {{/api: mod_http_api}}"
        )
    });
    let configuration = include_str!("ejabberd.yml")
        .replace("@HOST@", HOST)
        .replace("@CERTIFICATE@", &lab.certificate.to_string_lossy())
        .replace("@KEY@", &lab.key.to_string_lossy())
        .replace("@PORT@", &port.to_string())
        .replace("@HTTP@", &http)
        .replace(
            "@ARCHIVE@",
            if archive {
                "  mod_mam: {default: always}"
            } else {
                ""
            },
        );
    let file = spool.join("ejabberd.yml");
    lab.write(&file, &configuration, USER)?;

    let mut command = lab.command("/usr/bin/erl", USER)?;
    command
        .env("EJABBERD_CONFIG_PATH", &file)
        .env("EJABBERD_LOG_PATH", spool.join("ejabberd.log"))
        .env("ERL_LIBS", LIBRARIES)
        .env("ERL_MAX_PORTS", "32000")
        .env("ERL_MAX_ETS_TABLES", "1400")
        .env("ERL_CRASH_DUMP_BYTES", "0")
        .env("HOME", spool)
        .args(["+K", "true", "+P", "250000", "-noinput", "-mnesia", "dir"])
        .arg(format!("\"{}\"", spool.display()))
        .args(["-s", "ejabberd"]);
    lab.run(command, port, spool.to_owned(), &spool.join("output"))
}

/// One call of the administration command `register` over ejabberd's HTTP API.
fn register(port: u16, user: u32) -> Result<()> {
    let body = format!(
        "{{\"user\":\"{}\",\"host\":\"{HOST}\",\"password\":\"{PASSWORD}\"}}",
        account(user)
    );
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let request = format!(
        "POST /api/register HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}
