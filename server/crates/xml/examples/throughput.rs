//! How fast the parts are, in megabytes a second on one core, beside two other parsers:
//! `cargo run --release -p cirrus-xml --example throughput`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures and prints"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cirrus_xml::{Element, Frame, Framer, Limits, Scope, check};
use quick_xml::Reader;
use quick_xml::events::Event;
use rxml::Parse;

/// How long each part is measured.
const TIME: Duration = Duration::from_millis(700);

const OPEN: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>";

/// What clients send, from the smallest to the largest.
fn stanzas() -> Vec<(&'static str, String)> {
    let chat = "<message type='chat' to='romeo@example.net/orchard' id='5f1c9a3e' xml:lang='en'>\
        <body>My ears have not yet drunk a hundred words of that tongue&apos;s utterance, yet I \
        know the sound: art thou not Romeo and a Montague?</body>\
        <active xmlns='http://jabber.org/protocol/chatstates'/>\
        <request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>\
        <origin-id xmlns='urn:xmpp:sid:0' id='de305d54-75b4-431b-adb2-eb6b9e546013'/></message>";
    let presence = "<presence id='p1'><show>away</show><status>Back soon</status>\
        <priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' \
        node='http://example.org/client' ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/>\
        <x xmlns='vcard-temp:x:update'><photo>01b87fcd030b72895ff8e88db57ec525450f000d</photo></x>\
        </presence>";
    let mut omemo = "<message type='chat' to='romeo@example.net'>\
        <encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='27183'>"
        .to_owned();
    for device in 0..8 {
        omemo += &format!(
            "<key rid='{device}'>{}</key>",
            "bWVzc2FnZSBrZXk+/".repeat(10)
        );
    }
    let payload = "U2hhbGwgSSBjb21wYXJlIHRoZWU+".repeat(40);
    omemo += &format!("<iv>IVIVIVIVIVIVIVIV</iv></header><payload>{payload}</payload>");
    omemo += "</encrypted><store xmlns='urn:xmpp:hints'/></message>";
    let mut roster =
        "<iq type='result' id='r1'><query xmlns='jabber:iq:roster' ver='17'>".to_owned();
    for contact in 0..60 {
        roster += &format!(
            "<item jid='contact{contact}@example.net' name='Contact number {contact}' \
             subscription='both'><group>Friends</group></item>"
        );
    }
    roster += "</query></iq>";
    vec![
        ("chat", chat.to_owned()),
        ("presence", presence.to_owned()),
        ("omemo", omemo),
        ("roster", roster),
        (
            "64 KiB body",
            format!(
                "<message><body>{}</body></message>",
                "lorem ipsum ".repeat(5461)
            ),
        ),
    ]
}

/// Megabytes a second of `part`, which gets through `bytes` bytes each time.
fn rate(
    bytes: usize,
    mut part: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    part()?;
    let start = Instant::now();
    let mut rounds = 0u32;
    while start.elapsed() < TIME {
        for _ in 0..16 {
            part()?;
        }
        rounds += 16;
    }
    let total = bytes as f64 * f64::from(rounds);
    Ok(total / start.elapsed().as_secs_f64() / 1e6)
}

/// Visits every element, attribute and text, as a handler that wants all would.
fn walk(element: &Element<'_>) -> usize {
    let mut seen = element.name().len() + element.ns().len() + element.text().len();
    for attribute in element.attributes() {
        seen += attribute.value().len();
    }
    seen + element.children().map(|child| walk(&child)).sum::<usize>()
}

fn measure(name: &str, stanza: &str) -> Result<(), Box<dyn Error>> {
    let scope = Scope::client();
    let limits = Limits::DEFAULT;
    let bytes = stanza.as_bytes();
    let count = (64 * 1024 / stanza.len()).max(1);
    let stream = format!("{OPEN}{}", stanza.repeat(count));

    let framer = rate(stream.len(), || {
        let mut framer = Framer::new(limits);
        let mut buf = BytesMut::from(stream.as_str());
        while let Some(frame) = framer.next(&mut buf)? {
            black_box(matches!(frame, Frame::Element(_)));
        }
        Ok(())
    })?;
    let strict = rate(bytes.len(), || {
        black_box(check(bytes, &scope, &limits)?);
        Ok(())
    })?;
    let cursor = rate(bytes.len(), || {
        black_box(walk(&Element::parse(bytes, "jabber:client")?));
        Ok(())
    })?;
    let rxml = rate(stream.len(), || {
        let mut parser = rxml::Parser::new();
        let mut rest = stream.as_bytes();
        while let Ok(Some(event)) = parser.parse(&mut rest, false) {
            black_box(event);
        }
        Ok(())
    })?;
    let quick = rate(bytes.len(), || {
        let mut reader = Reader::from_str(stanza);
        loop {
            match reader.read_event()? {
                Event::Start(tag) | Event::Empty(tag) => {
                    for attribute in tag.attributes() {
                        black_box(attribute?);
                    }
                }
                Event::Eof => return Ok(()),
                event => drop(black_box(event)),
            }
        }
    })?;
    println!(
        "{name:<12}{:>8}{framer:>10.0}{strict:>10.0}{cursor:>10.0}{rxml:>10.0}{quick:>12.0}",
        stanza.len()
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("MB/s           bytes    framer     check    cursor      rxml   quick-xml");
    for (name, stanza) in stanzas() {
        measure(name, &stanza)?;
    }
    Ok(())
}
