//! What happens when nothing happens.

use super::*;

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

#[test]
fn a_login_has_its_time() {
    for state in 0..3 {
        let mut talk = Talk::new();
        match state {
            0 => {}
            1 => talk.secure(),
            _ => talk.log_in(),
        }
        assert_eq!(talk.stream.deadline(), Some(60_000));
        talk.now = 59_999;
        assert_eq!(talk.on(Event::Tick), "");
        talk.now = 60_000;
        let read = talk.on(Event::Tick);
        assert!(read.contains(&error("connection-timeout")), "{read}");
        assert_eq!(talk.stream.deadline(), None);
    }
}

#[test]
fn a_silent_client_hears_a_space_and_is_closed_at_last() {
    let mut talk = Talk::new();
    talk.bind();
    assert_eq!(talk.stream.deadline(), Some(120_000));
    talk.now = 120_000;
    assert_eq!(talk.on(Event::Tick), " ");
    assert_eq!(talk.stream.deadline(), Some(240_000));
    talk.now = 200_000;
    talk.send(" ");
    assert_eq!(talk.stream.deadline(), Some(320_000));
    for now in [
        320_000, 440_000, 560_000, 680_000, 800_000, 920_000, 1_040_000,
    ] {
        assert_eq!(talk.stream.deadline(), Some(now));
        talk.now = now;
        assert_eq!(talk.on(Event::Tick), " ");
    }
    assert_eq!(talk.stream.deadline(), Some(1_100_000));
    talk.now = 1_100_000;
    let read = talk.on(Event::Tick);
    assert_eq!(
        read,
        error("connection-timeout") + "</stream:error></stream:stream>"
    );
}

#[test]
fn with_stream_management_the_client_is_asked() {
    let mut talk = Talk::new();
    talk.manage();
    talk.now = 120_000;
    assert_eq!(talk.on(Event::Tick), R);
    assert_eq!(talk.stream.deadline(), Some(240_000), "an answer is due");
    talk.now = 200_000;
    talk.send("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert_eq!(talk.stream.deadline(), Some(320_000));
    talk.now = 320_000;
    assert_eq!(talk.on(Event::Tick), R);
    talk.now = 440_000;
    let read = talk.on(Event::Tick);
    assert_eq!(
        read,
        error("connection-timeout") + "</stream:error></stream:stream>"
    );
    assert!(matches!(
        &talk.told_and_closed()[..],
        [PipeEvent::Ack { .. }, PipeEvent::Closed { clean: false }]
    ));
}

/// A client that has a message and was asked for its acknowledgement.
fn asked() -> Talk {
    let mut talk = Talk::new();
    talk.manage();
    talk.home(message(1, "a"));
    assert_eq!(talk.on(Event::BatchEnd), R);
    talk
}

/// Its answer waits behind much else, in a connection that is read slowly.
#[test]
fn who_is_asked_and_heard_is_alive() {
    let mut talk = asked();
    for n in 1..=4 {
        talk.now = n * 100_000;
        assert_eq!(talk.send("<presence/>"), "");
        talk.home(PipeOut::Handled { k: n });
    }
    // A long stanza comes in parts.
    talk.now = 500_000;
    let next_ms = 510_000;
    talk.on(Event::Read { next_ms });
    talk.now = 629_999;
    talk.on(Event::Tick);
    assert!(!talk.stream.is_ended());
    talk.now = 630_000;
    let read = talk.on(Event::Tick);
    assert!(read.contains(&error("connection-timeout")), "{read}");
}

/// It is not read for a while, as too much of what it said is unhandled.
#[test]
fn who_is_not_listened_to_is_not_silent() {
    let mut talk = asked();
    talk.send(&"<presence/>".repeat(4));
    assert!(!talk.stream.wants_frames());
    talk.now = 300_000;
    assert_eq!(talk.on(Event::Tick), "");
    talk.home(PipeOut::Handled { k: 4 });
    assert!(talk.stream.wants_frames());
    talk.on(Event::Tick);
    assert!(!talk.stream.is_ended(), "it has its time anew");
    talk.now = 420_000;
    let read = talk.on(Event::Tick);
    assert!(read.contains(&error("connection-timeout")), "{read}");
}

#[test]
fn what_is_written_counts_as_life_but_not_as_the_clients() {
    let mut talk = Talk::new();
    talk.bind();
    talk.now = 100_000;
    talk.home(message(1, "a"));
    assert_eq!(talk.stream.deadline(), Some(220_000));
}

#[test]
fn durations_of_zero_are_for_ever() {
    let timeouts = Timeouts {
        login_ms: 0,
        keepalive_ms: 0,
        idle_ms: 0,
        answer_ms: 0,
        ..Timeouts::default()
    };
    let mut talk = Talk::with(Settings {
        timeouts,
        ..settings()
    });
    assert_eq!(talk.stream.deadline(), None);
    talk.manage();
    assert_eq!(talk.stream.deadline(), None);
    talk.now = u64::MAX;
    assert_eq!(talk.on(Event::Tick), "");
}

impl Talk {
    fn told_and_closed(&mut self) -> Vec<PipeEvent> {
        let effects = self
            .effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Home(event) => Some(event),
                _ => None,
            });
        effects.collect()
    }
}
