//! The bytes of every format that this version reads, as files: a change of a layout shows here.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// One of each thing that nodes give each other, by name, in the order of the file.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let mut pair = busy();
    let mut all: Vec<_> = events().iter().map(|it| ("event", it.encode())).collect();
    for (_, token, op) in std::mem::take(&mut pair.waiting) {
        all.push(("effect", Effect::Store { token, op }.encode()));
    }
    for (pipe, outs) in std::mem::take(&mut pair.told) {
        let effects = outs.into_iter().map(|out| Effect::Pipe { pipe, out });
        all.extend(effects.map(|effect| ("effect", effect.encode())));
    }
    let stanza = Stanza::from_stored(&TO_BOB.to_owned().into()).unwrap();
    let frame = Frame::stanza(BareJid::parse("bob@example.com").unwrap(), stanza, None);
    all.push(("frame", frame.encode()));
    all.extend(pair.homes.iter().map(|home| ("home", home.snapshot())));
    all
}

/// As text: a name, and hexadecimal digits in lines of 100.
fn text(all: &[(&str, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (name, bytes) in all {
        text += name;
        text.push('\n');
        for line in bytes.chunks(50) {
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn formats_are_as_they_were() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/home/golden/format-9.txt");
    let now = text(&examples());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), now);
}
