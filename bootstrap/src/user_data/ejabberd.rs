//! A whole ejabberd.yml as a configuration of Cirrus.
//!
//! What has a counterpart is taken over; every other option gets a note with its line, so nothing
//! is dropped in silence. What Cirrus is stricter about stays as strict: an option never makes it
//! weaker. Errors have ejabberd's places and Cirrus's names of options.

mod certificates;
mod duration;
mod hosts;
mod listen;
mod macros;
mod modules;
mod options;
mod pattern;
mod rules;

use cirrus_config::{ConfigError, Content, Document, Fault, Given, Key, Node, Place, parse_yaml};

pub(crate) use certificates::{CertFile, take_certificates};
use rules::Rules;

use super::{Make, Note, UserDataError};

/// Keys at the top of Cirrus's own configuration that ejabberd does not have.
const OURS: [&str; 12] = [
    "store",
    "tls",
    "auth",
    "registration",
    "limits",
    "stream_management",
    "archive",
    "drain",
    "cluster",
    "rebalance",
    "log",
    "process",
];

/// How often a value out of range is put into it: each time for another option.
const MAX_MENDED: usize = 64;

/// What came of an ejabberd.yml.
pub(super) struct Translated {
    pub(super) given: Given,
    pub(super) notes: Vec<Note>,
    pub(super) certfiles: Vec<CertFile>,
}

/// Translates an ejabberd.yml.
///
/// # Errors
/// No YAML, no hosts, a value that makes no sense, or another file that it includes.
pub(super) fn translate(
    text: &str,
    file: &str,
    make: Make<'_>,
) -> Result<Translated, UserDataError> {
    let root = parse_yaml(text, file).map_err(UserDataError::Config)?;
    let fault = |place: Place, path: &str, fault: Fault| {
        UserDataError::Config(vec![ConfigError {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            fault,
        }])
    };
    for (key, _) in map(&root) {
        if key.name == "include_config_file" {
            let (file, line) = (
                file.to_owned(),
                usize::try_from(key.place.line).unwrap_or(0),
            );
            let form = "`include_config_file`: another file does not come with the user-data, so \
                        put its content here";
            return Err(UserDataError::Unsupported { file, line, form });
        }
        if OURS.contains(&key.name.as_str()) {
            let reason = "an option of Cirrus in an ejabberd configuration; in a configuration of \
                          Cirrus, `hosts` is `domains`";
            let reason = reason.to_owned();
            return Err(fault(key.place, &key.name, Fault::Invalid { reason }));
        }
    }
    let mut draft = Draft::new(file);
    let root = macros::expand(&root, &mut draft)
        .map_err(|(place, reason)| fault(place, "define_macro", Fault::Bomb { reason }))?;
    if !map(&root).iter().any(|(key, _)| key.name == "hosts") {
        return Err(fault(Place::default(), "hosts", Fault::Missing));
    }
    let mut rules = Rules::new(&root);
    options::translate(&mut draft, &root, &mut rules);
    rules.note_unused(&mut draft);
    draft.finish(make).map_err(UserDataError::Config)
}

/// A configuration in the making.
struct Draft {
    file: String,
    notes: Vec<(Place, String)>,
    /// Options of Cirrus and their values, at the places that they come from.
    settings: Vec<(&'static str, Node)>,
    certfiles: Vec<CertFile>,
    /// A listener that does not let everybody in.
    closed: Option<(Place, String)>,
}

impl Draft {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            notes: Vec::new(),
            settings: Vec::new(),
            certfiles: Vec::new(),
            closed: None,
        }
    }

    /// Says something about an option of ejabberd.
    fn note(&mut self, place: Place, path: &str, what: &str) {
        self.notes.push((place, format!("{path}: {what}")));
    }

    /// Says that an option has no counterpart. Options inside of it are named with it.
    fn no_counterpart(&mut self, place: Place, path: &str, node: &Node, why: &str) {
        let inner: Vec<&str> = map(node).iter().map(|(k, _)| k.name.as_str()).collect();
        let path = if inner.is_empty() {
            path.to_owned()
        } else {
            format!("{path} ({})", inner.join(", "))
        };
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        self.note(place, &path, &format!("no counterpart{why}"));
    }

    /// Takes an option over. The first value of an option holds.
    fn set(&mut self, option: &'static str, place: Place, content: Content) {
        let found = self.settings.iter().find(|(name, _)| *name == option);
        let Some((_, first)) = found else {
            self.settings.push((option, Node { place, content }));
            return;
        };
        if first.content != content {
            let what = format!("not taken over: line {} gives it already", first.place.line);
            self.note(place, option, &what);
        }
    }

    /// The option as it is set.
    fn get(&self, option: &str) -> Option<&Node> {
        let found = self.settings.iter().find(|(name, _)| *name == option);
        found.map(|(_, node)| node)
    }

    /// Sets an option whatever it was before.
    fn replace(&mut self, option: &'static str, place: Place, content: Content) {
        self.settings.retain(|(name, _)| *name != option);
        self.settings.push((option, Node { place, content }));
    }

    /// Denies new accounts, if they are allowed so far.
    fn deny_registration(&mut self, place: Place, path: &str, why: &str) {
        const OPTION: &str = "registration.enabled";
        if self
            .get(OPTION)
            .is_some_and(|node| node.content == Content::Bool(true))
        {
            self.replace(OPTION, place, Content::Bool(false));
            self.note(place, path, &format!("{why}, so registration is off"));
        }
    }

    /// Reads the settings. A number outside of its range becomes the nearest inside.
    fn finish(mut self, make: Make<'_>) -> Result<Translated, Vec<ConfigError>> {
        for _ in 0..MAX_MENDED {
            let errors = match make(Document::from_tree(self.tree(), &self.file)) {
                Ok(given) => return Ok(self.translated(given)),
                Err(errors) => errors,
            };
            if !self.mend(&errors) {
                return Err(errors);
            }
        }
        make(Document::from_tree(self.tree(), &self.file)).map(|given| self.translated(given))
    }

    /// Whether a value was put into its range.
    fn mend(&mut self, errors: &[ConfigError]) -> bool {
        let range = |e: &ConfigError| match &e.fault {
            Fault::OutOfRange { allowed, .. } => {
                let (least, most) = allowed.split_once(" to ")?;
                Some((least.parse::<i128>().ok()?, most.parse::<i128>().ok()?))
            }
            _ => None,
        };
        let mut mended = false;
        for error in errors {
            let Some((least, most)) = range(error) else {
                continue;
            };
            let found = self.settings.iter_mut().find(|(o, _)| *o == error.path);
            let Some((option, node)) = found else {
                continue;
            };
            let Content::Int(value) = node.content else {
                continue;
            };
            let taken = value.clamp(least, most);
            let what = format!("{value} is out of range ({least} to {most}): {taken} is taken");
            node.content = Content::Int(taken);
            let (option, place) = (*option, node.place);
            self.note(place, option, &what);
            mended = true;
        }
        mended
    }

    /// The settings as a file of Cirrus would have them.
    fn tree(&self) -> Node {
        let mut root: Vec<(Key, Node)> = Vec::new();
        let key = |name: &str, place| (place, name.to_owned());
        for (option, node) in &self.settings {
            let Some((section, name)) = option.split_once('.') else {
                let (place, name) = key(option, node.place);
                root.push((Key { place, name }, node.clone()));
                continue;
            };
            let (place, name) = key(name, node.place);
            let entry = (Key { place, name }, node.clone());
            let found = root.iter_mut().find(|(key, _)| key.name == section);
            if let Some((
                _,
                Node {
                    content: Content::Map(entries),
                    ..
                },
            )) = found
            {
                entries.push(entry);
                continue;
            }
            let content = Content::Map(vec![entry]);
            let (place, name) = key(section, node.place);
            root.push((Key { place, name }, Node { place, content }));
        }
        let content = Content::Map(root);
        let place = Place {
            line: 1,
            column: 1,
            file: 0,
        };
        Node { place, content }
    }

    fn translated(&mut self, given: Given) -> Translated {
        let mut notes = std::mem::take(&mut self.notes);
        notes.sort_by_key(|(place, _)| (place.line, place.column));
        let file = &self.file;
        let note = |(place, text): (Place, String)| Note::new(file, place.line, text);
        Translated {
            given,
            notes: notes.into_iter().map(note).collect(),
            certfiles: std::mem::take(&mut self.certfiles),
        }
    }
}

/// The entries of a section; none of anything else.
fn map(node: &Node) -> &[(Key, Node)] {
    match &node.content {
        Content::Map(entries) => entries,
        _ => &[],
    }
}

/// A list, or one value in its place, as ejabberd takes it.
fn list(node: &Node) -> Vec<&Node> {
    match &node.content {
        Content::List(items) => items.iter().collect(),
        Content::Null => Vec::new(),
        _ => vec![node],
    }
}

/// A scalar as text.
fn text(node: &Node) -> Option<String> {
    match &node.content {
        Content::Text(t) => Some(t.clone()),
        Content::Int(i) => Some(i.to_string()),
        Content::Bool(b) => Some(b.to_string()),
        Content::Float(f) => Some(f.to_string()),
        _ => None,
    }
}

/// A truth value, in the words that ejabberd takes.
fn truth(node: &Node) -> Option<bool> {
    match text(node)?.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

fn number(value: u64) -> Content {
    Content::Int(value.into())
}

#[cfg(test)]
mod tests;
