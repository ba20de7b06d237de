//! Where clients reach nodes themselves, where no balancer stands in front of them.

use serde::{Deserialize, Serialize};

/// Longest name of a host (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
/// Where clients go that know a host alone: with STARTTLS (RFC 6120, section 14.7) and, by
/// convention, with TLS from the first byte.
const PORTS: (u16, u16) = (5222, 5223);

/// Where clients reach one node, as it tells the others. Nodes of a version that does not know of
/// it pass it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Public {
    /// A name or an address; of IPv6 without brackets.
    pub host: String,
    /// The port for STARTTLS, if there is one.
    pub c2s: Option<u16>,
    /// The port for TLS from the first byte, if there is one.
    pub c2s_tls: Option<u16>,
}

impl Public {
    /// Whether it can be told to clients.
    pub(crate) fn is_sound(&self) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        (1..=MAX_HOST).contains(&self.host.len()) && self.host.bytes().all(allowed)
    }

    /// The form of RFC 6120, section 4.9.3.19, for a client that began with TLS or did not. The
    /// port is left out where it is the one that a client takes by itself: which of the two it is
    /// for can't be said.
    pub fn to_address(&self, direct_tls: bool) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let (usual, other) = match direct_tls {
            true => (self.c2s_tls, self.c2s),
            false => (self.c2s, self.c2s_tls),
        };
        let alone = match direct_tls {
            true => (self.c2s, self.c2s_tls) == (Some(PORTS.0), Some(PORTS.1)),
            false => self.c2s == Some(PORTS.0),
        };
        match usual.or(other).filter(|_| !alone) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(host: &str, c2s: u16, c2s_tls: u16) -> Public {
        let port = |port| (port > 0).then_some(port);
        Public {
            host: host.into(),
            c2s: port(c2s),
            c2s_tls: port(c2s_tls),
        }
    }

    #[test]
    fn as_clients_are_told() {
        for (host, c2s, c2s_tls, starttls, direct) in [
            ("a.example", 5222, 5223, "a.example", "a.example"),
            ("192.0.2.1", 5222, 443, "192.0.2.1", "192.0.2.1:443"),
            ("2001:db8::1", 5222, 5223, "[2001:db8::1]", "[2001:db8::1]"),
            ("2001:db8::1", 1, 2, "[2001:db8::1]:1", "[2001:db8::1]:2"),
            ("a.example", 0, 5223, "a.example:5223", "a.example:5223"),
            ("a.example", 5222, 0, "a.example", "a.example:5222"),
            ("a.example", 0, 0, "a.example", "a.example"),
        ] {
            let it = public(host, c2s, c2s_tls);
            let told = (it.to_address(false), it.to_address(true));
            assert_eq!(told, (starttls.to_owned(), direct.to_owned()), "{it:?}");
        }
    }

    #[test]
    fn only_a_host_is_told_on() {
        let long = "a".repeat(MAX_HOST + 1);
        for (host, sound) in [
            ("a.example", true),
            ("2001:db8::1", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("a b", false),
            ("<a>", false),
            ("a'b", false),
        ] {
            assert_eq!(public(host, 1, 2).is_sound(), sound, "{host}");
        }
    }
}
