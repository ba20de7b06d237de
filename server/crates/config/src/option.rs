//! The machinery behind the table of options: one `section!` per section gives the struct, its
//! defaults, its reader, its rendering and its documentation.

use std::collections::{BTreeSet, HashMap};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::error::{ConfigError, Fault};
use crate::nearest::nearest;
use crate::node::{Content, Key, Node, Place};

/// Errors reported for one file; what follows is usually an echo.
const MAX_ERRORS: usize = 20;

/// One option as the reference and `--help` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// Dotted path: `limits.stanza_bytes`.
    pub path: String,
    /// Type in words: `whole number`.
    pub kind: String,
    /// Default as YAML in one line; `None` if the option is required.
    pub default: Option<String>,
    /// What is allowed, in words, where the type does not say it.
    pub allowed: Option<String>,
    /// What it does.
    pub doc: String,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(u64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(&'static str, Tree)>),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => s.serialize_unit(),
            Self::Bool(b) => s.serialize_bool(*b),
            Self::Int(i) => s.serialize_u64(*i),
            Self::Text(t) => s.serialize_str(t),
            Self::List(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Map(entries) => {
                let mut map = s.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl Tree {
    /// Puts a text at an option's path; nothing happens if there is no such option.
    pub(crate) fn set(&mut self, path: &str, text: &str) {
        let (name, rest) = match path.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let Self::Map(entries) = self else { return };
        let Some((_, value)) = entries.iter_mut().find(|(key, _)| *key == name) else {
            return;
        };
        match rest {
            Some(rest) => value.set(rest, text),
            None => *value = Self::Text(text.to_owned()),
        }
    }

    /// One line of YAML, for the reference.
    fn inline(&self) -> String {
        match self {
            Self::Null => "none".into(),
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Text(t) => format!("\"{t}\""),
            Self::List(l) => {
                let items: Vec<String> = l.iter().map(Self::inline).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(_) => String::new(),
        }
    }
}

/// A type that an option can have.
pub(crate) trait Setting: Sized {
    /// The type in words.
    fn kind() -> String;
    /// Reads a value; `None` after an error has been reported.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;
    /// The value as it is written.
    fn tree(&self) -> Tree;
    /// Adds the documentation of an option of this type.
    fn describe(doc: OptionDoc, out: &mut Vec<OptionDoc>) {
        out.push(doc);
    }
    /// The sections of a section, with what each is about.
    fn sections() -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// What a section is about; empty for other types.
    fn about() -> String {
        String::new()
    }
}

/// What a value must be beyond its type.
pub(crate) trait Rule<T> {
    fn check(&self, value: &T) -> Result<(), Fault>;
    fn allowed(&self) -> String;
}

/// Reads one document: knows its files and where in the tree it is, and collects errors.
pub(crate) struct Reader {
    files: Vec<String>,
    path: Vec<String>,
    errors: Vec<ConfigError>,
    /// Where each option stood, for checks that concern several.
    places: HashMap<String, Place>,
    /// The paths of all options, for hints across sections.
    known: Vec<String>,
}

impl Reader {
    pub(crate) fn new(files: Vec<String>, known: Vec<String>) -> Self {
        let (path, errors, places) = (Vec::new(), Vec::new(), HashMap::new());
        Self {
            files,
            path,
            errors,
            places,
            known,
        }
    }

    pub(crate) fn report(&mut self, place: Place, fault: Fault) {
        let path = self.path();
        self.report_at(place, path, fault);
    }

    /// Reports a fault of an option found by a check of the whole.
    pub(crate) fn report_option(&mut self, path: &str, reason: impl Into<String>) {
        let place = self.places.get(path).copied().unwrap_or_default();
        self.report_at(
            place,
            path.to_owned(),
            Fault::Invalid {
                reason: reason.into(),
            },
        );
    }

    fn report_at(&mut self, place: Place, path: String, fault: Fault) {
        if self.errors.len() < MAX_ERRORS {
            let (line, column) = (place.line, place.column);
            let file = self.files.get(place.file).cloned().unwrap_or_default();
            self.errors.push(ConfigError {
                file,
                line,
                column,
                path,
                fault,
            });
        }
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, expected: impl Into<String>) {
        let (expected, found) = (expected.into(), node.found());
        self.report(node.place, Fault::WrongType { expected, found });
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The paths of the options and sections that the file gave.
    pub(crate) fn given(&self) -> BTreeSet<String> {
        self.places.keys().cloned().collect()
    }

    /// The errors in the order of the files.
    pub(crate) fn into_errors(mut self) -> Vec<ConfigError> {
        let files = self.files;
        let nth = |e: &ConfigError| files.iter().position(|file| *file == e.file);
        self.errors.sort_by_key(|e| (nth(e), e.line, e.column));
        self.errors
    }

    pub(crate) fn rule<T>(&mut self, rule: &impl Rule<T>, value: &T, node: &Node) -> bool {
        let checked = rule.check(value);
        let ok = checked.is_ok();
        if let Err(fault) = checked {
            self.report(node.place, fault);
        }
        ok
    }

    /// Runs `read` with `segment` appended to the path.
    pub(crate) fn within<T>(&mut self, segment: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment.to_owned());
        let out = read(self);
        self.path.pop();
        out
    }

    /// The keys of a section, each known and once; everything else is reported.
    pub(crate) fn section<'n>(
        &mut self,
        node: &'n Node,
        valid: &'static [&'static str],
        required: &[&str],
    ) -> Option<Vec<(&'n Key, &'n Node)>> {
        let entries = match &node.content {
            Content::Map(entries) => entries.as_slice(),
            Content::Null => &[],
            _ => {
                let some = valid.iter().take(3).copied().collect::<Vec<_>>().join(", ");
                self.wrong_type(node, format!("a section with options such as {some}"));
                return None;
            }
        };
        let mut seen: HashMap<&str, Place> = HashMap::new();
        let mut out = Vec::new();
        for (key, value) in entries {
            let first = seen.get(key.name.as_str()).copied();
            if let Some(Place { line, .. }) = first {
                let fault = Fault::Duplicate { first_line: line };
                self.within(&key.name, |r| r.report(key.place, fault));
            } else if valid.contains(&key.name.as_str()) {
                let path = self.within(&key.name, |r| r.path());
                self.places.insert(path, value.place);
                out.push((key, value));
            } else {
                self.unknown(key, valid);
            }
            seen.entry(&key.name).or_insert(key.place);
        }
        for name in required {
            if !seen.contains_key(name) {
                self.within(name, |r| r.report(node.place, Fault::Missing));
            }
        }
        Some(out)
    }

    fn unknown(&mut self, key: &Key, valid: &'static [&'static str]) {
        let here = self.path();
        let prefix = if here.is_empty() {
            String::new()
        } else {
            format!("{here}.")
        };
        let near = nearest(&key.name, valid.iter().copied())
            .map(|n| format!("{prefix}{n}"))
            .or_else(|| self.elsewhere(&key.name));
        let name = crate::node::excerpt(&key.name);
        let fault = Fault::Unknown {
            nearest: near,
            valid: valid.to_vec(),
        };
        self.within(&name, |r| r.report(key.place, fault));
    }

    /// An option of this very name in another section.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        self.known.iter().find(|path| last(path) == name).cloned()
    }

    fn path(&self) -> String {
        self.path.iter().fold(String::new(), |mut out, segment| {
            if !out.is_empty() && !segment.starts_with('[') {
                out.push('.');
            }
            out.push_str(segment);
            out
        })
    }
}

/// Declares a section: its struct and everything derived from the table of its options.
///
/// Each line is `/// doc`, `name: Type = default`, and optionally `, rule`. Options named in
/// `requires [..]` must be given.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident $(requires [$($required:ident),+])? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $ty:ty = $default:expr $(, $rule:expr)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $ty, )+
        }

        impl $name {
            pub(crate) const KEYS: &'static [&'static str] = &[$(stringify!($field)),+];
            const REQUIRED: &'static [&'static str] = &[$($(stringify!($required)),+)?];

            /// What the section is about.
            pub(crate) const ABOUT: &'static [&'static str] = &[$($about),+];

            /// All defaults; required options are empty.
            pub(crate) fn initial() -> Self {
                Self { $($field: $default),+ }
            }

            /// The options of this section under `path`.
            pub(crate) fn describe_all(path: &str, out: &mut Vec<crate::OptionDoc>) {
                use crate::option::Setting;
                let initial = Self::initial();
                $(
                    let name = stringify!($field);
                    let path_of = if path.is_empty() { name.to_owned() }
                        else { format!("{path}.{name}") };
                    #[allow(unused_mut, unused_assignments)]
                    let mut allowed = None;
                    $( allowed = Some(crate::option::allowed::<$ty, _>(&$rule)); )?
                    let required = Self::REQUIRED.contains(&name);
                    let doc = crate::OptionDoc {
                        path: path_of,
                        kind: <$ty>::kind(),
                        default: (!required).then(|| crate::option::inline(&initial.$field)),
                        allowed,
                        doc: [$($doc.trim()),+].join(" "),
                    };
                    <$ty>::describe(doc, out);
                )+
            }
        }

        impl crate::option::Setting for $name {
            fn kind() -> String {
                "section".into()
            }

            fn read(node: &crate::node::Node, reader: &mut crate::option::Reader) -> Option<Self> {
                let mut out = Self::initial();
                for (key, value) in reader.section(node, Self::KEYS, Self::REQUIRED)? {
                    match key.name.as_str() {
                        $(
                            stringify!($field) => reader.within(&key.name, |r| {
                                if let Some(v) = <$ty>::read(value, r) {
                                    $( r.rule(&$rule, &v, value); )?
                                    out.$field = v;
                                }
                            }),
                        )+
                        _ => {}
                    }
                }
                Some(out)
            }

            fn tree(&self) -> crate::option::Tree {
                crate::option::Tree::Map(vec![
                    $( (stringify!($field), self.$field.tree()) ),+
                ])
            }

            fn describe(doc: crate::OptionDoc, out: &mut Vec<crate::OptionDoc>) {
                Self::describe_all(&doc.path, out);
            }

            fn sections() -> Vec<(&'static str, String)> {
                let all = [$( (stringify!($field), <$ty as crate::option::Setting>::about()) ),+];
                all.into_iter().filter(|(_, about)| !about.is_empty()).collect()
            }

            fn about() -> String {
                Self::ABOUT.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }
        }
    };
}
pub(crate) use section;

/// The words for what `rule` allows a `T` to be.
pub(crate) fn allowed<T, R: Rule<T>>(rule: &R) -> String {
    rule.allowed()
}

/// A default as one line of YAML.
pub(crate) fn inline<T: Setting>(value: &T) -> String {
    value.tree().inline()
}
