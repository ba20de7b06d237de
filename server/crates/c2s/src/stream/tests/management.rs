//! Stream management (XEP-0198).

use cirrus_stanza::Condition;

use super::*;

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn a(h: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")
}

fn failed(condition: &str) -> String {
    format!(
        "<failed xmlns='urn:xmpp:sm:3'><{condition} \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
}

#[test]
fn the_home_enables_it() {
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(
        talk.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/><presence/>"),
        ""
    );
    assert!(matches!(
        talk.told()[..],
        [PipeEvent::EnableSm {
            resume: true,
            max: Some(60)
        }]
    ));
    assert!(!talk.stream.wants_frames(), "what follows waits");
    assert_eq!(
        talk.home(PipeOut::SmEnabled {
            id: Some("s1".into()),
            max: 60,
            base: 0
        }),
        "<enabled xmlns='urn:xmpp:sm:3' id='s1' resume='true' max='60'/>"
    );
    talk.send("");
    assert!(matches!(talk.told()[..], [PipeEvent::Stanza { k: 1, .. }]));
}

#[test]
fn the_client_hears_where_to_resume() {
    let mut talk = Talk::new();
    talk.bind();
    talk.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert_eq!(talk.on(Event::Location("[2001:db8::1]:5222".into())), "");
    let enabled = PipeOut::SmEnabled {
        id: Some("s1".into()),
        max: 60,
        base: 0,
    };
    assert_eq!(
        talk.home(enabled),
        "<enabled xmlns='urn:xmpp:sm:3' id='s1' resume='true' max='60' \
         location='[2001:db8::1]:5222'/>"
    );
}

/// It is told where only when nobody else can tell it, and its session waits for it there.
#[test]
fn a_client_that_can_resume_is_sent_elsewhere() {
    let mut talk = Talk::new();
    assert!(!talk.stream.can_be_redirected(), "there is no TLS yet");
    talk.bind();
    assert!(!talk.stream.can_be_redirected(), "it can't resume");
    let mut talk = Talk::new();
    talk.manage();
    assert!(talk.stream.can_be_redirected());
    let read = talk.on(Event::Redirect("b.example.com".into()));
    assert_eq!(
        read,
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>b.example.com\
         </see-other-host></stream:error></stream:stream>"
    );
    assert!(matches!(
        talk.effects()[..],
        [
            Effect::Home(PipeEvent::Closed { clean: false }),
            Effect::Close
        ]
    ));
}

#[test]
fn without_resumption_nothing_is_promised() {
    let mut talk = Talk::new();
    talk.bind();
    talk.send("<enable xmlns='urn:xmpp:sm:3'/>");
    assert!(matches!(
        talk.told()[..],
        [PipeEvent::EnableSm {
            resume: false,
            max: None
        }]
    ));
    let read = talk.home(PipeOut::SmEnabled {
        id: None,
        max: 0,
        base: 0,
    });
    assert_eq!(read, "<enabled xmlns='urn:xmpp:sm:3'/>");
}

#[test]
fn a_refusal_leaves_the_stream_as_it_was() {
    let mut talk = Talk::new();
    talk.bind();
    talk.send("<enable xmlns='urn:xmpp:sm:3'/>");
    let condition = Condition::ResourceConstraint;
    assert_eq!(
        talk.home(PipeOut::SmRefused { condition }),
        failed("resource-constraint")
    );
    talk.effects();
    talk.send("<presence/>");
    assert!(matches!(talk.told()[..], [PipeEvent::Stanza { k: 1, .. }]));
}

/// Elements out of turn: none of them ends the stream (XEP-0198 section 6).
#[test]
fn out_of_turn_it_fails_and_the_stream_goes_on() {
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>";
    let enable = "<enable xmlns='urn:xmpp:sm:3'/>";
    let mut talk = Talk::new();
    talk.secure();
    assert_eq!(talk.send(enable), failed("not-authorized"));
    assert_eq!(talk.send(resume), failed("not-authorized"));
    let mut talk = Talk::new();
    talk.log_in();
    assert_eq!(talk.send(enable), failed("unexpected-request"));
    assert_eq!(talk.send(R), failed("unexpected-request"));
    talk.bind_again();
    assert_eq!(talk.send(R), failed("unexpected-request"));
    assert_eq!(talk.send(&a(0)), failed("unexpected-request"));
    assert_eq!(talk.send(resume), failed("unexpected-request"));
    let mut talk = Talk::new();
    talk.manage();
    assert_eq!(talk.send(enable), failed("unexpected-request"));
    assert!(talk.effects().is_empty() && !talk.stream.is_ended());
}

#[test]
fn without_the_feature_it_is_not_there() {
    let features = Features {
        stream_management: false,
        ..settings().features
    };
    let mut talk = Talk::with(Settings {
        features,
        ..settings()
    });
    talk.log_in();
    let read = talk.send("<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>");
    assert_eq!(read, failed("feature-not-implemented"));
    talk.bind_again();
    assert_eq!(
        talk.send("<enable xmlns='urn:xmpp:sm:3'/>"),
        failed("unexpected-request")
    );
}

/// What breaks the schema ends the stream.
#[test]
fn broken_elements_end_the_stream() {
    for xml in [
        "<a xmlns='urn:xmpp:sm:3'/>",
        "<a xmlns='urn:xmpp:sm:3' h='x'/>",
        "<a xmlns='urn:xmpp:sm:3' h='-1'/>",
        "<a xmlns='urn:xmpp:sm:3' h='4294967296'/>",
    ] {
        let mut talk = Talk::new();
        talk.manage();
        assert!(talk.send(xml).starts_with(&error("invalid-xml")), "{xml}");
    }
    for xml in [
        "<resume xmlns='urn:xmpp:sm:3' h='1'/>",
        "<resume xmlns='urn:xmpp:sm:3' \
        previd='x'/>",
        "<resume xmlns='urn:xmpp:sm:3' previd='x' h='a'/>",
    ] {
        let mut talk = Talk::new();
        talk.log_in();
        assert!(talk.send(xml).starts_with(&error("invalid-xml")), "{xml}");
    }
    let mut talk = Talk::new();
    talk.manage();
    let read = talk.send("<t xmlns='urn:xmpp:sm:3'/>");
    assert!(
        read.starts_with(&error("unsupported-stanza-type")),
        "{read}"
    );
}

#[test]
fn a_request_is_answered_at_once_with_what_is_handled() {
    let mut talk = Talk::new();
    talk.manage();
    assert_eq!(talk.send(R), a(0));
    assert_eq!(talk.send("<presence/><presence/>"), "");
    talk.home(PipeOut::Handled { k: 1 });
    assert_eq!(talk.send(R), a(1));
    // What the client asked for is told as soon as it is known, without another request.
    assert_eq!(talk.home(PipeOut::Handled { k: 2 }), a(2));
    assert_eq!(talk.stream.sm.ack_due(), None);
}

#[test]
fn what_nobody_asked_for_is_told_a_little_later_and_once() {
    let mut talk = Talk::new();
    talk.manage();
    talk.now = 1_000;
    talk.send("<presence/><presence/><presence/>");
    talk.effects();
    assert_eq!(talk.home(PipeOut::Handled { k: 1 }), "");
    talk.now = 1_050;
    assert_eq!(talk.home(PipeOut::Handled { k: 3 }), "");
    assert_eq!(talk.stream.deadline(), Some(1_100));
    talk.now = 1_100;
    assert_eq!(talk.on(Event::Tick), a(3));
    assert_eq!(talk.on(Event::Tick), "");
}

#[test]
fn counting_begins_where_the_home_says() {
    let mut talk = Talk::new();
    talk.bind();
    talk.send("<presence/><presence/><enable xmlns='urn:xmpp:sm:3'/>");
    talk.home(PipeOut::SmEnabled {
        id: None,
        max: 0,
        base: 2,
    });
    assert_eq!(talk.send(R), a(0));
    talk.send("<presence/>");
    talk.home(PipeOut::Handled { k: 3 });
    assert_eq!(talk.send(R), a(1));
}

#[test]
fn each_batch_asks_unless_an_answer_is_due() {
    let mut talk = Talk::new();
    talk.manage();
    assert_eq!(talk.on(Event::BatchEnd), "");
    talk.home(message(1, "a"));
    talk.home(message(2, "b"));
    assert_eq!(talk.on(Event::BatchEnd), R);
    talk.home(message(3, "c"));
    assert_eq!(talk.on(Event::BatchEnd), "");
    talk.on(Event::Flushed);
    assert!(
        talk.told().is_empty(),
        "acknowledgements say more than the socket does"
    );
    // The answer covers two; the third is asked for at once.
    assert_eq!(talk.send(&a(2)), R);
    assert!(matches!(talk.told()[..], [PipeEvent::Ack { h: 2 }]));
    assert_eq!(talk.send(&a(3)), "");
    assert!(matches!(talk.told()[..], [PipeEvent::Ack { h: 3 }]));
}

#[test]
fn who_acknowledges_more_than_was_sent_has_lost_count() {
    let mut talk = Talk::new();
    talk.manage();
    talk.home(message(1, "a"));
    talk.home(message(2, "b"));
    assert_eq!(talk.send(&a(2)), R);
    assert_eq!(
        talk.send(&a(3)),
        error("undefined-condition")
            + "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='3' send-count='2'/>\
               </stream:error></stream:stream>"
    );
    let mut talk = Talk::new();
    talk.manage();
    talk.home(message(1, "a"));
    talk.send(&a(1));
    assert!(
        talk.send(&a(0)).contains("handled-count-too-high"),
        "it can't count down either"
    );
}

#[test]
fn after_a_resumption_the_count_of_what_was_sent_goes_on() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send("<resume xmlns='urn:xmpp:sm:3' previd='s1' h='4294967295'/>");
    talk.home(PipeOut::Resumed {
        id: "s1".into(),
        jid: juliet(),
        k: 0,
        base: 0,
    });
    talk.home(message(1 << 32, "a"));
    assert_eq!(talk.on(Event::BatchEnd), R);
    assert_eq!(talk.send(&a(0)), "");
    assert!(talk.send(&a(1)).contains("h='1' send-count='0'"));
}

#[test]
fn what_is_handled_is_told_before_an_error() {
    let mut talk = Talk::new();
    talk.manage();
    talk.send("<presence/>");
    talk.home(PipeOut::Handled { k: 1 });
    let read = talk.on(Event::Stop(StreamError::SystemShutdown));
    assert!(
        read.starts_with(&(a(1) + &error("system-shutdown"))),
        "{read}"
    );
}

#[test]
fn unhandled_stanzas_hold_the_reading_up() {
    let mut talk = Talk::new();
    talk.manage();
    talk.send(&"<presence/>".repeat(6));
    assert_eq!(talk.told().len(), 4);
    assert!(!talk.stream.wants_frames());
    talk.home(PipeOut::Handled { k: 1 });
    assert!(talk.stream.wants_frames());
    talk.send("");
    assert!(matches!(talk.told()[..], [PipeEvent::Stanza { k: 5, .. }]));
}

#[test]
fn a_session_is_resumed() {
    let mut talk = Talk::new();
    talk.log_in();
    assert_eq!(
        talk.send("<resume xmlns='urn:xmpp:sm:3' previd='s1' h='7'/>"),
        ""
    );
    let effects = talk.effects();
    let [
        Effect::Attach { .. },
        Effect::Home(PipeEvent::Resume {
            user, previd, h, ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (user.as_str(), &**previd, *h),
        ("juliet@example.com", "s1", 7)
    );
    let resumed = PipeOut::Resumed {
        id: "s1".into(),
        jid: juliet(),
        k: 12,
        base: 2,
    };
    assert_eq!(
        talk.home(resumed),
        "<resumed xmlns='urn:xmpp:sm:3' previd='s1' h='10'/>"
    );
    talk.send("<presence/>");
    assert!(matches!(talk.told()[..], [PipeEvent::Stanza { k: 13, .. }]));
    talk.home(PipeOut::Handled { k: 13 });
    assert_eq!(talk.send(R), a(11));
}

/// What was under way when the old connection broke is handled before the client repeats it. The
/// home says so once, and drops the repetitions without a word.
#[test]
fn what_was_handled_before_it_is_repeated_is_told_when_it_is() {
    let resumed = |k, base| {
        let mut talk = Talk::new();
        talk.log_in();
        talk.send("<resume xmlns='urn:xmpp:sm:3' previd='s1' h='0'/>");
        talk.home(PipeOut::Resumed {
            id: "s1".into(),
            jid: juliet(),
            k,
            base,
        });
        talk.now = 1_000;
        assert_eq!(talk.home(PipeOut::Handled { k: k + 3 }), "");
        assert_eq!(
            talk.stream.sm.ack_due(),
            None,
            "there is nothing new to say"
        );
        talk
    };
    let mut talk = resumed(5, 0);
    assert_eq!(talk.send(R), a(5), "more has not come on this connection");
    assert_eq!(talk.send("<presence/>"), "");
    assert_eq!(talk.stream.deadline(), Some(1_100));
    assert_eq!(talk.send("<presence/><presence/>"), "");
    talk.now = 1_100;
    assert_eq!(talk.on(Event::Tick), a(8), "without being asked");
    talk.send("<presence/>");
    assert_eq!(talk.send(R), a(8), "the ninth is not handled yet");

    let mut talk = resumed(5, 0);
    let read = talk.send("<presence/><presence/><presence/></stream:stream>");
    assert_eq!(read, a(8) + "</stream:stream>");

    // The numbers of the home don't wrap where `h` does.
    let mut talk = resumed((1 << 32) + 1, 3);
    assert_eq!(talk.send(R), a(u32::MAX - 1));
    assert_eq!(talk.send("<presence/><presence/>"), "");
    assert_eq!(talk.send(R), a(0));
    talk.send("<presence/>");
    assert_eq!(talk.send(R), a(1));
}

#[test]
fn a_failed_resumption_may_be_followed_by_a_bind() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send("<resume xmlns='urn:xmpp:sm:3' previd='s1' h='7'/>");
    let condition = Condition::ItemNotFound;
    assert_eq!(
        talk.home(PipeOut::ResumeFailed {
            h: Some(3),
            condition
        }),
        "<failed xmlns='urn:xmpp:sm:3' h='3'><item-not-found \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    );
    talk.effects();
    talk.send(BIND);
    assert!(
        matches!(talk.told()[..], [PipeEvent::Bind { .. }]),
        "attached already"
    );
    let read = talk.home(PipeOut::Bound {
        jid: juliet(),
        sm: None,
        archive: None,
    });
    assert!(
        read.contains("<jid>juliet@example.com/phone</jid>"),
        "{read}"
    );
}

#[test]
fn a_close_waits_for_what_was_sent_before_it() {
    let mut talk = Talk::new();
    talk.manage();
    talk.send("<presence/>");
    talk.effects();
    assert_eq!(talk.send("</stream:stream>"), "");
    assert!(talk.effects().is_empty() && !talk.stream.wants_frames());
    assert!(talk.home(message(1, "late")).contains("late"));
    assert_eq!(
        talk.home(PipeOut::Handled { k: 1 }),
        a(1) + "</stream:stream>"
    );
    assert!(matches!(
        &talk.effects()[..],
        [
            Effect::Home(PipeEvent::Closed { clean: true }),
            Effect::Close
        ]
    ));
}

#[test]
fn a_close_does_not_wait_for_ever() {
    let mut talk = Talk::new();
    talk.manage();
    talk.send("<presence/></stream:stream>");
    talk.effects();
    assert_eq!(talk.stream.deadline(), Some(2_000));
    talk.now = 2_000;
    assert_eq!(talk.on(Event::Tick), a(0) + "</stream:stream>");
    assert!(matches!(
        &talk.effects()[..],
        [
            Effect::Home(PipeEvent::Closed { clean: true }),
            Effect::Close
        ]
    ));
}

#[test]
fn with_everything_handled_a_close_is_answered_at_once() {
    let mut talk = Talk::new();
    talk.manage();
    assert_eq!(talk.send("</stream:stream>"), a(0) + "</stream:stream>");
}

#[test]
fn counters_wrap_at_two_to_the_32() {
    let mut talk = Talk::new();
    talk.log_in();
    talk.send("<resume xmlns='urn:xmpp:sm:3' previd='s1' h='0'/>");
    let k = (1 << 32) + 5;
    let read = talk.home(PipeOut::Resumed {
        id: "s1".into(),
        jid: juliet(),
        k,
        base: 2,
    });
    assert_eq!(read, "<resumed xmlns='urn:xmpp:sm:3' previd='s1' h='3'/>");
}

impl Talk {
    fn bind_again(&mut self) {
        self.send(BIND);
        self.home(PipeOut::Bound {
            jid: juliet(),
            sm: None,
            archive: None,
        });
        self.effects();
    }
}
