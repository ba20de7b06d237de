//! The reference of all options as a document.

use std::fmt::Write;

use crate::option::Setting;
use crate::{Config, OptionDoc};

/// docs/CONFIGURATION.md: every option with type, default, range and what it does.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    let mut section = "";
    let options = Config::options();
    for option in &options {
        let name = option
            .path
            .split_once('.')
            .map_or("", |(section, _)| section);
        if name != section {
            let about = about(name);
            // Writing to a String cannot fail.
            let _ = write!(out, "\n## {name}\n\n{about}\n");
            section = name;
        }
        entry(option, &mut out);
    }
    out
}

fn entry(option: &OptionDoc, out: &mut String) {
    let default = match &option.default {
        Some(default) => format!("default `{default}`"),
        None => "required".to_owned(),
    };
    let allowed = option
        .allowed
        .as_ref()
        .map(|a| format!(", {a}"))
        .unwrap_or_default();
    let OptionDoc {
        path, kind, doc, ..
    } = option;
    let _ = write!(out, "\n**`{path}`**: {kind}{allowed}; {default}.\n{doc}\n");
}

fn about(section: &str) -> String {
    let found = Config::sections()
        .into_iter()
        .find(|(name, _)| *name == section);
    found.map(|(_, about)| about).unwrap_or_default()
}

const HEAD: &str = "\
# Configuration

<!-- Generated from the table of options in server/crates/config/src/sections.rs:
     `UPDATE_GOLDEN=1 cargo test -p cirrus-config` writes it. -->

A server reads one YAML file: `cirrus-server run --config FILE`. `cirrus-bootstrap` writes it from
the user-data, which may be such a file itself. Only `domains` is required:

```yaml
domains: [example.com]
```

An unknown option, a wrong type, a number out of range or a key given twice is an error that names
file, line, column and the nearest option that exists; nothing starts from a file with an error.
`cirrus-server check --config FILE` shows them all. The file holds no secrets. It has at most
256 KiB.

In user-data, `key=value` lines do as well: a key is an option's path, texts need no quotes, lists
no brackets, and `domain` stands for `domains`:

```
domain=example.com, example.org
limits.stanza_bytes=131072
```

Options that end in `_ms` are milliseconds, in `_seconds` seconds, in `_bytes` bytes.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_current() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../docs/CONFIGURATION.md"
        );
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/CONFIGURATION.md is not what the table of options gives; \
             UPDATE_GOLDEN=1 cargo test -p cirrus-config writes it"
        );
    }

    #[test]
    fn every_option_and_section_says_what_it_is() {
        for option in Config::options() {
            assert!(option.doc.ends_with('.'), "{}", option.path);
            let section = option.path.split_once('.').map_or("", |(s, _)| s);
            assert!(
                section.is_empty() || !about(section).is_empty(),
                "{section}"
            );
        }
    }
}
