//! Stream headers, STARTTLS and what breaks a stream before a login.

use super::*;

#[test]
fn before_tls_only_tls_is_offered() {
    let mut talk = Talk::new();
    let read = talk.send(HEADER);
    let features = read.strip_prefix(OPENED).unwrap();
    assert_eq!(
        features,
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/>\
         </starttls></stream:features>"
    );
    let read = talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(read, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let effects = talk.effects();
    assert!(matches!(&effects[..], [Effect::StartTls { host }] if &**host == "example.com"));
    assert!(
        !talk.stream.wants_frames(),
        "what is injected behind <starttls/> is not read"
    );
}

#[test]
fn after_tls_mechanisms_and_bindings_are_offered() {
    let mut talk = Talk::with(Settings {
        features: Features {
            register: true,
            sasl2: false,
            ..settings().features
        },
        ..settings()
    });
    talk.send(HEADER);
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(talk.on(Event::Secured(secured())), "");
    let read = talk.send(HEADER);
    assert_eq!(
        read.strip_prefix(OPENED).unwrap(),
        "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
         <mechanism>SCRAM-SHA-256-PLUS</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism>\
         <mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>\
         <mechanism>PLAIN</mechanism></mechanisms>\
         <sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>\
         <channel-binding type='tls-exporter'/><channel-binding type='tls-server-end-point'/>\
         </sasl-channel-binding><register xmlns='http://jabber.org/features/iq-register'/>\
         <c xmlns='http://jabber.org/protocol/caps'/></stream:features>"
    );
}

#[test]
fn without_binding_data_no_plus_is_offered() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    talk.on(Event::Secured(Secured {
        bindings: Vec::new(),
        ..secured()
    }));
    let read = talk.send(HEADER);
    assert!(
        !read.contains("PLUS") && !read.contains("sasl-channel-binding"),
        "{read}"
    );
    assert!(
        read.contains("<mechanism>SCRAM-SHA-1</mechanism>"),
        "{read}"
    );
}

#[test]
fn direct_tls_starts_with_the_handshake() {
    let settings = Arc::new(settings());
    let mut stream = Stream::new(settings, "192.0.2.1", true, 0);
    assert!(!stream.wants_frames());
    let mut out = Output::default();
    stream.on(0, Event::Secured(secured()), &mut Sevens, &mut out);
    assert!(stream.wants_frames());
    assert!(matches!(
        &out.effects[..],
        [Effect::Restart {
            authenticated: false
        }]
    ));
}

#[test]
fn starttls_twice_is_a_failure() {
    let mut talk = Talk::new();
    talk.secure();
    let read = talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(
        read,
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"
    );
    assert!(matches!(&talk.effects()[..], [Effect::Close]));
}

#[test]
fn the_language_and_the_address_are_noted() {
    let mut talk = Talk::new();
    let header = HEADER.replace(" to=", " from='romeo@example.com/x' xml:lang='de' to=");
    let read = talk.send(&header);
    assert!(
        read.contains(" to='romeo@example.com' version='1.0' xml:lang='en'>"),
        "{read}"
    );
    assert_eq!(talk.stream.lang.as_deref(), Some("de"));
}

/// A header, and the error that answers it.
#[test]
fn wrong_headers_have_their_errors() {
    let stream = "http://etherx.jabber.org/streams";
    let table = [
        (
            "<stream:stream to='example.com' version='1.0' xmlns='jabber:client' \
          xmlns:stream='urn:x'>"
                .to_owned(),
            "invalid-namespace",
        ),
        (
            HEADER.replace("jabber:client", "jabber:server"),
            "invalid-namespace",
        ),
        (
            HEADER.replace("xmlns='jabber:client' ", ""),
            "invalid-namespace",
        ),
        (
            format!("<stream to='example.com' version='1.0' xmlns='{stream}'>"),
            "bad-namespace-prefix",
        ),
        (
            "<stream:stream to='example.com' version='1.0' xmlns='jabber:client'>".to_owned(),
            "bad-namespace-prefix",
        ),
        (
            HEADER.replace("<stream:stream", "<stream:flow"),
            "bad-format",
        ),
        (
            HEADER.replace(" version='1.0' ", " "),
            "unsupported-version",
        ),
        (
            HEADER.replace(" version='1.0' ", " version='0.9' "),
            "unsupported-version",
        ),
        (
            HEADER.replace(" version='1.0' ", " version='one' "),
            "unsupported-version",
        ),
        (
            HEADER.replace("to='example.com' ", ""),
            "improper-addressing",
        ),
        (HEADER.replace("example.com", "a b"), "improper-addressing"),
        (HEADER.replace("example.com", "example.net"), "host-unknown"),
        (
            HEADER.replace("example.com", "old.example.com"),
            "host-gone",
        ),
        (HEADER.replace(" to=", " from='@' to="), "invalid-from"),
        (
            HEADER.replace(
                "<?xml version='1.0'?>",
                "<?xml version='1.0' encoding='UTF-16'?>",
            ),
            "unsupported-encoding",
        ),
        (
            HEADER.replace("<?xml version='1.0'?>", "<?php 1 ?>"),
            "restricted-xml",
        ),
        (
            HEADER.replace("<?xml version='1.0'?>", "<!DOCTYPE a>"),
            "restricted-xml",
        ),
        (HEADER.replace("to=", "to"), "not-well-formed"),
        (
            HEADER.replace("example.com", &"a".repeat(9_000)),
            "policy-violation",
        ),
        ("hello".to_owned(), "not-well-formed"),
    ];
    for (header, condition) in table {
        let mut talk = Talk::new();
        let read = talk.send(&header);
        let rest = read
            .strip_prefix(OPENED)
            .unwrap_or_else(|| panic!("{header}: {read}"));
        assert!(rest.starts_with(&error(condition)), "{header}: {rest}");
        assert!(rest.ends_with("</stream:error></stream:stream>"), "{rest}");
        assert!(matches!(&talk.effects()[..], [Effect::Close]));
        assert!(talk.stream.is_ended());
    }
}

#[test]
fn newer_versions_negotiate_down() {
    let mut talk = Talk::new();
    let read = talk.send(&HEADER.replace("='1.0' xmlns", "='2.1' xmlns"));
    assert!(read.starts_with(OPENED), "{read}");
}

#[test]
fn another_host_than_that_of_the_certificate_is_refused() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    talk.on(Event::Secured(secured()));
    let read = talk.send(&HEADER.replace("example.com", "example.org"));
    assert!(read.contains(&error("host-unknown")), "{read}");
}

/// What is sent after the header and before a login, and the error.
#[test]
fn nothing_but_a_login_goes_before_it() {
    let table = [
        ("<message to='a@example.com'/>", "not-authorized"),
        ("<presence/>", "not-authorized"),
        (BIND, "not-authorized"),
        (
            "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>",
            "not-authorized",
        ),
        ("<iq type='get'/>", "not-authorized"),
        ("<message xmlns='jabber:server'/>", "invalid-namespace"),
        ("<nonsense/>", "unsupported-stanza-type"),
        (
            "<compress xmlns='http://jabber.org/protocol/compress'/>",
            "unsupported-feature",
        ),
        ("<a:b/>", "bad-namespace-prefix"),
        ("<a b=c/>", "not-well-formed"),
        ("<a>&nbsp;</a>", "restricted-xml"),
        ("<!-- a -->", "restricted-xml"),
        ("text", "bad-format"),
        ("<a></b>", "not-well-formed"),
    ];
    for (sent, condition) in table {
        let mut talk = Talk::new();
        talk.secure();
        let read = talk.send(sent);
        assert!(read.starts_with(&error(condition)), "{sent}: {read}");
        assert!(read.ends_with("</stream:stream>"), "{sent}: {read}");
        assert!(matches!(&talk.effects()[..], [Effect::Close]), "{sent}");
    }
}

#[test]
fn too_large_an_element_before_the_login() {
    let mut talk = Talk::new();
    talk.secure();
    let read = talk.send(&format!("<auth>{}", "A".repeat(20_000)));
    assert!(read.starts_with(&error("policy-violation")), "{read}");
}

#[test]
fn a_close_is_answered_by_a_close() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    assert_eq!(talk.send("</stream:stream>"), "</stream:stream>");
    assert!(matches!(&talk.effects()[..], [Effect::Close]));
    assert_eq!(talk.send("<presence/>"), "");
}

#[test]
fn a_clients_error_is_answered_by_a_close() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    let read = talk.send("<stream:error><reset xmlns='urn:x'/></stream:error>");
    assert_eq!(read, "</stream:stream>");
    assert!(talk.stream.is_ended());
}

#[test]
fn a_redirect_names_the_address() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    assert_eq!(
        talk.on(Event::Redirect("[2001:db8::1]:5222".into())),
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>\
         [2001:db8::1]:5222</see-other-host></stream:error></stream:stream>"
    );
}

#[test]
fn in_a_handshake_nothing_is_said() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    talk.effects();
    assert_eq!(talk.on(Event::Stop(StreamError::SystemShutdown)), "");
    assert!(matches!(&talk.effects()[..], [Effect::Close]));
}
