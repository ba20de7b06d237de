//! What waits for a client that nobody looks at (XEP-0352).

use super::*;

const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
const PAUSED: &str = "<paused xmlns='http://jabber.org/protocol/chatstates'/>";

fn state(world: &mut World, pipe: u64, active: bool) {
    world.pipe(pipe, PipeEvent::ClientState { active });
}

fn types(world: &mut World, content: &str) {
    world.say(
        2,
        &format!("<message to='{JULIET}/balcony' type='chat'>{content}</message>"),
    );
}

fn shows(world: &mut World, show: &str) {
    let show = format!("<show>{show}</show>");
    world.say(2, &format!("<presence to='{JULIET}'>{show}</presence>"));
}

/// Juliet, at whom nobody looks, and Romeo.
fn world() -> World {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    state(&mut world, 1, false);
    world
}

#[test]
fn the_latest_of_each_sender_waits_until_somebody_looks() {
    let mut world = world();
    world.online(3, ROMEO, "phone");
    for show in ["away", "xa", "dnd"] {
        shows(&mut world, show);
    }
    world.say(3, &format!("<presence to='{JULIET}'/>"));
    types(&mut world, COMPOSING);
    types(&mut world, PAUSED);
    assert!(world.got(1).is_empty());
    world.now += 60_000;
    state(&mut world, 1, true);
    let got = world.got(1);
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got[0].contains("<show>dnd</show>"), "{got:?}");
    assert!(
        got[0].contains("stamp='1970-01-01T00:16:40.000Z'"),
        "{got:?}"
    );
    assert!(got[1].contains("from='romeo@example.com/phone'"), "{got:?}");
    assert!(got[2].contains("<paused"), "{got:?}");
    shows(&mut world, "chat");
    assert_eq!(world.got(1).len(), 1, "somebody looks");
}

#[test]
fn what_matters_comes_at_once_behind_what_waited() {
    let mut world = world();
    shows(&mut world, "away");
    types(&mut world, COMPOSING);
    types(&mut world, &format!("<body>a</body>{PAUSED}"));
    let got = world.got(1);
    assert_eq!(got.len(), 2, "the message says that he types no more");
    assert!(got[0].contains("<show>away</show>"), "{got:?}");
    assert!(got[1].contains("<body>a</body>"), "{got:?}");
    for important in [
        "<presence to='juliet@example.com' type='subscribe'/>",
        "<presence to='juliet@example.com/balcony' type='error'><a xmlns='a'/></presence>",
        "<iq type='get' id='i' to='juliet@example.com/balcony'><a xmlns='a'/></iq>",
        "<message to='juliet@example.com/balcony' type='error'><a xmlns='a'/></message>",
        "<message to='juliet@example.com/balcony'><result xmlns='urn:xmpp:mam:2'/></message>",
        "<message to='juliet@example.com/balcony' type='chat'>\
         <received xmlns='urn:xmpp:receipts' id='a'/></message>",
    ] {
        shows(&mut world, "dnd");
        world.say(2, important);
        let got = world.got(1);
        assert_eq!(got.len(), 2, "{important}: {got:?}");
        assert!(got[0].contains("<show>dnd</show>"), "{got:?}");
    }
}

#[test]
fn what_waits_is_bounded() {
    for (stanzas, bytes) in [(3, 1_000_000), (1_000, 600)] {
        let mut config = config();
        (config.limits.held_stanzas, config.limits.held_bytes) = (stanzas, bytes);
        let mut world = World::new(&[JULIET, ROMEO]);
        world.home = Home::new(Arc::new(config), Territory::Everything);
        world.online(1, JULIET, "balcony");
        state(&mut world, 1, false);
        for pipe in 2..=5 {
            assert!(world.got(1).is_empty(), "{stanzas} {bytes} {pipe}");
            world.online(pipe, ROMEO, &format!("r{pipe}"));
            world.say(pipe, &format!("<presence to='{JULIET}'/>"));
        }
        assert_eq!(world.got(1).len(), 4, "{stanzas} {bytes}");
        world.say(5, &format!("<presence to='{JULIET}'/>"));
        assert!(world.got(1).is_empty(), "the client is inactive still");
    }
}

/// Stanzas are numbered when they leave, so that those which a later one replaced leave no gap.
#[test]
fn a_resumed_client_is_active_and_its_numbers_have_no_gap() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    let (resume, max) = (true, Some(60));
    world.pipe(1, PipeEvent::EnableSm { resume, max });
    let id = world.sm_id(1);
    state(&mut world, 1, false);
    shows(&mut world, "away");
    shows(&mut world, "xa");
    types(&mut world, "<body>a</body>");
    assert_eq!(world.bodies(1), ["a"]);
    world.pipe(1, PipeEvent::Closed { clean: false });
    shows(&mut world, "dnd");
    types(&mut world, "<body>b</body>");
    shows(&mut world, "chat");

    // As another node would have it.
    let bytes = world.home.snapshot();
    let restored = Home::restore(Arc::new(config()), Territory::Everything, &bytes).unwrap();
    assert_eq!(restored.snapshot(), bytes);
    world.home = restored;

    world.resume(3, JULIET, &id, 2);
    let outs = world.drain(3);
    let numbered = outs.iter().filter_map(|out| match out {
        PipeOut::Stanza { n, stanza } => Some((*n, stanza.inner().to_vec())),
        _ => None,
    });
    let mut numbered: Vec<_> = numbered.collect();
    let first = numbered.first().map_or(0, |(n, _)| *n);
    let expected = ["<show>dnd</show>", "<body>b</body>", "<show>chat</show>"];
    assert_eq!(numbered.len(), 3, "{numbered:?}");
    for (index, (n, inner)) in numbered.drain(..).enumerate() {
        let inner = String::from_utf8(inner).unwrap();
        assert!(inner.contains(expected[index]), "{inner}");
        assert_eq!(n, first + index as u64);
    }
    shows(&mut world, "away");
    assert_eq!(world.got(3).len(), 1, "a resumed stream begins active");
}
