//! Names of mechanisms, hashes and channel bindings, and which of them a stream offers.

use std::fmt;

/// A SASL mechanism this server can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS (RFC 7677), bound to the TLS connection.
    ScramSha256Plus,
    /// SCRAM-SHA-1-PLUS (RFC 5802), bound to the TLS connection.
    ScramSha1Plus,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1 (RFC 5802), mandatory to implement (RFC 6120, section 13.8).
    ScramSha1,
    /// PLAIN (RFC 4616), on encrypted streams only.
    Plain,
}

impl Mechanism {
    /// Every mechanism, strongest first: the order in which they are advertised.
    pub const ALL: [Mechanism; 5] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
    ];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism of a registered name; exact match, as RFC 4422 section 3.1 has upper case
    /// only.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
    }

    /// Whether the exchange is bound to the TLS connection.
    pub fn is_plus(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// The hash of a SCRAM mechanism; `None` for PLAIN.
    pub fn hash(self) -> Option<Hash> {
        match self {
            Self::ScramSha256Plus | Self::ScramSha256 => Some(Hash::Sha256),
            Self::ScramSha1Plus | Self::ScramSha1 => Some(Hash::Sha1),
            Self::Plain => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The mechanisms a stream advertises.
///
/// `allowed` is the operator's choice, in its order. PLAIN needs `encrypted`; -PLUS needs at least
/// one channel binding in `bindings`.
pub fn offer(
    allowed: &[Mechanism],
    encrypted: bool,
    bindings: &[ChannelBinding],
) -> Vec<Mechanism> {
    allowed
        .iter()
        .copied()
        .filter(|mechanism| encrypted || *mechanism != Mechanism::Plain)
        .filter(|mechanism| !mechanism.is_plus() || !bindings.is_empty())
        .collect()
}

/// The hash function of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1: only for clients that know nothing better. Safe inside HMAC and PBKDF2.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    /// Both, strongest first.
    pub const ALL: [Hash; 2] = [Self::Sha256, Self::Sha1];

    /// Digest size in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The name as it stands in mechanism names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
        }
    }
}

/// A channel-binding type this server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// `tls-exporter` (RFC 9266).
    TlsExporter,
    /// `tls-server-end-point` (RFC 5929, section 4).
    TlsServerEndPoint,
}

impl BindingKind {
    /// The registered unique prefix: the `cb-name` of RFC 5802 and the `type` of XEP-0440.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        }
    }
}

/// A channel binding of one TLS connection: what XEP-0440 lists and -PLUS accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    /// The type.
    pub kind: BindingKind,
    /// The data of this connection.
    pub data: Vec<u8>,
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the exporter value can relay an exchange: keep it out of logs.
        f.debug_struct("ChannelBinding")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_exactly() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(mechanism.name()), Some(mechanism));
            assert_eq!(Mechanism::parse(&mechanism.name().to_lowercase()), None);
        }
        assert_eq!(Mechanism::parse(""), None);
        assert_eq!(Mechanism::parse("SCRAM-SHA-256-"), None);
    }

    #[test]
    fn offers_follow_encryption_and_bindings() {
        let binding = ChannelBinding {
            kind: BindingKind::TlsExporter,
            data: vec![1; 32],
        };
        let names = |encrypted, bindings: &[ChannelBinding]| {
            offer(&Mechanism::ALL, encrypted, bindings)
                .iter()
                .map(|mechanism| mechanism.name())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(false, &[]), "SCRAM-SHA-256 SCRAM-SHA-1");
        assert_eq!(names(true, &[]), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN");
        assert_eq!(
            names(true, &[binding]),
            "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN"
        );
        assert_eq!(offer(&[Mechanism::Plain], false, &[]), []);
    }

    #[test]
    fn binding_data_stay_out_of_debug_output() {
        let binding = ChannelBinding {
            kind: BindingKind::TlsExporter,
            data: b"secret".to_vec(),
        };
        assert_eq!(
            format!("{binding:?}"),
            "ChannelBinding { kind: TlsExporter, .. }"
        );
    }
}
