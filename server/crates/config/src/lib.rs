//! The server's whole configuration as typed data.
//!
//! One table ([`mod@sections`]) holds every option with its type, default, range and documentation;
//! the structs, the reader with its errors, the rendering and docs/CONFIGURATION.md come from it.
//! Errors name file, line, column, the option, and the nearest option that exists; a file is
//! read to its end, so one run shows them all.
//!
//! What it does not do: it never reads a file, an environment variable or a clock, and it holds
//! no secret (passwords are stored keys in the store, private keys are paths).
//!
//! Limits: [`MAX_FILE_BYTES`]; nesting, values and aliases as in [`mod@node`].

mod assignments;
mod document;
mod domain;
mod error;
mod nearest;
mod network;
mod node;
mod option;
mod reference;
mod rules;
mod sections;
mod value;

pub use document::{Document, TextValue};
pub use error::{ConfigError, Fault};
pub use nearest::nearest;
pub use network::Network;
pub use node::{Content, Key, Node, Place, excerpt};
pub use option::OptionDoc;
pub use reference::reference;
pub use sections::{
    Acme, Archive, Auth, Certificate, Cluster, Config, Drain, Limits, Listen, Log, Process,
    Rebalance, Registration, Store, StreamManagement, Tls,
};
pub use value::{Backend, Challenge, Domain, LogFormat, LogLevel, Mechanism, TlsVersion};

use std::collections::{BTreeMap, BTreeSet};

use option::{Reader, Setting};

/// Bytes of a configuration file. The reference with every option is about 20 KiB.
pub const MAX_FILE_BYTES: usize = 262_144;

impl Config {
    /// All defaults for one domain. The error says what is wrong with the domain.
    pub fn new(domain: &str) -> Result<Self, String> {
        let mut config = Self::initial();
        config.domains = vec![Domain::parse(domain)?];
        Ok(config)
    }

    /// Reads a configuration. `file_name` stands in the errors only.
    ///
    /// # Errors
    /// Every fault of the file in its order (at most 20); never empty.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Given::parse(text, file_name).map(|given| given.config)
    }

    /// Reads a configuration in the short form: `key=value` lines, where a key is an option's
    /// path (`limits.depth=32`) or `domain`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_assignments(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Given::parse_assignments(text, file_name).map(|given| given.config)
    }

    /// As [`Config::parse`], from bytes that may not be text.
    ///
    /// # Errors
    /// As [`Config::parse`]; bytes that are not UTF-8 are named with their place.
    pub fn parse_bytes(bytes: &[u8], file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Self::parse(text_of(bytes, file_name)?, file_name)
    }

    /// The configuration as YAML, every option written out. `parse` gives the same value again.
    pub fn render(&self) -> String {
        // A tree of maps, lists and scalars always serialises; the `else` keeps it total.
        serde_yaml::to_string(&self.tree()).unwrap_or_default()
    }

    /// As [`Config::render`], with other texts in place of some values, by their options' paths.
    pub fn render_with(&self, instead: &BTreeMap<String, String>) -> String {
        let mut tree = self.tree();
        for (path, text) in instead {
            tree.set(path, text);
        }
        serde_yaml::to_string(&tree).unwrap_or_default()
    }

    /// Every option, in the order of the table.
    pub fn options() -> Vec<OptionDoc> {
        let mut out = Vec::new();
        Self::describe_all("", &mut out);
        out
    }

    /// The first part of the names of tables and buckets: `store.prefix`, else the first domain
    /// (Unicode labels as Punycode, the colons of an IPv6 literal as `-`).
    pub fn prefix(&self) -> String {
        let first = || domain::ascii(self.domains.first().map_or("", Domain::as_str));
        self.store.prefix.clone().unwrap_or_else(first)
    }

    /// Checks that concern several options.
    fn check(&self, reader: &mut Reader) {
        if self.cluster.renew_ms * 2 > self.cluster.lease_ms {
            let lease = self.cluster.lease_ms;
            let reason = format!("at most half of cluster.lease_ms, which is {lease}");
            reader.report_option("cluster.renew_ms", reason);
        }
        if self.limits.unauthenticated_stanza_bytes > self.limits.stanza_bytes {
            let reason = "larger than limits.stanza_bytes";
            reader.report_option("limits.unauthenticated_stanza_bytes", reason);
        }
        if self.listen.c2s.is_empty() && self.listen.c2s_tls.is_empty() {
            reader.report_option("listen.c2s", "the server would listen nowhere");
        }
        for (i, domain) in self.domains.iter().enumerate() {
            if self.domains[..i].contains(domain) {
                reader.report_option("domains", format!("{domain} is given twice"));
            }
        }
        for (i, certificate) in self.tls.certificates.iter().enumerate() {
            if !self.domains.contains(&certificate.host) {
                let reason = format!("{} is not one of domains", certificate.host);
                reader.report_option(&format!("tls.certificates[{i}].host"), reason);
            }
        }
        if self.limits.write_queue_bytes < self.limits.stanza_bytes {
            let reason = "smaller than one stanza (limits.stanza_bytes)";
            reader.report_option("limits.write_queue_bytes", reason);
        }
    }
}

/// A configuration, and which of its options the file gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The configuration, defaults filled in.
    pub config: Config,
    /// Paths of the options and sections that the file gave (`listen`, `listen.c2s`).
    pub paths: BTreeSet<String>,
}

impl Given {
    /// As [`Config::parse`].
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Document::yaml(text, file_name)?.read()
    }

    /// As [`Config::parse_assignments`].
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_assignments(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Document::assignments(text, file_name)?.read()
    }

    /// Reads a configuration from a tree that was made elsewhere, such as a part of another
    /// program's file. The places in it stand in the errors.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn from_tree(tree: &Node, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        Document::from_tree(tree.clone(), file_name).read()
    }

    /// Whether the file gave this option.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }
}

/// The bytes as text without a byte order mark, or where they are none.
///
/// # Errors
/// One error that names the first byte that is not UTF-8, or the first control character that no
/// text has, and its place.
pub fn text_of<'b>(bytes: &'b [u8], file_name: &str) -> Result<&'b str, Vec<ConfigError>> {
    let binary = |(place, fault)| {
        let mut reader = Reader::new(vec![file_name.to_owned()], Vec::new());
        reader.report(place, fault);
        reader.into_errors()
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
        let bad = bytes.get(e.valid_up_to()).copied().unwrap_or_default();
        let what = format!("byte 0x{bad:02X} is not UTF-8");
        let place = end_of(&String::from_utf8_lossy(good));
        binary((place, Fault::Binary { what }))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    control(text).map_or(Ok(text), |found| Err(binary(found)))
}

/// Any YAML document as a tree whose keys and values know their places, within the bounds that
/// a configuration has. Nothing is [`Content::Null`].
///
/// # Errors
/// One error: no text, no YAML, or more than the bounds.
pub fn parse_yaml(text: &str, file_name: &str) -> Result<Node, Vec<ConfigError>> {
    let node = screen(text).and_then(|()| Node::parse(text));
    node.map_err(|(place, fault)| {
        let mut reader = Reader::new(vec![file_name.to_owned()], Vec::new());
        reader.report(place, fault);
        reader.into_errors()
    })
}

/// Refuses what is no text file before a parser sees it.
fn screen(text: &str) -> Result<(), (Place, Fault)> {
    if text.len() > MAX_FILE_BYTES {
        let (bytes, limit) = (text.len(), MAX_FILE_BYTES);
        return Err((Place::default(), Fault::Oversized { bytes, limit }));
    }
    if text.trim().is_empty() {
        return Err((Place::default(), Fault::Empty));
    }
    control(text).map_or(Ok(()), Err)
}

/// The first control character that no text file has, and its place.
fn control(text: &str) -> Option<(Place, Fault)> {
    let bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let (at, c) = text.char_indices().find(|(_, c)| bad(*c))?;
    let what = format!("control character U+{:04X}", u32::from(c));
    Some((end_of(&text[..at]), Fault::Binary { what }))
}

/// The place after a text.
fn end_of(text: &str) -> Place {
    let last = text.rsplit('\n').next().unwrap_or_default();
    let line = text.matches('\n').count() as u64 + 1;
    Place {
        line,
        column: last.chars().count() as u64 + 1,
        file: 0,
    }
}

#[cfg(test)]
mod tests;
