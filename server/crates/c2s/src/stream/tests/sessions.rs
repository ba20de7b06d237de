//! Binding, and stanzas of an open stream.

use cirrus_stanza::Condition;

use super::*;

fn sent(event: &PipeEvent) -> (u64, String) {
    let (PipeEvent::Stanza { k, stanza }
    | PipeEvent::Refused {
        k,
        reply: Some(stanza),
    }) = event
    else {
        panic!("no stanza: {event:?}")
    };
    (*k, String::from_utf8(stanza.to_bytes()).unwrap())
}

#[test]
fn a_resource_is_bound_by_the_home() {
    let mut talk = Talk::new();
    talk.log_in();
    assert_eq!(talk.send(BIND), "");
    let effects = talk.effects();
    let [
        Effect::Attach { user: attached },
        Effect::Home(PipeEvent::Bind {
            user,
            resource,
            login,
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (attached.as_str(), user.as_str()),
        ("juliet@example.com", "juliet@example.com")
    );
    assert_eq!(resource.as_deref(), Some("phone"));
    assert_eq!((&*login.mechanism, &*login.address), ("PLAIN", "192.0.2.1"));
    assert!(!talk.stream.wants_frames());
    assert_eq!(
        talk.home(PipeOut::Bound {
            jid: juliet(),
            sm: None,
            archive: None
        }),
        "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <jid>juliet@example.com/phone</jid></bind></iq>"
    );
    assert_eq!(talk.stream.jid(), Some(&juliet()));
}

#[test]
fn the_home_may_choose_the_resource() {
    for bind in [
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource/></bind>",
    ] {
        let mut talk = Talk::new();
        talk.log_in();
        talk.send(&format!("<iq type='set' id='b'>{bind}</iq>"));
        let effects = talk.effects();
        assert!(
            matches!(
                &effects[..],
                [_, Effect::Home(PipeEvent::Bind { resource: None, .. })]
            ),
            "{effects:?}"
        );
    }
}

#[test]
fn a_refused_resource_may_be_followed_by_another() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send(BIND);
    let error = StanzaError::from(Condition::ResourceConstraint);
    assert_eq!(
        talk.home(PipeOut::BindRefused { error }),
        "<iq type='error' id='b'><error type='wait'><resource-constraint \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    );
    let read = talk.send(&BIND.replace("phone", "&#9;"));
    assert!(read.contains("<bad-request"), "{read}");
    talk.effects();
    talk.send(BIND);
    let effects = talk.effects();
    assert!(
        matches!(&effects[..], [Effect::Home(PipeEvent::Bind { .. })]),
        "attached once: {effects:?}"
    );
}

#[test]
fn before_the_resource_no_stanza_is_taken() {
    for stanza in [
        "<message to='a@example.com'/>",
        "<presence/>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='get' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<iq type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    ] {
        let mut talk = Talk::new();
        talk.log_in();
        let read = talk.send(stanza);
        assert!(
            read.starts_with(&error("not-authorized")),
            "{stanza}: {read}"
        );
        assert!(matches!(&talk.effects()[..], [Effect::Close]), "{stanza}");
    }
}

#[test]
fn what_follows_the_bind_waits_for_its_answer() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send(&format!("{BIND}<presence/>"));
    assert_eq!(talk.effects().len(), 2);
    talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    talk.send("");
    assert_eq!(
        sent(&talk.told()[0]),
        (1, "<presence from='juliet@example.com/phone'/>".into())
    );
}

#[test]
fn stanzas_are_numbered_and_stamped() {
    let mut talk = Talk::new();
    talk.bind();
    let read = talk.send(
        "<presence/><message to='romeo@example.com' from='juliet@example.com'><body>a</body>\
         </message> <iq type='get' id='1' from='juliet@example.com/phone'><ping \
         xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(read, "");
    let told: Vec<_> = talk.told().iter().map(sent).collect();
    let from = "from='juliet@example.com/phone'";
    assert_eq!(
        told,
        [
            (1, format!("<presence {from}/>")),
            (
                2,
                format!("<message to='romeo@example.com' {from}><body>a</body></message>")
            ),
            (
                3,
                format!("<iq type='get' id='1' {from}><ping xmlns='urn:xmpp:ping'/></iq>")
            ),
        ]
    );
}

#[test]
fn the_streams_language_is_the_stanzas() {
    let mut talk = Talk::new();
    talk.secure();
    talk.send(&plain("juliet", "secret"));
    talk.on(Event::Verified(Ok(Some(account()))));
    talk.send(&HEADER.replace(" to=", " xml:lang='de' to="));
    talk.send(BIND);
    talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    talk.effects();
    talk.send("<presence/><presence xml:lang='fr'/>");
    let told: Vec<_> = talk.told().iter().map(|event| sent(event).1).collect();
    assert!(
        told[0].contains("xml:lang='de'") && told[1].contains("xml:lang='fr'"),
        "{told:?}"
    );
}

#[test]
fn another_senders_address_ends_the_stream() {
    for from in [
        "romeo@example.com",
        "juliet@example.com/tablet",
        "example.com",
        "@",
        "a@b@c",
    ] {
        let mut talk = Talk::new();
        talk.bind();
        let read = talk.send(&format!("<presence from='{from}'/>"));
        assert!(read.starts_with(&error("invalid-from")), "{from}: {read}");
        let effects = talk.effects();
        assert!(
            matches!(
                &effects[..],
                [
                    Effect::Home(PipeEvent::Closed { clean: false }),
                    Effect::Close
                ]
            ),
            "{effects:?}"
        );
    }
}

/// A stanza, and the condition of the error that comes back through the home.
#[test]
fn refused_stanzas_come_back_through_the_home() {
    let table = [
        (
            "<message to='@' id='m'/>",
            "jid-malformed",
            "<message type='error' id='m'",
        ),
        (
            "<presence to='a@b@c/d'/>",
            "jid-malformed",
            "<presence type='error'",
        ),
        (
            "<iq type='get' id='i' to='a b'><a xmlns='u'/></iq>",
            "jid-malformed",
            "<iq type='error' id='i'",
        ),
        (
            "<iq type='get' id='i'/>",
            "bad-request",
            "<iq type='error' id='i'",
        ),
        (
            "<iq type='set' id='i'><a/><b/></iq>",
            "bad-request",
            "<iq type='error' id='i'",
        ),
        (
            "<iq type='ask' id='i'><a/></iq>",
            "bad-request",
            "<iq type='error' id='i'",
        ),
        (
            "<iq type='get'><a/></iq>",
            "bad-request",
            "<iq type='error'",
        ),
        (
            "<presence type='here'/>",
            "bad-request",
            "<presence type='error'",
        ),
    ];
    for (stanza, condition, start) in table {
        let mut talk = Talk::new();
        talk.bind();
        assert_eq!(talk.send(stanza), "", "{stanza}");
        let told = talk.told();
        let (k, reply) = sent(&told[0]);
        assert_eq!((told.len(), k), (1, 1), "{stanza}");
        assert!(
            reply.starts_with(start) && reply.contains(condition),
            "{stanza}: {reply}"
        );
        assert!(matches!(told[0], PipeEvent::Refused { .. }), "{stanza}");
    }
}

#[test]
fn what_may_not_be_answered_counts_all_the_same() {
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(talk.send("<message type='error' to='@'/><presence/>"), "");
    let told = talk.told();
    assert!(
        matches!(told[0], PipeEvent::Refused { k: 1, reply: None }),
        "{told:?}"
    );
    assert_eq!(sent(&told[1]).0, 2);
}

/// What is sent on an open stream, and the error that ends it.
#[test]
fn what_is_no_stanza_ends_the_stream() {
    let large = format!("<message><body>{}</body></message>", "a".repeat(262_144));
    let deep = "<message>".to_owned() + &"<a>".repeat(70);
    let deep = deep + &"</a>".repeat(70) + "</message>";
    let table = [
        ("<nonsense/>", "unsupported-stanza-type"),
        ("<a xmlns='urn:x'/>", "unsupported-stanza-type"),
        ("<message xmlns='urn:x'/>", "invalid-namespace"),
        (
            "<iq xmlns='jabber:server' type='get' id='1'><a/></iq>",
            "invalid-namespace",
        ),
        ("<message><x:a/></message>", "bad-namespace-prefix"),
        ("<message>&amp</message>", "not-well-formed"),
        ("<message>&#1;</message>", "not-well-formed"),
        ("<message a='1' a='2'/>", "not-well-formed"),
        ("<message><?a b?></message>", "restricted-xml"),
        ("<message>&eacute;</message>", "restricted-xml"),
        ("between", "bad-format"),
        (&large, "policy-violation"),
        (&deep, "policy-violation"),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
            "unsupported-stanza-type",
        ),
    ];
    for (xml, condition) in table {
        let mut talk = Talk::new();
        talk.bind();
        let read = talk.send(xml);
        assert!(
            read.starts_with(&error(condition)),
            "{xml:.100}: {read:.300}"
        );
        assert!(
            read.ends_with("</stream:stream>"),
            "{xml:.100}: {read:.300}"
        );
        let effects = talk.effects();
        assert!(
            matches!(
                &effects[..],
                [
                    Effect::Home(PipeEvent::Closed { clean: false }),
                    Effect::Close
                ]
            ),
            "{xml:.100}: {effects:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_utf8_end_the_stream() {
    let mut talk = Talk::new();
    talk.bind();
    talk.buffer
        .extend_from_slice(b"<message><body>\xff</body></message>");
    let read = talk.send("");
    assert!(read.starts_with(&error("unsupported-encoding")), "{read}");
}

#[test]
fn prefixes_of_the_header_stay_in_force() {
    let mut talk = Talk::new();
    talk.secure();
    talk.send(&plain("juliet", "secret"));
    talk.on(Event::Verified(Ok(Some(account()))));
    talk.send(&HEADER.replace(" to=", " xmlns:x='urn:x' to="));
    talk.send(BIND);
    talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    talk.effects();
    talk.send("<message><x:a/></message>");
    let (_, stanza) = sent(&talk.told()[0]);
    assert!(stanza.contains("xmlns:x='urn:x'"), "{stanza}");
}

#[test]
fn the_homes_stanzas_are_written_and_reported() {
    let mut talk = Talk::new();
    talk.bind();
    let read = talk.home(message(1, "one"));
    assert_eq!(
        read,
        "<message type='chat' to='juliet@example.com/phone'><body>one</body></message>"
    );
    talk.home(message(2, "two"));
    assert_eq!(talk.on(Event::BatchEnd), "");
    assert!(talk.effects().is_empty());
    talk.on(Event::Flushed);
    assert!(talk.told().is_empty(), "more may come");
    talk.now += 100;
    talk.on(Event::Tick);
    assert!(matches!(talk.told()[..], [PipeEvent::Written { n: 2 }]));
    talk.now += 100;
    talk.on(Event::Tick);
    assert!(talk.told().is_empty());
}

#[test]
fn many_stanzas_are_reported_when_they_are_written() {
    let mut talk = Talk::new();
    talk.bind();
    for n in 1..=16 {
        assert!(talk.told().is_empty());
        talk.home(message(n, "word"));
        talk.on(Event::Flushed);
    }
    assert!(matches!(talk.told()[..], [PipeEvent::Written { n: 16 }]));
}

#[test]
fn a_connection_that_breaks_reports_what_was_written_and_nothing_else() {
    let mut talk = Talk::new();
    talk.bind();
    talk.home(message(1, "one"));
    talk.on(Event::Flushed);
    talk.home(message(2, "two"));
    talk.on(Event::Eof);
    let effects = talk.effects();
    assert!(
        matches!(
            effects[..],
            [
                Effect::Home(PipeEvent::Written { n: 1 }),
                Effect::Home(PipeEvent::Closed { clean: false }),
                Effect::Close
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_close_tells_the_home_that_it_was_one() {
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(talk.send("<presence/></stream:stream>"), "</stream:stream>");
    let effects = talk.effects();
    assert!(
        matches!(
            &effects[..],
            [
                Effect::Home(PipeEvent::Stanza { .. }),
                Effect::Home(PipeEvent::Closed { clean: true }),
                Effect::Close
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_broken_connection_is_no_close() {
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(talk.on(Event::Eof), "");
    let effects = talk.effects();
    assert!(matches!(
        &effects[..],
        [
            Effect::Home(PipeEvent::Closed { clean: false }),
            Effect::Close
        ]
    ));
}

#[test]
fn the_home_ends_a_stream_with_and_without_a_word() {
    let mut talk = Talk::new();
    talk.bind();
    let read = talk.home(PipeOut::Close {
        error: Some(StreamError::Conflict),
    });
    assert_eq!(read, error("conflict") + "</stream:error></stream:stream>");
    assert!(
        matches!(&talk.effects()[..], [Effect::Close]),
        "the home knows"
    );
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(talk.home(PipeOut::Close { error: None }), "");
    assert!(matches!(&talk.effects()[..], [Effect::Close]));
}

#[test]
fn a_home_that_is_gone() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send(BIND);
    talk.effects();
    let read = talk.on(Event::HomeGone);
    assert_eq!(
        read,
        error("remote-connection-failed") + "</stream:error></stream:stream>"
    );
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(
        talk.on(Event::HomeGone),
        "",
        "the session may go on elsewhere"
    );
    assert!(matches!(&talk.effects()[..], [Effect::Close]));
}

#[test]
fn a_shutdown_says_so() {
    let mut talk = Talk::new();
    talk.bind();
    let read = talk.on(Event::Stop(StreamError::SystemShutdown));
    assert_eq!(
        read,
        error("system-shutdown") + "</stream:error></stream:stream>"
    );
    assert!(matches!(
        &talk.effects()[..],
        [
            Effect::Home(PipeEvent::Closed { clean: false }),
            Effect::Close
        ]
    ));
    assert_eq!(talk.home(message(1, "late")), "");
}

#[test]
fn every_condition_of_the_rfc_can_be_said() {
    for condition in StreamError::ALL {
        let mut talk = Talk::new();
        talk.bind();
        let read = talk.on(Event::Stop(*condition));
        assert!(read.starts_with(&error(condition.as_str())), "{read}");
    }
}
