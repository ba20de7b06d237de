//! What stands elsewhere: a whole configuration (`config=s3://…`), or the value of one option
//! (`ssm:…`, `secretsmanager:…`).
//!
//! Pure but for [`Source`], through which things are fetched. What came from Secrets Manager, or
//! from an encrypted parameter, is in no message.

mod resolve;

use std::fmt;

use crate::code::Code;

pub use resolve::{KeyFile, ReferenceError, Resolved, place_files, resolve};

/// References in one configuration; each is a call.
pub const MAX_REFERENCES: usize = 64;
/// Bytes of a value: as much as a text in a configuration has.
pub const MAX_VALUE: usize = 4_096;
/// Bytes of a certificate chain or key: as much as a secret has.
pub const MAX_PEM: usize = 65_536;

const S3: &str = "s3://";
const SSM: &str = "ssm:";
const SECRETS: &str = "secretsmanager:";

/// Something that stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where.
    pub place: Place,
    /// The SHA-256 that its bytes must have.
    pub sha256: Option<[u8; 32]>,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An object in S3.
    Object {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// One of its versions; the current one if absent.
        version_id: Option<String>,
    },
    /// A parameter of Systems Manager.
    Parameter {
        /// Its name, with `:VERSION` or `:LABEL` if not the current one is meant.
        name: String,
    },
    /// A secret of Secrets Manager.
    Secret {
        /// Its name or ARN.
        id: String,
        /// One of its versions; the current one if absent.
        version_id: Option<String>,
        /// The member of the JSON object that the secret is.
        json_key: Option<String>,
    },
}

/// The grammar, for messages.
const FORMS: &str = "`s3://BUCKET/KEY`, `ssm:NAME` or `secretsmanager:ID[#JSON-KEY]`, with \
                     `?versionId=…` (S3, Secrets Manager) and `&sha256=…` if wanted";

impl Reference {
    /// Whether a text is meant as the reference of a value.
    pub fn is_value(text: &str) -> bool {
        text.starts_with(SSM) || text.starts_with(SECRETS)
    }

    /// Reads a reference.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (head, query) = match text.split_once('?') {
            Some((head, query)) => (head, Some(query)),
            None => (text, None),
        };
        let mut place = Place::parse(head)?;
        let mut sha256 = None;
        for part in query.into_iter().flat_map(|q| q.split('&')) {
            match part.split_once('=') {
                Some(("versionId", id)) if !id.is_empty() => place.set_version(id)?,
                Some(("sha256", hex)) => sha256 = Some(digest(hex)?),
                _ => {
                    return Err(format!(
                        "`{part}` is neither `versionId=…` nor `sha256=…`; write {FORMS}"
                    ));
                }
            }
        }
        Ok(Self { place, sha256 })
    }
}

impl Place {
    fn parse(head: &str) -> Result<Self, String> {
        let wrong = || format!("`{head}` is no reference; write {FORMS}");
        if let Some(rest) = head.strip_prefix(S3) {
            let (bucket, key) = rest.split_once('/').ok_or_else(wrong)?;
            let named = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
            if key.is_empty() || key.len() > 1_024 || !(3..=63).contains(&bucket.len()) {
                return Err(wrong());
            }
            if !bucket.bytes().all(named) {
                return Err(wrong());
            }
            return Ok(Self::Object {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                version_id: None,
            });
        }
        let fits = |name: &str| {
            let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '\'' | '"' | '\\');
            !name.is_empty() && name.len() <= 2_048 && name.chars().all(allowed)
        };
        if let Some(name) = head.strip_prefix(SSM) {
            let name = name.to_owned();
            return fits(&name)
                .then_some(Self::Parameter { name })
                .ok_or_else(wrong);
        }
        let rest = head.strip_prefix(SECRETS).ok_or_else(wrong)?;
        let (id, json_key) = match rest.split_once('#') {
            Some((_, "")) => return Err(wrong()),
            Some((id, key)) => (id, Some(key.to_owned())),
            None => (rest, None),
        };
        let (id, version_id) = (id.to_owned(), None);
        let secret = fits(&id).then_some(Self::Secret {
            id,
            version_id,
            json_key,
        });
        secret.ok_or_else(wrong)
    }

    fn set_version(&mut self, id: &str) -> Result<(), String> {
        match self {
            Self::Object { version_id, .. } | Self::Secret { version_id, .. } => {
                *version_id = Some(id.to_owned());
                Ok(())
            }
            Self::Parameter { name } => Err(format!(
                "a parameter's version is part of its name: `{SSM}{name}:VERSION`"
            )),
        }
    }
}

/// Without the query: what is fetched, and not which bytes it must have.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Object { bucket, key, .. } => write!(f, "{S3}{bucket}/{key}"),
            Place::Parameter { name } => write!(f, "{SSM}{name}"),
            Place::Secret { id, json_key, .. } => {
                write!(f, "{SECRETS}{id}")?;
                json_key.as_ref().map_or(Ok(()), |key| write!(f, "#{key}"))
            }
        }
    }
}

fn digest(hex: &str) -> Result<[u8; 32], String> {
    let mut out = [0; 32];
    let wrong = || format!("sha256 has 64 hexadecimal digits; `{hex}` is none");
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(out)
}

/// What was fetched. It has no `Debug`: it may be a secret.
pub struct Found {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Its version, as the service names it.
    pub version: Option<String>,
    /// Whether nobody may see it.
    pub secret: bool,
}

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// The class of the outcome.
    pub code: Code,
    /// A sentence.
    pub message: String,
}

/// Where things are fetched from.
pub trait Source {
    /// Fetches at most `limit` bytes; more are an error.
    fn fetch(&self, place: &Place, limit: usize)
    -> impl Future<Output = Result<Found, FetchError>>;
}

#[cfg(test)]
mod tests;
