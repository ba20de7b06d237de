//! A stream from the first byte to the last, through every part of the crate.

use bytes::BytesMut;
use cirrus_xml::{
    Element, Frame, Framer, Limits, Scope, Writer, check, children, parse_header, standalone,
};

const STREAM: &str = "<?xml version='1.0' encoding='UTF-8'?>\n<stream:stream \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' \
    version='1.0' xml:lang='en'>\
    <message to='romeo@example.net/orchard' type='chat' id='a&amp;1' xml:lang='en' x='1'>\
    <body>Art thou not <![CDATA[Romeo]]>, &lt;and&gt; a Montague?</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/></message>\n \
    <presence/></stream:stream>";

fn frames(text: &str) -> Vec<Frame> {
    let mut framer = Framer::new(Limits::DEFAULT);
    let mut buf = BytesMut::from(text);
    let mut frames = Vec::new();
    loop {
        match framer.next(&mut buf) {
            Ok(Some(frame)) => frames.push(frame),
            end => {
                assert_eq!(end, Ok(None));
                return frames;
            }
        }
    }
}

#[test]
fn a_whole_stream() {
    let frames = frames(STREAM);
    let [
        Frame::Space(1),
        Frame::Open(open),
        message,
        Frame::Space(2),
        presence,
        Frame::Close,
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    let header = parse_header(open, &Limits::DEFAULT).unwrap();
    assert_eq!((&*header.name, &*header.prefix), ("stream", "stream"));
    assert_eq!(header.ns, "http://etherx.jabber.org/streams");
    assert_eq!(header.attr("to"), Some("example.com"));
    assert_eq!(header.attr("xml:lang"), Some("en"));
    assert_eq!(header.attrs.len(), 3);
    assert_eq!(header.scope.default_ns(), "jabber:client");
    assert_eq!(
        header.scope.prefix("stream"),
        Some("http://etherx.jabber.org/streams")
    );
    assert_eq!(*presence, Frame::Element("<presence/>".into()));

    let Frame::Element(bytes) = message else {
        panic!("{message:?}")
    };
    let checked = check(bytes, &header.scope, &Limits::DEFAULT).unwrap();
    assert_eq!(
        (checked.name(bytes), checked.ns()),
        ("message", "jabber:client")
    );
    assert_eq!(
        checked.attr(bytes, "to").as_deref(),
        Some("romeo@example.net/orchard")
    );
    assert_eq!(checked.attr(bytes, "id").as_deref(), Some("a&1"));
    assert_eq!(checked.attr(bytes, "from"), None);
    assert_eq!(checked.extra(bytes, &header.scope), b" x='1'");
    assert_eq!(checked.payload(bytes), Some(("body", "jabber:client")));
    assert_eq!(checked.child_elements(), 2);
    assert!(!checked.foreign());

    let message = Element::parse(bytes, "jabber:client").unwrap();
    assert_eq!((message.name(), message.ns()), ("message", "jabber:client"));
    assert_eq!(message.inner(), &bytes[checked.inner()]);
    let body = message.child("body", "jabber:client").unwrap();
    assert_eq!(body.text(), "Art thou not Romeo, <and> a Montague?");
    let names: Vec<&str> = children(message.inner(), "jabber:client", &header.scope)
        .map(|child| child.name())
        .collect();
    assert_eq!(names, ["body", "active"]);
    let active = message
        .child("active", "http://jabber.org/protocol/chatstates")
        .unwrap();
    assert_eq!(active.text(), "");
    assert_eq!(
        active.raw(),
        b"<active xmlns='http://jabber.org/protocol/chatstates'/>"
    );
}

#[test]
fn prefixes_of_the_header() {
    let header = parse_header(
        b"<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' \
          xmlns:x='urn:x&amp;y'>",
        &Limits::DEFAULT,
    )
    .unwrap();
    let scope = &header.scope;
    let bytes = b"<message q='1'><x:a><b x:c='d'/>t<![CDATA[<]]></x:a></message>";
    let checked = check(bytes, scope, &Limits::DEFAULT).unwrap();
    assert!(checked.foreign());
    assert_eq!(
        checked.needed(scope).collect::<Vec<_>>(),
        [("x", "urn:x&y")]
    );
    assert_eq!(checked.extra(bytes, scope), b" q='1' xmlns:x='urn:x&amp;y'");
    assert_eq!(checked.payload(bytes), Some(("a", "urn:x&y")));
    let element = Element::parse_in(bytes, scope).unwrap();
    assert_eq!(element.children().next().unwrap().ns(), "urn:x&y");

    let alone = standalone(bytes, scope, &Limits::DEFAULT).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&alone),
        "<message xmlns='jabber:client' q='1'><a xmlns='urn:x&amp;y'>\
         <b xmlns='jabber:client' xmlns:x='urn:x&amp;y' x:c='d'/>t<![CDATA[<]]></a></message>"
    );
    let checked = check(&alone, &Scope::new("elsewhere"), &Limits::DEFAULT).unwrap();
    assert!(!checked.foreign());
    assert_eq!(checked.ns(), "jabber:client");
}

#[test]
fn what_is_written_is_read_back() {
    let odd = "a<b>&\"'\t\r\n]]>\u{FFFF}\u{1}\u{1F600}";
    let kept = "a<b>&\"'\t\r\n]]>\u{FFFD}\u{FFFD}\u{1F600}";
    let mut writer = Writer::new();
    writer
        .start("iq")
        .attr("id", odd)
        .attr_opt("to", None)
        .attr_opt("from", Some("a@b"));
    writer
        .start("q")
        .attr("xmlns", "n")
        .text(odd)
        .raw(b"<r/>")
        .start("s")
        .end()
        .end();
    writer.start("left").start("open");
    let bytes = writer.into_bytes();
    let checked = check(&bytes, &Scope::client(), &Limits::STORED).unwrap();
    assert_eq!(checked.attr(&bytes, "id").as_deref(), Some(kept));
    let iq = Element::parse(&bytes, "jabber:client").unwrap();
    let query = iq.child("q", "n").unwrap();
    assert_eq!(query.text(), kept);
    assert_eq!(
        query.children().map(|c| c.name()).collect::<Vec<_>>(),
        ["r", "s"]
    );
    assert!(bytes.ends_with(b"</q><left><open/></left></iq>"));
}
