//! SASL and registration.

use cirrus_sasl::client::{Client, ClientBinding};
use cirrus_sasl::{Condition, carrier};

use super::*;

fn failure(condition: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/>")
}

fn auth(mechanism: &str, data: &[u8]) -> String {
    format!("{AUTH}'{mechanism}'>{}</auth>", carrier::encode(data))
}

fn response(data: &[u8]) -> String {
    let data = carrier::encode(data);
    format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</response>")
}

fn text_of(xml: &str, name: &str) -> Vec<u8> {
    let inner = xml.split_once('>').unwrap().1;
    let text = inner.strip_suffix(&format!("</{name}>")).unwrap();
    carrier::decode(text).unwrap()
}

#[test]
fn every_scram_logs_in() {
    let table = [
        ("SCRAM-SHA-256-PLUS", Hash::Sha256, true),
        ("SCRAM-SHA-1-PLUS", Hash::Sha1, true),
        ("SCRAM-SHA-256", Hash::Sha256, false),
        ("SCRAM-SHA-1", Hash::Sha1, false),
    ];
    for (mechanism, hash, plus) in table {
        let mut talk = Talk::new();
        talk.secure();
        let mut client = Client::new(hash, "Juliet", password("secret"), "fyko+d2lbbFgONRv9qkx");
        if plus {
            client = client.binding(ClientBinding::Bound(secured().bindings[0].clone()));
        }
        assert_eq!(talk.send(&auth(mechanism, &client.first())), "");
        let effects = talk.effects();
        let [Effect::Load { user }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(user.as_str(), "juliet@example.com");
        assert!(!talk.stream.wants_frames());
        let challenge = talk.on(Event::Loaded(Ok(Some(account()))));
        let answer = client.respond(&text_of(&challenge, "challenge")).unwrap();
        let success = talk.send(&response(&answer));
        client.finish(&text_of(&success, "success")).unwrap();
        assert!(matches!(
            &talk.effects()[..],
            [Effect::Restart {
                authenticated: true
            }]
        ));
        let read = talk.send(HEADER);
        assert_eq!(
            read.strip_prefix(OPENED).unwrap(),
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
             <sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/><ver xmlns='urn:xmpp:features:rosterver'/>\
             <sub xmlns='urn:xmpp:features:pre-approval'/>\
             <c xmlns='http://jabber.org/protocol/caps'/></stream:features>"
        );
    }
}

#[test]
fn plain_logs_in_with_and_without_initial_response() {
    let mut talk = Talk::new();
    talk.secure();
    assert_eq!(
        talk.send(&format!("{AUTH}'PLAIN'/>")),
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
    );
    let data = client::plain("juliet@example.com", "juliet", &password("secret"));
    assert_eq!(talk.send(&response(&data)), "");
    let effects = talk.effects();
    let [Effect::Verify { user, password }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (user.as_str(), password.expose()),
        ("juliet@example.com", "secret")
    );
    assert!(
        !format!("{effects:?}").contains("secret"),
        "no password in a log"
    );
    assert_eq!(
        talk.on(Event::Verified(Ok(Some(account())))),
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
    );
}

#[test]
fn an_unknown_user_fails_like_a_wrong_password() {
    for stored in [None, Some(account())] {
        let mut talk = Talk::new();
        talk.secure();
        let mut client = Client::new(Hash::Sha1, "nobody", password("wrong"), "0123456789abcdef");
        talk.send(&auth("SCRAM-SHA-1", &client.first()));
        let challenge = talk.on(Event::Loaded(Ok(stored)));
        let answer = client.respond(&text_of(&challenge, "challenge")).unwrap();
        assert_eq!(
            talk.send(&response(&answer)),
            failure("not-authorized")
                + "<text xml:lang='en'>the credentials are not valid</text></failure>"
        );
    }
}

#[test]
fn a_name_that_no_account_can_have_fails_late() {
    let mut talk = Talk::new();
    talk.secure();
    let client = Client::new(Hash::Sha1, "a@b", password("wrong"), "0123456789abcdef");
    let read = talk.send(&auth("SCRAM-SHA-1", &client.first()));
    assert!(read.starts_with("<challenge"), "{read}");
    assert!(talk.effects().is_empty());
}

#[test]
fn a_disabled_account_hears_so_only_with_the_right_password() {
    let mut talk = Talk::new();
    talk.secure();
    talk.send(&plain("juliet", "secret"));
    let disabled = Account {
        disabled: true,
        ..account()
    };
    let read = talk.on(Event::Verified(Ok(Some(disabled))));
    assert!(read.starts_with(&failure("account-disabled")), "{read}");
    talk.send(&plain("juliet", "wrong"));
    let read = talk.on(Event::Verified(Ok(None)));
    assert!(read.starts_with(&failure("not-authorized")), "{read}");
}

#[test]
fn a_silent_store_is_a_temporary_failure() {
    let mut talk = Talk::new();
    talk.secure();
    for _ in 0..5 {
        talk.send(&plain("juliet", "secret"));
        let read = talk.on(Event::Verified(Err(Unavailable)));
        assert!(
            read.starts_with(&failure("temporary-auth-failure")),
            "{read}"
        );
    }
    let client = Client::new(Hash::Sha1, "juliet", password("secret"), "0123456789abcdef");
    talk.send(&auth("SCRAM-SHA-1", &client.first()));
    let read = talk.on(Event::Loaded(Err(Unavailable)));
    assert!(
        read.starts_with(&failure("temporary-auth-failure")),
        "{read}"
    );
    assert!(!talk.stream.is_ended());
}

/// What is sent, and the condition that answers it.
#[test]
fn wrong_sasl_has_its_conditions() {
    let ns = "urn:ietf:params:xml:ns:xmpp-sasl";
    let table = [
        (format!("{AUTH}'DIGEST-MD5'/>"), Condition::InvalidMechanism),
        (format!("<auth xmlns='{ns}'/>"), Condition::InvalidMechanism),
        (format!("{AUTH}'plain'/>"), Condition::InvalidMechanism),
        (
            format!("{AUTH}'PLAIN'>???</auth>"),
            Condition::IncorrectEncoding,
        ),
        (
            format!("{AUTH}'PLAIN'>=</auth>"),
            Condition::MalformedRequest,
        ),
        (auth("PLAIN", b"a\0b"), Condition::MalformedRequest),
        (
            auth("PLAIN", b"romeo@example.com\0juliet\0secret"),
            Condition::InvalidAuthzid,
        ),
        (auth("SCRAM-SHA-1", b"n,,x=1"), Condition::MalformedRequest),
        (
            auth("SCRAM-SHA-1", b"y,,n=juliet,r=abc"),
            Condition::NotAuthorized,
        ),
        (
            auth("SCRAM-SHA-1-PLUS", b"n,,n=juliet,r=abc"),
            Condition::MalformedRequest,
        ),
        (
            auth("SCRAM-SHA-1-PLUS", b"p=tls-unique,,n=juliet,r=abc"),
            Condition::NotAuthorized,
        ),
        (response(b"x"), Condition::MalformedRequest),
        (format!("<abort xmlns='{ns}'/>"), Condition::Aborted),
        (
            format!("<challenge xmlns='{ns}'/>"),
            Condition::MalformedRequest,
        ),
        (auth("PLAIN", &[b'x'; 10_300]), Condition::MalformedRequest),
    ];
    for (sent, condition) in table {
        let mut talk = Talk::new();
        talk.secure();
        let read = talk.send(&sent);
        assert!(
            read.starts_with(&failure(condition.name())),
            "{sent}: {read}"
        );
        assert!(!talk.stream.is_ended(), "{sent}");
        let counted = matches!(&talk.effects()[..], [Effect::LoginFailed { .. }]);
        assert_eq!(counted, condition != Condition::Aborted, "{sent}");
    }
}

#[test]
fn a_login_without_tls_needs_encryption() {
    let mut talk = Talk::new();
    talk.send(HEADER);
    let read = talk.send(&plain("juliet", "secret"));
    assert!(read.starts_with(&failure("encryption-required")), "{read}");
}

#[test]
fn too_many_failures_end_the_stream() {
    let mut talk = Talk::new();
    talk.secure();
    for _ in 0..5 {
        talk.send("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    }
    for left in (0..3).rev() {
        talk.send(&plain("juliet", "wrong"));
        let read = talk.on(Event::Verified(Ok(None)));
        assert_eq!(
            read.contains(&error("policy-violation")),
            left == 0,
            "{read}"
        );
    }
    assert!(talk.stream.is_ended());
}

/// Who begins again and again without an end has accounts read: each counts.
#[test]
fn exchanges_that_are_given_up_end_the_stream_too() {
    let client = Client::new(Hash::Sha1, "juliet", password("wrong"), "0123456789abcdef");
    let begin = auth("SCRAM-SHA-1", &client.first());
    let abort = "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    for between in ["", abort] {
        let mut talk = Talk::new();
        talk.secure();
        let mut exchanges = 0;
        while !talk.stream.is_ended() {
            exchanges += 1;
            assert!(exchanges <= 4, "{between}");
            talk.send(&begin);
            if talk.stream.is_ended() {
                break;
            }
            talk.on(Event::Loaded(Ok(None)));
            if !between.is_empty() {
                talk.send(between);
            }
        }
        assert!(exchanges >= 3, "{exchanges}");
    }
}

#[test]
fn a_second_login_is_refused() {
    let mut talk = Talk::new();
    talk.log_in();
    let read = talk.send(&plain("juliet", "secret"));
    assert!(read.starts_with(&error("policy-violation")), "{read}");
}

#[test]
fn an_answer_that_comes_too_late_changes_nothing() {
    let mut talk = Talk::new();
    talk.secure();
    assert_eq!(talk.on(Event::Loaded(Ok(Some(account())))), "");
    assert_eq!(talk.on(Event::Verified(Ok(Some(account())))), "");
    assert!(talk.effects().is_empty());
}

/// The header after a login, and the error.
#[test]
fn after_the_login_the_header_must_fit() {
    let table = [
        (
            HEADER.replace(" to=", " from='romeo@example.com' to="),
            "invalid-from",
        ),
        (
            HEADER.replace("example.com", "example.org"),
            "not-authorized",
        ),
    ];
    for (header, condition) in table {
        let mut talk = Talk::new();
        talk.secure();
        talk.send(&plain("juliet", "secret"));
        talk.on(Event::Verified(Ok(Some(account()))));
        let read = talk.send(&header);
        assert!(read.contains(&error(condition)), "{header}: {read}");
    }
}

const REGISTER: &str = "<iq type='set' id='r'><query xmlns='jabber:iq:register'>\
    <username>Romeo</username><password>secret</password></query></iq>";

fn registering() -> Talk {
    let mut talk = Talk::with(Settings {
        features: Features {
            register: true,
            ..settings().features
        },
        ..settings()
    });
    talk.secure();
    talk
}

#[test]
fn an_account_can_be_registered_and_used() {
    let mut talk = registering();
    assert_eq!(
        talk.send("<iq type='get' id='g'><query xmlns='jabber:iq:register'/></iq>"),
        "<iq type='result' id='g'><query xmlns='jabber:iq:register'><instructions>Choose a user \
         name and a password.</instructions><username/><password/></query></iq>"
    );
    assert_eq!(talk.send(REGISTER), "");
    let effects = talk.effects();
    let [Effect::Register { user, password }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (user.as_str(), password.expose()),
        ("romeo@example.com", "secret")
    );
    assert!(!talk.stream.wants_frames());
    assert_eq!(
        talk.on(Event::Registered(Ok(()))),
        "<iq type='result' id='r'/>"
    );
    talk.send(&plain("romeo", "secret"));
    assert!(matches!(&talk.effects()[..], [Effect::Verify { .. }]));
}

#[test]
fn a_refused_registration_has_its_error() {
    let mut talk = registering();
    talk.send(REGISTER);
    let conflict = StanzaError::from(cirrus_stanza::Condition::Conflict);
    let read = talk.on(Event::Registered(Err(conflict)));
    assert!(
        read.starts_with("<iq type='error' id='r'><error type='cancel'><conflict"),
        "{read}"
    );
    talk.effects();
    for (from, to, condition) in [
        ("<password>secret</password>", "", "not-acceptable"),
        ("Romeo", "", "not-acceptable"),
        ("Romeo", "a/b", "not-acceptable"),
        ("secret", "&#9;", "not-acceptable"),
        (
            "<username>Romeo</username>",
            "<remove/>",
            "unexpected-request",
        ),
    ] {
        let read = talk.send(&REGISTER.replace(from, to));
        assert!(read.contains(condition), "{to}: {read}");
        assert!(talk.effects().is_empty(), "{to}");
    }
}

#[test]
fn without_the_feature_nothing_is_registered() {
    let mut talk = Talk::new();
    talk.secure();
    assert!(talk.send(REGISTER).starts_with(&error("not-authorized")));
}

#[test]
fn without_tls_nothing_is_registered() {
    let mut talk = Talk::with(Settings {
        features: Features {
            register: true,
            ..settings().features
        },
        ..settings()
    });
    talk.send(HEADER);
    assert!(talk.send(REGISTER).starts_with(&error("not-authorized")));
}
