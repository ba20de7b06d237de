//! Copies of what other sessions send and get (XEP-0280).

use super::*;

const ENABLE: &str = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
const DISABLE: &str = "<iq type='set' id='c'><disable xmlns='urn:xmpp:carbons:2'/></iq>";

/// Juliet's balcony, her chamber with copies, and Romeo.
fn world() -> World {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.online(3, JULIET, "chamber");
    world.say(3, ENABLE);
    let got = world.got(3);
    assert!(got[0].starts_with("<iq type='result' id='c'"), "{got:?}");
    world.drain(1);
    world
}

fn resumable(world: &mut World, pipe: u64) -> String {
    let max = Some(60);
    world.pipe(pipe, PipeEvent::EnableSm { resume: true, max });
    world.sm_id(pipe)
}

fn end(world: &mut World, pipe: u64) {
    world.pipe(pipe, PipeEvent::Closed { clean: true });
}

#[test]
fn a_copy_of_what_is_sent_comes_when_the_own_archive_has_it() {
    let mut world = world();
    world.held = true;
    world.say(1, &message(ROMEO, "hi"));
    assert!(world.got(3).is_empty());
    world.answer();
    assert_eq!(
        world.got(3),
        [
            "<message type='chat' to='juliet@example.com/chamber' from='juliet@example.com'>\
          <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
          <message type='chat' id='hi' to='romeo@example.com' from='juliet@example.com/balcony' \
          xmlns='jabber:client'><body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' \
          by='juliet@example.com' id='0cb79ed9b2bbb849cc459bae'/></message></forwarded></sent></message>"
        ]
    );
    assert!(world.bodies(1).is_empty());
}

#[test]
fn a_message_to_one_session_is_copied_to_the_others_that_want_it() {
    let mut world = world();
    let to = "juliet@example.com/balcony";
    world.say(2, &message(to, "a"));
    assert_eq!(world.bodies(1), ["a"]);
    let got = world.got(3);
    assert!(
        got.len() == 1 && got[0].contains("<received xmlns='urn:xmpp:carbons:2'>"),
        "{got:?}"
    );
    // To all of them: each has it once, as it is.
    world.say(2, &message(JULIET, "b"));
    let got = world.got(3);
    assert!(got.len() == 1 && !got[0].contains("<received"), "{got:?}");
    assert_eq!(world.bodies(1), ["b"]);
    world.say(3, DISABLE);
    world.drain(3);
    world.say(2, &message(to, "c"));
    assert_eq!((world.bodies(1).len(), world.got(3).len()), (1, 0));
}

#[test]
fn what_is_private_or_refused_is_not_copied() {
    let mut world = world();
    world.say(
        1,
        "<message to='romeo@example.com' type='chat'><body>a</body>\
         <private xmlns='urn:xmpp:carbons:2'/></message>",
    );
    world.held = true;
    world.say(1, &message(ROMEO, "b"));
    world.fail_store();
    assert!(world.got(3).is_empty());
}

#[test]
fn a_message_to_oneself_is_not_copied_to_who_sent_it() {
    let mut world = world();
    world.say(1, ENABLE);
    world.drain(1);
    world.say(3, &message("juliet@example.com/balcony", "note"));
    assert_eq!(world.bodies(1), ["note"]);
    assert!(world.got(3).is_empty());
}

#[test]
fn a_resumed_session_gets_its_copies_again_and_still_wants_them() {
    let mut world = world();
    let id = resumable(&mut world, 3);
    world.drain(3);
    world.pipe(3, PipeEvent::Closed { clean: false });
    world.say(2, &message("juliet@example.com/balcony", "a"));
    world.resume(4, JULIET, &id, 0);
    world.say(2, &message("juliet@example.com/balcony", "b"));
    let got = world.got(4);
    let copies = got.iter().filter(|xml| xml.contains("<received"));
    assert_eq!(copies.count(), 2, "{got:?}");
}

#[test]
fn who_has_a_copy_does_not_get_the_message_again_unless_nobody_has_it() {
    let mut world = world();
    resumable(&mut world, 1);
    resumable(&mut world, 3);
    world.say(2, &message("juliet@example.com/balcony", "a"));
    world.drain(1);
    assert_eq!(world.bodies(3), ["a"]);
    end(&mut world, 1);
    assert!(world.bodies(3).is_empty(), "it has the copy");
    end(&mut world, 3);
    world.online(5, ROMEO, "tomb");
    world.bind(6, JULIET, "tomb");
    world.say(6, "<presence/>");
    let got = world.got(6);
    let again: Vec<_> = got
        .iter()
        .filter(|xml| xml.contains("<body>a</body>"))
        .collect();
    assert!(
        again.len() == 1 && !again[0].contains("<received"),
        "{got:?}"
    );
}

#[test]
fn what_one_client_has_acknowledged_waits_for_nobody_when_the_others_leave() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, ROMEO, "tomb");
    for (pipe, resource) in [(2, "phone"), (3, "laptop")] {
        world.bind(pipe, JULIET, resource);
        resumable(&mut world, pipe);
        world.say(pipe, "<presence/>");
        world.drain(pipe);
    }
    let sent = world.sent(2);
    world.say(1, &message(JULIET, "a"));
    world.say(1, &message(JULIET, "b"));
    assert_eq!(world.bodies(2), ["a", "b"]);
    assert_eq!(world.bodies(3), ["a", "b"]);
    // The phone has the first of them and goes; the laptop has none and never comes back.
    let h = u32::try_from(sent + 1).unwrap();
    world.pipe(2, PipeEvent::Ack { h });
    world.pipe(2, PipeEvent::Closed { clean: true });
    end(&mut world, 3);
    world.bind(4, JULIET, "phone");
    world.say(4, "<presence/>");
    assert_eq!(world.bodies(4), ["b"]);
}
