//! The short form of a configuration: `key=value` lines, as one writes them in user-data.
//!
//! `domain=example.com` (or several, with commas) stands for `domains`; every other key is an
//! option's dotted path (`limits.depth=32`). The lines become the same tree as YAML does, so the
//! same reader gives the same errors.

use crate::OptionDoc;
use crate::error::Fault;
use crate::node::{Content, Key, Node, Place, excerpt};

/// Lines of a file in this form; the configuration has some 100 options.
const MAX_LINES: usize = 2_000;
/// Names in a dotted path; options have at most 2.
const MAX_PATH: usize = 8;

/// Turns lines into a tree, or names the first line that is none.
pub(crate) fn tree(text: &str, options: &[OptionDoc]) -> Result<Node, (Place, Fault)> {
    let mut root = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let line_number = i as u64 + 1;
        if i >= MAX_LINES {
            let place = Place {
                line: line_number,
                column: 1,
                file: 0,
            };
            let reason = format!("more than {MAX_LINES} lines");
            return Err((place, Fault::Bomb { reason }));
        }
        let Some((key, value)) = line.split_once('=') else {
            let place = Place {
                line: line_number,
                column: column(line, trimmed),
                file: 0,
            };
            let reason = format!("`{}` is not `key=value`", excerpt(trimmed));
            return Err((place, Fault::Invalid { reason }));
        };
        let at = |part: &str| Place {
            line: line_number,
            column: column(line, part),
            file: 0,
        };
        let (key, value) = (key.trim(), value.trim());
        let path = if key == "domain" { "domains" } else { key };
        let option = options.iter().find(|o| o.path == path);
        let node = node(value, at(value), option)?;
        insert(&mut root, path, at(key), node);
    }
    let content = if root.is_empty() {
        Content::Null
    } else {
        Content::Map(root)
    };
    let place = Place {
        line: 1,
        column: 1,
        file: 0,
    };
    Ok(Node { place, content })
}

/// Where `part`, a slice of `line`, begins; counted in characters from 1.
fn column(line: &str, part: &str) -> u64 {
    let offset = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    let before = line.get(..offset).unwrap_or_default();
    before.chars().count() as u64 + 1
}

/// A value as its option takes it: texts need no quotes here, lists no brackets.
pub(crate) fn node(
    value: &str,
    place: Place,
    option: Option<&OptionDoc>,
) -> Result<Node, (Place, Fault)> {
    let text = |t: &str, place| Node {
        place,
        content: Content::Text(t.to_owned()),
    };
    if let Some(kind) = option.map(|o| o.kind.as_str()) {
        if kind.starts_with("list") && !value.starts_with('[') {
            let item = |part: &str| {
                let skipped = column(value, part) - 1;
                let column = place.column + skipped;
                text(part, Place { column, ..place })
            };
            let items = value.split(',').map(|part| item(part.trim())).collect();
            let content = Content::List(items);
            return Ok(Node { place, content });
        }
        let quoted = value.starts_with(['"', '\'']);
        if matches!(kind, "text" | "path" | "domain" | "address and port") && !quoted {
            return Ok(text(value, place));
        }
    }
    let shift = |inner: Place| Place {
        column: place.column + inner.column.saturating_sub(1),
        ..place
    };
    let mut node = Node::parse(value).map_err(|(inner, fault)| (shift(inner), fault))?;
    node.move_by(&shift);
    node.place = place;
    Ok(node)
}

/// Puts a value at a dotted path; the sections on the way are made.
fn insert(map: &mut Vec<(Key, Node)>, path: &str, place: Place, value: Node) {
    let too_long = path.matches('.').count() >= MAX_PATH;
    let Some((section, rest)) = path.split_once('.').filter(|_| !too_long) else {
        let name = path.to_owned();
        map.push((Key { place, name }, value));
        return;
    };
    let found = map.iter_mut().find(|(key, _)| key.name == section);
    if let Some((_, node)) = found
        && let Content::Map(inner) = &mut node.content
    {
        insert(inner, rest, place, value);
        return;
    }
    let mut inner = Vec::new();
    insert(&mut inner, rest, place, value);
    let name = section.to_owned();
    let content = Content::Map(inner);
    map.push((Key { place, name }, Node { place, content }));
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn lines_and_yaml_give_the_same() {
        let lines = "# chat\ndomain = example.com, example.org\n\nlimits.depth=32\n\
                     limits.attributes=16\nstore.backend=aws\nstore.account=012345678901\n\
                     listen.c2s=:15222\ntls.min_version=1.3\nauth.plain=true\n\
                     auth.mechanisms=[SCRAM-SHA-256, SCRAM-SHA-1]\nlisten.health=\n";
        let yaml = "domains: [example.com, example.org]\nlimits: { depth: 32, attributes: 16 }\n\
                    store: { backend: aws, account: '012345678901' }\n\
                    listen: { c2s: [':15222'], health: null }\ntls: { min_version: 1.3 }\n\
                    auth: { plain: true, mechanisms: [SCRAM-SHA-256, SCRAM-SHA-1] }\n";
        // An empty value of a text or address is an error; of nothing typed it is null.
        let lines = lines.replace("listen.health=\n", "");
        let yaml = yaml.replace(", health: null", "");
        assert_eq!(
            Config::parse_assignments(&lines, "user-data"),
            Config::parse(&yaml, "user-data")
        );
    }

    #[test]
    fn bad_lines_and_what_is_said() {
        for (text, expected) in [
            (
                "domain=example.com\nlimits.dept=32\n",
                "user-data:2:1: limits.dept: unknown option; did you mean `limits.depth`?",
            ),
            (
                "domain=example.com\ndepth=32\n",
                "user-data:2:1: depth: unknown option; did you mean `limits.depth`?",
            ),
            (
                "domain=example.com\nlimits.depth=deep\n",
                "user-data:2:14: limits.depth: expected a whole number, found the text `deep`",
            ),
            (
                "domain=example.com\nlimits.depth=5\n",
                "user-data:2:14: limits.depth: 5 is out of range; allowed are 8 to 512",
            ),
            (
                "domain=example.com\nlimits.depth=32\nlimits.depth=33\n",
                "user-data:3:1: limits.depth: given twice; first in line 2",
            ),
            (
                "domain=example.com\ndomain=example.org\n",
                "user-data:2:1: domains: given twice; first in line 1",
            ),
            (
                "domain=example.com, exa mple.org\n",
                "user-data:1:21: domains[1]: `exa mple.org` is not a domain: it contains ' '",
            ),
            (
                "domain=\n",
                "user-data:1:8: domains[0]: expected a domain, found an empty text",
            ),
            (
                "domian=example.com\n",
                "user-data:1:1: domian: unknown option; did you mean `domains`?",
            ),
            (
                "domain=example.com\nand more\n",
                "user-data:2:1: `and more` is not `key=value`",
            ),
            (
                "domain=example.com\nlimits=5\n",
                "user-data:2:8: limits: expected a section with options such as stanza_bytes, \
                 unauthenticated_stanza_bytes, header_bytes, found the number 5",
            ),
            (
                "domain=example.com\nauth.plain=[true\n",
                "user-data:2:12: not YAML: unclosed bracket '['",
            ),
            (
                "# nothing\n",
                "user-data: the file is empty; the shortest configuration is \
                 `domains: [example.com]`",
            ),
        ] {
            let found = Config::parse_assignments(text, "user-data").unwrap_err();
            let first = found[0].to_string();
            assert_eq!(first, expected, "{text}");
        }
    }
}
