//! A machine against a server that is written down.

use std::sync::Arc;
use std::time::Duration;

use cirrus_client::xml::{Event as Xml, fragment};

use super::login::Identity;
use super::machine::{Effect, Machine, Settings, Stage};
use super::schedule::Means;
use crate::ledger::{Event, Item, Login, Refusal};
use crate::names::Names;
use crate::rng::Rng;

fn machine(managed: bool) -> Machine {
    let settings = Settings {
        run: 7,
        names: Names::new("u{}", "a.test").unwrap(),
        means: Means::default(),
        away: Duration::from_secs(1),
        silence: Duration::from_secs(5),
        unacknowledged: 10,
    };
    let identity = Identity {
        user: "u0".to_owned(),
        host: "a.test".to_owned(),
        password: "secret".to_owned(),
        resource: "loss".to_owned(),
        managed,
    };
    Machine::new((0, 0), identity, &[1], Arc::new(settings), Rng::new(1, 0))
}

fn hear(machine: &mut Machine, text: &str) -> Vec<Effect> {
    for node in fragment(text, &[]).unwrap() {
        machine.received(0, &Xml::Element(node)).unwrap();
    }
    machine.effects()
}

fn notes(effects: &[Effect]) -> Vec<Event> {
    let notes = effects.iter().filter_map(|effect| match effect {
        Effect::Note(event) => Some(*event),
        _ => None,
    });
    notes.collect()
}

fn sent(effects: &[Effect]) -> String {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send(what) => Some(what.as_str()),
        _ => None,
    });
    sent.collect()
}

/// Up to where SASL would begin: its messages are tested where they are made.
fn connect(machine: &mut Machine) {
    machine.connected(0, "nonce".to_owned());
    assert!(sent(&machine.effects()).contains("to='a.test'"));
    let features = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
                    </stream:features>";
    assert!(sent(&hear(machine, features)).contains("<starttls"));
    let effects = hear(
        machine,
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    );
    assert_eq!(effects, [Effect::StartTls]);
    machine.secured(0);
    machine.effects();
}

fn log_in(machine: &mut Machine) {
    connect(machine);
    machine.skip_authentication();
    hear(machine, "<stream:features/>");
}

/// A session with stream management, in which the first presence is acknowledged.
fn online() -> Machine {
    let mut machine = machine(true);
    log_in(&mut machine);
    let effects = hear(&mut machine, "<iq type='result' id='bind'/>");
    assert!(sent(&effects).contains("<enable"));
    let enabled = "<enabled xmlns='urn:xmpp:sm:3' id='x' resume='true'/>";
    let effects = hear(&mut machine, enabled);
    let expected = [
        Event::LoggedIn(Login::Expected),
        Event::Sent(Item::Presence(1)),
    ];
    assert_eq!(notes(&effects), expected);
    // The question for the roster, and the presence.
    let effects = hear(&mut machine, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(
        notes(&effects)[0],
        Event::Acknowledged(Item::Presence(1)),
        "{effects:?}"
    );
    machine
}

#[test]
fn a_password_is_only_given_to_a_server_that_offers_scram() {
    let mut machine = machine(true);
    connect(&mut machine);
    let plain = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                 <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
    let node = fragment(plain, &[]).unwrap().remove(0);
    assert!(machine.received(0, &Xml::Element(node)).is_err());
    assert!(machine.effects().contains(&Effect::Drop));
}

#[test]
fn a_session_goes_on_with_what_was_not_acknowledged() {
    let mut machine = online();
    machine.stage(0, Stage::Greeting);
    machine.effects();
    machine.broken(1_000);
    let broke = Event::Broke { by_choice: false };
    assert_eq!(notes(&machine.effects()), [broke]);
    log_in(&mut machine);
    let resumed = "<resumed xmlns='urn:xmpp:sm:3' previd='x' h='2'/>";
    let effects = hear(&mut machine, resumed);
    assert!(matches!(notes(&effects)[0], Event::Resumed { .. }));
    assert!(sent(&effects).contains("<presence id='s2'>"), "{effects:?}");
}

#[test]
fn a_session_that_is_gone_is_one_lost_and_what_it_had_is_unknown() {
    let mut machine = online();
    machine.stage(0, Stage::Greeting);
    machine.broken(1_000);
    machine.effects();
    log_in(&mut machine);
    let failed = "<failed xmlns='urn:xmpp:sm:3'/>";
    let effects = hear(&mut machine, failed);
    let expected = [Event::ResumeFailed, Event::Abandoned(Item::Presence(2))];
    assert_eq!(notes(&effects), expected);
    assert!(sent(&effects).contains("<resource>loss</resource>"));
    hear(&mut machine, "<iq type='result' id='bind'/>");
    let enabled = "<enabled xmlns='urn:xmpp:sm:3' id='y' resume='true'/>";
    let effects = hear(&mut machine, enabled);
    assert_eq!(notes(&effects)[0], Event::LoggedIn(Login::Lost));
}

/// The session goes on there.
#[test]
fn a_client_goes_where_it_is_told() {
    let mut machine = online();
    machine.stage(0, Stage::Greeting);
    machine.effects();
    let effects = hear(
        &mut machine,
        "<stream:error xmlns:stream='http://etherx.jabber.org/streams'>\
         <see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[::1]:1</see-other-host>\
         </stream:error>",
    );
    assert!(effects.contains(&Effect::Drop));
    assert_eq!(effects.last(), Some(&Effect::GoTo("[::1]:1".into())));
    log_in(&mut machine);
    let effects = hear(
        &mut machine,
        "<resumed xmlns='urn:xmpp:sm:3' previd='x' h='1'/>",
    );
    assert!(matches!(notes(&effects)[0], Event::Resumed { .. }));
}

#[test]
fn a_server_that_owes_an_acknowledgement_for_too_long_is_left() {
    let mut machine = online();
    machine.stage(0, Stage::Greeting);
    machine.effects();
    machine.tick(4_999_999);
    assert_eq!(machine.effects(), []);
    assert_eq!(machine.deadline(), 5_000_000);
    machine.tick(5_000_000);
    assert!(machine.effects().contains(&Effect::Drop));
    assert_eq!(machine.wants_connection(), Some(5_000_000));
}

#[test]
fn a_client_leaves_when_all_is_acknowledged() {
    let mut machine = online();
    machine.stage(0, Stage::Greeting);
    machine.stage(0, Stage::Farewell);
    assert!(!notes(&machine.effects()).contains(&Event::Left));
    let effects = hear(&mut machine, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert!(sent(&effects).ends_with("</stream:stream>"));
    assert!(!notes(&effects).contains(&Event::Left));
    machine.received(0, &Xml::Close).unwrap();
    assert!(notes(&machine.effects()).contains(&Event::Left));
    machine.stage(0, Stage::Done);
    assert!(machine.is_done());
}

#[test]
fn a_client_whose_goodbye_may_be_lost_says_it_again() {
    let mut machine = online();
    machine.stage(0, Stage::Farewell);
    let effects = machine.effects();
    assert!(sent(&effects).ends_with("</stream:stream>"));
    machine.broken(1);
    let broke = Event::Broke { by_choice: false };
    assert_eq!(notes(&machine.effects()), [broke]);
    machine.connected(2, "nonce".to_owned());
    machine.skip_authentication();
    hear(
        &mut machine,
        "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>",
    );
    let effects = hear(
        &mut machine,
        "<resumed xmlns='urn:xmpp:sm:3' h='3' previd='id'/>",
    );
    assert!(sent(&effects).ends_with("</stream:stream>"), "{effects:?}");
    machine.received(3, &Xml::Close).unwrap();
    assert!(notes(&machine.effects()).contains(&Event::Left));
}

#[test]
fn messages_are_noted_with_their_place_in_the_session() {
    let mut machine = online();
    let message = "<message from='u1@a.test/loss' id='m0-4'><body>cirrus-loss 7 1 0 4</body>\
                   </message>";
    let effects = hear(&mut machine, &message.repeat(2));
    let counts = notes(&effects).into_iter().map(|event| match event {
        Event::Seen {
            sequence, count, ..
        } => (sequence, count),
        other => panic!("{other:?}"),
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(4, 1), (4, 2)]);
    let effects = hear(&mut machine, "<r xmlns='urn:xmpp:sm:3'/>");
    assert!(sent(&effects).contains("h='2'"));
    // Not for us: no server may do that.
    let effects = hear(&mut machine, &message.replace("1 0 4", "1 2 4"));
    assert_eq!(notes(&effects), [Event::Violation]);
    let error = "<message type='error' id='m1-1'><error type='wait'><x/></error></message>";
    let effects = hear(&mut machine, error);
    let refused = Event::Refused(Item::Message(1, 1), Refusal::Unknown);
    assert_eq!(notes(&effects), [refused]);
}

#[test]
fn friends_are_made_both_ways() {
    let mut machine = online();
    let roster = "<iq type='result' id='roster'><query xmlns='jabber:iq:roster'>\
                  <item jid='u1@a.test' subscription='from'/></query></iq>";
    let effects = hear(&mut machine, roster);
    assert!(sent(&effects).contains("type='subscribe'"));
    let asked = "<presence type='subscribe' from='u1@a.test'/>";
    assert!(sent(&hear(&mut machine, asked)).contains("type='subscribed'"));
    let push = "<iq type='set' id='1'><query xmlns='jabber:iq:roster'>\
                <item jid='u1@a.test' subscription='both'/></query></iq>";
    assert!(notes(&hear(&mut machine, push)).contains(&Event::Ready));
}

#[test]
fn a_step_of_a_subscription_that_failed_is_made_again() {
    let mut machine = online();
    let roster = "<iq type='result' id='roster'><query xmlns='jabber:iq:roster'>\
                  <item jid='u1@a.test' subscription='to'/></query></iq>";
    hear(&mut machine, roster);
    hear(&mut machine, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    let later = machine.deadline();
    assert_eq!(later, 5_000_000);
    machine.tick(later);
    assert!(sent(&machine.effects()).contains("jabber:iq:roster"));
    assert!(sent(&hear(&mut machine, roster)).contains("type='subscribe'"));
    hear(&mut machine, "<a xmlns='urn:xmpp:sm:3' h='5'/>");
    hear(&mut machine, &roster.replace("'to'", "'both'"));
    assert_eq!(machine.deadline(), u64::MAX);
}
