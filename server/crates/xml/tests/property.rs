//! Property tests: documents that are made to be well-formed, the same with random damage, and
//! streams of them in random pieces.

mod properties;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Names, most of them good.
fn name() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "message",
        "A1",
        "_",
        "x-y.z",
        "\u{E9}",
        "\u{10000}x",
        "p:a",
        "p:b",
        "q:a",
        "xml:a",
        "u:a",
        "xmlns:a",
        "1",
        "-a",
        "a:",
        ":a",
        "a:b:c",
        "\u{D7}",
        "\u{B7}a",
        "a\u{B7}",
    ])
}

fn good_name() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a", "b", "message", "A1", "x-y.z", "\u{E9}", "p:a", "p:b", "q:a",
    ])
}

/// Pieces of text, values and markup; the first few are good anywhere in text.
const PIECES: &[&str] = &[
    "x",
    " ",
    "urn:1",
    "urn:2",
    "&amp;",
    "&lt;",
    "&#65;",
    "&#x1F600;",
    "\u{E9}",
    "\u{1F600}",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "]",
    "]]",
    ">",
    "<![CDATA[]]>",
    "<![CDATA[ <&]] ]]>",
    "\u{7F}",
    "\u{85}",
    "\u{FFFD}",
    "&#9;",
    "&#13;",
    "&#00065;",
];

const HOSTILE: &[&str] = &[
    "]]>",
    "<",
    "&",
    "\"",
    "'",
    "/",
    "=",
    "</",
    "/>",
    "<!--x-->",
    "<?x?>",
    "<!DOCTYPE x>",
    "<![CDATA[",
    "&x;",
    "&#1;",
    "&#0;",
    "&#xD800;",
    "&#xFFFE;",
    "&#x110000;",
    "&#;",
    "&#x;",
    "&;",
    "&amp",
    "&#99999999999;",
    "&#000000065;",
    "\0",
    "\u{1}",
    "\u{B}",
    "\u{FFFE}",
    "\u{FFFF}",
    "xmlns=''",
    " xmlns:p='urn:1'",
    " p:a=''",
    " a='' a=''",
    "<a>",
    "</a>",
    "<a/>",
    "http://www.w3.org/XML/1998/namespace",
    "http://www.w3.org/2000/xmlns/",
    "<?xml version='1.0'?>",
    "</stream:stream>",
    "</>",
    "<>",
    "<p:a/>",
    " ",
    "\n",
    ":",
    "x:",
];

fn text() -> impl Strategy<Value = String> {
    vec(select(PIECES), 0..4).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => text().prop_map(|text| text.replace('<', "&lt;")),
        1 => select(HOSTILE).prop_map(str::to_owned),
    ]
}

/// A name and a value that mostly suit each other.
fn attribute() -> impl Strategy<Value = (&'static str, String)> {
    let plain = select(vec![
        "to", "id", "type", "xml:lang", "p:a", "q:a", "p:b", "x",
    ]);
    let declaration = select(vec!["xmlns", "xmlns:p", "xmlns:q", "xmlns:r"]);
    let namespace = select(vec![
        "urn:1",
        "urn:2",
        "urn:&#49;",
        "a&amp;b",
        "http://x/#y",
    ]);
    let odd = select(vec![
        "xmlns:xml",
        "xmlns:xmlns",
        "xmlns:",
        "xml:",
        "u:a",
        "r:a",
        "1a",
        "a:b:c",
        "xmlns:p",
    ]);
    prop_oneof![
        10 => (plain, value()),
        10 => (declaration, namespace.prop_map(str::to_owned)),
        1 => (odd, value()),
        1 => Just(("xmlns", String::new())),
    ]
}

fn attributes() -> impl Strategy<Value = String> {
    let written = (
        attribute(),
        select(vec!["'", "\""]),
        select(vec!["=", " =\n"]),
    )
        .prop_map(|((name, value), quote, equals)| {
            format!(" {name}{equals}{quote}{}{quote}", value.replace(quote, ""))
        });
    vec(written, 0..4).prop_map(|attributes| attributes.concat())
}

/// An element; most are well-formed, since the rules that make one are.
fn element() -> impl Strategy<Value = String> {
    let name = || prop_oneof![20 => good_name(), 1 => name()];
    let leaf = (name(), attributes(), text()).prop_map(|(name, attributes, text)| {
        if text.is_empty() {
            format!("<{name}{attributes}/>")
        } else {
            format!("<{name}{attributes}>{text}</{name} >")
        }
    });
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        (name(), attributes(), vec(prop_oneof![inner, text()], 0..4)).prop_map(
            |(name, attributes, content)| {
                format!("<{name}{attributes}>{}</{name}>", content.concat())
            },
        )
    });
    // So that the prefixes of most names are declared.
    (tree, any::<bool>()).prop_map(|(tree, is_wrapped)| {
        if is_wrapped {
            format!("<w xmlns:p='urn:1' xmlns:q='urn:&#50;'>{tree}</w>")
        } else {
            tree
        }
    })
}

/// Damage: at a place, something is put in, taken out, repeated or changed.
#[derive(Clone, Debug)]
enum Damage {
    Insert(&'static str),
    Remove(usize),
    Repeat(usize),
    Change(u8),
}

fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, Damage)>> {
    let damage = prop_oneof![
        select(HOSTILE).prop_map(Damage::Insert),
        (1usize..12).prop_map(Damage::Remove),
        (1usize..12).prop_map(Damage::Repeat),
        any::<u8>().prop_map(Damage::Change),
    ];
    vec((any::<prop::sample::Index>(), damage), 0..3)
}

fn apply(text: &str, damage: &[(prop::sample::Index, Damage)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, damage) in damage {
        let at = at.index(bytes.len() + 1);
        let end = |length: usize| (at + length).min(bytes.len());
        match damage {
            Damage::Insert(piece) => drop(bytes.splice(at..at, piece.bytes())),
            Damage::Remove(length) => drop(bytes.drain(at..end(*length))),
            Damage::Repeat(length) => {
                let piece = bytes[at..end(*length)].to_vec();
                bytes.splice(at..at, piece);
            }
            Damage::Change(byte) => {
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
        }
    }
    bytes
}

fn stream() -> impl Strategy<Value = String> {
    let declaration = select(vec![
        "",
        "<?xml version='1.0'?>",
        "<?xml version=\"1.0\" encoding='utf-8' ?>\n",
        "<?xml version='1.0' encoding='UTF-8' standalone='yes'?>",
    ]);
    let header = "<stream:stream xmlns:stream='s' xmlns='jabber:client' xmlns:p='urn:1'";
    let content = vec(prop_oneof![3 => element(), 1 => Just(" ".to_owned())], 0..4);
    (declaration, attributes(), content).prop_map(move |(declaration, attributes, content)| {
        format!(
            "{declaration}{header}{attributes}>{}</stream:stream>",
            content.concat()
        )
    })
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn elements(text in element()) {
        properties::any_element(text.as_bytes());
    }

    #[test]
    fn damaged_elements(text in element(), damage in damage()) {
        properties::any_element(&apply(&text, &damage));
    }

    #[test]
    fn pieces_at_random(pieces in vec(prop_oneof![select(HOSTILE), select(PIECES)], 0..12)) {
        properties::any_element(format!("<a>{}</a>", pieces.concat()).as_bytes());
        properties::any_element(format!("<a {}/>", pieces.concat()).as_bytes());
        properties::any_element(format!("<a b='{}'/>", pieces.concat()).as_bytes());
        properties::any_element(pieces.concat().as_bytes());
        properties::any_stream(pieces.concat().as_bytes(), &[1]);
    }

    #[test]
    fn streams(text in stream(), cuts in vec(1u8..20, 1..8)) {
        properties::any_stream(text.as_bytes(), &cuts);
    }

    #[test]
    fn damaged_streams(text in stream(), damage in damage(), cuts in vec(1u8..20, 1..8)) {
        properties::any_stream(&apply(&text, &damage), &cuts);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_written(
        texts in vec(prop_oneof![text(), any::<String>(), select(HOSTILE).prop_map(str::to_owned)], 0..5)
    ) {
        properties::any_texts(&texts.iter().map(|text| &**text).collect::<Vec<_>>());
    }
}

/// The generators are worth something only if much of what they make is accepted.
#[test]
fn most_made_elements_are_accepted() {
    use cirrus_xml::{Limits, Scope, check};
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut accepted = 0;
    for _ in 0..1000 {
        let text = element()
            .new_tree(&mut runner)
            .map(|tree| tree.current())
            .unwrap_or_default();
        accepted += usize::from(check(text.as_bytes(), &Scope::client(), &Limits::STORED).is_ok());
    }
    assert!((300..900).contains(&accepted), "{accepted} of 1000");
}
