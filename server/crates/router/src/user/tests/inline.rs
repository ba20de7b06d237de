//! What a session begins with when it is bound together with the login (XEP-0386).

use super::*;
use crate::event::{Enable, Enabled, Inline};

fn login(client: &str, tag: &str) -> Login {
    Login {
        client: Some(client.into()),
        inline: Inline {
            tag: Some(tag.into()),
            sm: Some(Enable {
                resume: true,
                max: Some(60),
            }),
            carbons: true,
            inactive: false,
            archive: true,
        },
        ..Login::default()
    }
}

fn bind(world: &mut World, pipe: u64, login: Login) -> (String, Option<Enabled>) {
    let user = BareJid::parse(JULIET).unwrap();
    let resource = None;
    world.pipe(
        pipe,
        PipeEvent::Bind {
            user,
            resource,
            login,
        },
    );
    let mut told = world.pipes.remove(&pipe).unwrap_or_default();
    let Some(PipeOut::Bound { jid, sm, .. }) = told.pop_front() else {
        panic!("not bound, but {told:?}")
    };
    world.pipes.insert(pipe, told);
    (jid.as_str().to_owned(), sm)
}

#[test]
fn a_session_begins_with_what_was_asked_for() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    let (jid, sm) = bind(&mut world, 2, login("c1", "phone"));
    assert!(jid.starts_with("juliet@example.com/phone/"), "{jid}");
    let Some(Enabled {
        id: Some(id),
        max: 60,
        base: 0,
    }) = sm
    else {
        panic!("{sm:?}")
    };
    world.say(2, "<presence/>");
    world.got(2);
    world.say(1, &message(ROMEO, "a"));
    assert_eq!(world.bodies(2), ["a"], "a copy");
    world.pipe(2, PipeEvent::Closed { clean: false });
    world.resume(3, JULIET, &id, 3);
    let outs = world.drain(3);
    assert!(
        matches!(outs[..], [PipeOut::Resumed { k: 1, .. }]),
        "{outs:?}"
    );
}

/// XEP-0386 section 3.2: earlier sessions of the client are at their end; its resource is the same.
#[test]
fn a_client_that_comes_again_takes_the_place_of_its_earlier_session() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(9, ROMEO, "orchard");
    let (first, _) = bind(&mut world, 1, login("c1", "phone"));
    let mut uncopied = login("c2", "phone");
    uncopied.inline.carbons = false;
    let (other, _) = bind(&mut world, 2, uncopied);
    assert_ne!(first, other);
    world.say(1, "<presence/>");
    world.got(1);
    world.say(9, &message(&first, "never acknowledged"));
    let (again, _) = bind(&mut world, 3, login("c1", "phone"));
    assert_eq!(again, first);
    let outs = world.drain(1);
    let error = Some(StreamError::Conflict);
    assert!(
        matches!(outs.last(), Some(PipeOut::Close { error: e }) if *e == error),
        "{outs:?}"
    );
    assert!(world.drain(2).is_empty());
    assert_eq!(world.bodies(3), ["never acknowledged"]);
    let (renamed, _) = bind(&mut world, 4, login("c1", "tablet"));
    assert!(
        renamed.starts_with("juliet@example.com/tablet/"),
        "{renamed}"
    );
    let outs = world.drain(3);
    let ended = |out: &PipeOut| matches!(out, PipeOut::Close { error: e } if *e == error);
    assert!(outs.iter().any(ended), "{outs:?}");
}

#[test]
fn a_tag_that_is_no_resource_is_left_out() {
    let mut world = World::new(&[JULIET]);
    let long = "x".repeat(1_023);
    let (jid, _) = bind(&mut world, 1, login("c1", &long));
    let resource = jid.strip_prefix("juliet@example.com/").unwrap();
    assert_eq!(resource.len(), 16, "{resource}");
}

impl World {
    /// Binds together with the login: what is said of the archive, and the requests that it took.
    pub(super) fn told_of_archive(&mut self, pipe: u64) -> (Option<String>, u64) {
        let before = self.asked;
        let user = BareJid::parse(JULIET).unwrap();
        let bind = PipeEvent::Bind {
            user,
            resource: None,
            // Each one's, so that none takes the place of another.
            login: login(&format!("c{pipe}"), "phone"),
        };
        self.pipe(pipe, bind);
        let asked = self.asked - before;
        let Some(PipeOut::Bound { archive, .. }) = self.drain(pipe).into_iter().next() else {
            panic!("not bound");
        };
        (archive.map(|xml| String::from_utf8(xml).unwrap()), asked)
    }

    /// Ends a session as a client does that has got everything.
    pub(super) fn leave(&mut self, pipe: u64) {
        self.pipe(pipe, PipeEvent::Closed { clean: true });
        self.drain(pipe);
    }
}

/// The ids of the first and the last message.
fn ends(archive: Option<String>) -> (String, String) {
    let xml = archive.expect("something is said of the archive");
    let id = |name| archive::between(&xml, &format!("<{name} id='"), "'").map(str::to_owned);
    id("start")
        .zip(id("end"))
        .unwrap_or_else(|| panic!("{xml}"))
}

const NOTHING: &str = "<metadata xmlns='urn:xmpp:mam:2'/>";

/// XEP-0386 section 3.2: what the archive has is said with the resource, and needs no request.
#[test]
fn who_binds_is_told_where_the_archive_begins_and_ends() {
    let mut world = World::new(&[JULIET, ROMEO]);
    // The account, the roster, the log; and the index, because the log is empty.
    assert_eq!(world.told_of_archive(1), (Some(NOTHING.into()), 4));
    for n in 1..=50 {
        world.say(1, &message(ROMEO, &n.to_string()));
        world.read_all(1);
    }
    let (page, _) = world.archive(1, "", "");
    let expected = (page[0].1.clone(), page[49].1.clone());
    let (told, asked) = world.told_of_archive(2);
    assert_eq!((ends(told), asked), (expected.clone(), 0));
    world.leave(2);
    // Another home, after a session's end: as cheap as a login without it.
    world = world.killed();
    let (told, asked) = world.told_of_archive(3);
    assert_eq!((ends(told), asked), (expected, 3));
    world.say(3, &message(ROMEO, "51"));
    world.read_all(3);
    let (page, _) = world.archive(3, "", "");
    let (told, _) = world.told_of_archive(4);
    assert_eq!(ends(told), (page[0].1.clone(), page[50].1.clone()));
}

/// Where nobody has ended a session since the archive began, its beginning is not known: who binds
/// is told nothing, for no request more, and who asks has it looked up once.
#[test]
fn what_is_not_known_of_the_archive_is_not_looked_up_at_a_login() {
    let begin = || {
        let mut world = World::new(&[JULIET, ROMEO]);
        world.online(1, JULIET, "balcony");
        for n in 1..=50 {
            world.say(1, &message(ROMEO, &n.to_string()));
            world.read_all(1);
        }
        let (page, _) = world.archive(1, "", "");
        (world.killed(), (page[0].1.clone(), page[49].1.clone()))
    };
    let ask = "<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>";
    let (mut world, expected) = begin();
    assert_eq!(world.told_of_archive(1), (None, 3));
    let before = world.asked;
    world.say(1, ask);
    assert_eq!(ends(world.got(1).pop()), expected);
    assert_eq!(world.asked - before, 2, "index and log");
    let (told, asked) = world.told_of_archive(2);
    assert_eq!((ends(told), asked), (expected.clone(), 0));
    // And so does the next home, after a session's end.
    world.leave(2);
    world = world.killed();
    let (told, asked) = world.told_of_archive(3);
    assert_eq!((ends(told), asked), (expected, 3));

    for step in [1, 2] {
        let (mut world, expected) = begin();
        world.told_of_archive(1);
        world.fails = Some(world.asked + step);
        world.say(1, ask);
        let answer = world.got(1).pop().unwrap();
        assert!(answer.contains("<internal-server-error"), "{answer}");
        world.say(1, ask);
        assert_eq!(ends(world.got(1).pop()), expected, "step {step}");
    }
}
