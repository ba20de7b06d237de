//! Subscription stanzas and the presence that comes with them: in order, and once.

use super::*;

const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

impl World {
    /// Carries out the oldest operation that waits.
    fn answer_one(&mut self) {
        let (token, op) = self.waiting.pop_front().expect("an operation waits");
        let result = finish(self.table.apply(op));
        self.event(Event::Store { token, result });
    }

    /// Carries out the oldest operation that waits, and its answer is lost.
    fn lose_answer(&mut self) {
        let (token, op) = self.waiting.pop_front().expect("an operation waits");
        let (place, source) = (op.place(), None);
        finish(self.table.apply(op)).unwrap();
        let result = Err(StoreError::Timeout { place, source });
        self.event(Event::Store { token, result });
    }

    /// The store answers everything from now on.
    fn release(&mut self) {
        self.held = false;
        self.answer();
    }

    fn until(&mut self, now: u64) {
        self.now = now;
        self.event(Event::Tick);
    }

    /// Both are there, Juliet at pipe 1 and Romeo at pipe 2, and Juliet sees Romeo's presence.
    fn juliet_sees_romeo() -> Self {
        let mut world = Self::new(&[JULIET, ROMEO]);
        world.online(1, JULIET, "balcony");
        world.online(2, ROMEO, "orchard");
        world.say(1, ROSTER);
        world.say(2, ROSTER);
        world.say(1, &format!("<presence to='{ROMEO}' type='subscribe'/>"));
        world.say(2, &format!("<presence to='{JULIET}' type='subscribed'/>"));
        world.drain(1);
        world.drain(2);
        world
    }
}

/// What each stanza is: the type of a presence, or what a push says.
fn kinds(got: &[String]) -> Vec<&str> {
    let attribute = |xml: &'_ String, name: &str| -> Option<(usize, usize)> {
        let start = xml.find(&format!("{name}='"))? + name.len() + 2;
        Some((start, start + xml[start..].find('\'')?))
    };
    got.iter()
        .map(|xml| {
            let name = if xml.starts_with("<iq") {
                "subscription"
            } else {
                "type"
            };
            attribute(xml, name).map_or("available", |(start, end)| &xml[start..end])
        })
        .collect()
}

#[test]
fn presence_does_not_wait_for_changes_that_have_nothing_to_do_with_it() {
    let mut world = World::juliet_sees_romeo();
    world.say(2, &format!("<presence to='{JULIET}' type='subscribe'/>"));
    world.held = true;
    world.say(1, &format!("<presence to='{ROMEO}' type='subscribed'/>"));
    while !world
        .got(2)
        .iter()
        .any(|xml| xml.contains("subscription='both'"))
    {
        world.answer_one();
    }
    // That Romeo's side has the approval is still being written when Juliet comes back.
    world.pipe(1, PipeEvent::Closed { clean: true });
    world.say(2, "<presence><show>away</show></presence>");
    world.bind(3, JULIET, "garden");
    world.say(3, "<presence/>");
    let mut got = world.got(3);
    world.release();
    got.extend(world.got(3));
    let romeo = |xml: &&String| xml.contains("from='romeo@example.com/orchard'");
    let shown: Vec<_> = got.iter().filter(romeo).collect();
    let answer = "<presence to='juliet@example.com/garden' \
                  from='romeo@example.com/orchard'><show>away</show></presence>";
    assert_eq!(shown, [answer]);
}

#[test]
fn presence_does_not_overtake_its_senders_subscription_stanza() {
    let mut world = World::new(&[JULIET, ROMEO, "nurse@example.com"]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.online(3, "nurse@example.com", "kitchen");
    world.say(1, ROSTER);
    world.say(1, &format!("<presence to='{ROMEO}' type='subscribe'/>"));
    world.drain(1);
    world.held = true;
    world.say(2, &format!("<presence to='{JULIET}' type='subscribed'/>"));
    world.answer_one();
    world.say(2, "<presence><show>chat</show></presence>");
    assert!(world.got(1).is_empty(), "Romeo's approval is being written");
    world.say(3, &format!("<presence to='{JULIET}'/>"));
    let nurse = "<presence to='juliet@example.com' from='nurse@example.com/kitchen'/>";
    assert_eq!(world.got(1), [nurse], "others don't wait for it");
    world.release();
    let got = world.got(1);
    assert_eq!(kinds(&got), ["to", "subscribed", "available", "available"]);
    assert!(got[3].contains("<show>chat</show>"), "{got:?}");
}

#[test]
fn what_is_not_confirmed_is_sent_again_after_a_whole_pause() {
    let mut world = World::juliet_sees_romeo();
    // Just before a pause would end that began with their first stanzas.
    let start = world.now;
    world.until(start + 4_999);
    world.held = true;
    world.say(2, &format!("<presence to='{JULIET}' type='unsubscribed'/>"));
    world.answer_one();
    world.until(start + 5_000);
    world.until(start + 9_998);
    world.release();
    assert_eq!(
        kinds(&world.got(1)),
        ["none", "unsubscribed", "unavailable"]
    );
}

#[test]
fn what_stays_unconfirmed_is_sent_again() {
    let mut world = World::juliet_sees_romeo();
    let start = world.now;
    world.held = true;
    world.say(2, &format!("<presence to='{JULIET}' type='unsubscribed'/>"));
    world.answer_one();
    // Juliet's side can't write it, so it does not confirm it; that Romeo is gone needs no write.
    world.fail_store();
    assert_eq!(kinds(&world.got(1)), ["unavailable"]);
    world.held = false;
    world.until(start + 5_000);
    assert_eq!(
        kinds(&world.got(1)),
        ["none", "unsubscribed", "unavailable"]
    );
    world.until(start + 15_000);
    assert!(world.got(1).is_empty(), "it is confirmed");
}

#[test]
fn an_approval_whose_answer_was_lost_shows_presence_once_and_behind_it() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.say(1, ROSTER);
    world.say(1, &format!("<presence to='{ROMEO}' type='subscribe'/>"));
    world.drain(1);
    world.held = true;
    world.say(2, &format!("<presence to='{JULIET}' type='subscribed'/>"));
    world.lose_answer();
    world.release();
    assert_eq!(kinds(&world.got(1)), ["to", "subscribed", "available"]);
}

#[test]
fn an_account_that_is_being_erased_asks_for_nothing_again() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.held = true;
    world.say(1, &format!("<presence to='{ROMEO}' type='subscribe'/>"));
    let user = BareJid::parse(JULIET).unwrap();
    world.event(Event::Erase { user, token: 1 });
    // The roster's write comes back first; then Romeo's home is told, and confirms.
    let erases = |(_, op): &(Token, Op)| matches!(op, Op::Get { .. });
    while !world.waiting.front().is_some_and(erases) {
        world.answer_one();
    }
    let told = world.got(2);
    assert!(kinds(&told).ends_with(&["unsubscribe"]), "{told:?}");
    world.until(world.now + 6_000);
    world.release();
    let told = world.got(2);
    assert!(told.is_empty(), "{told:?}");
}
