//! Login with the extensible profile, and what comes with it (XEP-0388, XEP-0386, XEP-0198).

use cirrus_router::{Enable, Enabled};
use cirrus_sasl::carrier;
use cirrus_stanza::Condition;

use super::*;

const FEATURES: &str = "<session features>";
const BOUND_FEATURES: &str = "<bound features>";

/// `<authenticate/>` as juliet with PLAIN, with this besides.
fn authenticate(more: &str) -> String {
    let data = carrier::encode(&client::plain("", "juliet", &password("secret")));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{data}</initial-response>{more}</authenticate>"
    )
}

fn success(identifier: &str, more: &str) -> String {
    format!(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>{identifier}\
         </authorization-identifier>{more}</success>"
    )
}

fn failure(condition: &str) -> String {
    format!(
        "<failure xmlns='urn:xmpp:sasl:2'><{condition} \
         xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/><text"
    )
}

/// Names the features of a stream after the login, so that what is before them can be compared.
fn shown(read: &str) -> String {
    const SM: &str = "<sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/>\
        <ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>\
        <c xmlns='http://jabber.org/protocol/caps'/></stream:features>";
    const BIND: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><session \
        xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>";
    let read = read.replace(&format!("<stream:features>{BIND}{SM}"), FEATURES);
    read.replace(&format!("<stream:features>{SM}"), BOUND_FEATURES)
}

impl Talk {
    /// Logs in with the right password; the answer is what is read when that is known.
    fn login2(&mut self, more: &str) -> String {
        assert_eq!(self.send(&authenticate(more)), "");
        let effects = self.effects();
        assert!(
            matches!(&effects[..], [Effect::Verify { .. }]),
            "{effects:?}"
        );
        shown(&self.on(Event::Verified(Ok(Some(account())))))
    }
}

fn secure() -> Talk {
    let mut talk = Talk::new();
    talk.secure();
    talk
}

#[test]
fn it_is_offered_under_tls_with_what_it_can_do_besides() {
    let mut talk = Talk::new();
    assert!(!talk.send(HEADER).contains("urn:xmpp:sasl:2"));
    talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    talk.on(Event::Secured(secured()));
    let read = talk.send(HEADER);
    let expected = "<authentication xmlns='urn:xmpp:sasl:2'>\
         <mechanism>SCRAM-SHA-256-PLUS</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism>\
         <mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>\
         <mechanism>PLAIN</mechanism><inline><bind xmlns='urn:xmpp:bind:0'><inline>\
         <feature var='urn:xmpp:carbons:2'/><feature var='urn:xmpp:csi:0'/>\
         <feature var='urn:xmpp:sm:3'/></inline></bind><sm xmlns='urn:xmpp:sm:3'/>\
         <fast xmlns='urn:xmpp:fast:0'>";
    assert!(read.contains(expected), "{read}");
    let mut settings = settings();
    settings.features.sasl2 = false;
    let mut talk = Talk::with(settings);
    talk.secure();
    let read = talk.send(&authenticate(""));
    assert!(read.contains("unsupported-feature"), "{read}");
}

#[test]
fn a_login_goes_on_without_a_new_stream() {
    let mut talk = secure();
    let read = talk.login2("");
    assert_eq!(read, success("juliet@example.com", "") + FEATURES);
    assert!(matches!(&talk.effects()[..], [Effect::Authenticated]));
    talk.send(BIND);
    assert!(matches!(
        &talk.effects()[..],
        [Effect::Attach { .. }, Effect::Home(PipeEvent::Bind { .. })]
    ));
    let read = talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    assert!(read.starts_with("<iq type='result' id='b'>"), "{read}");
}

#[test]
fn scram_runs_in_its_elements() {
    for plus in [false, true] {
        let mut talk = secure();
        let mut scram = client::Client::new(Hash::Sha256, "juliet", password("secret"), "n");
        if plus {
            let binding = secured().bindings.remove(0);
            scram = scram.binding(client::ClientBinding::Bound(binding));
        }
        let first = carrier::encode(&scram.first());
        let mechanism = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"][usize::from(plus)];
        talk.send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{first}</initial-response></authenticate>"
        ));
        let read = talk.on(Event::Loaded(Ok(Some(account()))));
        let data = |read: &str, tag: &str| {
            let (_, rest) = read.split_once(tag).unwrap_or_else(|| panic!("{read}"));
            carrier::decode(rest.split_once('<').unwrap().0).unwrap()
        };
        let challenge = data(&read, "<challenge xmlns='urn:xmpp:sasl:2'>");
        let answer = carrier::encode(&scram.respond(&challenge).unwrap());
        let read = talk.send(&format!(
            "<response xmlns='urn:xmpp:sasl:2'>{answer}</response>"
        ));
        scram.finish(&data(&read, "<additional-data>")).unwrap();
        assert!(
            read.contains(
                "<authorization-identifier>juliet@example.com</authorization-identifier></success>"
            ),
            "{read}"
        );
    }
}

#[test]
fn a_resource_and_its_session_come_with_the_login() {
    let mut talk = secure();
    let read = talk.login2(
        "<user-agent id='d4565fa7'><software>S</software><device>D</device></user-agent>\
         <bind xmlns='urn:xmpp:bind:0'><tag>phone</tag><enable xmlns='urn:xmpp:carbons:2'/>\
         <enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>\
         <inactive xmlns='urn:xmpp:csi:0'/></bind>",
    );
    assert_eq!(read, "", "the client is told when everything is there");
    let effects = talk.effects();
    let [
        Effect::Authenticated,
        Effect::Attach { .. },
        Effect::Home(PipeEvent::Bind {
            resource: None,
            login,
            ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(login.client.as_deref(), Some("d4565fa7"));
    let sm = Some(Enable {
        resume: true,
        max: Some(60),
    });
    let inline = Inline {
        tag: Some("phone".into()),
        sm,
        carbons: true,
        inactive: true,
        archive: true,
    };
    assert_eq!(login.inline, inline);
    assert!(!talk.stream.wants_frames());
    let enabled = Enabled {
        id: Some("s1".into()),
        max: 60,
        base: 0,
    };
    let bound = PipeOut::Bound {
        jid: juliet(),
        sm: Some(enabled),
        archive: None,
    };
    let expected = success(
        "juliet@example.com/phone",
        "<bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:sm:3' id='s1' resume='true' \
         max='60'/></bound>",
    );
    assert_eq!(shown(&talk.home(bound)), expected + BOUND_FEATURES);
    assert!(talk.stream.is_resumable());
    // Stanzas flow, and are counted.
    talk.send("<presence/><r xmlns='urn:xmpp:sm:3'/>");
    assert!(matches!(talk.told()[..], [PipeEvent::Stanza { k: 1, .. }]));
    talk.home(message(1, "a"));
    talk.send("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert!(matches!(talk.told()[..], [PipeEvent::Ack { h: 1 }]));
}

/// What a `<success/>` leaves out does not say why; the client has to hear when to come again.
#[test]
fn a_refused_resource_ends_the_stream_with_the_reason() {
    for (condition, expected) in [
        (Condition::ResourceConstraint, "resource-constraint"),
        (Condition::BadRequest, "policy-violation"),
    ] {
        let mut talk = secure();
        talk.login2("<bind xmlns='urn:xmpp:bind:0'/>");
        talk.effects();
        let text = "too many clients log in now; try again in 3 s";
        let refused = PipeOut::BindRefused {
            error: StanzaError::new(condition, text),
        };
        let ending = error(expected)
            + "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>"
            + text
            + "</text></stream:error></stream:stream>";
        assert_eq!(
            shown(&talk.home(refused)),
            success("juliet@example.com", "") + FEATURES + &ending
        );
        assert!(matches!(
            talk.effects()[..],
            [
                Effect::Home(PipeEvent::Closed { clean: false }),
                Effect::Close
            ]
        ));
    }
}

#[test]
fn a_session_is_resumed_with_the_login_and_its_resource_is_not_bound_anew() {
    let mut talk = secure();
    talk.login2(
        "<bind xmlns='urn:xmpp:bind:0'><tag>phone</tag></bind>\
         <resume xmlns='urn:xmpp:sm:3' previd='s1' h='7'/>",
    );
    let effects = talk.effects();
    let [.., Effect::Home(PipeEvent::Resume { previd, h: 7, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(previd, "s1");
    let read = talk.home(PipeOut::Resumed {
        id: "s1".into(),
        jid: juliet(),
        k: 5,
        base: 2,
    });
    let expected = success(
        "juliet@example.com/phone",
        "<resumed xmlns='urn:xmpp:sm:3' previd='s1' h='3'/>",
    );
    assert_eq!(shown(&read), expected + BOUND_FEATURES);
    let read = talk.home(message(8, "a"));
    assert!(read.contains("<body>a</body>"), "{read}");
    assert!(talk.effects().is_empty());
}

#[test]
fn a_session_that_is_gone_is_followed_by_a_new_one() {
    const FAILED: &str = "<failed xmlns='urn:xmpp:sm:3' h='4'><item-not-found \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
    let failed = || PipeOut::ResumeFailed {
        h: Some(4),
        condition: Condition::ItemNotFound,
    };
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='s1' h='7'/>";
    let mut talk = secure();
    talk.login2(&format!("{resume}<bind xmlns='urn:xmpp:bind:0'/>"));
    talk.effects();
    assert_eq!(talk.home(failed()), "");
    assert!(matches!(talk.told()[..], [PipeEvent::Bind { .. }]));
    let read = talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    let expected = success(
        "juliet@example.com/phone",
        &format!("{FAILED}<bound xmlns='urn:xmpp:bind:0'/>"),
    );
    assert_eq!(shown(&read), expected + BOUND_FEATURES);

    let mut talk = secure();
    talk.login2(resume);
    let read = shown(&talk.home(failed()));
    assert_eq!(read, success("juliet@example.com", FAILED) + FEATURES);
}

#[test]
fn what_is_wrong_is_refused_and_may_be_tried_again() {
    let mut talk = secure();
    let long = "x".repeat(65);
    for (bad, condition) in [
        (
            "<authenticate xmlns='urn:xmpp:sasl:2'/>".to_owned(),
            "invalid-mechanism",
        ),
        (
            authenticate("").replace("'PLAIN'", "'PLAIN' upgrade='SCRAM-SHA-512'"),
            "invalid-mechanism",
        ),
    ] {
        let read = talk.send(&bad);
        assert!(read.starts_with(&failure(condition)), "{bad}: {read}");
    }
    let mut talk = secure();
    for (bad, condition) in [
        (
            authenticate(&format!("<user-agent id='{long}'/>")),
            "malformed-request",
        ),
        (
            authenticate("<resume xmlns='urn:xmpp:sm:3' h='1'/>"),
            "malformed-request",
        ),
    ] {
        let read = talk.send(&bad);
        assert!(read.starts_with(&failure(condition)), "{bad}: {read}");
    }
    let mut talk = secure();
    for (bad, condition) in [
        (
            "<response xmlns='urn:xmpp:sasl:2'/>".to_owned(),
            "malformed-request",
        ),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
             <initial-response>=</initial-response></authenticate>"
                .to_owned(),
            "incorrect-encoding",
        ),
    ] {
        let read = talk.send(&bad);
        assert!(read.starts_with(&failure(condition)), "{bad}: {read}");
    }
    talk.send(&authenticate(""));
    let read = talk.on(Event::Verified(Ok(None)));
    assert!(read.starts_with(&failure("not-authorized")), "{read}");
    assert!(read.contains("policy-violation"), "the third failure");
    let mut talk = Talk::new();
    talk.send(HEADER);
    let read = talk.send(&authenticate(""));
    assert!(read.starts_with(&failure("encryption-required")), "{read}");
}

#[test]
fn in_the_middle_of_a_login_there_is_only_its_answer() {
    const BEGIN: &str =
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'></authenticate>";
    let begun = || {
        let mut talk = secure();
        let read = talk.send(BEGIN);
        assert_eq!(read, "<challenge xmlns='urn:xmpp:sasl:2'/>");
        talk
    };
    for other in [BEGIN, "<presence/>", &plain("juliet", "secret")] {
        let read = begun().send(other);
        assert!(
            read.starts_with(&error("policy-violation")),
            "{other}: {read}"
        );
    }
    let mut talk = begun();
    let read = talk.send("<abort xmlns='urn:xmpp:sasl:2'/>");
    assert!(read.starts_with(&failure("aborted")), "{read}");
    assert!(talk.login2("").starts_with("<success"));
    let read = talk.send(BEGIN);
    assert!(read.starts_with(&error("policy-violation")), "{read}");
}

#[test]
fn the_stream_says_who_logs_in_or_says_nothing() {
    for (from, succeeds) in [("juliet@example.com", true), ("romeo@example.com", false)] {
        let mut talk = Talk::new();
        talk.send(HEADER);
        talk.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        talk.on(Event::Secured(secured()));
        talk.effects();
        talk.send(&HEADER.replace(" to=", &format!(" from='{from}' to=")));
        let read = talk.login2("");
        let begin = if succeeds {
            "<success".to_owned()
        } else {
            failure("invalid-authzid")
        };
        assert!(read.starts_with(&begin), "{read}");
    }
}
