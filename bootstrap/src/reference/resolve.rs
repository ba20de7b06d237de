//! From user-data with references to a configuration without.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use cirrus_config::{Config, ConfigError, Document, MAX_FILE_BYTES, TextValue};

use super::{FetchError, Found, MAX_PEM, MAX_REFERENCES, MAX_VALUE, Place, Reference, Source};
use crate::code::Code;
use crate::user_data::{self, MAX_USER_DATA, UserData, UserDataError};

/// User-data with everything that it refers to.
pub struct Resolved {
    /// The user-data; of a configuration that stands elsewhere, that one.
    pub data: UserData,
    /// Certificate chains and keys that were fetched.
    pub files: Vec<KeyFile>,
    /// By option, the references whose values nobody may see.
    pub hidden: BTreeMap<String, String>,
    /// What was fetched, one line each.
    pub notes: Vec<String>,
}

/// A certificate chain or key that becomes a file. It has no `Debug`: it may be a private key.
pub struct KeyFile {
    /// Which of `tls.certificates`.
    pub certificate: usize,
    /// Whether it is the key, and not the chain.
    pub key: bool,
    /// The PEM text.
    pub text: String,
}

/// The folder of such files, below `tls.folder`.
const FOLDER: &str = "referenced";

impl KeyFile {
    /// Its path below `tls.folder`.
    pub fn path(&self) -> PathBuf {
        let what = if self.key { "key" } else { "chain" };
        Path::new(FOLDER).join(format!("{}-{what}.pem", self.certificate))
    }
}

/// Why user-data could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A text, given or fetched, that cannot be read.
    #[error(transparent)]
    Text(#[from] UserDataError),
    /// Something that could not be fetched or used.
    #[error("{file}:{line}:{column}: {option}: {reference}: {message}")]
    Fetch {
        /// The file with the reference.
        file: String,
        /// Its line.
        line: u64,
        /// Its column.
        column: u64,
        /// The option.
        option: String,
        /// The reference.
        reference: String,
        /// The class of the outcome.
        code: Code,
        /// Why.
        message: String,
    },
}

impl ReferenceError {
    /// The class of the outcome.
    pub fn code(&self) -> Code {
        match self {
            Self::Text(error) => error.code(),
            Self::Fetch { code, .. } => *code,
        }
    }

    fn fetch(at: &TextValue, reference: &Reference, error: FetchError) -> Self {
        let FetchError { code, message } = error;
        Self::Fetch {
            file: at.file.clone(),
            line: at.line,
            column: at.column,
            option: at.path.clone(),
            reference: reference.to_string(),
            code,
            message,
        }
    }
}

/// Reads user-data and fetches everything that it refers to.
///
/// # Errors
/// The first reference that cannot be had, with its place; faults of a text, all of them.
pub async fn resolve(
    bytes: &[u8],
    file: &str,
    source: &impl Source,
) -> Result<Resolved, ReferenceError> {
    let mut notes = Vec::new();
    let Some(pointer) = user_data::pointer(bytes, file)? else {
        let text = Text {
            bytes,
            file,
            limit: MAX_USER_DATA,
            over: None,
        };
        return values(&text, source, notes).await;
    };
    let reference = Reference::parse(&pointer.at.text);
    let reference = reference.map_err(|why| config_error(vec![pointer.at.error(why)]))?;
    let failed = |error| ReferenceError::fetch(&pointer.at, &reference, error);
    let found = source.fetch(&reference.place, MAX_FILE_BYTES).await;
    let found = found.and_then(|found| checked(found, &reference, MAX_FILE_BYTES));
    let found = found.map_err(failed)?;
    notes.push(note(&reference, &found));
    let name = reference.to_string();
    let text = Text {
        bytes: &found.bytes,
        file: &name,
        limit: MAX_FILE_BYTES,
        over: Some(pointer.over),
    };
    values(&text, source, notes).await
}

/// A text of any form, and the options that are laid over it.
struct Text<'a> {
    bytes: &'a [u8],
    file: &'a str,
    limit: usize,
    over: Option<Document>,
}

/// What was fetched so far.
#[derive(Default)]
struct Fetched {
    values: Vec<(TextValue, String)>,
    files: Vec<KeyFile>,
    hidden: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Fetches the values that stand elsewhere. The text is read twice: once to see what it refers to.
async fn values(
    text: &Text<'_>,
    source: &impl Source,
    notes: Vec<String>,
) -> Result<Resolved, ReferenceError> {
    let wanted: RefCell<Vec<TextValue>> = RefCell::default();
    let first = user_data::parse_within(text.bytes, text.file, text.limit, &|document| {
        let document = laid(document, text.over.as_ref());
        let texts = document.texts().into_iter();
        let found: Vec<_> = texts.filter(|t| Reference::is_value(&t.text)).collect();
        if found.is_empty() {
            return document.read();
        }
        // Not an error yet: with the values it is read again.
        let here = found
            .iter()
            .map(|at| at.error("stands elsewhere"))
            .collect();
        *wanted.borrow_mut() = found;
        Err(here)
    });
    let wanted = wanted.into_inner();
    if wanted.is_empty() {
        return Ok(Resolved {
            data: first?,
            files: Vec::new(),
            hidden: BTreeMap::new(),
            notes,
        });
    }
    if let Some(at) = wanted.get(MAX_REFERENCES) {
        let reason = format!("more than {MAX_REFERENCES} references");
        return Err(config_error(vec![at.error(reason)]));
    }
    let mut fetched = Fetched {
        notes,
        ..Fetched::default()
    };
    for at in wanted {
        let text = value(&at, source, &mut fetched).await?;
        fetched.values.push((at, text));
    }
    let data = user_data::parse_within(text.bytes, text.file, text.limit, &|document| {
        let mut document = laid(document, text.over.as_ref());
        document.put(&|at| {
            let value = fetched.values.iter().find(|(place, _)| place == at);
            value.map(|(_, text)| text.clone())
        })?;
        document.read()
    })?;
    let Fetched {
        files,
        hidden,
        notes,
        ..
    } = fetched;
    Ok(Resolved {
        data,
        files,
        hidden,
        notes,
    })
}

fn laid(mut document: Document, over: Option<&Document>) -> Document {
    if let Some(over) = over {
        document.overlay(over.clone());
    }
    document
}

/// Fetches one value; a certificate's file becomes a path.
async fn value(
    at: &TextValue,
    source: &impl Source,
    fetched: &mut Fetched,
) -> Result<String, ReferenceError> {
    let reference = Reference::parse(&at.text);
    let reference = reference.map_err(|why| config_error(vec![at.error(why)]))?;
    let failed = |error| ReferenceError::fetch(at, &reference, error);
    let file = certificate_file(&at.path);
    let limit = if file.is_some() { MAX_PEM } else { MAX_VALUE };
    let found = source.fetch(&reference.place, MAX_PEM).await;
    let found = found.and_then(|found| checked(found, &reference, limit));
    let found = found.map_err(failed)?;
    fetched.notes.push(note(&reference, &found));
    let secret = found.secret;
    let text =
        String::from_utf8(found.bytes).map_err(|_| failed(unusable("its value is not text")))?;
    if let Some((certificate, key)) = file {
        if !text.contains("-----BEGIN ") {
            let why = "its value is no PEM text (`-----BEGIN …`)";
            return Err(failed(unusable(why)));
        }
        let file = KeyFile {
            certificate,
            key,
            text,
        };
        let path = file.path().display().to_string();
        fetched.files.push(file);
        return Ok(path);
    }
    if secret {
        if let Some(open) = printed(&at.path) {
            let why = format!(
                "a secret cannot stand here, {open} is printed and is part of names; \
                 take a parameter of the type String"
            );
            return Err(config_error(vec![at.error(why)]));
        }
        let option = at.path.split('[').next().unwrap_or_default();
        fetched.hidden.insert(option.to_owned(), at.text.clone());
    }
    Ok(text)
}

/// Which certificate, and whether it is the key, if a path is that of a certificate's file.
fn certificate_file(path: &str) -> Option<(usize, bool)> {
    let rest = path.strip_prefix("tls.certificates[")?;
    let (index, rest) = rest.split_once(']')?;
    let key = match rest {
        ".key" => true,
        ".chain" => false,
        _ => return None,
    };
    Some((index.parse().ok()?, key))
}

/// The part of the configuration with this option, if it appears in log lines and names.
fn printed(path: &str) -> Option<&'static str> {
    const PRINTED: [&str; 6] = ["domains", "store", "listen", "tls", "cluster", "log"];
    let section = path.split(['.', '[']).next().unwrap_or_default();
    PRINTED.into_iter().find(|name| *name == section)
}

fn unusable(message: impl Into<String>) -> FetchError {
    FetchError {
        code: Code::ReferenceUnusable,
        message: message.into(),
    }
}

/// Takes the member out of a secret that is a JSON object, and checks size and hash.
fn checked(found: Found, reference: &Reference, limit: usize) -> Result<Found, FetchError> {
    let mut found = found;
    if let Place::Secret {
        json_key: Some(key),
        ..
    } = &reference.place
    {
        found.bytes = member(&found.bytes, key)?;
    }
    let bytes = found.bytes.len();
    if bytes > limit {
        return Err(unusable(format!(
            "it has {bytes} bytes; at most {limit} are taken"
        )));
    }
    if let Some(expected) = reference.sha256 {
        let actual = digest::digest(&digest::SHA256, &found.bytes);
        if actual.as_ref() != expected {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            // The hash of a short secret would tell the secret.
            let is = if found.secret {
                String::new()
            } else {
                format!(", it is {}", hex(actual.as_ref()))
            };
            let version = version(&found);
            return Err(FetchError {
                code: Code::ReferenceHash,
                message: format!(
                    "its SHA-256 is not {}{is}{version}; somebody changed it, or the hash is of \
                     another version",
                    hex(&expected)
                ),
            });
        }
    }
    Ok(found)
}

fn member(bytes: &[u8], key: &str) -> Result<Vec<u8>, FetchError> {
    // Neither the text nor the parser's excerpt of it may be told.
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_| unusable("it is no JSON object"))?;
    let Some(object) = json.as_object() else {
        return Err(unusable("it is no JSON object"));
    };
    match object.get(key) {
        Some(serde_json::Value::String(text)) => Ok(text.clone().into_bytes()),
        Some(serde_json::Value::Number(number)) => Ok(number.to_string().into_bytes()),
        Some(serde_json::Value::Bool(truth)) => Ok(truth.to_string().into_bytes()),
        Some(_) => Err(unusable(
            "this member of it is no text, number or truth value",
        )),
        None => Err(FetchError {
            code: Code::ReferenceAbsent,
            message: "it is a JSON object without this member".into(),
        }),
    }
}

fn note(reference: &Reference, found: &Found) -> String {
    let bytes = found.bytes.len();
    format!("{reference}: {bytes} bytes{}", version(found))
}

fn version(found: &Found) -> String {
    let version = found.version.as_ref();
    version.map_or_else(String::new, |version| format!(", version {version}"))
}

fn config_error(errors: Vec<ConfigError>) -> ReferenceError {
    ReferenceError::Text(UserDataError::Config(errors))
}

/// Names the files of certificates, which lie below `folder`.
pub fn place_files(config: &mut Config, files: &[KeyFile], folder: &Path) {
    for file in files {
        let path = folder.join(file.path());
        if let Some(certificate) = config.tls.certificates.get_mut(file.certificate) {
            if file.key {
                certificate.key = path;
            } else {
                certificate.chain = path;
            }
        }
    }
}
