//! `define_macro` and `define_keyword`: names that stand for values.

use std::collections::{BTreeMap, BTreeSet};

use cirrus_config::{Content, Key, Node, Place};

use super::{Draft, map, text};

/// A macro may use another one; deeper than this they go round.
const MAX_DEPTH: usize = 8;
/// Values in all, after macros stand for what they mean.
const MAX_VALUES: usize = 20_000;

/// Puts the values of macros in their places. A value has the place where its name stood.
///
/// # Errors
/// The place where macros multiply without bound, or go round.
pub(super) fn expand(root: &Node, draft: &mut Draft) -> Result<Node, (Place, String)> {
    let mut expander = Expander {
        macros: BTreeMap::new(),
        used: BTreeSet::new(),
        values: 0,
    };
    // Where both define a name, the macro holds.
    for section in ["define_keyword", "define_macro"] {
        for (_, node) in map(root).iter().filter(|(key, _)| key.name == section) {
            for (name, value) in map(node) {
                expander.macros.insert(&name.name, (name.place, value));
            }
        }
    }
    let mut entries = Vec::new();
    for (key, node) in map(root) {
        if !matches!(key.name.as_str(), "define_macro" | "define_keyword") {
            entries.push((key.clone(), expander.node(node, 0)?));
        }
    }
    for (name, (place, _)) in &expander.macros {
        if !expander.used.contains(name) {
            draft.note(*place, &format!("define_macro.{name}"), "not used");
        }
    }
    let (place, content) = (root.place, Content::Map(entries));
    Ok(Node { place, content })
}

struct Expander<'n> {
    macros: BTreeMap<&'n str, (Place, &'n Node)>,
    used: BTreeSet<&'n str>,
    values: usize,
}

impl<'n> Expander<'n> {
    fn node(&mut self, node: &Node, depth: usize) -> Result<Node, (Place, String)> {
        let place = node.place;
        self.values += 1;
        if depth > MAX_DEPTH {
            return Err((place, "macros that use each other without end".to_owned()));
        }
        if self.values > MAX_VALUES {
            return Err((place, format!("macros make more than {MAX_VALUES} values")));
        }
        let content = match &node.content {
            Content::Text(t) => match self.get(t) {
                Some(value) => self.node(value, depth + 1)?.content,
                None => Content::Text(self.inside(t)),
            },
            Content::List(items) => {
                let items = items.iter().map(|item| self.node(item, depth));
                Content::List(items.collect::<Result<_, _>>()?)
            }
            Content::Map(entries) => {
                let entry = |(key, value): &(Key, Node)| {
                    let value = self.node(value, depth)?;
                    Ok((key.clone(), value))
                };
                Content::Map(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            other => other.clone(),
        };
        Ok(Node { place, content })
    }

    fn get(&mut self, name: &str) -> Option<&'n Node> {
        let (name, (_, value)) = self.macros.get_key_value(name)?;
        self.used.insert(name);
        Some(value)
    }

    /// `@NAME@` inside of a text. Names that nobody defined stay: `@HOST@` is ejabberd's own.
    fn inside(&mut self, given: &str) -> String {
        let mut out = String::new();
        let mut rest = given;
        while let Some((before, after)) = rest.split_once('@') {
            out.push_str(before);
            let named = after.split_once('@').and_then(|(name, tail)| {
                let value = text(self.get(name)?)?;
                Some((value, tail))
            });
            match named {
                Some((value, tail)) => {
                    out.push_str(&value);
                    rest = tail;
                }
                None => {
                    out.push('@');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}
