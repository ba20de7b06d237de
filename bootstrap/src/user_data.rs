//! What the user gave: recognised by its shape, then read.
//!
//! In this order: gzip is inflated; multipart is named; other programs' data is named; a first
//! line `#cirrus` is dropped; `key=value` lines; YAML; a bare domain. Everything else is an error
//! that says what it could have been. Nothing is ever guessed.

mod gunzip;

use cirrus_config::{Config, ConfigError, Domain, Fault, Given, MAX_FILE_BYTES};

use crate::code::Code;

/// Bytes of user-data, before base64, as EC2 limits it.
pub const MAX_USER_DATA: usize = 16_384;

/// A first line that says: what follows is for Cirrus.
const MARKER: &str = "#cirrus";

/// What user-data looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `example.com`
    Domain,
    /// `domain=example.com` and further lines.
    Assignments,
    /// A Cirrus configuration.
    Yaml,
}

impl Form {
    /// The form in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Domain => "a domain",
            Self::Assignments => "key=value lines",
            Self::Yaml => "a YAML configuration",
        }
    }
}

/// User-data that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct UserData {
    /// Which form it had.
    pub form: Form,
    /// Whether it was compressed.
    pub gzipped: bool,
    /// The configuration, and what of it was given.
    pub given: Given,
}

/// Why user-data was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// More than EC2 allows.
    #[error("{file}: {bytes} bytes; user-data has at most {MAX_USER_DATA} (gzip it)")]
    Oversized {
        /// Where it came from.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// Starts like gzip and is none.
    #[error("{file}: starts like gzip, but does not inflate: {reason}")]
    BrokenGzip {
        /// Where it came from.
        file: String,
        /// The inflater's reason.
        reason: String,
    },
    /// Inflates to more than any configuration.
    #[error(
        "{file}: a gzip bomb: its {bytes} bytes inflate to more than {MAX_FILE_BYTES}; \
         a configuration has at most that"
    )]
    GzipBomb {
        /// Where it came from.
        file: String,
        /// Its compressed size.
        bytes: usize,
    },
    /// Not text.
    #[error("{}", lines(.0))]
    Binary(Vec<ConfigError>),
    /// Nothing, or only comments.
    #[error("{file}: empty; the shortest user-data is a domain: `example.com`")]
    Empty {
        /// Where it came from.
        file: String,
    },
    /// A form that is known and cannot be read yet.
    #[error("{file}:{line}:1: {form}; this version reads {READS}")]
    Unsupported {
        /// Where it came from.
        file: String,
        /// The line that shows the form.
        line: usize,
        /// The form.
        form: &'static str,
    },
    /// Written for another program.
    #[error("{file}:1:1: {form}, which is not for Cirrus; Cirrus reads {READS}")]
    Foreign {
        /// Where it came from.
        file: String,
        /// Whose it is.
        form: &'static str,
    },
    /// No known form.
    #[error("{file}:{line}:1: `{excerpt}` is none of {READS}")]
    Unrecognised {
        /// Where it came from.
        file: String,
        /// The first line that says something.
        line: usize,
        /// Its beginning.
        excerpt: String,
    },
    /// A known form with faults.
    #[error("{}", lines(.0))]
    Config(Vec<ConfigError>),
}

/// The forms that can be read, for messages.
const READS: &str = "a domain (`example.com`), `domain=example.com` and further key=value lines, \
                     or a Cirrus YAML configuration (`domains: [example.com]`), each also gzipped";

impl UserDataError {
    /// The class of the outcome.
    pub fn code(&self) -> Code {
        match self {
            Self::Oversized { .. } => Code::UserDataOversized,
            Self::BrokenGzip { .. } | Self::GzipBomb { .. } => Code::UserDataGzip,
            Self::Binary(_) => Code::UserDataBinary,
            Self::Empty { .. } => Code::UserDataEmpty,
            Self::Unsupported { .. } => Code::UserDataUnsupported,
            Self::Foreign { .. } => Code::UserDataForeign,
            Self::Unrecognised { .. } => Code::UserDataUnrecognised,
            Self::Config(_) => Code::ConfigInvalid,
        }
    }
}

/// Reads user-data. `file` is where it came from, for messages.
///
/// # Errors
/// What it is instead, with line and column, and what it could have been.
pub fn parse(bytes: &[u8], file: &str) -> Result<UserData, UserDataError> {
    if bytes.len() > MAX_USER_DATA {
        let (file, bytes) = (file.to_owned(), bytes.len());
        return Err(UserDataError::Oversized { file, bytes });
    }
    let gzipped = gunzip::is_gzip(bytes);
    let inflated;
    let bytes = if gzipped {
        inflated = gunzip::gunzip(bytes, file)?;
        inflated.as_slice()
    } else {
        bytes
    };
    let text = cirrus_config::text_of(bytes, file).map_err(UserDataError::Binary)?;
    let form = recognise(text, file)?;
    let given = match form {
        Form::Domain => domain(text, file)?,
        Form::Assignments => Given::parse_assignments(text, file).map_err(UserDataError::Config)?,
        Form::Yaml => Given::parse(text, file).map_err(UserDataError::Config)?,
    };
    Ok(UserData {
        form,
        gzipped,
        given,
    })
}

/// Which form a text has.
fn recognise(text: &str, file: &str) -> Result<Form, UserDataError> {
    let file = || file.to_owned();
    foreign(text, &file)?;
    let Some((line, first)) = significant(text).next() else {
        return Err(UserDataError::Empty { file: file() });
    };
    let marked = text.lines().next().is_some_and(|l| l.trim_end() == MARKER);
    if let Some(key) = assigned(first) {
        if key == "config" {
            let form = "a reference to a configuration elsewhere (`config=`)";
            return Err(UserDataError::Unsupported {
                file: file(),
                line,
                form,
            });
        }
        return Ok(Form::Assignments);
    }
    if significant(text).any(|(_, line)| is_yaml_key(line)) || first.starts_with('{') {
        if let Some((line, _)) = ejabberd(text) {
            let form = "an ejabberd configuration";
            return Err(UserDataError::Unsupported {
                file: file(),
                line,
                form,
            });
        }
        return Ok(Form::Yaml);
    }
    if marked && significant(text).count() > 1 {
        return Ok(Form::Yaml);
    }
    let alone = significant(text).count() == 1 && first.split_whitespace().count() == 1;
    if alone && !first.contains(['<', '>', '{', '}', '=', '|', ';']) {
        return Ok(Form::Domain);
    }
    let excerpt: String = first.chars().take(60).collect();
    Err(UserDataError::Unrecognised {
        file: file(),
        line,
        excerpt,
    })
}

/// Names what is written for other programs.
fn foreign(text: &str, file: &impl Fn() -> String) -> Result<(), UserDataError> {
    const MULTIPART: &str = "a MIME multipart";
    let lower = text
        .get(..text.len().min(MAX_USER_DATA))
        .unwrap_or(text)
        .to_ascii_lowercase();
    let headers = lower.lines().take_while(|l| !l.trim().is_empty());
    for (i, header) in headers.enumerate() {
        if header.starts_with("mime-version:") || header.starts_with("content-type:") {
            let (line, form) = (i + 1, MULTIPART);
            return Err(UserDataError::Unsupported {
                file: file(),
                line,
                form,
            });
        }
    }
    if lower.starts_with("#cloud-config") {
        let ours = lower.lines().position(|l| l.starts_with("cirrus:"));
        if let Some(line) = ours {
            let (line, form) = (line + 1, "`cirrus:` inside of a #cloud-config");
            return Err(UserDataError::Unsupported {
                file: file(),
                line,
                form,
            });
        }
    }
    let known = [
        ("#cloud-config", "a #cloud-config"),
        ("#cloud-boothook", "a cloud-init boot hook"),
        ("#part-handler", "a cloud-init part handler"),
        ("#include", "a cloud-init include file"),
        ("## template:", "a cloud-init template"),
        ("#!", "a script"),
        ("<powershell>", "a PowerShell script"),
        ("<script>", "a Windows script"),
    ];
    let form = known.iter().find(|(start, _)| lower.starts_with(start));
    form.map_or(Ok(()), |(_, form)| {
        Err(UserDataError::Foreign { file: file(), form })
    })
}

/// The lines that say something, with their numbers.
fn significant(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#') && *line != "---")
}

/// The key, if the line assigns something.
fn assigned(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.chars().all(word)).then_some(key)
}

/// Whether a line is `key:` or `key: value`.
fn is_yaml_key(line: &str) -> bool {
    let Some((key, rest)) = line.split_once(':') else {
        return false;
    };
    let key = key.trim().trim_matches(['"', '\'']);
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let ends = rest.is_empty() || rest.starts_with(char::is_whitespace);
    !key.is_empty() && key.chars().all(word) && ends
}

/// The line of a top-level key that only ejabberd has, where no key of ours is.
fn ejabberd(text: &str) -> Option<(usize, &str)> {
    const THEIRS: [&str; 5] = [
        "hosts:",
        "modules:",
        "loglevel:",
        "certfiles:",
        "access_rules:",
    ];
    if text.lines().any(|l| l.starts_with("domains:")) {
        return None;
    }
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines
        .into_iter()
        .find(|(_, line)| THEIRS.iter().any(|key| line.starts_with(key)))
}

/// A bare domain as a configuration.
fn domain(text: &str, file: &str) -> Result<Given, UserDataError> {
    let Some((line, given)) = significant(text).next() else {
        return Err(UserDataError::Empty {
            file: file.to_owned(),
        });
    };
    let paths = ["domains".to_owned()].into();
    Domain::parse(given)
        .and_then(|domain| Config::new(domain.as_str()))
        .map(|config| Given { config, paths })
        .map_err(|why| {
            let reason = format!("`{given}` is not a domain: {why}");
            UserDataError::Config(vec![ConfigError {
                file: file.to_owned(),
                line: line as u64,
                column: 1,
                path: "domains".to_owned(),
                fault: Fault::Invalid { reason },
            }])
        })
}

fn lines(errors: &[ConfigError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests;
