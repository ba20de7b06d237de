use std::fmt;

/// One thing that is wrong with a configuration file: where, which option, and what.
///
/// Its text is one line: `cirrus.yaml:3:3: limits.stanza_byte: unknown option; did you mean ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The name of the file as the caller gave it.
    pub file: String,
    /// Line, counted from 1; 0 where the fault has no place (an empty file).
    pub line: u64,
    /// Column in characters, counted from 1; 0 where the fault has no place.
    pub column: u64,
    /// The option meant, as a dotted path (`limits.stanza_bytes`); empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What is wrong with an option or a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file is larger than [`crate::MAX_FILE_BYTES`].
    #[error("the file has {bytes} bytes; a configuration has at most {limit}")]
    Oversized {
        /// Size of the file.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The file has no content, or only comments.
    #[error("the file is empty; the shortest configuration is `domains: [example.com]`")]
    Empty,
    /// The file is not text: not UTF-8, or with control characters.
    #[error("the file is not text: {what}")]
    Binary {
        /// The byte or character that no text has.
        what: String,
    },
    /// The file is text but no YAML.
    #[error("not YAML: {reason}")]
    Syntax {
        /// The parser's reason.
        reason: String,
    },
    /// Anchors and aliases that multiply, or nesting without an end.
    #[error("refused: {reason}; a configuration never needs this")]
    Bomb {
        /// Which bound was passed.
        reason: String,
    },
    /// An option that does not exist.
    #[error("unknown option{}", hint(.nearest.as_deref(), .valid))]
    Unknown {
        /// The nearest option that exists, as a dotted path.
        nearest: Option<String>,
        /// The options that exist at this place.
        valid: Vec<&'static str>,
    },
    /// An option that stands twice in the same section.
    #[error("given twice; first in line {first_line}")]
    Duplicate {
        /// Where it stood first.
        first_line: u64,
    },
    /// A required option that is absent.
    #[error("missing; it has no default")]
    Missing,
    /// A value of the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What the option takes.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A number outside of its range.
    #[error("{value} is out of range; allowed are {allowed}")]
    OutOfRange {
        /// What stands there.
        value: String,
        /// The range.
        allowed: String,
    },
    /// A word that is not one of the words allowed.
    #[error("`{value}` is not one of {}{}", .allowed.join(", "), near(.nearest.as_deref()))]
    NotOneOf {
        /// What stands there.
        value: String,
        /// All words allowed.
        allowed: Vec<&'static str>,
        /// The nearest of them.
        nearest: Option<String>,
    },
    /// A value of the right type that makes no sense.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
}

impl Fault {
    /// The same without the value that stands there, which came from `name`.
    pub(crate) fn hiding(self, name: &str) -> Self {
        let value = format!("the value of `{name}`");
        match self {
            Self::WrongType { expected, .. } => Self::WrongType {
                expected,
                found: value,
            },
            Self::OutOfRange { allowed, .. } => Self::OutOfRange { value, allowed },
            Self::NotOneOf { allowed, .. } => {
                let allowed = allowed.join(", ");
                let reason = format!("{value} is not one of {allowed}");
                Self::Invalid { reason }
            }
            Self::Invalid { .. }
            | Self::Syntax { .. }
            | Self::Bomb { .. }
            | Self::Binary { .. } => {
                let reason = format!("{value} is not what this option takes");
                Self::Invalid { reason }
            }
            Self::Oversized { .. }
            | Self::Empty
            | Self::Unknown { .. }
            | Self::Duplicate { .. }
            | Self::Missing => self,
        }
    }
}

fn hint(nearest: Option<&str>, valid: &[&str]) -> String {
    match nearest {
        Some(_) => near(nearest),
        None if valid.is_empty() => String::new(),
        None => format!("; valid here are {}", valid.join(", ")),
    }
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |n| format!("; did you mean `{n}`?"))
}
