//! Requests, answers and refusals of two users, and how they are confirmed.

use super::*;

#[test]
fn two_users_subscribe_to_each_other() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    let asked = user.outbound(contact, Kind::Subscribe);
    assert!(asked.pass && asked.push.is_some());
    assert_eq!(user.unsent(), [Kind::Subscribe]);
    assert!(user.confirm(contact, Kind::Subscribe));
    assert!(!user.confirm(contact, Kind::Subscribe), "it is known");
    assert!(user.roster.contact(&bare(contact)).unwrap().sent());
    let granted = user.inbound(contact, Kind::Subscribed);
    assert!(granted.pass && granted.push.is_some());
    assert_eq!(user.state(contact), State::TO);

    let request = user.inbound(contact, Kind::Subscribe);
    assert!(
        request.pass && request.push.is_none(),
        "a request shows in no roster"
    );
    assert_eq!(user.roster.requests().count(), 1);
    assert_eq!(user.state(contact), State::TO_IN);
    let approved = user.outbound(contact, Kind::Subscribed);
    assert!(approved.pass && approved.push.is_some());
    assert_eq!(
        (approved.before, approved.after),
        (State::TO_IN, State::BOTH)
    );
    assert_eq!(user.roster.requests().count(), 0);
    assert_eq!(user.unsent(), [Kind::Subscribed]);
    assert!(user.confirm(contact, Kind::Subscribed));
    assert!(user.unsent().is_empty());

    let gone = user.remove(contact);
    assert_eq!(gone.sends, [Kind::Unsubscribe, Kind::Unsubscribed]);
    assert_eq!(gone.after, State::NONE);
    assert_eq!(
        user.unsent(),
        gone.sends,
        "the tombstone remembers what was not confirmed"
    );
    assert!(user.confirm(contact, Kind::Unsubscribed));
    assert!(user.confirm(contact, Kind::Unsubscribe));
    assert!(user.unsent().is_empty());
    assert_eq!(user.rows.items.len(), 1);
}

#[test]
fn a_refusal_stands_until_it_is_confirmed() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    user.inbound(contact, Kind::Subscribe);
    let refused = user.outbound(contact, Kind::Unsubscribed);
    assert!(refused.pass && refused.push.is_none());
    assert_eq!(
        (user.state(contact), user.unsent()),
        (State::NONE, vec![Kind::Unsubscribed])
    );
    assert_eq!(user.roster.requests().count(), 0);
    // Asking again takes the refusal back.
    user.inbound(contact, Kind::Subscribe);
    assert_eq!(
        (user.state(contact), user.unsent()),
        (State::NONE_IN, vec![])
    );
    user.outbound(contact, Kind::Unsubscribed);
    user.set(contact, "Romeo", &[]);
    assert_eq!(
        user.unsent(),
        [Kind::Unsubscribed],
        "a change of name keeps it"
    );
    assert!(user.confirm(contact, Kind::Unsubscribed));
    assert!(user.unsent().is_empty());
    assert_eq!(user.rows.items.len(), 1, "the request's row is gone");
}

#[test]
fn a_removal_takes_a_refusal_over() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    user.set(contact, "Romeo", &[]);
    user.inbound(contact, Kind::Subscribe);
    user.outbound(contact, Kind::Unsubscribed);
    let gone = user.remove(contact);
    assert!(gone.sends.is_empty());
    assert_eq!(user.unsent(), [Kind::Unsubscribed]);
    assert_eq!(user.rows.items.len(), 1);
}

/// The tombstone's mark and the refused request are settled by one write.
#[test]
fn one_confirmation_settles_a_tombstone_and_a_later_refusal() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    user.inbound(contact, Kind::Subscribe);
    user.outbound(contact, Kind::Subscribe);
    user.remove(contact);
    user.inbound(contact, Kind::Subscribe);
    user.outbound(contact, Kind::Unsubscribed);
    assert_eq!(user.unsent(), [Kind::Unsubscribe, Kind::Unsubscribed]);
    assert!(user.confirm(contact, Kind::Unsubscribed));
    assert_eq!(user.unsent(), [Kind::Unsubscribe]);
    assert_eq!(user.rows.items.len(), 1);
}

#[test]
fn pre_approval_grants_without_asking() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    let approved = user.outbound(contact, Kind::Subscribed);
    assert!(!approved.pass && approved.push.is_some());
    assert!(user.unsent().is_empty(), "nobody else knows of it");
    let granted = user.inbound(contact, Kind::Subscribe);
    assert!(!granted.pass && granted.push.is_some());
    assert_eq!(granted.sends, [Kind::Subscribed]);
    assert_eq!(user.unsent(), [Kind::Subscribed]);
    assert_eq!(user.state(contact), State::FROM);
    let again = user.inbound(contact, Kind::Subscribe);
    assert_eq!((again.sends, again.push), (vec![Kind::Subscribed], None));
}

/// What arrives again because its confirmation got lost is not a new request.
#[test]
fn a_repeated_request_is_answered_once() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    assert!(user.numbered(contact, Kind::Subscribe, 70).pass);
    assert!(!user.numbered(contact, Kind::Subscribe, 70).pass);
    user.outbound(contact, Kind::Unsubscribed);
    assert_eq!(user.roster.number(&bare(contact), Kind::Unsubscribed), 70);
    let again = user.numbered(contact, Kind::Subscribe, 70);
    assert_eq!((again.pass, again.sends), (false, vec![]));
    assert_eq!(user.state(contact), State::NONE);
    // A later one is new, and the one before it has been overtaken.
    assert!(user.numbered(contact, Kind::Subscribe, 80).pass);
    user.outbound(contact, Kind::Subscribed);
    assert_eq!(user.state(contact), State::FROM);
    assert_eq!(
        user.numbered(contact, Kind::Unsubscribe, 75).after,
        State::FROM
    );
    // The contact's home asks again because it has no answer.
    assert!(user.confirm(contact, Kind::Subscribed));
    assert_eq!(
        user.numbered(contact, Kind::Subscribe, 80).sends,
        [Kind::Subscribed]
    );
    assert!(user.unsent().is_empty());
    // A new request for what the contact has here: its answer must not get lost.
    assert_eq!(
        user.numbered(contact, Kind::Subscribe, 90).sends,
        [Kind::Subscribed]
    );
    assert_eq!(user.unsent(), [Kind::Subscribed]);
    assert_eq!(user.roster.number(&bare(contact), Kind::Subscribed), 90);
}

/// An answer to a request that was taken back meanwhile counts for nothing.
#[test]
fn an_answer_to_an_earlier_request_is_not_one_to_this() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    let mut ask = |kind| {
        user.outbound(contact, kind);
        user.roster.number(&bare(contact), kind)
    };
    let first = ask(Kind::Subscribe);
    let back = ask(Kind::Unsubscribe);
    let second = ask(Kind::Subscribe);
    assert!(first < back && back < second);
    let early = user.numbered(contact, Kind::Subscribed, first);
    assert_eq!((early.pass, early.after), (false, State::NONE_OUT));
    let stale = user
        .roster
        .plan_confirmed(1, &bare(contact), Kind::Subscribe, first);
    assert!(stale.unwrap().is_none(), "it confirms another request");
    assert_eq!(user.unsent(), [Kind::Subscribe]);
    assert_eq!(
        user.numbered(contact, Kind::Subscribed, second).after,
        State::TO
    );
    assert!(user.unsent().is_empty());
    user.remove(contact);
    let late = user.numbered(contact, Kind::Unsubscribed, second);
    assert_eq!((late.pass, late.push), (false, None));
}

#[test]
fn a_settled_request_is_dead_even_if_its_row_is_left() {
    let mut user = User::new();
    let contact = "romeo@example.net";
    user.inbound(contact, Kind::Subscribe);
    let mut planned = user
        .roster
        .plan_outbound(NOW + 9, 1, &bare(contact), Kind::Subscribed)
        .unwrap();
    user.rows.apply(planned.write.take().unwrap()).unwrap();
    let done = user.roster.commit(planned);
    assert!(done.cleanup.is_some());
    // The process dies here: the next one finds both rows.
    let loaded = user.rows.load();
    assert_eq!(loaded.roster.state(&bare(contact)), State::FROM);
    assert_eq!(loaded.cleanup, [done.cleanup.unwrap()]);
    user.roster = loaded.roster;
    // Even after the subscription has ended, the old request doesn't come back.
    let mut planned = user
        .roster
        .plan_outbound(NOW + 10, 1, &bare(contact), Kind::Unsubscribed)
        .unwrap();
    user.rows.apply(planned.write.take().unwrap()).unwrap();
    user.roster.commit(planned);
    let loaded = user.rows.load();
    assert_eq!(loaded.roster.state(&bare(contact)), State::NONE);
    assert_eq!(loaded.roster.requests().count(), 0);
}
