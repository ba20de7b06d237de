//! The machine event by event.

use cirrus_schema::TableId;
use cirrus_store::{Condition, Item, Op, Outcome, Place, StoreError};

use super::super::record::encode;
use super::*;

const LIMITS: Limits = Limits {
    queue_records: 40,
    queue_bytes: 1_000_000,
    deadline_ms: 10_000,
    defer_ms: 60_000,
    day_ms: 86_400_000,
};

/// A day on which none of these tests ends.
const FAR: u64 = 1 << 20;

/// A log with the effects that were not looked at yet.
struct Bench {
    log: Log,
    out: Vec<LogEffect>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            log: Log::new(&owner(), LIMITS, 1, 0, 7).covered(FAR),
            out: Vec::new(),
            now: NOW,
        }
    }

    fn append(&mut self, record: Record) -> Ticket {
        self.log.append(self.now, record, &mut self.out).unwrap()
    }

    /// The operation that was asked for; nothing else must have happened.
    fn op(&mut self) -> (Token, Op) {
        let effects: Vec<LogEffect> = self.out.drain(..).collect();
        match effects.into_iter().next() {
            Some(LogEffect::Store { token, op }) => (token, op),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self) -> (Token, Item, u128) {
        match self.op() {
            (
                token,
                Op::Put {
                    item,
                    condition: Condition::Absent,
                    nonce,
                },
            ) => (token, item, nonce),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, token: Token, result: Result<Outcome, StoreError>) {
        self.log.on_result(self.now, token, result, &mut self.out);
    }

    fn tick(&mut self, elapsed: u64) {
        self.now += elapsed;
        self.log.tick(self.now, &mut self.out);
    }

    /// Ticks when the log wants to, until it asks for something.
    fn wait(&mut self) {
        while !self
            .out
            .iter()
            .any(|effect| matches!(effect, LogEffect::Store { .. }))
        {
            let at = self.log.wake_at().expect("the log waits for nothing");
            assert!(at > self.now, "a tick that was due did nothing");
            self.tick(at - self.now);
        }
    }

    /// What was reported besides operations, as text.
    fn reports(&mut self) -> Vec<String> {
        let mut reports = Vec::new();
        self.out.retain(|effect| {
            reports.push(match effect {
                LogEffect::Store { .. } => return true,
                LogEffect::Durable {
                    ticket, position, ..
                } => format!("{ticket} at {position}"),
                LogEffect::Failed {
                    ticket,
                    unknown: true,
                } => format!("{ticket} unknown"),
                LogEffect::Failed {
                    ticket,
                    unknown: false,
                } => format!("{ticket} failed"),
                LogEffect::LandedLate {
                    ticket, position, ..
                } => {
                    format!("{ticket} late at {position}")
                }
                LogEffect::Learned { position, .. } => format!("learned {position}"),
                LogEffect::Broken { error } => format!("broken: {error}"),
            });
            false
        });
        reports
    }
}

fn place() -> Place {
    Place::Table(TableId::Archive)
}

fn timeout() -> StoreError {
    StoreError::Timeout {
        place: place(),
        source: None,
    }
}

fn throttled() -> StoreError {
    StoreError::Throttled {
        place: place(),
        source: None,
    }
}

fn conflict(item: &Item) -> StoreError {
    StoreError::Conflict {
        key: item.key.clone(),
        existing: None,
    }
}

fn item(seq: u64, records: &[Record]) -> Item {
    encode(
        &owner().owner(),
        seq,
        &records.iter().collect::<Vec<_>>(),
        0,
    )
}

fn page(items: Vec<Item>) -> Result<Outcome, StoreError> {
    Ok(Outcome::Page { items, next: None })
}

#[test]
fn one_put_is_under_way_and_the_rest_is_packed() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, first, _) = bench.put();
    assert_eq!(decode(&first).unwrap().0, 1);
    for k in 2..=20 {
        bench.append(message(NOW, 1, k));
    }
    assert!(
        bench.out.is_empty(),
        "nothing more while a put is under way"
    );
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1"]);
    let (token, second, _) = bench.put();
    assert_eq!(decode(&second).unwrap().1.len(), MAX_RECORDS);
    bench.answer(token, Ok(Outcome::Put));
    let reports = bench.reports();
    assert_eq!(
        (reports.len(), reports.last().unwrap().as_str()),
        (16, "17 at 17")
    );
    let (token, third, _) = bench.put();
    assert_eq!(
        (decode(&third).unwrap().0, decode(&third).unwrap().1.len()),
        (18, 3)
    );
    assert!(!bench.log.is_idle());
    bench.answer(token, Ok(Outcome::Put));
    assert!(bench.log.is_idle());
    assert_eq!((bench.log.last_position(), bench.log.wake_at()), (20, None));
}

#[test]
fn an_item_is_bounded_in_bytes() {
    let mut bench = Bench::new();
    let large = |k| {
        let peer = owner();
        let origin = Origin {
            session: SessionId(1),
            k,
        };
        Record::message(
            NOW,
            Direction::In,
            peer,
            Some(origin),
            vec![b'x'; 200 * 1_024],
        )
    };
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.append(large(2));
    bench.append(large(3));
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();
    let (_, item, _) = bench.put();
    assert_eq!(decode(&item).unwrap().1.len(), 1);
}

#[test]
fn too_much_is_refused() {
    let mut bench = Bench::new();
    let mut append = |record| bench.log.append(NOW, record, &mut bench.out);
    let huge = Record::message(NOW, Direction::In, owner(), None, vec![0; MAX_BYTES]);
    assert!(matches!(append(huge), Err(LogError::TooLarge { .. })));
    let positions = (0..=MAX_RESPOOL as u64).collect();
    assert!(matches!(
        append(Record::respool(NOW, positions)),
        Err(LogError::TooLarge { .. })
    ));
    for k in 0..=40 {
        append(message(NOW, 1, k)).unwrap();
    }
    // One is under way, forty wait.
    assert!(matches!(
        append(message(NOW, 1, 41)),
        Err(LogError::Full { records: 40, .. })
    ));
    let mut bench = Bench::new();
    let mut append = |record| bench.log.append(NOW, record, &mut bench.out);
    let large = || Record::message(NOW, Direction::In, owner(), None, vec![0; 290_000]);
    for _ in 0..4 {
        append(large()).unwrap();
    }
    assert!(matches!(
        append(large()),
        Err(LogError::Full { records: 3, .. })
    ));
}

#[test]
fn markers_ride_along_or_wait_a_minute() {
    let mut bench = Bench::new();
    bench.append(marker(NOW, 1, 1));
    assert!(bench.out.is_empty());
    assert_eq!(bench.log.wake_at(), Some(NOW + 60_000));
    bench.tick(1_000);
    bench.append(message(NOW, 1, 2));
    let (token, item, _) = bench.put();
    assert_eq!(
        decode(&item).unwrap().1.len(),
        2,
        "in the order of acceptance"
    );
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1", "2 at 2"]);

    bench.append(marker(NOW, 1, 3));
    bench.tick(59_999);
    assert!(bench.out.is_empty());
    bench.tick(1);
    let (token, ..) = bench.put();
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();
    // A full item need not wait.
    for k in 0..15 {
        bench.append(marker(NOW, 1, 10 + k));
    }
    assert!(bench.out.is_empty());
    bench.append(marker(NOW, 1, 25));
    let (token, ..) = bench.put();
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();
    // The process stops.
    bench.append(marker(NOW, 1, 26));
    bench.log.flush(bench.now, &mut bench.out);
    bench.put();
}

#[test]
fn a_failed_put_is_tried_again_as_it_was() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, item, nonce) = bench.put();
    bench.append(message(NOW, 1, 2));
    bench.answer(token, Err(timeout()));
    let mut pauses = Vec::new();
    for error in [throttled(), timeout(), timeout()] {
        let before = bench.now;
        bench.wait();
        pauses.push(bench.now - before);
        let (token, again, same) = bench.put();
        assert_eq!(
            (again, same),
            (item.clone(), nonce),
            "not even what arrived since"
        );
        bench.answer(token, Err(error));
    }
    assert!(
        pauses
            .iter()
            .zip([25..=50, 50..=100, 100..=200])
            .all(|(p, r)| r.contains(p))
    );
    bench.wait();
    let (token, ..) = bench.put();
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1"]);
    let (_, next, other) = bench.put();
    assert_eq!(decode(&next).unwrap().0, 2);
    assert_ne!(other, nonce);
}

#[test]
fn what_others_wrote_is_learned_in_order_before_the_next_try() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, own, nonce) = bench.put();
    bench.answer(token, Err(conflict(&own)));
    let (token, op) = bench.op();
    let Op::Query { range, .. } = op else {
        panic!("{op:?}")
    };
    assert!(range.contains(&own.key.sk));
    let first = item(1, &[message(NOW + 5, 2, 1), message(NOW + 9, 2, 2)]);
    let next = Some(first.key.sk.clone());
    bench.answer(
        token,
        Ok(Outcome::Page {
            items: vec![first.clone()],
            next: next.clone(),
        }),
    );
    assert_eq!(bench.reports(), ["learned 1", "learned 2"]);
    let (token, op) = bench.op();
    assert!(matches!(op, Op::Query { after, .. } if after == next));
    bench.answer(token, page(vec![item(3, &[message(NOW + 9, 2, 3)])]));
    assert_eq!(bench.reports(), ["learned 3"]);
    let (token, moved, other) = bench.put();
    let (seq, records) = decode(&moved).unwrap();
    assert_eq!(
        (seq, records[0].t),
        (4, NOW + 9),
        "time order = position order"
    );
    assert_ne!(other, nonce, "another position is another write");
    bench.answer(token, Ok(Outcome::Put));
    assert!(matches!(bench.out[0], LogEffect::Durable { position: 4, t, .. } if t == NOW + 9));
}

#[test]
fn a_stanza_that_another_node_wrote_is_not_written_again() {
    let mut bench = Bench::new();
    for k in 1..=3 {
        bench.append(message(NOW, 1, k));
    }
    let (token, own, _) = bench.put();
    bench.answer(token, Err(conflict(&own)));
    let (token, _) = bench.op();
    // The other node has 3 (still in our queue) and 1 (taken back from our put).
    let theirs = item(1, &[message(NOW, 1, 3), message(NOW, 1, 1)]);
    bench.answer(token, page(vec![theirs]));
    assert_eq!(bench.reports(), ["3 at 1", "1 at 2"]);
    let (_, rest, _) = bench.put();
    let (seq, records) = decode(&rest).unwrap();
    assert_eq!((seq, records.len()), (3, 1));
}

#[test]
fn past_the_deadline_the_outcome_is_known_or_not() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.append(message(NOW, 1, 2));
    bench.tick(10_000);
    assert_eq!(
        bench.reports(),
        ["1 unknown", "2 failed"],
        "one was sent, one was not"
    );
    assert!(!bench.log.is_idle(), "the put is still under way");
    bench.answer(token, Err(timeout()));
    assert!(bench.log.is_idle());

    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let mut tries = 0;
    while bench.reports().is_empty() {
        bench.wait();
        let (token, ..) = bench.put();
        bench.answer(token, Err(throttled()));
        tries += 1;
        if bench.log.wake_at() == Some(NOW + 10_000) {
            bench.tick(NOW + 10_000 - bench.now);
            assert_eq!(bench.reports(), ["1 failed"], "it was refused every time");
            break;
        }
    }
    assert!((8..30).contains(&tries), "{tries} tries in ten seconds");
    assert_eq!(bench.log.wake_at(), None);
}

#[test]
fn a_put_that_was_given_up_is_recognised_when_it_has_landed() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ghost, _) = bench.put();
    bench.tick(10_000);
    bench.answer(token, Err(timeout()));
    assert_eq!(bench.reports(), ["1 unknown"]);
    // The next record goes to the same position, and loses.
    bench.append(message(bench.now, 1, 2));
    bench.wait();
    let (token, own, _) = bench.put();
    assert_eq!(own.key, ghost.key);
    bench.answer(token, Err(conflict(&own)));
    let (token, _) = bench.op();
    bench.answer(token, page(vec![ghost]));
    assert_eq!(bench.reports(), ["1 late at 1"]);
    let (token, own, _) = bench.put();
    assert_eq!(decode(&own).unwrap().0, 2);
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["2 at 2"]);
}

#[test]
fn a_put_that_was_given_up_is_looked_for() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ghost, _) = bench.put();
    bench.tick(10_000);
    bench.answer(token, Err(timeout()));
    bench.reports();
    bench.wait();
    let (token, op) = bench.op();
    assert!(matches!(op, Op::Query { .. }));
    bench.answer(token, page(vec![]));
    assert!(bench.reports().is_empty());
    bench.wait();
    let (token, _) = bench.op();
    bench.answer(token, page(vec![ghost]));
    assert_eq!(bench.reports(), ["1 late at 1"]);
    assert_eq!((bench.log.wake_at(), bench.log.is_idle()), (None, true));

    // It is not looked for for ever.
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.tick(10_000);
    bench.answer(token, Err(timeout()));
    bench.reports();
    let mut probes = 0;
    while bench.log.wake_at().is_some() {
        bench.wait();
        let (token, _) = bench.op();
        bench.answer(token, page(vec![]));
        probes += 1;
    }
    assert_eq!(probes, 6);
}

#[test]
fn a_put_that_was_given_up_can_lose_to_the_next() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.tick(10_000);
    bench.answer(token, Err(timeout()));
    bench.reports();
    bench.append(message(bench.now, 1, 2));
    bench.wait();
    let (token, ..) = bench.put();
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["2 at 1"]);
    assert_eq!(bench.log.wake_at(), None, "the position is settled");
}

#[test]
fn some_tickets_of_a_put_fail_before_others() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.append(message(NOW, 1, 2));
    bench.tick(6_000);
    bench.append(message(bench.now, 1, 3));
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();
    let (token, both, _) = bench.put();
    bench.tick(4_000);
    assert_eq!(bench.reports(), ["2 unknown"]);
    bench.answer(token, Err(timeout()));
    bench.wait();
    let (token, again, _) = bench.put();
    assert_eq!(again, both, "somebody still waits for it");
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["2 late at 2", "3 at 3"]);
}

#[test]
fn markers_outlive_a_put_that_is_refused() {
    let mut bench = Bench::new();
    bench.append(marker(NOW, 1, 1));
    bench.append(message(NOW, 1, 2));
    loop {
        bench.wait();
        let (token, ..) = bench.put();
        bench.answer(token, Err(throttled()));
        if bench.log.wake_at() == Some(NOW + 10_000) {
            break;
        }
    }
    bench.tick(NOW + 10_000 - bench.now);
    assert_eq!(bench.reports(), ["2 failed"]);
    // It goes on waiting for the owner's next write, or for its minute.
    assert_eq!(bench.log.wake_at(), Some(NOW + 60_000));
    assert!(!bench.log.is_idle());
    bench.append(message(bench.now, 1, 3));
    bench.wait();
    let (token, item, _) = bench.put();
    assert_eq!(decode(&item).unwrap().1.len(), 2);
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1", "3 at 2"]);
}

#[test]
fn markers_outlive_a_put_of_which_nothing_is_known() {
    let given_up = || {
        let mut bench = Bench::new();
        bench.append(marker(NOW, 1, 1));
        bench.append(message(NOW, 1, 2));
        let (token, ghost, _) = bench.put();
        bench.tick(10_000);
        bench.answer(token, Err(timeout()));
        assert_eq!(bench.reports(), ["2 unknown"]);
        bench.append(message(bench.now, 1, 3));
        bench.wait();
        (bench, ghost)
    };
    // It has not landed.
    let (mut bench, ghost) = given_up();
    let (token, own, _) = bench.put();
    assert_eq!(own.key, ghost.key);
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1", "3 at 2"]);
    // It has.
    let (mut bench, ghost) = given_up();
    let (token, own, _) = bench.put();
    bench.answer(token, Err(conflict(&own)));
    let (token, _) = bench.op();
    bench.answer(token, page(vec![ghost]));
    assert_eq!(bench.reports(), ["1 at 1", "2 late at 2"]);
    let (token, own, _) = bench.put();
    assert_eq!(decode(&own).unwrap().1.len(), 1, "not once more");
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["3 at 3"]);
}

#[test]
fn what_no_repetition_cures_breaks_the_log() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.append(message(NOW, 1, 2));
    let error = StoreError::Invalid {
        place: place(),
        reason: "no".into(),
        source: None,
    };
    bench.answer(token, Err(error));
    let reports = bench.reports();
    assert_eq!(reports[..2], ["1 failed", "2 failed"]);
    assert!(reports[2].starts_with("broken"));
    let refused = bench.log.append(NOW, message(NOW, 1, 3), &mut bench.out);
    assert!(matches!(refused, Err(LogError::Broken(_))));
    assert_eq!(bench.log.wake_at(), None);

    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, own, _) = bench.put();
    bench.answer(token, Err(conflict(&own)));
    let (token, _) = bench.op();
    bench.answer(token, page(vec![item(2, &[message(NOW, 2, 1)])]));
    let reports = bench.reports();
    assert!(reports[1].contains("goes on at position 1"), "{reports:?}");
}

#[test]
fn an_unknown_token_changes_nothing() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, ..) = bench.put();
    bench.answer(token + 1, Ok(Outcome::Put));
    assert!(bench.out.is_empty());
    bench.answer(token, Ok(Outcome::Put));
    assert_eq!(bench.reports(), ["1 at 1"]);
    bench.answer(token, Ok(Outcome::Put));
    assert!(bench.out.is_empty());
}

#[test]
fn a_conflict_with_nothing_there_does_not_spin() {
    let mut bench = Bench::new();
    bench.append(message(NOW, 1, 1));
    let (token, own, _) = bench.put();
    bench.answer(token, Err(conflict(&own)));
    let (token, _) = bench.op();
    bench.answer(token, page(vec![]));
    assert!(bench.out.is_empty(), "it pauses");
    bench.wait();
    bench.put();
}

/// The due row's day of a put.
fn due_day(op: &Op) -> Option<u64> {
    let Op::Put { item, .. } = op else {
        return None;
    };
    let day: [u8; 4] = item.key.pk.strip_prefix(b"d")?.get(..4)?.try_into().ok()?;
    assert_eq!(item.key.sk[..], owner().owner());
    Some(u32::from_be_bytes(day).into())
}

#[test]
fn no_item_is_written_that_is_not_due_to_be_sealed_before_it_expires() {
    let today = NOW / LIMITS.day_ms;
    let mut bench = Bench::new();
    bench.log = Log::new(&owner(), LIMITS, 1, 0, 7);
    bench.append(message(NOW, 1, 1));
    let (token, op) = bench.op();
    assert_eq!(due_day(&op), Some(today + 7));
    bench.answer(token, Err(timeout()));
    assert!(bench.out.is_empty(), "it is not known to be there");
    bench.wait();
    let (token, op) = bench.op();
    assert_eq!(due_day(&op), Some(today + 7));
    bench.answer(token, Ok(Outcome::Put));
    let (token, item, _) = bench.put();
    let expires = item.expires.unwrap();
    assert_eq!(expires, (today + 98) * 86_400);
    assert_eq!(Cover::day(expires, LIMITS.day_ms), today + 7);
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();

    // Until that day is over, nothing else is written for it; after it, the next row is.
    bench.now = (today + 8) * LIMITS.day_ms - 1;
    bench.append(message(bench.now, 1, 2));
    let (token, item, _) = bench.put();
    assert_eq!(item.expires, Some(expires));
    bench.answer(token, Ok(Outcome::Put));
    bench.reports();
    bench.now += 1;
    bench.append(message(bench.now, 1, 3));
    let (_, op) = bench.op();
    assert_eq!(due_day(&op), Some(today + 15));
}
