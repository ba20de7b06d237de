use std::fmt;

/// The three parts of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Before the `@`.
    Local,
    /// The domain.
    Host,
    /// After the `/`.
    Resource,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Local => "local part",
            Part::Host => "host",
            Part::Resource => "resource",
        })
    }
}

/// Why a text is not an address. To a peer all of these are `jid-malformed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// A part is there by its separator and has no characters, or none that count.
    #[error("the {0} is empty")]
    Empty(Part),
    /// A part is longer than [`crate::MAX_PART`], or a host than DNS allows.
    #[error("the {part} has {bytes} bytes, too many")]
    TooLong {
        /// Which part.
        part: Part,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A part has a character that it may not have.
    #[error("the {part} has the character {character:?}, which it may not have")]
    Prohibited {
        /// Which part.
        part: Part,
        /// The first such character.
        character: char,
    },
    /// Right-to-left and left-to-right characters are mixed against RFC 3454 section 6.
    #[error("the {0} mixes writing directions")]
    Direction(Part),
    /// Normalising twice would give another text than normalising once.
    #[error("the {0} has no stable normal form")]
    Unstable(Part),
    /// The host is no domain name, by the rules of DNS or IDNA.
    #[error("the host is not a domain name: {0}")]
    Host(&'static str),
    /// The host has brackets and no IPv6 address between them.
    #[error("the host is not an IPv6 address")]
    Literal,
    /// A bare address was asked for and there is a resource.
    #[error("there is a resource where none may be")]
    Resource,
}
