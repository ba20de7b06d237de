//! Sessions that break and go on (XEP-0198), that end, and what they had of the user.

use super::*;

#[test]
fn one_message_that_is_over_the_bound_locks_nobody_out() {
    let mut world = World::with(&[JULIET, ROMEO], |limits| limits.unacked_bytes = 1_000);
    world.online(1, JULIET, "balcony");
    let long = "a".repeat(2_000);
    world.say(1, &message(ROMEO, &long));
    world.bind(2, ROMEO, "orchard");
    let enable = PipeEvent::EnableSm {
        resume: true,
        max: None,
    };
    world.pipe(2, enable);
    world.say(2, "<presence/>");
    // Its own presence, then the message.
    let closed = |out: &PipeOut| matches!(out, PipeOut::Close { .. });
    for h in 0..2 {
        world.pipe(2, PipeEvent::Ack { h });
        let got = world.drain(2);
        assert!(!got.iter().any(closed), "{got:?}");
    }
    world.pipe(2, PipeEvent::Ack { h: 2 });
    world.say(1, &message(ROMEO, "b"));
    assert_eq!(world.bodies(2), ["b"], "everything before was given");
    world.pipe(2, PipeEvent::Ack { h: 3 });
    world.say(1, &message(ROMEO, &long));
    assert!(!world.drain(2).iter().any(closed));
    // Another one before that is acknowledged is too much.
    world.say(1, &message(ROMEO, &long));
    assert!(world.drain(2).iter().any(closed));
}

#[test]
fn a_broken_session_resumes_with_what_it_missed() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.bind(2, ROMEO, "orchard");
    world.pipe(
        2,
        PipeEvent::EnableSm {
            resume: true,
            max: Some(60),
        },
    );
    world.say(2, "<presence/>");
    let id = world.sm_id(2);
    world.say(1, &message(ROMEO, "a"));
    assert_eq!(world.bodies(2), ["a"]);
    world.pipe(2, PipeEvent::Closed { clean: false });
    world.say(1, &message(ROMEO, "b"));
    // The client has its own presence and the first message.
    world.resume(3, ROMEO, &id, 2);
    assert_eq!(world.bodies(3), ["b"]);
    world.pipe(3, PipeEvent::Closed { clean: false });
    world.now += 61_000;
    world.event(Event::Tick);
    world.resume(4, ROMEO, &id, 3);
    let failed = world.drain(4);
    assert!(
        matches!(failed[..], [PipeOut::ResumeFailed { h: None, .. }]),
        "{failed:?}"
    );
}

#[test]
fn a_client_that_counts_fewer_than_before_begins_anew_and_misses_nothing() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.bind(2, ROMEO, "orchard");
    let enable = PipeEvent::EnableSm {
        resume: true,
        max: Some(60),
    };
    world.pipe(2, enable);
    world.say(2, "<presence/>");
    let id = world.sm_id(2);
    for body in ["a", "b"] {
        world.say(1, &message(ROMEO, body));
    }
    world.pipe(2, PipeEvent::Ack { h: 2 });
    world.pipe(2, PipeEvent::Closed { clean: false });
    world.resume(3, ROMEO, &id, 1);
    let failed = world.drain(3);
    assert!(
        matches!(failed[..], [PipeOut::ResumeFailed { h: None, .. }]),
        "{failed:?}"
    );
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert_eq!(world.bodies(3), ["b"]);
}

#[test]
fn what_a_session_leaves_unacknowledged_waits_for_the_next() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.bind(2, ROMEO, "orchard");
    world.pipe(
        2,
        PipeEvent::EnableSm {
            resume: true,
            max: Some(60),
        },
    );
    world.say(2, "<presence/>");
    world.say(1, &message(ROMEO, "a"));
    world.say(1, &message(ROMEO, "b"));
    world.pipe(2, PipeEvent::Ack { h: 2 });
    world.pipe(2, PipeEvent::Closed { clean: false });
    world.now += 61_000;
    world.event(Event::Tick);
    world = world.killed();
    world.bind(3, ROMEO, "phone");
    world.say(3, "<presence/>");
    assert_eq!(
        world.bodies(3),
        ["b"],
        "the acknowledged one is not repeated"
    );
}

#[test]
fn a_stanza_repeated_after_a_resume_counts_once() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.bind(1, JULIET, "balcony");
    world.pipe(
        1,
        PipeEvent::EnableSm {
            resume: true,
            max: None,
        },
    );
    let id = world.sm_id(1);
    world.online(2, ROMEO, "orchard");
    world.held = true;
    world.say(1, &message(ROMEO, "a"));
    world.pipe(1, PipeEvent::Closed { clean: false });
    world.resume(3, JULIET, &id, 0);
    let resumed = world.drain(3);
    let Some(PipeOut::Resumed { k: 0, .. }) = resumed.first() else {
        panic!("{resumed:?}")
    };
    world.say(3, &message(ROMEO, "a"));
    world.held = false;
    world.answer();
    assert_eq!(world.bodies(2), ["a"]);
    assert!(
        world
            .drain(3)
            .iter()
            .any(|out| matches!(out, PipeOut::Handled { k: 1 }))
    );
}

#[test]
fn a_taken_resource_goes_to_the_newer_stream() {
    let mut world = World::new(&[JULIET]);
    world.online(1, JULIET, "balcony");
    world.bind(2, JULIET, "balcony");
    let old = world.drain(1);
    let closed = old.iter().any(|out| {
        matches!(
            out,
            PipeOut::Close {
                error: Some(StreamError::Conflict)
            }
        )
    });
    assert!(closed, "{old:?}");
    assert!(matches!(world.drain(2)[..], [PipeOut::Bound { .. }, ..]));
}

/// An error gets no answer, but the stream of whoever sent it counts it.
#[test]
fn an_error_to_somebody_who_is_not_there_is_handled() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.pipe(
        1,
        PipeEvent::EnableSm {
            resume: true,
            max: None,
        },
    );
    world.drain(1);
    for to in [ROMEO, "nobody@example.com"] {
        let error = "<error type='cancel'><item-not-found \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        world.say(
            1,
            &format!("<message to='{to}' type='error'>{error}</message>"),
        );
    }
    world.say(1, "<presence><status>here</status></presence>");
    let told = world.drain(1);
    let handled = told.iter().filter_map(|out| match out {
        PipeOut::Handled { k } => Some(*k),
        _ => None,
    });
    assert_eq!(handled.max(), Some(4), "{told:?}");
}

/// Receipts of strangers do not take the room of what others say.
#[test]
fn receipts_that_wait_are_bounded_as_messages_are() {
    let mut world = World::with(&[JULIET, ROMEO], |limits| limits.offline_messages = 3);
    world.online(1, JULIET, "balcony");
    for n in 0..40 {
        let receipt = format!("<received xmlns='urn:xmpp:receipts' id='r{n}'/>");
        world.say(
            1,
            &format!("<message to='{ROMEO}' type='chat' id='r{n}'>{receipt}</message>"),
        );
        world.now += 61_000;
        world.event(Event::Tick);
    }
    assert!(world.got(1).is_empty(), "nobody is told");
    world.bind(2, ROMEO, "orchard");
    world.say(2, "<presence/>");
    let got = world.got(2);
    let receipts = got.iter().filter(|xml| xml.contains("urn:xmpp:receipts"));
    assert_eq!(receipts.count(), 3, "{got:?}");
}

/// A roster with so many contacts that a burst of requests for it is no small matter.
fn with_a_large_roster() -> World {
    let mut world = World::new(&[JULIET]);
    world.online(1, JULIET, "balcony");
    let name = "n".repeat(1_000);
    for n in 0..80 {
        let item = format!("<item jid='c{n}@example.net' name='{name}'/>");
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        world.say(1, &format!("<iq type='set' id='s{n}'>{query}</iq>"));
        assert!(world.got(1).iter().any(|xml| xml.contains("type='result'")));
    }
    world
}

const GET: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

#[test]
fn a_long_roster_is_given_again_when_it_has_arrived() {
    let mut world = with_a_large_roster();
    for _ in 0..20 {
        world.say(1, GET);
    }
    let n = world.sent(1);
    let got = world.got(1);
    let bytes: usize = got.iter().map(String::len).sum();
    assert!((80_000..120_000).contains(&bytes), "{bytes} bytes at once");
    let refused = got
        .iter()
        .filter(|xml| xml.contains("<resource-constraint"));
    assert_eq!(refused.count(), 19);
    world.pipe(1, PipeEvent::Written { n });
    world.say(1, GET);
    assert!(world.got(1)[0].contains("c79@example.net"));
}

#[test]
fn a_roster_has_bounds_in_bytes() {
    let mut world = World::with(&[JULIET], |limits| limits.roster_bytes = 4_000);
    world.online(1, JULIET, "balcony");
    let mut set = |name: usize, jid: &str| {
        let item = format!("<item jid='{jid}' name='{}'/>", "&apos;".repeat(name));
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        world.say(1, &format!("<iq type='set' id='s'>{query}</iq>"));
        let got = world.got(1);
        got.iter().any(|xml| xml.contains("type='result'"))
    };
    assert!(set(400, "a@example.net"));
    assert!(
        !set(400, "b@example.net"),
        "as it is written it is too long"
    );
    assert!(set(0, "b@example.net"));
    assert!(set(200, "a@example.net"), "a shorter name always has room");
    assert!(set(100, "b@example.net"));
}

#[test]
fn presence_is_small() {
    let mut world = World::with(&[JULIET], |limits| limits.presence_bytes = 1_000);
    world.online(1, JULIET, "balcony");
    for to in ["", " to='romeo@example.net'"] {
        let status = "x".repeat(1_000);
        world.say(
            1,
            &format!("<presence{to}><status>{status}</status></presence>"),
        );
        let got = world.got(1);
        assert!(got[0].contains("<not-acceptable"), "{got:?}");
        assert_eq!(got.len(), 1, "nobody else got it");
    }
}

/// Requests that wait end no session: some of them come with the next.
#[test]
fn many_requests_for_a_subscription_lock_nobody_out() {
    let mut world = World::with(&[JULIET, ROMEO], |limits| limits.unacked_bytes = 16_384);
    world.bind(1, JULIET, "balcony");
    let wait = "w".repeat(3_000);
    world.online(9, ROMEO, "orchard");
    for n in 0..8 {
        let from = format!("r{n}@example.com");
        account(&world.table, &from);
        world.online(10 + n, &from, "x");
        let status = format!("<status>{wait}</status>");
        world.say(
            10 + n,
            &format!("<presence to='{JULIET}' type='subscribe'>{status}</presence>"),
        );
    }
    world.drain(1);
    let max = Some(60);
    world.pipe(1, PipeEvent::EnableSm { resume: true, max });
    world.drain(1);
    world.say(1, "<presence/>");
    let out = world.drain(1);
    assert!(
        !out.iter().any(|out| matches!(out, PipeOut::Close { .. })),
        "{out:?}"
    );
    let requests = out.iter().filter(|out| format!("{out:?}").contains("www"));
    assert_eq!(requests.count(), 2);
}
