//! The bytes of every format that this version reads, as files: a change of a layout shows here.

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::codec::{FORMAT, OLDEST, encode};

type Examples = Vec<(&'static str, Vec<u8>)>;

/// One of each thing that nodes give each other, by name, in the order of the file. What only newer
/// formats have comes last.
fn examples(format: u8) -> Examples {
    let mut pair = busy();
    let mut all: Examples = Vec::new();
    for event in events() {
        all.push(("event", encode(format, &event).unwrap()));
    }
    for (_, token, op) in std::mem::take(&mut pair.waiting) {
        let effect = Effect::Store { token, op };
        all.push(("effect", encode(format, &effect).unwrap()));
    }
    for (pipe, outs) in std::mem::take(&mut pair.told) {
        for out in outs {
            let effect = Effect::Pipe { pipe, out };
            all.push(("effect", encode(format, &effect).unwrap()));
        }
    }
    let stanza = Stanza::from_stored(&TO_BOB.to_owned().into()).unwrap();
    let frame = Frame::stanza(BareJid::parse("bob@example.com").unwrap(), stanza, None);
    all.push(("frame", encode(format, &frame).unwrap()));
    for home in &pair.homes {
        all.push(("home", home.snapshot_in(format).unwrap()));
    }
    if format >= 10 {
        let event = Event::Format(Only(10));
        all.push(("event", encode(format, &event).unwrap()));
        for home in &retracting().homes {
            all.push(("home", home.snapshot_in(format).unwrap()));
        }
    }
    all
}

/// The same, read and written again.
fn again(format: u8, name: &str, bytes: &[u8]) -> Vec<u8> {
    let written = match name {
        "event" => encode(format, &Event::decode(bytes).unwrap()),
        "effect" => encode(format, &Effect::decode(bytes).unwrap()),
        "frame" => encode(format, &Frame::decode(bytes).unwrap()),
        _ => {
            let territory = Territory::Everything;
            let home = Home::restore(config(), territory, bytes).unwrap();
            home.snapshot_in(format)
        }
    };
    written.unwrap()
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
fn every_format_is_read_and_written_as_it_was() {
    for format in OLDEST..=FORMAT {
        let name = format!("src/home/golden/format-{format}.txt");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let all = examples(format);
        if format == FORMAT && std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text(&all)).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(
            golden == text(&all),
            "format {format} has another layout than before"
        );
        for (name, bytes) in all {
            assert_eq!(
                again(format, name, &bytes),
                bytes,
                "{name} of format {format}"
            );
        }
    }
}

#[test]
fn a_home_goes_over_to_the_next_format_when_it_is_told() {
    let mut pair = busy();
    let old = pair.homes[0].snapshot_in(OLDEST).unwrap();
    let mut home = Home::restore(config(), Pair::territory(0), &old).unwrap();
    assert_eq!(home.format(), OLDEST);
    assert_eq!(home.snapshot(), pair.homes[0].snapshot(), "nothing is lost");

    let event = Event::Format(Only(FORMAT));
    assert!(
        encode(OLDEST, &event).is_err(),
        "nobody who is older is told"
    );
    home.handle(1, &mut pair.rng, event, &mut Effects::default());
    assert_eq!(home.format(), FORMAT);
    let error = CodecError::Newer { format: OLDEST };
    assert_eq!(home.snapshot_in(OLDEST), Err(error));
    let moved = Home::restore(config(), Pair::territory(0), &home.snapshot()).unwrap();
    assert_eq!(moved.format(), FORMAT);
    let event = Event::Format(Only(OLDEST));
    home.handle(1, &mut pair.rng, event, &mut Effects::default());
    assert_eq!(home.format(), FORMAT, "it does not go back");
}
