//! Hostile input, each with the stream error condition (RFC 6120 section 4.9.3) it is answered
//! with. The same whether it comes at once or byte by byte.

use bytes::BytesMut;
use cirrus_xml::{Frame, Framer, Limits, Scope, XmlError, check, parse_header};

const LIMITS: Limits = Limits {
    max_stanza: 400,
    max_depth: 5,
    max_attributes: 4,
    max_name: 20,
    max_header: 300,
};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// What a server makes of a stream, in pieces of `cut` bytes.
fn receive(stream: &[u8], cut: usize) -> Result<(), XmlError> {
    let mut framer = Framer::new(LIMITS);
    let mut buf = BytesMut::new();
    let mut scope = Scope::client();
    for piece in stream.chunks(cut) {
        buf.extend_from_slice(piece);
        while let Some(frame) = framer.next(&mut buf)? {
            match frame {
                Frame::Open(bytes) => scope = parse_header(&bytes, &LIMITS)?.scope,
                Frame::Element(bytes) => drop(check(&bytes, &scope, &LIMITS)?),
                Frame::Close | Frame::Space(_) => {}
            }
        }
    }
    Ok(())
}

fn answer(stream: &[u8]) -> &'static str {
    let whole = receive(stream, stream.len());
    assert_eq!(receive(stream, 1), whole, "{}", stream.escape_ascii());
    whole.map_or_else(|error| error.stream_condition(), |()| "accepted")
}

/// Checks inputs that follow a good header.
fn inside(cases: &[(&str, &str)]) {
    for (input, expected) in cases {
        let stream = format!("{HEADER}{input}");
        assert_eq!(answer(stream.as_bytes()), *expected, "{input:?}");
    }
}

/// Checks inputs that are a whole stream.
fn from_the_start(cases: &[(&[u8], &str)]) {
    for (input, expected) in cases {
        assert_eq!(answer(input), *expected, "{}", input.escape_ascii());
    }
}

#[test]
fn what_is_fine() {
    inside(&[
        ("<a/>", "accepted"),
        ("<a></a >", "accepted"),
        ("<a\n b = 'c'\td=\"e\" />", "accepted"),
        ("<a b='>'>></a>", "accepted"),
        ("<a b='\"' c=\"'\"/>", "accepted"),
        ("<a>]] ]> &gt; \" '</a>", "accepted"),
        ("<a><![CDATA[<b>&&]]]]></a>", "accepted"),
        ("<a><![CDATA[]]></a>", "accepted"),
        (
            "<a>&amp;&lt;&gt;&apos;&quot;&#9;&#x10FFFF;&#xe9;</a>",
            "accepted",
        ),
        ("<a>\u{7F}\u{85}\u{FFFD}\u{1F600}</a>", "accepted"),
        ("<a xmlns=''/>", "accepted"),
        ("<a xmlns:p='urn:p' p:b='1' b='2'><p:c/></a>", "accepted"),
        (
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>",
            "accepted",
        ),
        ("<stream:features/>", "accepted"),
        ("<\u{E9}l\u{E9}ment/>", "accepted"),
        (" \t\r\n<a/> <b/>\n", "accepted"),
        ("</stream:stream>", "accepted"),
        ("</stream:stream \n>", "accepted"),
        ("<a", "accepted"),
    ]);
    from_the_start(&[
        (b"<a/>", "accepted"),
        (b" \n<a>", "accepted"),
        (
            b" <?xml version=\"1.0\" encoding='utf-8' standalone='no' ?> <a>",
            "accepted",
        ),
        (b"<?xml version = '1.0'?><a b='?>'", "accepted"),
    ]);
}

#[test]
fn tags() {
    inside(&[
        ("<a></b>", "not-well-formed"),
        ("<a><b></a></b>", "not-well-formed"),
        ("<a></ab>", "not-well-formed"),
        // It does not wait for an end that cannot come.
        ("<a><b></a>", "not-well-formed"),
        ("<a></a<b>", "not-well-formed"),
        ("<a b<", "not-well-formed"),
        ("<a/ ", "not-well-formed"),
        ("<a b/='c'", "not-well-formed"),
        ("<a>< ", "not-well-formed"),
        ("<ab></a>", "not-well-formed"),
        ("<a></ a>", "not-well-formed"),
        ("<a></a b='c'>", "not-well-formed"),
        ("<a></A>", "not-well-formed"),
        ("< a/>", "not-well-formed"),
        ("<>", "not-well-formed"),
        ("<></>", "not-well-formed"),
        ("<a/ >", "not-well-formed"),
        ("<a / ></a>", "not-well-formed"),
        ("<a//>", "not-well-formed"),
        ("<a<b/>", "not-well-formed"),
        ("<1/>", "not-well-formed"),
        ("<-a/>", "not-well-formed"),
        ("<.a/>", "not-well-formed"),
        ("<a:/>", "not-well-formed"),
        ("<:a/>", "not-well-formed"),
        ("<a:b:c xmlns:a='urn:a'/>", "not-well-formed"),
        ("<a\u{D7}/>", "not-well-formed"),
        ("<a\u{FFFE}/>", "not-well-formed"),
        ("<a\u{A0}b='c'/>", "not-well-formed"),
        ("<a@/>", "not-well-formed"),
        // Names of the fifth edition of XML 1.0 alone.
        ("<\u{10000}/>", "not-well-formed"),
        ("<a\u{200C}/>", "not-well-formed"),
    ]);
}

#[test]
fn attributes() {
    inside(&[
        ("<a b/>", "not-well-formed"),
        ("<a b=/>", "not-well-formed"),
        ("<a b=c/>", "not-well-formed"),
        ("<a b='c\"/><d", "not-well-formed"),
        ("<a ='c'/>", "not-well-formed"),
        ("<a 'c'/>", "not-well-formed"),
        ("<a b='c'd='e'/>", "not-well-formed"),
        ("<a b='c' b='d'/>", "not-well-formed"),
        ("<a b='<'/>", "not-well-formed"),
        ("<a b='&'/>", "not-well-formed"),
        ("<a b='&amp'/>", "not-well-formed"),
        ("<a b='\u{1}'/>", "not-well-formed"),
        ("<a b='\u{FFFF}'/>", "not-well-formed"),
        ("<a b=''c=''/>", "not-well-formed"),
        ("<a 1='b'/>", "not-well-formed"),
    ]);
}

#[test]
fn characters_and_references() {
    inside(&[
        ("<a>\0</a>", "not-well-formed"),
        ("<a>\u{8}</a>", "not-well-formed"),
        ("<a>\u{B}</a>", "not-well-formed"),
        ("<a>\u{1F}</a>", "not-well-formed"),
        ("<a>\u{FFFE}</a>", "not-well-formed"),
        ("<a>\u{FFFF}</a>", "not-well-formed"),
        ("<a><![CDATA[\u{1}]]></a>", "not-well-formed"),
        ("<a>]]></a>", "not-well-formed"),
        ("<a>]]]></a>", "not-well-formed"),
        ("<a>&</a>", "not-well-formed"),
        ("<a>& b</a>", "not-well-formed"),
        ("<a>&amp</a>", "not-well-formed"),
        ("<a>&;</a>", "not-well-formed"),
        ("<a>&#;</a>", "not-well-formed"),
        ("<a>&#x;</a>", "not-well-formed"),
        ("<a>&#X41;</a>", "not-well-formed"),
        ("<a>&#4A;</a>", "not-well-formed"),
        ("<a>&#+65;</a>", "not-well-formed"),
        ("<a>&#0;</a>", "not-well-formed"),
        ("<a>&#1;</a>", "not-well-formed"),
        ("<a>&#x1F;</a>", "not-well-formed"),
        ("<a>&#xD800;</a>", "not-well-formed"),
        ("<a>&#xFFFE;</a>", "not-well-formed"),
        ("<a>&#x110000;</a>", "not-well-formed"),
        ("<a>&#9999999;</a>", "not-well-formed"),
        ("<a>&1;</a>", "not-well-formed"),
        ("<a>&#00000065;</a>", "policy-violation"),
        ("<a>&#99999999999999999999;</a>", "policy-violation"),
    ]);
}

#[test]
fn namespaces() {
    inside(&[
        ("<p:a/>", "bad-namespace-prefix"),
        ("<a p:b='c'/>", "bad-namespace-prefix"),
        ("<a><b xmlns:p='urn:p'/><p:c/></a>", "bad-namespace-prefix"),
        (
            "<a><b xmlns:p='urn:p'></b><c p:d=''/></a>",
            "bad-namespace-prefix",
        ),
        ("<xmlns:a/>", "not-well-formed"),
        ("<a xmlns:p=''/>", "not-well-formed"),
        ("<a xmlns:='urn:p'/>", "not-well-formed"),
        ("<a xmlns:xmlns='urn:p'/>", "not-well-formed"),
        ("<a xmlns:xml='urn:p'/>", "not-well-formed"),
        (
            "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
            "not-well-formed",
        ),
        (
            "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
            "not-well-formed",
        ),
        (
            "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
            "not-well-formed",
        ),
        (
            "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            "not-well-formed",
        ),
        ("<a xmlns='urn:a' xmlns='urn:a'/>", "not-well-formed"),
        ("<a xmlns:p='urn:a' xmlns:p='urn:b'/>", "not-well-formed"),
        (
            "<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>",
            "not-well-formed",
        ),
        (
            "<a xmlns:p='u' xmlns:q='&#117;' p:b='' q:b=''/>",
            "not-well-formed",
        ),
        (
            "<a xmlns:p='http://etherx.jabber.org/streams' p:b='' stream:b=''/>",
            "not-well-formed",
        ),
        ("<a xmlns='a b'/>", "not-well-formed"),
        ("<a xmlns:p='a}b'/>", "not-well-formed"),
        ("<a xmlns='a&#10;b'/>", "not-well-formed"),
    ]);
}

#[test]
fn restricted_xml() {
    inside(&[
        ("<!-- a -->", "restricted-xml"),
        ("<a><!-- b --></a>", "restricted-xml"),
        ("<?a b?>", "restricted-xml"),
        ("<a><?b c?></a>", "restricted-xml"),
        ("<a><?xml version='1.0'?></a>", "restricted-xml"),
        ("<?xml version='1.0'?>", "restricted-xml"),
        ("<!DOCTYPE a>", "restricted-xml"),
        ("<a><!DOCTYPE b></a>", "restricted-xml"),
        ("<a>&b;</a>", "restricted-xml"),
        ("<a b='&c;'/>", "restricted-xml"),
        ("<a>&nbsp;</a>", "restricted-xml"),
        ("<a><!ELEMENT b></a>", "not-well-formed"),
        ("<a><![cdata[b]]></a>", "not-well-formed"),
        ("<a><![CDATA b]]></a>", "not-well-formed"),
    ]);
    from_the_start(&[
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>", "restricted-xml"),
        (b"<!-- a --><a>", "restricted-xml"),
        (b"<?a b?><a>", "restricted-xml"),
        (b"<?a?>", "restricted-xml"),
        (b"<?php echo", "restricted-xml"),
        (b"<?xml-stylesheet href='a'?><a>", "restricted-xml"),
        (
            b"<?xml version='1.0'?><?xml version='1.0'?><a>",
            "restricted-xml",
        ),
        (b"<?xml version='1.1'?><a>", "restricted-xml"),
    ]);
}

#[test]
fn the_stream_around_the_stanzas() {
    inside(&[
        ("a", "bad-format"),
        ("<a/>b", "bad-format"),
        ("&amp;", "bad-format"),
        ("<![CDATA[ ]]>", "bad-format"),
        ("\u{A0}", "bad-format"),
        ("</stream>", "not-well-formed"),
        ("</>", "not-well-formed"),
        ("</ stream:stream>", "not-well-formed"),
        ("</stream:streams>", "not-well-formed"),
        ("</stream:stream a='b'>", "not-well-formed"),
        ("</stream:stream\u{C}>", "not-well-formed"),
    ]);
    from_the_start(&[
        (b"GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        (b"a<a>", "not-well-formed"),
        (b"</a>", "not-well-formed"),
        (b"\xEF\xBB\xBF<a>", "not-well-formed"),
        (b"\x16\x03\x01\x02\x00\x01", "not-well-formed"),
        (b"<a b='c' b='c'>", "not-well-formed"),
        (b"<a b='<'>", "not-well-formed"),
        (
            b"<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''>",
            "not-well-formed",
        ),
        (
            b"<foobar:stream xmlns='jabber:client'>",
            "bad-namespace-prefix",
        ),
        (b"<a p:b='c'>", "bad-namespace-prefix"),
        (b"<?xml?><a>", "restricted-xml"),
        (b"<?xml ?><a>", "not-well-formed"),
        (b"<?xml encoding='utf-8'?><a>", "not-well-formed"),
        (
            b"<?xml version='1.0' standalone='maybe'?><a>",
            "not-well-formed",
        ),
        (
            b"<?xml version='1.0' standalone='yes' encoding='utf-8'?><a>",
            "not-well-formed",
        ),
        (
            b"<?xml version='1.0'encoding='utf-8'?><a>",
            "not-well-formed",
        ),
        (b"<?xml version='1.0' a='b'?><a>", "not-well-formed"),
        (b"<?xml version=1.0?><a>", "not-well-formed"),
        (b"<?XML version='1.0'?><a>", "restricted-xml"),
    ]);
}

#[test]
fn encodings() {
    from_the_start(&[
        (
            b"<?xml version='1.0' encoding='ISO-8859-1'?><a>",
            "unsupported-encoding",
        ),
        (
            b"<?xml version='1.0' encoding='utf-16'?><a>",
            "unsupported-encoding",
        ),
        (b"<?xml version='1.0' encoding='UTF-8'?><a>\n", "accepted"),
        (b"\xFF\xFE<\0a\0>\0", "unsupported-encoding"),
        (b"\xFE\xFF\0<\0a\0>", "unsupported-encoding"),
        (b"<\0a\0>\0", "unsupported-encoding"),
        (b"\0<\0a\0>", "unsupported-encoding"),
        (b"<a b='\xE9'>", "unsupported-encoding"),
        (b"<a><b>\xE9</b>", "unsupported-encoding"),
        // Overlong, a surrogate, above U+10FFFF, cut short, a lone continuation.
        (b"<a><b>\xC0\xBC</b>", "unsupported-encoding"),
        (b"<a><b>\xED\xA0\x80</b>", "unsupported-encoding"),
        (b"<a><b>\xF4\x90\x80\x80</b>", "unsupported-encoding"),
        (b"<a><b>\xE2\x82</b>", "unsupported-encoding"),
        (b"<a><b c='\x80'/>", "unsupported-encoding"),
    ]);
}

#[test]
fn limits() {
    let body = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - 7));
    let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let name = |bytes: usize| format!("<{}/>", "n".repeat(bytes));
    inside(&[
        (&body(400), "accepted"),
        (&body(401), "policy-violation"),
        // It does not wait for the end.
        (&body(1000)[..401], "policy-violation"),
        (&format!("<a b='{}", "x".repeat(400)), "policy-violation"),
        (
            &format!("<a><![CDATA[{}", "x".repeat(400)),
            "policy-violation",
        ),
        (&format!("</{}", "x".repeat(400)), "policy-violation"),
        (&deep(5), "accepted"),
        (&deep(6), "policy-violation"),
        ("<a><a><a><a><a/></a></a></a></a>", "accepted"),
        (
            "<a><a><a><a><a><a/></a></a></a></a></a>",
            "policy-violation",
        ),
        (&"<a>".repeat(6), "policy-violation"),
        ("<a b='' c='' d='' e=''/>", "accepted"),
        ("<a b='' c='' d='' e='' f=''/>", "policy-violation"),
        (
            "<a xmlns:p='u' xmlns:q='u'><b xmlns='v' xmlns:r='u'/><b xmlns='v'/></a>",
            "accepted",
        ),
        (
            "<a xmlns:p='u' xmlns:q='u'><b xmlns='v' xmlns:r='u'><c xmlns='w'/></b></a>",
            "policy-violation",
        ),
        (&name(20), "accepted"),
        (&name(21), "policy-violation"),
        (&format!("<a {}='b'/>", "n".repeat(21)), "policy-violation"),
        (&format!("<{}:a/>", "n".repeat(19)), "policy-violation"),
    ]);
    let header = |bytes: usize| format!("<a b='{}'>", "x".repeat(bytes - 8));
    from_the_start(&[
        (header(300).as_bytes(), "accepted"),
        (header(301).as_bytes(), "policy-violation"),
        (&header(1000).as_bytes()[..301], "policy-violation"),
        (
            format!("<?xml {}", " ".repeat(300)).as_bytes(),
            "policy-violation",
        ),
        (format!("{}<a>", " ".repeat(3000)).as_bytes(), "accepted"),
    ]);
}

#[test]
fn every_name_of_a_condition_is_one_of_rfc_6120() {
    let defined = [
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-stanza-type",
        "unsupported-version",
    ];
    for error in [
        XmlError::NotWellFormed { what: "it", at: 0 },
        XmlError::Restricted { what: "it", at: 0 },
        XmlError::TooBig {
            what: "things",
            limit: 0,
        },
        XmlError::BadNamespacePrefix { at: 0 },
        XmlError::InvalidEncoding { at: 0 },
        XmlError::UnsupportedEncoding,
        XmlError::TextBetweenStanzas,
    ] {
        assert!(defined.contains(&error.stream_condition()), "{error}");
    }
}
