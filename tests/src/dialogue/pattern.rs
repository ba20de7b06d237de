//! Compares what came with what was expected.
//!
//! Values and texts of an expected element may hold `${…}`: `${any}` stands for anything,
//! `${any NAME}` remembers it, `${NAME}` is what was remembered or what the player knows. Two
//! attributes of an expected element say how to compare it: `test:more='yes'` allows attributes
//! and children beyond those listed, `test:any='yes'` allows any content.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};

use super::parse::HINTS;
use crate::xml::{Node, XML};

/// Remembered values, by name.
pub type Values = BTreeMap<String, String>;

/// Ids of messages in archives (XEP-0359).
const SID: &str = "urn:xmpp:sid:0";

/// Optional human-readable text that RFC 6120 and XEP-0388 allow beside every error condition.
const TEXTS: &[&str] = &[
    "urn:ietf:params:xml:ns:xmpp-stanzas",
    "urn:ietf:params:xml:ns:xmpp-streams",
    "urn:ietf:params:xml:ns:xmpp-sasl",
    "urn:xmpp:sasl:2",
];

/// Puts the values in for `${NAME}`, and bytes for `${hex …}` and `${repeat N TEXT}`.
///
/// # Errors
/// When a name is not known.
pub fn fill(text: &str, values: &Values) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, hole, after)) = hole(rest) {
        out.extend(before.as_bytes());
        if let Some(digits) = hole.strip_prefix("hex ") {
            for byte in digits.split_whitespace() {
                out.push(u8::from_str_radix(byte, 16)?);
            }
        } else if let Some(repeat) = hole.strip_prefix("repeat ") {
            let (count, piece) = repeat
                .split_once(' ')
                .ok_or_else(|| anyhow!("${{repeat N TEXT}}"))?;
            out.extend(piece.repeat(count.parse()?).as_bytes());
        } else {
            let value = values
                .get(hole)
                .ok_or_else(|| anyhow!("nothing is known as {hole:?}"))?;
            out.extend(value.as_bytes());
        }
        rest = after;
    }
    out.extend(rest.as_bytes());
    Ok(out)
}

/// Compares a stanza or another first-level element, as one client received it. Where nothing is
/// expected of `to`, `from` and `xml:lang`, they may be there if they say what is true anyway:
/// that it is for this client, that it comes from the client's account.
///
/// # Errors
/// Says what differs.
pub fn compare_root(
    expected: &Node,
    actual: &Node,
    own: &[&str],
    values: &mut Values,
) -> Result<()> {
    let mut expected = expected.clone();
    for name in ["to", "from"] {
        if let (None, Some(value)) = (expected.attr(name), actual.attr(name)) {
            ensure!(own.contains(&value), "unexpected {name}={value:?}");
            expected
                .attrs
                .push((String::new(), name.to_owned(), value.to_owned()));
        }
    }
    let pushed = actual.is_stanza() && ["get", "set"].contains(&actual.attr("type").unwrap_or(""));
    if pushed && expected.attr("id").is_none() {
        let id = actual
            .attr("id")
            .ok_or_else(|| anyhow!("a request without an id"))?;
        expected
            .attrs
            .push((String::new(), "id".to_owned(), id.to_owned()));
    }
    let lang = actual
        .attrs
        .iter()
        .find(|(ns, name, _)| ns == XML && name == "lang");
    if let Some(lang) = lang.filter(|_| !expected.attrs.iter().any(|(ns, ..)| ns == XML)) {
        expected.attrs.push(lang.clone());
    }
    compare(&expected, actual, values)
}

/// Compares an element and all that is in it.
///
/// # Errors
/// Says what differs.
pub fn compare(expected: &Node, actual: &Node, values: &mut Values) -> Result<()> {
    let name = &expected.name;
    ensure!(
        *name == actual.name && expected.ns == actual.ns,
        "expected <{name} xmlns='{}'>, received <{} xmlns='{}'>",
        expected.ns,
        actual.name,
        actual.ns
    );
    let says = |hint: &str| {
        expected
            .attrs
            .iter()
            .any(|(ns, n, value)| ns == HINTS.1 && n == hint && value == "yes")
    };
    let (more, any) = (says("more"), says("any"));
    let wanted = expected.attrs.iter().filter(|(ns, ..)| ns != HINTS.1);
    for (ns, attr, pattern) in wanted.clone() {
        let found = actual.attrs.iter().find(|(n, a, _)| n == ns && a == attr);
        let Some((_, _, value)) = found else {
            bail!("<{name}> has no {attr}={pattern:?}")
        };
        text(pattern, value, values).map_err(|error| anyhow!("<{name}> {attr}: {error}"))?;
    }
    let unexpected = actual
        .attrs
        .iter()
        .find(|(ns, attr, _)| !wanted.clone().any(|(n, a, _)| n == ns && a == attr));
    if let Some((_, attr, value)) = unexpected.filter(|_| !more && !any) {
        bail!("<{name}> has an unexpected {attr}={value:?}");
    }
    if any {
        return Ok(());
    }
    let (wanted_text, actual_text) = (expected.text(), actual.text());
    if !(more && wanted_text.trim().is_empty()) {
        text(wanted_text.trim(), actual_text.trim(), values)
            .map_err(|error| anyhow!("the text of <{name}>: {error}"))?;
    }
    let wanted: Vec<&Node> = expected.nodes().collect();
    let mut actual: Vec<&Node> = actual.nodes().collect();
    // The id that a message has in its receiver's archive is there wherever nobody asks for it; a
    // second one is not, nor one beside those that are expected.
    let has_id = |node: &&Node| node.name == "stanza-id" && node.ns == SID;
    if !wanted.iter().any(has_id) && actual.iter().filter(|node| has_id(node)).count() == 1 {
        actual.retain(|node| !has_id(node));
    }
    children(&wanted, &actual, more, values).map_err(|error| anyhow!("in <{name}>: {error}"))
}

/// Finds for each expected child another one that is there, in whatever order.
fn children(wanted: &[&Node], actual: &[&Node], more: bool, values: &mut Values) -> Result<()> {
    let Some((first, rest)) = wanted.split_first() else {
        let optional = |node: &Node| node.name == "text" && TEXTS.contains(&node.ns.as_str());
        return match actual.iter().find(|node| !more && !optional(node)) {
            None => Ok(()),
            Some(node) => bail!("an unexpected child\n{node}"),
        };
    };
    let mut reason = anyhow!("no child\n{first}");
    for (at, candidate) in actual.iter().enumerate() {
        let mut tried = values.clone();
        let mut others = actual.to_vec();
        others.remove(at);
        let outcome = compare(first, candidate, &mut tried)
            .and_then(|()| children(rest, &others, more, &mut tried));
        match outcome {
            Ok(()) => {
                *values = tried;
                return Ok(());
            }
            Err(error) if candidate.is(&first.name, &first.ns) => reason = error,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// Compares a value with a pattern.
///
/// # Errors
/// Says what differs.
pub fn text(pattern: &str, actual: &str, values: &mut Values) -> Result<()> {
    let differs = || anyhow!("expected {pattern:?}, received {actual:?}");
    let mut rest = actual;
    let mut open: Option<&str> = None;
    let mut todo = pattern;
    loop {
        let (literal, hole, after) = match hole(todo) {
            Some((before, hole, after)) => (before, Some(hole), after),
            None => (todo, None, ""),
        };
        match (open.take(), hole) {
            (None, _) => rest = rest.strip_prefix(literal).ok_or_else(differs)?,
            (Some(name), None) if literal.is_empty() => {
                remember(name, rest, values);
                rest = "";
            }
            (Some(name), _) => {
                let at = rest.find(literal).ok_or_else(differs)?;
                let (skipped, tail) = rest.split_at(at);
                remember(name, skipped, values);
                rest = tail.strip_prefix(literal).ok_or_else(differs)?;
            }
        }
        match hole {
            None => {
                return if rest.is_empty() {
                    Ok(())
                } else {
                    Err(differs())
                };
            }
            Some(name) if name == "any" || name.starts_with("any ") => {
                open = Some(name.trim_start_matches("any").trim());
            }
            Some(name) => {
                let known = values
                    .get(name)
                    .ok_or_else(|| anyhow!("nothing is known as {name:?}"))?;
                let differs = || anyhow!("expected {pattern:?} ({known:?}), received {actual:?}");
                rest = rest.strip_prefix(known.as_str()).ok_or_else(differs)?;
            }
        }
        todo = after;
    }
}

fn remember(name: &str, value: &str, values: &mut Values) {
    if !name.is_empty() {
        values.insert(name.to_owned(), value.to_owned());
    }
}

/// The first `${…}` of a text: what is before it, what is in it, what is after it.
fn hole(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (hole, after) = rest.split_once('}')?;
    Some((before, hole, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::fragment;

    fn check(expected: &str, actual: &str) -> Result<Values> {
        let one = |text: &str| fragment(text, &[HINTS]).unwrap().remove(0);
        let mut values = Values::from([("me".to_owned(), "romeo@localhost".to_owned())]);
        let own = ["romeo@localhost", "romeo@localhost/x"];
        compare_root(&one(expected), &one(actual), &own, &mut values)?;
        Ok(values)
    }

    #[test]
    fn what_is_equal_matches_whatever_its_order_and_prefixes() {
        let expected = "<iq type='result' id='1'><q xmlns='x'><a/><b c='1' d='2'/></q></iq>";
        let actual =
            "<iq id='1' type='result'><p:q xmlns:p='x'><p:b d='2' c='1'/> <p:a/></p:q></iq>";
        check(expected, actual).unwrap();
    }

    #[test]
    fn what_differs_is_said() {
        let expected = "<message from='a@b'><body>hi</body></message>";
        for (actual, reason) in [
            ("<message from='a@c'><body>hi</body></message>", "a@c"),
            ("<message from='a@b'><body>ho</body></message>", "ho"),
            ("<message from='a@b'/>", "no child"),
            (
                "<message from='a@b'><body>hi</body><x/></message>",
                "unexpected child",
            ),
            (
                "<message from='a@b' type='chat'><body>hi</body></message>",
                "type",
            ),
            (
                "<message from='a@b' to='x@y'><body>hi</body></message>",
                "unexpected to",
            ),
            ("<presence from='a@b'/>", "received <presence"),
            (
                "<message from='a@b' xmlns='other'><body xmlns='jabber:client'>hi</body></message>",
                "xmlns='other'",
            ),
        ] {
            let error = check(expected, actual).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{actual}: {error:#}");
        }
    }

    #[test]
    fn what_is_true_anyway_may_be_there() {
        check(
            "<presence/>",
            "<presence to='romeo@localhost/x' xml:lang='en'/>",
        )
        .unwrap();
        check(
            "<iq type='set'/>",
            "<iq type='set' id='push' from='romeo@localhost'/>",
        )
        .unwrap();
        assert!(check("<iq type='set'/>", "<iq type='set'/>").is_err());
        assert!(check("<iq type='result'/>", "<iq type='result' id='1'/>").is_err());
        let text = "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no</text>";
        check(
            "<iq type='error'/>",
            &format!("<iq type='error'>{text}</iq>"),
        )
        .unwrap();
    }

    #[test]
    fn holes_match_remember_and_are_put_in() {
        let values = check(
            "<a h='${any n}' t='x${any}z'>${me}/${any r}</a>",
            "<a h='7' t='xyz'>romeo@localhost/orchard</a>",
        )
        .unwrap();
        assert_eq!(values["n"], "7");
        assert_eq!(values["r"], "orchard");
        assert!(check("<a h='x${any}z'/>", "<a h='xy'/>").is_err());
        assert!(check("<a>${me}</a>", "<a>juliet@localhost</a>").is_err());
        assert!(check("<a h='${unknown}'/>", "<a h='1'/>").is_err());
        let filled = fill("a${me}${hex ff 00}${repeat 3 xy}b", &values).unwrap();
        assert_eq!(filled, b"aromeo@localhost\xff\x00xyxyxyb");
        assert!(fill("${unknown}", &values).is_err());
    }

    #[test]
    fn hints_allow_more_or_anything() {
        check("<a test:more='yes'><b/></a>", "<a x='1'><c/><b/></a>").unwrap();
        assert!(check("<a test:more='yes'><b/></a>", "<a><c/></a>").is_err());
        check("<a test:any='yes'/>", "<a x='1'>text<c/></a>").unwrap();
    }

    #[test]
    fn equal_children_are_told_apart_by_what_is_in_them() {
        check(
            "<q><i j='${any x}'><s/></i><i j='b'/></q>",
            "<q><i j='b'/><i j='a'><s/></i></q>",
        )
        .unwrap();
        assert!(check("<q><i/><i/></q>", "<q><i/></q>").is_err());
    }
}
