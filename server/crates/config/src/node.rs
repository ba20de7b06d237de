//! YAML text to a tree whose every key and value knows its line and column. The only module
//! that knows the YAML parser.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Error as YamlError, Location, Spanned};

use crate::error::Fault;

/// Nesting of a configuration file: sections in lists in sections stay below 6.
const MAX_DEPTH: usize = 16;
/// Values in a configuration file. 64 domains with a certificate each have fewer than 600.
const MAX_NODES: usize = 20_000;
/// Aliases in a file; each repeats one anchor.
const MAX_ALIASES: usize = 64;
/// Parser events that all aliases together may repeat.
const MAX_REPLAYED: usize = 4_096;

/// A place in a file; 0:0 is "the file as a whole".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: u64,
    /// In characters, counted from 1.
    pub column: u64,
    /// Which of the files of a [`crate::Document`].
    pub file: usize,
}

impl From<Location> for Place {
    fn from(l: Location) -> Self {
        Self {
            line: l.line(),
            column: l.column(),
            file: 0,
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// What stands at a place of a YAML file.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing.
    Null,
    /// `true` or `false`, no other words.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// A text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file; a key may stand twice.
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// Its text.
    pub name: String,
}

impl Node {
    /// Parses one YAML document. An empty text is [`Content::Null`].
    pub(crate) fn parse(text: &str) -> Result<Self, (Place, Fault)> {
        let spanned: Spanned<Raw> =
            serde_yaml::from_str_with_options(text, options()).map_err(|e| fault(&e))?;
        Ok(spanned.into())
    }

    /// Maps every place in the tree.
    pub(crate) fn move_by(&mut self, shift: &impl Fn(Place) -> Place) {
        self.place = shift(self.place);
        match &mut self.content {
            Content::List(items) => items.iter_mut().for_each(|n| n.move_by(shift)),
            Content::Map(entries) => {
                for (key, node) in entries {
                    key.place = shift(key.place);
                    node.move_by(shift);
                }
            }
            _ => {}
        }
    }

    /// What stands here, in words for a message.
    pub fn found(&self) -> String {
        match &self.content {
            Content::Null => "nothing".into(),
            Content::Bool(b) => format!("the truth value `{b}`"),
            Content::Int(i) => format!("the number {i}"),
            Content::Float(f) => format!("the number {f}"),
            Content::Text(t) => format!("the text `{}`", excerpt(t)),
            Content::List(_) => "a list".into(),
            Content::Map(_) => "a section".into(),
        }
    }
}

/// At most 60 characters of a text, on one line.
pub fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out.replace("\\'", "'").replace("\\\"", "\"")
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 4,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_REPLAYED * 4,
            max_documents: 1,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: MAX_DEPTH,
            max_alias_expansions_per_anchor: MAX_ALIASES,
        },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_yaml::MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn fault(error: &YamlError) -> (Place, Fault) {
    let place = error.location().map_or_else(Place::default, Place::from);
    let fault = match error {
        YamlError::AliasError { error, .. } => return fault_at(place, error),
        other => classify(other),
    };
    (place, fault)
}

fn fault_at(place: Place, error: &YamlError) -> (Place, Fault) {
    (place, classify(error))
}

fn classify(error: &YamlError) -> Fault {
    let reason = match error {
        YamlError::AliasReplayCounterOverflow { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. }
        | YamlError::RecursiveReferencesRequireWeakTypes { .. } => {
            "aliases that repeat without bound"
        }
        YamlError::Budget { breach, .. } => return budget(breach),
        other => {
            let reason = one_line(&other.to_string());
            // The parser's own bound on `[[[[` has no variant.
            if reason.contains("recursion limit") {
                return too_deep();
            }
            return Fault::Syntax { reason };
        }
    };
    Fault::Bomb {
        reason: reason.into(),
    }
}

fn budget(breach: &serde_yaml::budget::BudgetBreach) -> Fault {
    use serde_yaml::budget::BudgetBreach as B;
    let reason = match breach {
        B::Depth { .. } => return too_deep(),
        B::Aliases { .. }
        | B::Anchors { .. }
        | B::AliasAnchorRatio { .. }
        | B::RecordedAnchorEvents { .. }
        | B::RecordedAnchorBytes { .. } => "aliases that repeat without bound".into(),
        B::Documents { .. } => {
            return Fault::Syntax {
                reason: "more than one document (`---`)".into(),
            };
        }
        _ => format!("more than {MAX_NODES} values"),
    };
    Fault::Bomb { reason }
}

fn too_deep() -> Fault {
    Fault::Bomb {
        reason: format!("nested deeper than {MAX_DEPTH}"),
    }
}

/// The parser's message without its own idea of the place, on one line.
fn one_line(message: &str) -> String {
    let first = message
        .lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or(message)
        .trim();
    let cut = first.rfind(" at line ").filter(|i| first[*i..].len() < 60);
    let text = cut.map_or(first, |i| &first[..i]);
    excerpt_long(text)
}

fn excerpt_long(text: &str) -> String {
    text.chars().take(300).filter(|c| !c.is_control()).collect()
}

/// The tree as serde sees it.
enum Raw {
    Scalar(Content),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl From<Spanned<Raw>> for Node {
    fn from(s: Spanned<Raw>) -> Self {
        let content = match s.value {
            Raw::Scalar(c) => c,
            Raw::List(items) => Content::List(items.into_iter().map(Into::into).collect()),
            Raw::Map(entries) => Content::Map(
                entries
                    .into_iter()
                    .map(|(k, v)| {
                        (
                            Key {
                                place: k.referenced.into(),
                                name: k.value,
                            },
                            v.into(),
                        )
                    })
                    .collect(),
            ),
        };
        Self {
            place: s.referenced.into(),
            content,
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Bool(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Int(v.into())))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Int(v.into())))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Float(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Text(v.to_owned())))
    }

    fn visit_string<E>(self, v: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Text(v)))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Raw, D::Error> {
        Raw::deserialize(d)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
