use thiserror::Error;

/// Why a stream or a stanza is refused. All of these end the stream (RFC 6120 section 4.9.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum XmlError {
    /// It breaks a rule of XML 1.0 or of Namespaces in XML 1.0.
    #[error("not well-formed at byte {at}: {what}")]
    NotWellFormed {
        /// What is wrong.
        what: &'static str,
        /// Where, from the start of the frame.
        at: usize,
    },
    /// XML that XMPP forbids (RFC 6120 section 11.1): a comment, a processing instruction, a
    /// document type, a reference to an entity that is not predefined.
    #[error("{what} at byte {at}: XMPP forbids it")]
    Restricted {
        /// What it is.
        what: &'static str,
        /// Where, from the start of the frame.
        at: usize,
    },
    /// A limit of [`crate::Limits`] is passed.
    #[error("more than {limit} {what}")]
    TooBig {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A prefix is used that nothing declares.
    #[error("the namespace prefix at byte {at} is not declared")]
    BadNamespacePrefix {
        /// Where, from the start of the frame.
        at: usize,
    },
    /// The bytes are not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    InvalidEncoding {
        /// Where, from the start of the frame.
        at: usize,
    },
    /// The stream declares another encoding than UTF-8, or begins like one.
    #[error("an encoding other than UTF-8")]
    UnsupportedEncoding,
    /// There are characters other than white space between two stanzas.
    #[error("text between stanzas")]
    TextBetweenStanzas,
}

impl XmlError {
    /// The name of the stream error condition (RFC 6120 section 4.9.3).
    pub fn stream_condition(&self) -> &'static str {
        match self {
            XmlError::NotWellFormed { .. } => "not-well-formed",
            XmlError::Restricted { .. } => "restricted-xml",
            XmlError::TooBig { .. } => "policy-violation",
            XmlError::BadNamespacePrefix { .. } => "bad-namespace-prefix",
            XmlError::InvalidEncoding { .. } | XmlError::UnsupportedEncoding => {
                "unsupported-encoding"
            }
            XmlError::TextBetweenStanzas => "bad-format",
        }
    }
}

pub(crate) fn not_well_formed<T>(what: &'static str, at: usize) -> Result<T, XmlError> {
    Err(XmlError::NotWellFormed { what, at })
}

pub(crate) fn restricted<T>(what: &'static str, at: usize) -> Result<T, XmlError> {
    Err(XmlError::Restricted { what, at })
}
