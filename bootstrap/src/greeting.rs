//! What `run` says when the server is up: where it is, the first account, and what to type next.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::site::Site;

/// The first account, as far as this run knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstAccount {
    /// It was made just now.
    Created {
        /// Its address.
        jid: String,
        /// Its password: printed here, kept nowhere.
        password: String,
    },
    /// It was there before.
    Exists {
        /// Its address.
        jid: String,
    },
    /// None was asked for.
    None,
}

/// The text for standard output. `server` is how the user calls the server's program.
pub fn greeting(site: &Site, account: &FirstAccount, server: &str) -> String {
    let domain = site.config.domains.first().map_or("", |d| d.as_str());
    let file = site.config_file.display();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\nCirrus serves {domain}.\n");
    places(site, &mut out);
    let _ = writeln!(out, "  configuration  {file}");
    if let Some(dir) = &site.data_dir {
        let _ = writeln!(out, "  data           {}", dir.display());
    }
    match account {
        FirstAccount::Created { jid, password } => {
            let _ = writeln!(out, "\n  account        {jid}\n  password       {password}");
            clients(site, jid, &mut out);
        }
        FirstAccount::Exists { jid } => {
            let _ = writeln!(
                out,
                "\n  account        {jid} (from before)\n  new password   \
                 {server} user passwd --config {file} {jid}"
            );
            clients(site, jid, &mut out);
        }
        FirstAccount::None => {}
    }
    let _ = writeln!(
        out,
        "\nMake an account:  {server} user add --config {file} someone@{domain}"
    );
    out
}

fn places(site: &Site, out: &mut String) {
    let join = |all: &[SocketAddr]| {
        all.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let listen = &site.config.listen;
    if !listen.c2s.is_empty() {
        let _ = writeln!(out, "  clients        {} (STARTTLS)", join(&listen.c2s));
    }
    if !listen.c2s_tls.is_empty() {
        let _ = writeln!(out, "  clients        {} (TLS)", join(&listen.c2s_tls));
    }
}

/// Lines to copy into a terminal. The certificate of a laptop is self-signed.
fn clients(site: &Site, jid: &str, out: &mut String) {
    let Some(address) = site.config.listen.c2s.first() else {
        return;
    };
    let ip = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        ip => ip.to_string(),
    };
    let port = address.port();
    let host = if address.is_ipv6() && ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.clone()
    };
    let _ = writeln!(
        out,
        "\nTalk to it, in another terminal:\n  \
         profanity:    /connect {jid} server {ip} port {port} tls trust\n  \
         go-sendxmpp:  echo hello | go-sendxmpp --no-tls-verify -j {host}:{port} -u {jid} \
         -p PASSWORD {jid}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Surroundings, settle};

    fn site() -> Site {
        let given = crate::user_data::parse(b"localhost", "user-data")
            .unwrap()
            .given;
        let around = Surroundings {
            data_home: Some("/home/u".into()),
            ..Default::default()
        };
        settle(&given, None, &around).unwrap()
    }

    #[test]
    fn a_new_account() {
        let (jid, password) = ("admin@localhost".into(), "aaaaa-bbbbb".into());
        let expected = "
Cirrus serves localhost.

  clients        127.0.0.1:5222 (STARTTLS)
  clients        127.0.0.1:5223 (TLS)
  configuration  /home/u/cirrus/localhost/cirrus.yaml
  data           /home/u/cirrus/localhost

  account        admin@localhost
  password       aaaaa-bbbbb

Talk to it, in another terminal:
  profanity:    /connect admin@localhost server 127.0.0.1 port 5222 tls trust
  go-sendxmpp:  echo hello | go-sendxmpp --no-tls-verify -j 127.0.0.1:5222 -u admin@localhost -p PASSWORD admin@localhost

Make an account:  cirrus-server user add --config /home/u/cirrus/localhost/cirrus.yaml someone@localhost
";
        assert_eq!(
            greeting(
                &site(),
                &FirstAccount::Created { jid, password },
                "cirrus-server"
            ),
            expected
        );
    }

    #[test]
    fn an_account_from_before() {
        let text = greeting(
            &site(),
            &FirstAccount::Exists {
                jid: "admin@localhost".into(),
            },
            "/opt/cirrus-server",
        );
        assert!(text.contains("admin@localhost (from before)"));
        assert!(text.contains(
            "/opt/cirrus-server user passwd --config /home/u/cirrus/localhost/cirrus.yaml"
        ));
        assert!(!greeting(&site(), &FirstAccount::None, "s").contains("password"));
    }
}
