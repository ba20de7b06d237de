use cirrus_xml::Limits;

use super::*;

fn read(xml: &str) -> Result<Stanza, Refused> {
    let bytes = Bytes::copy_from_slice(xml.as_bytes());
    let scope = Scope::client();
    let checked = cirrus_xml::check(&bytes, &scope, &Limits::DEFAULT).unwrap();
    Stanza::from_checked(&bytes, &checked, &scope).unwrap()
}

fn write(stanza: &Stanza) -> String {
    String::from_utf8(stanza.to_bytes()).unwrap()
}

#[test]
fn a_stanza_is_written_with_a_new_root_around_the_same_content() {
    let mut stanza = read(
        "<message to='Romeo@Example.net' id='a&amp;b' type=\"chat\" xml:lang='en' xmlns:x='y' \
         x:z='1'><body>hi &lt; there</body><x:other/></message>",
    )
    .unwrap();
    assert_eq!((stanza.kind, stanza.ty), (Kind::Message, Ty::Chat));
    assert!(stanza.is_payload("body", ns::CLIENT));
    stanza.from = Some(Jid::parse("juliet@example.com/balcony").unwrap());
    assert_eq!(
        write(&stanza),
        "<message type='chat' id='a&amp;b' to='romeo@example.net' \
         from='juliet@example.com/balcony' xml:lang='en' xmlns:x='y' x:z='1'>\
         <body>hi &lt; there</body><x:other/></message>"
    );
    assert_eq!(
        stanza.child("other", "y").map(|e| e.name().to_owned()),
        Some("other".into())
    );
    let stored = Stanza::from_stored(&stanza.to_bytes().into()).unwrap();
    assert_eq!(write(&stored), write(&stanza));
}

#[test]
fn what_has_no_content_closes_itself() {
    assert_eq!(
        write(&read("<presence></presence>").unwrap()),
        "<presence/>"
    );
}

#[test]
fn a_child_is_appended_behind_the_others() {
    let stanza = read("<message><body>a</body></message>")
        .unwrap()
        .with_child(b"<b/>");
    assert_eq!(write(&stanza), "<message><body>a</body><b/></message>");
    assert_eq!(stanza.children().count(), 2);
}

#[test]
fn malformed_stanzas_are_refused_with_the_error_to_answer() {
    for (xml, condition, answered) in [
        ("<message to='@'/>", Condition::JidMalformed, true),
        (
            "<message type='error' to='@'/>",
            Condition::JidMalformed,
            false,
        ),
        (
            "<iq type='get'><a xmlns='b'/></iq>",
            Condition::BadRequest,
            true,
        ),
        (
            "<iq id='1'><a xmlns='b'/></iq>",
            Condition::BadRequest,
            true,
        ),
        ("<iq id='1' type='get'/>", Condition::BadRequest, true),
        (
            "<iq id='1' type='set'><a xmlns='b'/><a xmlns='b'/></iq>",
            Condition::BadRequest,
            true,
        ),
        (
            "<iq id='1' type='result'><a xmlns='b'/><c xmlns='d'/></iq>",
            Condition::BadRequest,
            false,
        ),
        ("<presence type='there'/>", Condition::BadRequest, true),
    ] {
        let refused = read(xml).unwrap_err();
        assert_eq!(refused.error.condition, condition, "{xml}");
        assert_eq!(refused.reply.is_some(), answered, "{xml}");
    }
}

#[test]
fn an_error_names_condition_type_and_text() {
    let stanza = read("<iq id='1' type='get' to='example.com'><a xmlns='b'/></iq>").unwrap();
    let error = StanzaError::new(Condition::ItemNotFound, "no <such> thing");
    assert_eq!(
        write(&stanza.error(&error)),
        "<iq type='error' id='1' from='example.com'><error type='cancel'><item-not-found \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no &lt;such&gt; thing</text>\
         </error></iq>"
    );
}

#[test]
fn unknown_message_types_are_normal() {
    assert_eq!(read("<message type='whatever'/>").unwrap().ty, Ty::Normal);
}

#[test]
fn a_child_is_put_in_or_left_out_and_prefixes_keep_their_meaning() {
    let read = |xml: &str| read(xml).unwrap();
    let sid = |child: &Element<'_>| child.is("stanza-id", "urn:xmpp:sid:0");
    let forged = "<message xmlns:s='urn:xmpp:sid:0' id='1'>a<body>b</body> <s:stanza-id by='x'/>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='y'/><s:other/></message>";
    let honest = read(forged).without(sid).unwrap();
    let expected = "<message id='1' xmlns:s='urn:xmpp:sid:0'>a<body>b</body> <s:other/></message>";
    assert_eq!(write(&honest), expected);
    assert!(honest.without(sid).is_none(), "nothing is left to take out");
    assert!(honest.child("other", "urn:xmpp:sid:0").is_some());
    let more = honest.with_child(b"<c xmlns='d'/>");
    assert_eq!(
        write(&more),
        expected.replace("</message>", "<c xmlns='d'/></message>")
    );
    assert!(more.child("other", "urn:xmpp:sid:0").is_some());
    assert!(more.child("c", "d").is_some());
    let first = read("<message/>").with_child(b"<c xmlns='d'/>");
    assert_eq!(write(&first), "<message><c xmlns='d'/></message>");
    assert!(first.is_payload("c", "d"));
    let only = read("<message><c xmlns='d'/></message>");
    let empty = only.without(|_| true).unwrap();
    assert_eq!(write(&empty), "<message/>");
    assert!(empty.payload.is_none() && empty.children().next().is_none());
}

#[test]
fn its_size_is_no_less_than_what_is_written() {
    let quotes = "&apos;".repeat(500);
    for xml in [
        format!("<message id='{quotes}' to='a@b'><body>x</body></message>"),
        format!(
            "<message to='a@b/{}' xml:lang='en-{}'/>",
            "&gt;".repeat(200),
            "x".repeat(50)
        ),
        format!("<presence xmlns:a='b' a:c='{quotes}'/>"),
    ] {
        let stanza = read(&xml).unwrap();
        assert!(stanza.size() >= stanza.to_bytes().len(), "{xml}");
        let stored = Stanza::from_stored(&stanza.to_bytes().into()).unwrap();
        assert_eq!(stored.size(), stanza.size(), "it is the same on every node");
    }
}

/// Of what its sender puts around it nothing is kept that its size does not say.
#[test]
fn a_long_root_tag_is_forgotten() {
    let long = "x".repeat(10_000);
    for xml in [
        format!("<message xml:lang='{long}' xmlns:a='b'><a:c/><body>x</body></message>"),
        format!("<message type='{long}' xmlns:a='b'><a:c/><body>x</body></message>"),
        format!(
            "<message {} xmlns:a='b'><a:c/><body>x</body></message>",
            " ".repeat(10_000)
        ),
    ] {
        let stanza = read(&xml).unwrap();
        assert!(stanza.raw.len() < 1_000, "{} bytes", stanza.raw.len());
        assert_eq!(
            write(&stanza),
            "<message xmlns:a='b'><a:c/><body>x</body></message>"
        );
        assert!(stanza.child("c", "b").is_some());
        assert_eq!(stanza.children().count(), 2);
    }
    let empty = read(&format!(
        "<presence type='unavailable'{}/>",
        " ".repeat(10_000)
    ))
    .unwrap();
    assert_eq!(
        (empty.raw.len(), write(&empty).as_str()),
        (30, "<presence type='unavailable'/>")
    );
}
