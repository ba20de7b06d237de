//! What the user gave: recognised by its shape, then read.
//!
//! In this order: gzip is inflated; of a multipart the part for Cirrus is taken; of a
//! #cloud-config what stands under `cirrus:`; other programs' data is named; a first line
//! `#cirrus` is dropped; `key=value` lines; YAML, of Cirrus or of ejabberd; a bare domain.
//! Everything else is an error that says what it could have been. Nothing is ever guessed.

pub(crate) mod ejabberd;
mod gunzip;
mod mime;
mod parts;

use std::fmt;

use cirrus_config::{
    ConfigError, Content, Document, Domain, Fault, Given, MAX_FILE_BYTES, TextValue, excerpt,
    parse_yaml,
};

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
    /// A Cirrus configuration under `cirrus:` in a #cloud-config.
    CloudConfig,
    /// An ejabberd.yml.
    Ejabberd,
}

impl Form {
    /// The form in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Domain => "a domain",
            Self::Assignments => "key=value lines",
            Self::Yaml => "a YAML configuration",
            Self::CloudConfig => "`cirrus:` of a #cloud-config",
            Self::Ejabberd => "an ejabberd configuration",
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
    /// The part of a multipart that it was.
    pub part: Option<String>,
    /// The configuration, and what of it was given.
    pub given: Given,
    /// What was not taken over, or was mended.
    pub notes: Vec<Note>,
    /// Files with certificates that an ejabberd.yml lists.
    pub(crate) certfiles: Vec<ejabberd::CertFile>,
}

impl UserData {
    fn new(form: Form, given: Given) -> Self {
        Self {
            form,
            gzipped: false,
            part: None,
            given,
            notes: Vec::new(),
            certfiles: Vec::new(),
        }
    }
}

/// What the operator should know about user-data that was understood all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// File and line.
    pub place: String,
    /// What about it.
    pub text: String,
}

impl Note {
    /// A note about a line; 0 is the whole file.
    fn new(file: &str, line: u64, text: String) -> Self {
        let place = match line {
            0 => file.to_owned(),
            line => format!("{file}:{line}"),
        };
        Self { place, text }
    }
}

impl fmt::Display for Note {
    /// On one line: a name in an ejabberd.yml may have any character, by YAML's escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        self.text.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => write!(f, "{c}"),
        })
    }
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
    #[error("{file}:{line}:1: {form}, which is not for Cirrus; Cirrus reads {READS}")]
    Foreign {
        /// Where it came from.
        file: String,
        /// The line that shows it.
        line: usize,
        /// Whose it is.
        form: String,
    },
    /// A multipart that cannot be taken apart, or has several parts for Cirrus.
    #[error("{file}:{line}:1: MIME: {reason}")]
    Mime {
        /// Where it came from.
        file: String,
        /// The line that shows it.
        line: usize,
        /// What is wrong.
        reason: String,
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
                     a Cirrus YAML configuration (`domains: [example.com]`), or an ejabberd.yml, \
                     each also gzipped or as a part of a MIME multipart";

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
            Self::Mime { .. } => Code::UserDataMime,
            Self::Unrecognised { .. } => Code::UserDataUnrecognised,
            Self::Config(_) => Code::ConfigInvalid,
        }
    }

    /// The same further down in the file.
    fn moved(mut self, lines: usize) -> Self {
        match &mut self {
            Self::Unsupported { line, .. }
            | Self::Foreign { line, .. }
            | Self::Unrecognised { line, .. } => *line += lines,
            _ => {}
        }
        self
    }
}

/// Reads user-data that refers to nothing elsewhere. `file` is where it came from, for messages.
///
/// # Errors
/// What it is instead, with line and column, and what it could have been.
pub fn parse(bytes: &[u8], file: &str) -> Result<UserData, UserDataError> {
    parse_within(bytes, file, MAX_USER_DATA, &|document| document.read())
}

/// Makes a configuration of what was parsed.
pub(crate) type Make<'a> = &'a dyn Fn(Document) -> Result<Given, Vec<ConfigError>>;

/// Reads at most `limit` bytes in any form; `make` makes a configuration of what is one.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_within(
    bytes: &[u8],
    file: &str,
    limit: usize,
    make: Make<'_>,
) -> Result<UserData, UserDataError> {
    if bytes.len() > limit {
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
    let mut data = if mime::is_mime(bytes) {
        parts::read_multipart(bytes, file, make)?
    } else {
        let text = cirrus_config::text_of(bytes, file).map_err(UserDataError::Binary)?;
        read(text, file, 0, make)?
    };
    data.gzipped |= gzipped;
    Ok(data)
}

/// Reads a text that has so many lines of the file before it: the lines in errors are the file's.
fn read(text: &str, file: &str, before: usize, make: Make<'_>) -> Result<UserData, UserDataError> {
    let form = recognise(text, file).map_err(|error| error.moved(before))?;
    let moved;
    let text = if before > 0 {
        moved = format!("{}{text}", "\n".repeat(before));
        moved.as_str()
    } else {
        text
    };
    let given = match form {
        Form::Domain => domain(text, file, make)?,
        Form::Assignments => Document::assignments(text, file)
            .and_then(make)
            .map_err(UserDataError::Config)?,
        Form::Yaml => Document::yaml(text, file)
            .and_then(make)
            .map_err(UserDataError::Config)?,
        Form::CloudConfig => cloud_config(text, file, make).map_err(UserDataError::Config)?,
        Form::Ejabberd => {
            let translated = ejabberd::translate(text, file, make)?;
            let mut data = UserData::new(form, translated.given);
            data.notes = translated.notes;
            data.certfiles = translated.certfiles;
            return Ok(data);
        }
    };
    Ok(UserData::new(form, given))
}

/// What stands under `cirrus:` in a #cloud-config.
fn cloud_config(text: &str, file: &str, make: Make<'_>) -> Result<Given, Vec<ConfigError>> {
    let root = parse_yaml(text, file)?;
    let entries = match &root.content {
        Content::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    let found = entries.iter().find(|(key, _)| key.name == "cirrus");
    let tree = found.map_or(&root, |(_, node)| node);
    make(Document::from_tree(tree.clone(), file))
}

/// Whether a part of no particular type is recognisably for Cirrus: it has the marker, a key that
/// names domains, or is a domain with a dot.
fn is_for_cirrus(text: &str) -> bool {
    let starts = |words: &[&str]| {
        let mut lines = significant(text);
        lines.any(|(_, line)| words.iter().any(|word| line.starts_with(word)))
    };
    match recognise(text, "") {
        Ok(_) if is_marked(text) => true,
        Ok(Form::CloudConfig | Form::Ejabberd) => true,
        Ok(Form::Yaml) => starts(&["domains:", "{domains:"]),
        Ok(Form::Assignments) => starts(&["domain", "config"]),
        Ok(Form::Domain) => {
            let mut lines = significant(text).map(|(_, line)| line);
            lines.any(|d| (d.contains('.') || d == "localhost") && Domain::parse(d).is_ok())
        }
        Err(_) => false,
    }
}

fn is_marked(text: &str) -> bool {
    text.lines().next().is_some_and(|l| l.trim_end() == MARKER)
}

/// User-data that says where the configuration is: `config=s3://bucket/key`.
#[derive(Clone, Debug)]
pub(crate) struct Pointer {
    /// The reference and its place.
    pub(crate) at: TextValue,
    /// The other lines: options that are laid over that configuration.
    pub(crate) over: Document,
}

/// Where the configuration is, if user-data says that. What cannot be read is left to
/// [`parse_within`].
///
/// # Errors
/// Other lines that are no `key=value`.
pub(crate) fn pointer(bytes: &[u8], file: &str) -> Result<Option<Pointer>, UserDataError> {
    let inflated;
    let mut bytes = bytes;
    if bytes.len() <= MAX_USER_DATA && gunzip::is_gzip(bytes) {
        inflated = gunzip::gunzip(bytes, file)?;
        bytes = &inflated;
    }
    let Ok(text) = cirrus_config::text_of(bytes, file) else {
        return Ok(None);
    };
    let assigns = significant(text).next().and_then(|(_, l)| assigned(l));
    let mut lines = significant(text).filter(|(_, line)| assigned(line) == Some("config"));
    let (Some(_), Some((number, line))) = (assigns, lines.next()) else {
        return Ok(None);
    };
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    let whole = text.lines().nth(number - 1).unwrap_or_default();
    let before = whole.trim_end().strip_suffix(value).unwrap_or_default();
    let at = TextValue {
        path: "config".to_owned(),
        text: value.to_owned(),
        file: file.to_owned(),
        line: number as u64,
        column: before.chars().count() as u64 + 1,
    };
    // A comment in its place keeps the numbers of the lines.
    let rest = text.lines().enumerate();
    let rest = rest.map(|(i, line)| if i + 1 == number { "#" } else { line });
    let rest = rest.collect::<Vec<_>>().join("\n");
    let over = Document::assignments(&rest, file).map_err(UserDataError::Config)?;
    Ok(Some(Pointer { at, over }))
}

/// Which form a text has.
fn recognise(text: &str, file: &str) -> Result<Form, UserDataError> {
    let file = || file.to_owned();
    if is_cloud_config(text) {
        return Ok(Form::CloudConfig);
    }
    foreign(text, &file)?;
    let Some((line, first)) = significant(text).next() else {
        return Err(UserDataError::Empty { file: file() });
    };
    let marked = is_marked(text);
    if let Some(key) = assigned(first) {
        if key == "config" {
            let form = "a reference to a configuration (`config=`) where the configuration \
                        itself must be";
            return Err(UserDataError::Unsupported {
                file: file(),
                line,
                form,
            });
        }
        return Ok(Form::Assignments);
    }
    if significant(text).any(|(_, line)| is_yaml_key(line)) || first.starts_with('{') {
        return Ok(if is_ejabberd(text) {
            Form::Ejabberd
        } else {
            Form::Yaml
        });
    }
    if marked && significant(text).count() > 1 {
        return Ok(Form::Yaml);
    }
    let alone = significant(text).count() == 1 && first.split_whitespace().count() == 1;
    if alone && !first.contains(['<', '>', '{', '}', '=', '|', ';']) {
        return Ok(Form::Domain);
    }
    let excerpt = excerpt(first);
    Err(UserDataError::Unrecognised {
        file: file(),
        line,
        excerpt,
    })
}

/// Whether a text is a #cloud-config with something for Cirrus in it.
fn is_cloud_config(text: &str) -> bool {
    text.starts_with("#cloud-config") && text.lines().any(|l| l.starts_with("cirrus:"))
}

/// Names what is written for other programs.
fn foreign(text: &str, file: &impl Fn() -> String) -> Result<(), UserDataError> {
    let first = text.lines().next().unwrap_or_default();
    let lower = first.to_ascii_lowercase();
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
        let (line, form) = (1, (*form).to_owned());
        Err(UserDataError::Foreign {
            file: file(),
            line,
            form,
        })
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

/// Whether a YAML text has a top-level key that only ejabberd has, and no key of ours.
fn is_ejabberd(text: &str) -> bool {
    const THEIRS: [&str; 12] = [
        "hosts:",
        "modules:",
        "loglevel:",
        "certfiles:",
        "acl:",
        "access_rules:",
        "shaper_rules:",
        "auth_method:",
        "define_macro:",
        "host_config:",
        "append_host_config:",
        "include_config_file:",
    ];
    let has = |key: &&str| text.lines().any(|line| line.starts_with(key));
    !has(&"domains:") && THEIRS.iter().any(has)
}

/// A bare domain as a configuration.
fn domain(text: &str, file: &str, make: Make<'_>) -> Result<Given, UserDataError> {
    let Some((line, given)) = significant(text).next() else {
        return Err(UserDataError::Empty {
            file: file.to_owned(),
        });
    };
    let domain = Domain::parse(given).map_err(|why| {
        let reason = format!("`{given}` is not a domain: {why}");
        UserDataError::Config(vec![ConfigError {
            file: file.to_owned(),
            line: line as u64,
            column: 1,
            path: "domains".to_owned(),
            fault: Fault::Invalid { reason },
        }])
    })?;
    // As YAML, so that other options can be laid over it.
    Document::yaml(&format!("domains: [{:?}]\n", domain.as_str()), file)
        .and_then(make)
        .map_err(UserDataError::Config)
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
