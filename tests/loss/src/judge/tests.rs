use super::*;
use crate::ledger::{Event, Item, Login};

/// Two accounts that know each other, both online.
fn pair() -> Ledger {
    pair_of(&[true, true])
}

fn pair_of(managed: &[bool]) -> Ledger {
    let mut ledger = Ledger::new(managed, |account| vec![1 - account]);
    for account in [0, 1] {
        ledger.record(account, 0, Event::LoggedIn(Login::Expected));
        ledger.record(account, 1, Event::Sent(Item::Presence(1)));
        ledger.record(account, 2, Event::Acknowledged(Item::Presence(1)));
    }
    for account in [0, 1] {
        ledger.record(account, 3, Event::Shown(1 - account, Some(1)));
    }
    ledger
}

fn sent(ledger: &mut Ledger, sequences: impl IntoIterator<Item = u32>) {
    for sequence in sequences {
        let item = Item::Message(1, sequence);
        ledger.record(0, 10, Event::Sent(item));
        ledger.record(0, 11, Event::Acknowledged(item));
    }
}

fn seen(sequence: u32, session: u32, count: u32) -> Event {
    seen_by(By::Stream, sequence, session, count)
}

fn seen_by(by: By, sequence: u32, session: u32, count: u32) -> Event {
    let from = 0;
    Event::Seen {
        from,
        sequence,
        by,
        session,
        count,
    }
}

fn judged(ledger: &Ledger) -> Judgement {
    let mut judgement = Judgement::of(ledger);
    judgement.judge_views(ledger);
    judgement
}

#[test]
fn a_clean_run_is_clean() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=3);
    for sequence in 1..=3 {
        ledger.record(1, 20, seen(sequence, 1, sequence));
    }
    assert!(ledger.is_settled());
    let judgement = judged(&ledger);
    assert!(judgement.is_clean(), "{judgement:?}");
    assert_eq!((judgement.messages, judgement.by_stream), (3, 3));
    assert_eq!((judgement.ghosts, judgement.flaps), (0, 0));
    // Two presences and three messages.
    assert_eq!((judgement.offered, judgement.accepted), (5, 5));
    assert!(judgement.examples.is_empty());
}

#[test]
fn deliveries_are_timed_where_both_are_connected() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=3);
    ledger.record(1, 15, seen(1, 1, 1));
    ledger.begin("a fault", 20);
    ledger.record(1, 30, seen(2, 1, 2));
    ledger.record(1, 31, Event::Broke { by_choice: false });
    let (by_choice, took) = (false, 9);
    ledger.record(1, 40, Event::Resumed { by_choice, took });
    ledger.record(1, 41, seen(3, 1, 3));
    let judgement = judged(&ledger);
    assert_eq!(judgement.delivery, [5]);
    assert_eq!(judgement.delivery_in_faults, [20]);
}

#[test]
fn a_planted_loss_is_found() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=3);
    ledger.record(1, 20, seen(1, 1, 1));
    ledger.record(1, 20, seen(3, 1, 2));
    assert!(!ledger.is_settled());
    let judgement = judged(&ledger);
    assert_eq!((judgement.lost, judgement.reordered), (1, 0));
    assert!(!judgement.is_clean());
    // The archive has it: it was not lost.
    ledger.record(1, 30, seen_by(By::Archive, 2, 1, 0));
    let judgement = judged(&ledger);
    assert_eq!((judgement.lost, judgement.by_archive), (0, 1));
}

#[test]
fn what_is_lost_to_one_without_a_connection_is_told() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=1);
    ledger.record(1, 15, Event::Broke { by_choice: true });
    let item = Item::Message(1, 2);
    ledger.record(0, 16, Event::Sent(item));
    ledger.record(0, 17, Event::Acknowledged(item));
    let resumed = Event::Resumed {
        by_choice: true,
        took: 1,
    };
    ledger.record(1, 18, resumed);
    let judgement = judged(&ledger);
    assert_eq!((judgement.lost, judgement.lost_cut_off), (2, 1));
}

#[test]
fn what_was_not_acknowledged_may_be_lost() {
    let mut ledger = pair();
    for (sequence, seen_too) in [(1, true), (2, false)] {
        let item = Item::Message(1, sequence);
        ledger.record(0, 10, Event::Sent(item));
        ledger.record(0, 12, Event::Abandoned(item));
        if seen_too {
            ledger.record(1, 20, seen(sequence, 1, 1));
        }
    }
    let judgement = judged(&ledger);
    assert!(judgement.is_clean());
    assert_eq!(judgement.unacknowledged_seen, 1);
    assert_eq!(judgement.unacknowledged_unseen, 1);
    // They were offered, and not accepted.
    assert_eq!((judgement.offered, judgement.accepted), (4, 2));
}

#[test]
fn one_that_does_not_acknowledge_can_only_be_judged_where_there_is_an_archive() {
    let mut ledger = pair_of(&[true, false]);
    sent(&mut ledger, 1..=1);
    let judgement = judged(&ledger);
    assert_eq!((judgement.lost, judgement.lost_unmanaged), (0, 1));
    ledger.record(1, 30, Event::Archive(true));
    let judgement = judged(&ledger);
    assert_eq!((judgement.lost, judgement.lost_unmanaged), (1, 0));
}

#[test]
fn a_planted_double_is_found_and_an_honest_repetition_is_told_apart() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=2);
    ledger.record(1, 20, seen(1, 1, 1));
    ledger.record(1, 20, seen(2, 1, 2));
    // The server was certainly told of the first, not of the second.
    let told = Event::Told {
        session: 1,
        count: 1,
    };
    ledger.record(1, 21, told);
    ledger.record(1, 30, seen_by(By::Offline, 2, 2, 1));
    assert_eq!((judged(&ledger).doubled, judged(&ledger).repeated), (0, 1));
    ledger.record(1, 31, seen_by(By::Offline, 1, 2, 2));
    assert_eq!((judged(&ledger).doubled, judged(&ledger).repeated), (1, 1));
    // Twice in one session is never right.
    ledger.record(1, 32, seen(1, 2, 3));
    assert_eq!(judged(&ledger).doubled, 2);
    assert!(!judged(&ledger).is_clean());
    // What the archive has as well was not doubled.
    ledger.record(1, 33, seen_by(By::Archive, 2, 2, 0));
    assert_eq!(judged(&ledger).doubled, 2);
}

#[test]
fn a_planted_reorder_is_found() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=4);
    for (count, sequence) in (1..).zip([1, 3, 4, 2]) {
        ledger.record(1, 20, seen(sequence, 1, count));
    }
    let judgement = judged(&ledger);
    assert_eq!((judgement.reordered, judgement.lost), (2, 0));
    assert!(!judgement.is_clean());
}

#[test]
fn a_planted_ghost_is_found() {
    let mut ledger = pair();
    ledger.record(0, 40, Event::Left);
    let judgement = judged(&ledger);
    assert_eq!(judgement.ghosts, 1, "{:?}", judgement.examples);
    ledger.record(1, 41, Event::Shown(0, None));
    assert_eq!((judged(&ledger).ghosts, judged(&ledger).flaps), (0, 0));
    // Back, with another presence that nobody is shown.
    ledger.record(0, 50, Event::LoggedIn(Login::Expected));
    ledger.record(0, 50, Event::Sent(Item::Presence(2)));
    ledger.record(0, 51, Event::Shown(1, Some(1)));
    assert_eq!(judged(&ledger).ghosts, 1);
    ledger.record(1, 52, Event::Shown(0, Some(2)));
    assert_eq!(judged(&ledger).ghosts, 0);
}

#[test]
fn a_flap_is_one_who_is_shown_to_leave_and_did_not() {
    let broken = Event::Broke { by_choice: false };
    let resumed = Event::Resumed {
        by_choice: false,
        took: 5,
    };
    let mut ledger = pair();
    // Long after it logged in.
    let at = 100 * NEWS;
    ledger.record(0, at, broken);
    ledger.record(1, at + 1, Event::Shown(0, None));
    ledger.record(0, at + 2, resumed);
    assert_eq!(judged(&ledger).flaps, 1);
    assert_eq!(
        (&ledger.sessions.gaps[..], &ledger.sessions.resumed[..]),
        (&[2][..], &[5][..])
    );
    // The same, but its session was not to be had any more: others were told the truth.
    let mut ledger = pair();
    ledger.record(0, at, broken);
    ledger.record(1, at + 1, Event::Shown(0, None));
    ledger.record(0, at + 2, Event::ResumeFailed);
    ledger.record(0, at + 3, Event::LoggedIn(Login::Lost));
    assert_eq!(judged(&ledger).flaps, 0);
}

#[test]
fn the_accepted_share_leaves_out_times_of_fault() {
    let mut ledger = pair();
    ledger.begin("kill", 100);
    ledger.record(0, 150, Event::Stalled);
    ledger.record(0, 160, Event::Broke { by_choice: false });
    ledger.end(200);
    ledger.record(0, 250, Event::Stalled);
    let judgement = judged(&ledger);
    assert_eq!((judgement.offered, judgement.accepted), (3, 2));
    assert_eq!(ledger.windows[0].broke, 1);
}

#[test]
fn errors_that_mean_unknown_are_counted_apart() {
    let mut ledger = pair();
    sent(&mut ledger, 1..=2);
    for (number, refusal) in [(1, Refusal::Definite), (2, Refusal::Unknown)] {
        let item = Item::Message(1, number);
        ledger.record(0, 15, Event::Refused(item, refusal));
        ledger.record(0, 16, Event::Sent(Item::Ping(number)));
        ledger.record(0, 17, Event::Refused(Item::Ping(number), refusal));
        ledger.record(0, 18, Event::Acknowledged(Item::Ping(number)));
    }
    ledger.record(0, 19, Event::Sent(Item::Ping(3)));
    ledger.record(0, 20, Event::Acknowledged(Item::Ping(3)));
    let judgement = judged(&ledger);
    assert!(judgement.is_clean());
    assert_eq!((judgement.refused, judgement.refused_unknown), (1, 1));
    assert_eq!((judgement.pings_refused, judgement.pings_unknown), (1, 1));
    assert_eq!(judgement.pings_unanswered, 1);
    assert_eq!(judgement.refused_but_seen, 0);
}
