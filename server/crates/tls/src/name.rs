//! Hosts as certificates and the server name indication write them.

use std::net::IpAddr;

use rustls::pki_types::ServerName;

use crate::TlsError;

/// A host in the form that stands in certificates: A-labels in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostName {
    /// A-labels, or the address without brackets.
    pub(crate) ascii: String,
    pub(crate) name: ServerName<'static>,
}

impl HostName {
    /// Reads a host as it stands in an XMPP address.
    pub(crate) fn parse(host: &str) -> Result<HostName, TlsError> {
        let bad = || TlsError::BadHost {
            host: host.to_owned(),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let name = ServerName::IpAddress(address.into());
            return Ok(HostName {
                ascii: address.to_string(),
                name,
            });
        }
        let ascii = idna::domain_to_ascii(host).map_err(|_| bad())?;
        let name = ServerName::try_from(ascii.clone()).map_err(|_| bad())?;
        Ok(HostName { ascii, name })
    }

    /// A file name without the extension. Addresses lose their colons; as only colons become `_`
    /// and no name contains one, two hosts never share a file.
    pub(crate) fn file_stem(&self) -> String {
        self.ascii.replace(':', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_names_of_certificates() {
        let ascii = |host| HostName::parse(host).map(|it| it.ascii).ok();
        assert_eq!(ascii("example.com").as_deref(), Some("example.com"));
        assert_eq!(ascii("Example.COM").as_deref(), Some("example.com"));
        assert_eq!(
            ascii("m\u{fc}nchen.example").as_deref(),
            Some("xn--mnchen-3ya.example")
        );
        assert_eq!(ascii("localhost").as_deref(), Some("localhost"));
        assert_eq!(ascii("127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(ascii("[::1]").as_deref(), Some("::1"));
        assert_eq!(HostName::parse("[::1]").unwrap().file_stem(), "__1");
        for bad in ["", "a b", "../x", "a/b", "exa\0mple", "-"] {
            assert_eq!(ascii(bad), None, "{bad:?}");
        }
    }
}
