//! Sessions that outlive their process in the store.

use cirrus_schema::TableId;
use cirrus_store::Dump as _;

use super::*;
use crate::user::parked_owner;

impl World {
    /// The process stops in order and another starts on the same store.
    fn stopped(mut self) -> Self {
        self.event(Event::Shutdown { park: true });
        assert!(self.home.is_quiet(), "nothing is under way");
        self.event(Event::Park);
        assert!(self.home.is_quiet());
        let mut next = self.killed();
        for row in next.rows() {
            let user = parked_owner(&row.key).unwrap();
            let token = 1;
            next.event(Event::Unpark { user, row, token });
        }
        next
    }

    fn rows(&self) -> Vec<Item> {
        let page = finish(self.table.dump(TableId::Cluster, None)).unwrap();
        page.items
    }

    /// A session of romeo that can be resumed, and its id.
    fn resumable(&mut self, pipe: u64) -> String {
        self.bind(pipe, ROMEO, "orchard");
        self.pipe(
            pipe,
            PipeEvent::EnableSm {
                resume: true,
                max: Some(60),
            },
        );
        let id = self.sm_id(pipe);
        self.say(pipe, "<presence/>");
        id
    }

    /// It goes on, having handled its own presence.
    fn resumes(&mut self, pipe: u64, id: &str) {
        self.resume(pipe, ROMEO, id, 1);
        let told = self.drain(pipe);
        assert!(
            matches!(told[..], [PipeOut::Resumed { .. }, ..]),
            "{told:?}"
        );
    }
}

#[test]
fn a_parked_session_goes_on_in_another_process() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    let id = world.resumable(2);
    world.say(1, &message(ROMEO, "a"));
    assert_eq!(world.bodies(2), ["a"]);
    world.event(Event::Shutdown { park: true });
    let told = world.drain(2);
    assert!(
        matches!(told[..], [PipeOut::Close { error: None }]),
        "{told:?}"
    );
    let told = world.drain(1);
    let error = Some(StreamError::SystemShutdown);
    assert!(
        matches!(&told[..], [.., PipeOut::Close { error: e }] if *e == error),
        "{told:?}"
    );
    let mut world = world.stopped();
    assert_eq!(world.rows().len(), 1, "untouched until it is asked for");
    // What comes before the client does is behind what it had not acknowledged.
    world.online(1, JULIET, "balcony");
    world.say(1, &message(ROMEO, "b"));
    world.resume(3, ROMEO, &id, 1);
    assert_eq!(world.bodies(3), ["a", "b"]);
    assert!(world.rows().is_empty(), "a later process must not find it");
    // It numbers on where it was.
    world.pipe(3, PipeEvent::Ack { h: 3 });
    assert!(world.drain(3).is_empty());
    world.say(1, &message(ROMEO, "c"));
    assert_eq!(world.bodies(3), ["c"]);
}

#[test]
fn what_waited_offline_and_was_not_acknowledged_comes_once() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    for body in ["a", "b", "c"] {
        world.say(1, &message(ROMEO, body));
    }
    let id = world.resumable(2);
    assert_eq!(world.bodies(2), ["a", "b", "c"]);
    // Its own presence and the first message.
    world.pipe(2, PipeEvent::Ack { h: 2 });
    let mut world = world.stopped();
    world.resume(3, ROMEO, &id, 2);
    assert_eq!(world.bodies(3), ["b", "c"]);
    world.pipe(3, PipeEvent::Ack { h: 4 });
    world.pipe(3, PipeEvent::Closed { clean: true });
    let mut world = world.killed();
    world.bind(4, ROMEO, "orchard");
    world.say(4, "<presence/>");
    assert!(world.bodies(4).is_empty(), "the cursor has passed them");
}

#[test]
fn a_client_that_does_not_come_back_leaves_what_it_had_to_the_next() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    let id = world.resumable(2);
    world.say(1, &message(ROMEO, "a"));
    let mut world = world.stopped();
    let due = world.home.next_deadline().expect("its time runs");
    assert_eq!(due, world.now + 60_000);
    // The account is read, and then the session is at its end.
    for now in [due, due + 1] {
        world.now = now;
        world.event(Event::Tick);
    }
    assert!(world.rows().is_empty());
    world.resume(3, ROMEO, &id, 1);
    let told = world.drain(3);
    assert!(
        matches!(told[..], [PipeOut::ResumeFailed { h: None, .. }]),
        "{told:?}"
    );
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert_eq!(world.bodies(3), ["a"]);
}

#[test]
fn a_copy_has_what_is_parked() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    let id = world.resumable(2);
    world.say(1, &message(ROMEO, "a"));
    let mut world = world.stopped();
    let bytes = world.home.snapshot();
    world.home = Home::restore(Arc::new(config()), Territory::Everything, &bytes).unwrap();
    assert_eq!(world.home.snapshot(), bytes);
    assert!(world.home.next_deadline().is_some());
    world.resume(3, ROMEO, &id, 1);
    assert_eq!(world.bodies(3), ["a"]);
}

#[test]
fn a_session_that_the_store_does_not_take_ends_as_any_other() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.resumable(2);
    world.say(1, &message(ROMEO, "a"));
    world.event(Event::Shutdown { park: true });
    world.held = true;
    world.event(Event::Park);
    let (token, op) = world.waiting.pop_front().unwrap();
    let place = op.place();
    let source = None;
    let result = Err(StoreError::Throttled { place, source });
    world.event(Event::Store { token, result });
    world.held = false;
    world.answer();
    assert!(world.home.is_quiet());
    let mut world = world.killed();
    assert!(world.rows().is_empty());
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert_eq!(world.bodies(3), ["a"]);
}

/// Another version may have written it.
#[test]
fn of_a_session_that_can_not_be_read_the_messages_are_delivered() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.say(1, &message(ROMEO, "a"));
    world.resumable(2);
    for body in ["b", "c"] {
        world.say(1, &message(ROMEO, body));
    }
    assert_eq!(world.bodies(2), ["a", "b", "c"]);
    world.event(Event::Shutdown { park: true });
    world.event(Event::Park);
    let mut world = world.killed();
    for mut row in world.rows() {
        let mut state = row.attrs.get_b("s").unwrap().to_vec();
        state[0] = FORMAT + 1;
        row.attrs.set("s", state);
        let user = parked_owner(&row.key).unwrap();
        let token = 1;
        world.event(Event::Unpark { user, row, token });
    }
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert_eq!(world.bodies(3), ["a", "b", "c"]);
    assert!(world.rows().is_empty());
}

#[test]
fn a_row_that_makes_no_sense_is_left_out() {
    let mut world = World::new(&[JULIET, ROMEO]);
    let key =
        cirrus_schema::keys::cluster::parked(&BareJid::parse(ROMEO).unwrap().owner(), &[7; 16]);
    for attrs in [
        Attrs::new(),
        Attrs::new().with("v", 9u64).with("s", vec![1]),
    ] {
        let row = Item::new(key.clone(), attrs);
        let user = parked_owner(&row.key).unwrap();
        let token = 1;
        world.event(Event::Unpark { user, row, token });
        assert_eq!(world.home.next_deadline(), None);
    }
}

#[test]
fn who_takes_over_from_a_process_at_its_end_serves() {
    let mut world = World::new(&[ROMEO]);
    let id = world.resumable(2);
    world.event(Event::Shutdown { park: true });
    let bytes = world.home.snapshot();
    world.home = Home::restore(Arc::new(config()), Territory::Everything, &bytes).unwrap();
    world.resume(3, ROMEO, &id, 1);
    let told = world.drain(3);
    let error = Some(StreamError::SystemShutdown);
    assert!(
        matches!(&told[..], [PipeOut::Close { error: e }] if *e == error),
        "{told:?}"
    );
    world.event(Event::Takeover);
    world.resumes(3, &id);
}

/// Another node has come while the store took the session: it goes on there, and nowhere else.
#[test]
fn a_session_that_was_taken_over_while_it_was_parked_goes_on() {
    let mut world = World::new(&[JULIET, ROMEO]);
    let id = world.resumable(2);
    world.event(Event::Shutdown { park: true });
    world.held = true;
    world.event(Event::Park);
    world.event(Event::Takeover);
    world.held = false;
    world.answer();
    assert!(world.rows().is_empty(), "a later process must not find it");
    world.resumes(3, &id);
}

#[test]
fn a_session_whose_time_is_up_while_it_is_parked_leaves_nothing() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.resumable(2);
    world.event(Event::Shutdown { park: true });
    world.held = true;
    world.event(Event::Park);
    world.now += 61_000;
    world.event(Event::Tick);
    world.held = false;
    world.answer();
    assert!(world.rows().is_empty());
}

/// A row that was read late: its client has logged in anew meanwhile.
#[test]
fn a_session_that_has_been_replaced_only_gives_what_it_had() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.resumable(2);
    world.say(1, &message(ROMEO, "a"));
    world.event(Event::Shutdown { park: true });
    world.event(Event::Park);
    let mut world = world.killed();
    let rows = world.rows();
    world.online(3, ROMEO, "orchard");
    world.online(1, JULIET, "balcony");
    for row in rows {
        let user = parked_owner(&row.key).unwrap();
        world.event(Event::Unpark {
            user,
            row,
            token: 1,
        });
    }
    world.say(1, &message(ROMEO, "b"));
    assert_eq!(world.bodies(3), ["a", "b"]);
    assert!(world.rows().is_empty());
    world.now += 61_000;
    world.event(Event::Tick);
    world.say(
        3,
        "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    let got = world.got(3);
    let gone = got.iter().any(|xml| xml.contains("type='unavailable'"));
    assert!(!gone, "{got:?}");
}
