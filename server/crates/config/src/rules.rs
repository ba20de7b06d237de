//! What texts of the table of options may be.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::value::Checked;

pub(crate) const PREFIX: Checked<str> = Checked(
    |t| cirrus_schema::check_prefix(t).map_err(|e| e.to_string()),
    "1 to 245 of a-z A-Z 0-9 - _ .",
);

pub(crate) const REGION: Checked<str> = Checked(
    |t| {
        let ok = t
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok && t.contains('-') && t.len() <= 32 {
            return Ok(());
        }
        Err(format!(
            "`{t}` is not a region; a region looks like `eu-west-1`"
        ))
    },
    "as in `eu-west-1`",
);

pub(crate) const ACCOUNT: Checked<str> = Checked(
    |t| {
        if t.len() == 12 && t.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(());
        }
        Err("an AWS account has 12 digits".into())
    },
    "12 digits",
);

pub(crate) const URL: Checked<str> = Checked(
    |t| {
        let rest = t
            .strip_prefix("http://")
            .or_else(|| t.strip_prefix("https://"));
        match rest {
            Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(()),
            _ => Err("expected a URL that starts with http:// or https://".into()),
        }
    },
    "http:// or https://",
);

pub(crate) const DIRECTORY: Checked<str> = Checked(
    |t| match t.strip_prefix("https://") {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(()),
        _ => Err("expected a URL that starts with https://".into()),
    },
    "https://",
);

pub(crate) const EMAIL: Checked<str> = Checked(
    |t| match t.split_once('@') {
        Some((local, host))
            if !local.is_empty() && host.contains('.') && !t.contains([' ', ':', '<']) =>
        {
            Ok(())
        }
        _ => Err(format!("`{t}` is not an e-mail address")),
    },
    "an e-mail address",
);

pub(crate) const NODE: Checked<str> = Checked(
    |t| {
        let ok = t
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if ok && t.len() <= 64 {
            return Ok(());
        }
        Err("a node name has at most 64 of the characters a-z A-Z 0-9 - _ .".into())
    },
    "up to 64 of a-z A-Z 0-9 - _ .",
);

pub(crate) const PUBLIC: Checked<str> = Checked(
    |t| {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let is_name = (1..=253).contains(&t.len()) && t.bytes().all(name);
        if is_name || t.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("`{t}` is neither a host's name nor an IP address"))
    },
    "a name, an IP address, or `auto`",
);

/// `sun_path` of Linux holds 108 bytes with the final zero.
pub(crate) const SOCKET: SocketPath = SocketPath;

pub(crate) struct SocketPath;

impl crate::option::Rule<PathBuf> for SocketPath {
    fn check(&self, value: &PathBuf) -> Result<(), crate::Fault> {
        let bytes = value.as_os_str().len();
        if bytes <= 107 {
            return Ok(());
        }
        let reason = format!("the path has {bytes} bytes; a unix socket's has at most 107");
        Err(crate::Fault::Invalid { reason })
    }

    fn allowed(&self) -> String {
        "up to 107 bytes".into()
    }
}
