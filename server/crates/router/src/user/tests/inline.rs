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
    let Some(PipeOut::Bound { jid, sm }) = told.pop_front() else {
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
