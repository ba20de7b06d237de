//! ACLs, access rules and shapers: what they come to for everybody.
//!
//! Cirrus has one answer for all users where ejabberd has one for each. So a rule is asked what it
//! says to everybody; what it says to some is an exception, and exceptions are noted.

use std::collections::BTreeSet;

use cirrus_config::{Content, Node, Place};

use super::{Draft, list, map, text};

/// Whom a condition matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    All,
    Nobody,
    Some,
}

/// What an access rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody may.
    Allowed,
    /// Nobody may.
    Denied,
    /// It depends on who asks.
    Depends,
}

/// A value of a rule, and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) value: String,
    pub(super) who: Who,
    pub(super) place: Place,
}

/// The sections that rules are in.
const SECTIONS: [&str; 4] = ["acl", "access_rules", "shaper", "shaper_rules"];

/// All rules of a file.
pub(super) struct Rules<'n> {
    root: &'n Node,
    /// Section and name of what was asked for.
    used: BTreeSet<(&'static str, String)>,
}

impl<'n> Rules<'n> {
    pub(super) fn new(root: &'n Node) -> Self {
        let used = BTreeSet::new();
        Self { root, used }
    }

    /// The definition of a name in a section.
    pub(super) fn find(&mut self, section: &'static str, name: &str) -> Option<&'n Node> {
        let sections = map(self.root).iter().filter(|(k, _)| k.name == section);
        let mut entries = sections.flat_map(|(_, node)| map(node));
        let found = entries
            .find(|(k, _)| k.name == name)
            .map(|(_, node)| node)?;
        self.used.insert((section, name.to_owned()));
        Some(found)
    }

    /// What an access rule says: its name, or the rule itself.
    pub(super) fn access(&mut self, node: &Node) -> Access {
        let outcomes = match text(node) {
            Some(name) => match name.as_str() {
                "all" | "allow" => return Access::Allowed,
                "none" | "deny" => return Access::Denied,
                name => match self.find("access_rules", name) {
                    Some(rule) => self.outcomes(rule),
                    None => return Access::Denied,
                },
            },
            None => self.outcomes(node),
        };
        let mut said: BTreeSet<&str> = outcomes.iter().map(|o| o.value.as_str()).collect();
        if outcomes.last().is_none_or(|o| o.who != Who::All) {
            said.insert("deny");
        }
        match (said.len(), said.first()) {
            (1, Some(&"allow")) => Access::Allowed,
            (1, _) => Access::Denied,
            _ => Access::Depends,
        }
    }

    /// What a shaper rule says: its name, a value, or the rule itself.
    pub(super) fn shaper(&mut self, node: &Node) -> Vec<Outcome> {
        let named = text(node).and_then(|name| self.find("shaper_rules", &name));
        self.outcomes(named.unwrap_or(node))
    }

    /// The values of a rule in order, as far as they can matter.
    fn outcomes(&mut self, rule: &Node) -> Vec<Outcome> {
        let mut out = Vec::new();
        let mut add = |value: String, who: Who, place: Place| {
            if who != Who::Nobody {
                out.push(Outcome { value, who, place });
            }
            who == Who::All
        };
        for item in list(rule) {
            if let Some(value) = text(item) {
                // Without a condition it is for all.
                if add(value, Who::All, item.place) {
                    break;
                }
                continue;
            }
            let mut ended = false;
            for (key, condition) in map(item) {
                let who = self.condition(condition);
                ended = ended || add(key.name.clone(), who, key.place);
            }
            if ended {
                break;
            }
        }
        let all = out.iter().position(|o| o.who == Who::All);
        out.truncate(all.map_or(out.len(), |i| i + 1));
        out
    }

    /// A condition: the name of an ACL, or several things that must all hold.
    fn condition(&mut self, node: &Node) -> Who {
        if let Some(name) = text(node) {
            return self.acl(&name);
        }
        let mut out = Who::All;
        for item in list(node) {
            let each: Vec<Who> = match text(item) {
                Some(name) => vec![self.acl(&name)],
                None => map(item)
                    .iter()
                    .map(|(key, value)| self.matches(&key.name, value))
                    .collect(),
            };
            for who in each {
                out = match (out, who) {
                    (Who::Nobody, _) | (_, Who::Nobody) => Who::Nobody,
                    (Who::All, who) => who,
                    (Who::Some, _) => Who::Some,
                };
            }
        }
        out
    }

    /// Whom an ACL matches: any of its parts is enough.
    fn acl(&mut self, name: &str) -> Who {
        match name {
            "all" => return Who::All,
            "none" => return Who::Nobody,
            _ => {}
        }
        let Some(definition) = self.find("acl", name) else {
            return Who::Nobody;
        };
        let mut out = Who::Nobody;
        for item in list(definition) {
            let each: Vec<Who> = match text(item) {
                Some(word) if word == "all" => vec![Who::All],
                Some(_) => vec![Who::Some],
                // An ACL inside of an ACL could go round: it counts as some.
                None => map(item).iter().map(|(k, v)| simple(&k.name, v)).collect(),
            };
            for who in each {
                out = match (out, who) {
                    (Who::All, _) | (_, Who::All) => Who::All,
                    (Who::Nobody, who) => who,
                    (Who::Some, _) => Who::Some,
                };
            }
        }
        out
    }

    fn matches(&mut self, kind: &str, value: &Node) -> Who {
        match (kind, text(value)) {
            ("acl", Some(name)) => self.acl(&name),
            _ => simple(kind, value),
        }
    }

    /// Names the rules that nothing asked for.
    pub(super) fn note_unused(&self, draft: &mut Draft) {
        for (section, node) in map(self.root) {
            let Some(name) = SECTIONS.iter().find(|s| **s == section.name) else {
                continue;
            };
            for (key, _) in map(node) {
                if !self.used.contains(&(*name, key.name.clone())) {
                    let path = format!("{name}.{}", key.name);
                    let what = "no counterpart: nothing in Cirrus asks for it";
                    draft.note(key.place, &path, what);
                }
            }
            if map(node).is_empty() && !list(node).is_empty() {
                draft.note(section.place, name, "not understood");
            }
        }
    }
}

/// Whom `user: …`, `ip: …` and so on match. An empty name is nobody's, an empty pattern matches
/// every local user.
fn simple(kind: &str, value: &Node) -> Who {
    let values = list(value);
    let empty = |n: &&Node| matches!(&n.content, Content::Text(t) if t.is_empty());
    match kind {
        "all" => Who::All,
        "none" => Who::Nobody,
        "user_regexp" | "user_glob" if values.iter().any(empty) => Who::All,
        "user" if values.iter().all(empty) => Who::Nobody,
        _ if values.is_empty() => Who::Nobody,
        _ => Who::Some,
    }
}
