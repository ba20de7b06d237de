//! A configuration's text as a tree that can still be changed before it is read: options laid
//! over it, and values put in that stand elsewhere.

use std::collections::BTreeSet;

use crate::error::{ConfigError, Fault};
use crate::node::{Content, Node, Place};
use crate::option::{OptionDoc, Reader, Setting};
use crate::{Config, Given, assignments, screen};

/// A text that was parsed and not read yet.
#[derive(Clone, Debug)]
pub struct Document {
    /// The names of the files that its parts came from.
    files: Vec<String>,
    node: Node,
    /// Values that were put in: where, and the name that stands for each in errors.
    put: Vec<(Place, String)>,
}

/// A text that stands somewhere as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextValue {
    /// The option's path: `tls.certificates[0].key`.
    pub path: String,
    /// The text.
    pub text: String,
    /// The name of its file.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// Its column in characters, from 1.
    pub column: u64,
}

impl TextValue {
    /// An error at this place.
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        let reason = reason.into();
        ConfigError {
            file: self.file.clone(),
            line: self.line,
            column: self.column,
            path: self.path.clone(),
            fault: Fault::Invalid { reason },
        }
    }
}

type Parser = fn(&str, &[OptionDoc]) -> Result<Node, (Place, Fault)>;

impl Document {
    /// Parses a YAML text. `file` stands in the errors only.
    ///
    /// # Errors
    /// What is no YAML.
    pub fn yaml(text: &str, file: &str) -> Result<Self, Vec<ConfigError>> {
        Self::parse(text, file, |text, _| Node::parse(text))
    }

    /// Parses `key=value` lines.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn assignments(text: &str, file: &str) -> Result<Self, Vec<ConfigError>> {
        Self::parse(text, file, assignments::tree)
    }

    /// A tree that was made elsewhere.
    pub fn from_tree(node: Node, file: &str) -> Self {
        Self {
            files: vec![file.to_owned()],
            node,
            put: Vec::new(),
        }
    }

    fn parse(text: &str, file: &str, parser: Parser) -> Result<Self, Vec<ConfigError>> {
        let files = vec![file.to_owned()];
        let parsed = screen(text).and_then(|()| parser(text, &Config::options()));
        match parsed {
            Ok(node) => Ok(Self::from_tree(node, file)),
            Err((place, fault)) => {
                let mut reader = Reader::new(files, Vec::new());
                reader.report(place, fault);
                Err(reader.into_errors())
            }
        }
    }

    /// Lays another document's options over this one's: what both give, the other one gives.
    pub fn overlay(&mut self, mut over: Self) {
        let before = self.files.len();
        let shift = |place: Place| Place {
            file: place.file + before,
            ..place
        };
        over.node.move_by(&shift);
        self.files.append(&mut over.files);
        let put = over.put.into_iter();
        self.put
            .extend(put.map(|(place, name)| (shift(place), name)));
        lay(&mut self.node, over.node);
    }

    /// Every text that stands as a value, in the order of the file.
    pub fn texts(&self) -> Vec<TextValue> {
        let mut out = Vec::new();
        self.collect(&self.node, "", &mut out);
        out
    }

    fn collect(&self, node: &Node, path: &str, out: &mut Vec<TextValue>) {
        match &node.content {
            Content::Text(text) => out.push(self.text_value(node.place, path, text)),
            Content::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.collect(item, &format!("{path}[{i}]"), out);
                }
            }
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.collect(value, &below(path, &key.name), out);
                }
            }
            _ => {}
        }
    }

    fn text_value(&self, place: Place, path: &str, text: &str) -> TextValue {
        TextValue {
            path: path.to_owned(),
            text: text.to_owned(),
            file: self.files.get(place.file).cloned().unwrap_or_default(),
            line: place.line,
            column: place.column,
        }
    }

    /// Puts values where texts stand that mean them. A value is written as in a `key=value` line:
    /// texts without quotes, lists with commas; several of them may stand for one element of a
    /// list. An error of the value names its place and `text`, never the value itself.
    ///
    /// # Errors
    /// Values that their options cannot take.
    pub fn put(
        &mut self,
        value_of: &dyn Fn(&TextValue) -> Option<String>,
    ) -> Result<(), Vec<ConfigError>> {
        let options = Config::options();
        let mut put = Put {
            document: &*self,
            options: &options,
            value_of,
            put: Vec::new(),
            errors: Vec::new(),
        };
        let node = put.node(&self.node, "");
        let (done, errors) = (put.put, put.errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        self.put.extend(done);
        self.node = node;
        Ok(())
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn read(&self) -> Result<Given, Vec<ConfigError>> {
        let known = Config::options().into_iter().map(|o| o.path).collect();
        let mut reader = Reader::new(self.files.clone(), known);
        let config = match self.node.content {
            Content::Null => {
                reader.report(Place::default(), Fault::Empty);
                None
            }
            _ => Config::read(&self.node, &mut reader),
        };
        if let Some(config) = config
            && !reader.has_errors()
        {
            config.check(&mut reader);
            if !reader.has_errors() {
                let paths: BTreeSet<String> = reader.given();
                return Ok(Given { config, paths });
            }
        }
        let errors = reader.into_errors().into_iter();
        Err(errors.map(|error| self.hide(error)).collect())
    }

    /// An error without the value that was put in at its place.
    fn hide(&self, error: ConfigError) -> ConfigError {
        let file = |place: &Place| self.files.get(place.file) == Some(&error.file);
        let at = |place: &Place| (place.line, place.column) == (error.line, error.column);
        let found = self.put.iter().find(|(p, _)| at(p) && file(p));
        match found {
            Some((_, name)) => ConfigError {
                fault: error.fault.hiding(name),
                ..error
            },
            None => error,
        }
    }
}

/// The way to a name below a path.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn lay(base: &mut Node, over: Node) {
    match (&mut base.content, over.content) {
        (_, Content::Null) => {}
        (Content::Map(entries), Content::Map(others)) => {
            for (key, value) in others {
                match entries.iter_mut().find(|(k, _)| k.name == key.name) {
                    Some((_, existing)) if matches!(value.content, Content::Map(_)) => {
                        lay(existing, value);
                    }
                    Some(entry) => *entry = (key, value),
                    None => entries.push((key, value)),
                }
            }
        }
        (content, other) => {
            *content = other;
            base.place = over.place;
        }
    }
}

/// One pass that puts values in.
struct Put<'a> {
    document: &'a Document,
    options: &'a [OptionDoc],
    value_of: &'a dyn Fn(&TextValue) -> Option<String>,
    put: Vec<(Place, String)>,
    errors: Vec<ConfigError>,
}

impl Put<'_> {
    fn node(&mut self, node: &Node, path: &str) -> Node {
        let content = match &node.content {
            Content::Text(_) => return self.value(node, path),
            Content::List(items) => Content::List(self.items(items, path)),
            Content::Map(entries) => {
                let mut out = Vec::new();
                for (key, value) in entries {
                    out.push((key.clone(), self.node(value, &below(path, &key.name))));
                }
                Content::Map(out)
            }
            other => other.clone(),
        };
        Node {
            place: node.place,
            content,
        }
    }

    fn items(&mut self, items: &[Node], path: &str) -> Vec<Node> {
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let was_text = matches!(item.content, Content::Text(_));
            let new = self.node(item, &format!("{path}[{i}]"));
            match new.content {
                Content::List(several) if was_text => out.extend(several),
                content => out.push(Node {
                    place: new.place,
                    content,
                }),
            }
        }
        out
    }

    /// The value that a text stands for, else the text.
    fn value(&mut self, node: &Node, path: &str) -> Node {
        let Content::Text(text) = &node.content else {
            return node.clone();
        };
        let place = node.place;
        let stands = self.document.text_value(place, path, text);
        let Some(value) = (self.value_of)(&stands) else {
            return node.clone();
        };
        let plain = element_path(path);
        let options = self.options;
        let by_path = |path: &str| options.iter().find(|o| o.path == path);
        let option = by_path(&plain).or_else(|| by_path(plain.strip_suffix("[]")?));
        // A section cannot stand elsewhere: reading it names the text that stands here.
        let Some(option) = option else {
            return node.clone();
        };
        match assignments::node(value.trim(), place, Some(option)) {
            Ok(mut new) if !matches!(new.content, Content::Map(_)) => {
                new.move_by(&|_| place);
                self.put.push((place, text.clone()));
                new
            }
            _ => {
                let kind = &option.kind;
                let reason = format!("expected {kind}, found the value of `{text}`");
                self.errors.push(stands.error(reason));
                node.clone()
            }
        }
    }
}

/// A path as the table of options has it: `tls.certificates[0].key` is `tls.certificates[].key`.
fn element_path(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[ConfigError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn put(text: &str, values: &[(&str, &str)]) -> Result<Given, Vec<String>> {
        let mut document = Document::yaml(text, "f").unwrap();
        let value_of = |t: &TextValue| {
            let found = values.iter().find(|(name, _)| *name == t.text);
            found.map(|(_, value)| (*value).to_owned())
        };
        document.put(&value_of).map_err(|e| texts(&e))?;
        document.read().map_err(|e| texts(&e))
    }

    #[test]
    fn values_stand_elsewhere() {
        let text = "domains: [ref:a, example.net]\nlimits: {depth: ref:b}\n\
                    auth: {plain: ref:c, mechanisms: ref:d}\nstore: {prefix: ref:e}\n";
        let values = [
            ("ref:a", "example.com, example.org\n"),
            ("ref:b", "32"),
            ("ref:c", "true"),
            ("ref:d", "SCRAM-SHA-256,SCRAM-SHA-1"),
            ("ref:e", "012"),
        ];
        let given = put(text, &values).unwrap();
        let expected = "domain=example.com, example.org, example.net\nlimits.depth=32\n\
                        auth.plain=true\nauth.mechanisms=SCRAM-SHA-256,SCRAM-SHA-1\n\
                        store.prefix=012\n";
        let expected = Config::parse_assignments(expected, "f").unwrap();
        assert_eq!(given.config, expected);
        assert!(given.has("limits.depth"));
    }

    #[test]
    fn an_error_names_the_reference_and_not_the_value() {
        let base = "domains: [example.com]\n";
        for (text, value, expected) in [
            (
                "limits: {depth: ref:x}",
                "hunter2",
                "f:2:17: limits.depth: expected a whole number, found the value of `ref:x`",
            ),
            (
                "limits: {depth: ref:x}",
                "99999",
                "f:2:17: limits.depth: the value of `ref:x` is out of range; \
                 allowed are 8 to 512",
            ),
            (
                "limits: {depth: ref:x}",
                "[hunter2",
                "f:2:17: limits.depth: expected whole number, found the value of `ref:x`",
            ),
            (
                "log: {level: ref:x}",
                "hunter2",
                "f:2:14: log.level: the value of `ref:x` is not one of error, warn, info, \
                 debug, trace",
            ),
            (
                "listen: {c2s: [ref:x]}",
                "hunter2",
                "f:2:16: listen.c2s[0]: expected an address and port such as `[::]:5222` or \
                 `:5222`, found the value of `ref:x`",
            ),
            (
                "store: {prefix: ref:x}",
                "hunter 2",
                "f:2:17: store.prefix: the value of `ref:x` is not what this option takes",
            ),
            (
                "limits: ref:x",
                "depth: 3",
                "f:2:9: limits: expected a section with options such as stanza_bytes, \
                 unauthenticated_stanza_bytes, header_bytes, found the text `ref:x`",
            ),
        ] {
            let said = put(&format!("{base}{text}\n"), &[("ref:x", value)]).unwrap_err();
            assert_eq!(said, [expected], "{text}");
        }
    }

    #[test]
    fn one_document_over_another() {
        let yaml = "domains: [example.com]\nlimits:\n  depth: 32\n  attributes: 16\n";
        let mut document = Document::yaml(yaml, "base").unwrap();
        let over = "limits.depth=64\nlog.level=debug\n# comment\nlog.format=ref:f\n";
        document.overlay(Document::assignments(over, "over").unwrap());
        let at = document.texts().pop().unwrap();
        assert_eq!(
            (at.path.as_str(), at.file.as_str(), at.line, at.column),
            ("log.format", "over", 4, 12)
        );
        let said = texts(&document.read().unwrap_err());
        assert!(said[0].starts_with("over:4:12: log.format: `ref:f` is not one of"));
        let only = |t: &TextValue| (t.text == "ref:f").then(|| "json".to_owned());
        document.put(&only).unwrap();
        let config = document.read().unwrap().config;
        assert_eq!((config.limits.depth, config.limits.attributes), (64, 16));
        assert_eq!(config.log.format, crate::LogFormat::Json);
        let empty = Document::assignments("# nothing\n", "over").unwrap();
        let before = document.read();
        document.overlay(empty);
        assert_eq!(document.read(), before);
    }

    #[test]
    fn faults_of_both_files_are_told_in_order() {
        let mut document =
            Document::yaml("domains: [a.example]\nlimits: {depth: 1}\n", "b").unwrap();
        document.overlay(Document::assignments("\nlimits.attributes=0\n", "o").unwrap());
        let said = texts(&document.read().unwrap_err());
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("b:2:17: limits.depth:"), "{said:?}");
        assert!(
            said[1].starts_with("o:2:19: limits.attributes:"),
            "{said:?}"
        );
    }
}
