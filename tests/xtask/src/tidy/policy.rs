//! The dependency policy of `deny.toml`, held without an installed tool.
//!
//! Installing cargo-deny takes longer than the whole of the linting, and a fresh machine has no
//! advisory database; so the licences, the banned crates, the sources and the number of crates are
//! checked here, from the same file. Advisories are cargo-deny's alone.

use std::collections::BTreeSet;

use super::Fault;

/// Crates in the server's tree, its own included. Each one has a reason.
pub const SERVER_CRATES: usize = 350;

/// What `deny.toml` says, as far as it is checked here.
#[derive(Debug, Default)]
pub struct Rules {
    /// SPDX names of allowed licences.
    pub licences: Vec<String>,
    /// Names of banned crates.
    pub banned: Vec<String>,
    /// Crates that may have another licence, by name.
    pub exceptions: Vec<String>,
}

/// What is compiled.
#[derive(Debug, Default)]
pub struct Tree {
    /// Every package of the workspace's graph.
    pub all: BTreeSet<Package>,
    /// The packages in the server's binary and its build.
    pub server: BTreeSet<Package>,
}

/// One line of `cargo tree --format '{p}|{l}'`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Name.
    pub name: String,
    /// The source in parentheses after the version; empty for the registry.
    pub source: String,
    /// SPDX expression.
    pub licence: String,
}

impl Rules {
    /// Reads the lists out of `deny.toml`: the quoted words of `allow` and `exceptions` under
    /// `[licenses]`, and the crates of `deny` under `[bans]`.
    #[must_use]
    pub fn parse(text: &str) -> Rules {
        let mut rules = Rules::default();
        let (mut section, mut list) = (String::new(), String::new());
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
        {
            if line.starts_with('[') && line.ends_with(']') && !line.contains('"') {
                section = line.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, _)) = line
                .split_once(" = [")
                .filter(|(key, _)| !key.contains(' '))
            {
                key.clone_into(&mut list);
            }
            let quoted = line.split('"').nth(1).map(str::to_owned);
            let named = line
                .split("crate = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            match (section.as_str(), list.as_str()) {
                ("licenses", "allow") => rules.licences.extend(quoted),
                ("licenses", "exceptions") => rules.exceptions.extend(named.map(str::to_owned)),
                ("bans", "deny") => rules.banned.extend(named.map(str::to_owned)),
                _ => {}
            }
            if line == "]" || line.ends_with(" = []") {
                list.clear();
            }
        }
        rules
    }
}

/// The packages that `cargo tree` lists.
#[must_use]
pub fn packages(listing: &str) -> BTreeSet<Package> {
    let mut found = BTreeSet::new();
    for line in listing.lines() {
        let Some((package, licence)) = line.trim_end_matches(" (*)").split_once('|') else {
            continue;
        };
        let name = package.split(' ').next().unwrap_or_default();
        let marks = package
            .split('(')
            .skip(1)
            .map(|mark| mark.trim_end().trim_end_matches(')'));
        let source = marks
            .filter(|mark| *mark != "proc-macro")
            .collect::<Vec<_>>()
            .join(" ");
        found.insert(Package {
            name: name.to_owned(),
            source,
            licence: licence.to_owned(),
        });
    }
    found
}

/// The faults of a tree under the rules.
#[must_use]
pub fn check(rules: &Rules, tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    if rules.licences.is_empty() || rules.banned.is_empty() {
        faults.push(Fault::of(
            "deny.toml",
            "no list of licences or of banned crates found",
        ));
    }
    for Package {
        name,
        source,
        licence,
    } in &tree.all
    {
        if rules.banned.contains(name) {
            faults.push(Fault::of(name, "is banned by deny.toml"));
        }
        if !rules.exceptions.contains(name) && !allows(&rules.licences, licence) {
            faults.push(Fault::of(
                name,
                format!("its licence `{licence}` is not allowed"),
            ));
        }
        if !source.is_empty() && !source.starts_with('/') {
            faults.push(Fault::of(
                name,
                format!("comes from {source}, not from crates.io"),
            ));
        }
    }
    let crates = tree.server.len();
    if crates >= SERVER_CRATES {
        let what = format!("{crates} crates in its tree; fewer than {SERVER_CRATES} allowed");
        faults.push(Fault::of("cirrus-server", what));
    }
    faults
}

/// Whether an SPDX expression can be met with the allowed licences alone. `/` is the old way to
/// write OR.
fn allows(allowed: &[String], expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Expression {
        words: &words,
        allowed,
    };
    let met = parser.any();
    met && parser.words.is_empty()
}

struct Expression<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl<'a> Expression<'a> {
    fn any(&mut self) -> bool {
        let mut met = self.all();
        while self.take("OR") {
            met |= self.all();
        }
        met
    }

    fn all(&mut self) -> bool {
        let mut met = self.one();
        while self.take("AND") {
            met &= self.one();
        }
        met
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let met = self.any();
            return self.take(")") && met;
        }
        let Some(licence) = self.next() else {
            return false;
        };
        if self.take("WITH") {
            let exception = self.next().unwrap_or_default();
            let whole = format!("{licence} WITH {exception}");
            return self.allowed.contains(&whole);
        }
        self.allowed.iter().any(|allowed| allowed == licence)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
[licenses]
# "GPL-3.0" is a comment
allow = [
  "MIT",
  "Apache-2.0",
  "Apache-2.0 WITH LLVM-exception",
]
exceptions = [
  { allow = ["MPL-2.0"], crate = "oracle" },
]
[bans]
deny = [
  { crate = "openssl", reason = "one stack" },
]
[sources]
allow-git = []
"#;

    fn check_tree(listing: &str) -> Vec<String> {
        let tree = Tree {
            all: packages(listing),
            server: BTreeSet::new(),
        };
        check(&Rules::parse(DENY), &tree)
            .iter()
            .map(Fault::to_string)
            .collect()
    }

    #[test]
    fn the_lists_are_read_from_the_file() {
        let rules = Rules::parse(DENY);
        assert_eq!(
            rules.licences,
            ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        );
        assert_eq!(rules.exceptions, ["oracle"]);
        assert_eq!(rules.banned, ["openssl"]);
        assert_eq!(check(&Rules::parse(""), &Tree::default()).len(), 1);
    }

    #[test]
    fn spdx_expressions_are_weighed() {
        let allowed = Rules::parse(DENY).licences;
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0 OR (MIT AND Apache-2.0)",
        ] {
            assert!(allows(&allowed, good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT WITH Odd-exception",
            "(MIT",
            "MIT MIT",
            "(MIT OR Apache-2.0) AND GPL-3.0",
        ] {
            assert!(!allows(&allowed, bad), "{bad}");
        }
    }

    #[test]
    fn a_licence_a_ban_and_a_source_are_faults() {
        assert_eq!(
            check_tree("serde v1.0.0|MIT OR Apache-2.0\nserde v1.0.0|MIT (*)"),
            [""; 0]
        );
        assert_eq!(
            check_tree("cirrus-jid v0.1.0 (/srv/cirrus/jid)|MIT"),
            [""; 0]
        );
        assert_eq!(
            check_tree("thiserror-impl v2.0.0 (proc-macro)|MIT"),
            [""; 0]
        );
        assert_eq!(check_tree("oracle v1.0.0|MPL-2.0"), [""; 0]);
        assert_eq!(
            check_tree("x v1.0.0|MPL-2.0"),
            ["x: its licence `MPL-2.0` is not allowed"]
        );
        assert_eq!(
            check_tree("openssl v1.0.0|MIT"),
            ["openssl: is banned by deny.toml"]
        );
        let git = check_tree("y v1.0.0 (https://example.org/y#0f)|MIT");
        assert_eq!(
            git,
            ["y: comes from https://example.org/y#0f, not from crates.io"]
        );
    }

    #[test]
    fn the_server_s_tree_has_a_limit() {
        let listing: String = (0..SERVER_CRATES)
            .map(|n| format!("c{n} v1.0.0|MIT\n"))
            .collect();
        let tree = Tree {
            all: BTreeSet::new(),
            server: packages(&listing),
        };
        let faults = check(&Rules::parse(DENY), &tree);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].what.starts_with("350 crates"), "{faults:?}");
    }
}
