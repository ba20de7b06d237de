//! Offline delivery and the tail, read from logs that were built by hand.

use std::collections::BTreeMap;

use cirrus_store::{Direction as Order, Item, Op};

use super::super::record::encode;
use super::*;
use crate::segment::Index;

/// Items of a log: the records of each inner slice in one item.
fn log(items: &[&[Record]]) -> BTreeMap<Vec<u8>, Item> {
    let mut next = 1;
    let mut rows = BTreeMap::new();
    for records in items {
        let item = encode(
            &owner().owner(),
            next,
            &records.iter().collect::<Vec<_>>(),
            0,
        );
        next += records.len() as u64;
        rows.insert(item.key.sk.to_vec(), item);
    }
    rows
}

/// Answers a query; `queries` counts.
fn answer(
    rows: &BTreeMap<Vec<u8>, Item>,
    op: Op,
    queries: &mut usize,
) -> (Vec<Item>, Option<Bytes>) {
    *queries += 1;
    let Op::Query {
        range,
        direction,
        limit,
        after,
        ..
    } = op
    else {
        panic!("{op:?}")
    };
    let mut items: Vec<&Item> = rows
        .values()
        .filter(|i| range.contains(&i.key.sk))
        .collect();
    if direction == Order::Backward {
        items.reverse();
    }
    items.retain(|item| match (&after, direction) {
        (None, _) => true,
        (Some(after), Order::Forward) => item.key.sk > *after,
        (Some(after), Order::Backward) => item.key.sk < *after,
    });
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|item| item.key.sk.clone());
    (items.into_iter().cloned().collect(), next)
}

/// What a reader delivers, and with how many queries.
fn read(rows: &BTreeMap<Vec<u8>, Item>, cursor: u64, page: u32) -> (Vec<u64>, usize) {
    let mut reader = SpoolReader::new(&owner(), cursor, u64::MAX).with_page_items(page);
    let (mut positions, mut queries) = (Vec::new(), 0);
    loop {
        match reader.step(Some(&Index::default())) {
            Step::Ask(op) => {
                let (items, next) = answer(rows, op, &mut queries);
                reader.on_page(&items, next).unwrap();
            }
            Step::Batch(batch) => positions.extend(batch.iter().map(|spooled| spooled.position)),
            Step::Done => return (positions, queries),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn the_flagged_records_behind_the_cursor() {
    let rows = log(&[
        &[message(NOW, 1, 1), spooled(NOW, 1, 2)],
        &[spooled(NOW, 1, 3)],
        &[message(NOW, 1, 4), spooled(NOW, 1, 5), spooled(NOW, 1, 6)],
    ]);
    assert_eq!(read(&rows, 0, 256), (vec![2, 3, 5, 6], 1));
    assert_eq!(read(&rows, 2, 256).0, [3, 5, 6]);
    assert_eq!(
        read(&rows, 5, 256).0,
        [6],
        "the cursor may stand in the middle of an item"
    );
    assert_eq!(read(&rows, 6, 256).0, [] as [u64; 0]);
    assert_eq!(read(&rows, 0, 1), (vec![2, 3, 5, 6], 3));
    assert_eq!(read(&log(&[]), 0, 256), (vec![], 1));
}

#[test]
fn what_a_session_left_comes_where_it_was_noted() {
    let rows = log(&[
        &[message(NOW, 1, 1)],
        &[message(NOW, 1, 2)],
        &[message(NOW, 1, 3)],
        &[Record::respool(NOW, vec![2, 3])],
        &[spooled(NOW, 1, 5)],
        &[Record::respool(NOW, vec![3, 5])],
        &[spooled(NOW, 1, 7)],
    ]);
    let expected = vec![2, 3, 5, 7];
    assert_eq!(
        read(&rows, 0, 256),
        (expected.clone(), 1),
        "all in one page"
    );
    // Behind the cursor: fetched, once.
    assert_eq!(
        read(&rows, 3, 256),
        (expected.clone(), 1),
        "15 positions before are read anyway"
    );
    for page in 1..8 {
        for cursor in 0..4 {
            assert_eq!(
                read(&rows, cursor, page).0,
                expected,
                "cursor {cursor}, page {page}"
            );
        }
    }
}

#[test]
fn earlier_records_are_fetched_in_stretches() {
    let mut items: Vec<Vec<Record>> = (1..=300).map(|k| vec![message(NOW, 1, k)]).collect();
    items.push(vec![Record::respool(NOW, vec![3, 5, 200, 290, 9_999])]);
    items.push(vec![spooled(NOW, 1, 302)]);
    let items: Vec<&[Record]> = items.iter().map(Vec::as_slice).collect();
    let rows = log(&items);
    // 290 is in the page; the others lie in two stretches; what does not exist is left out.
    let (positions, queries) = read(&rows, 300, 256);
    assert_eq!(positions, [3, 5, 200, 290, 302]);
    assert_eq!(queries, 1 + 3);
    assert_eq!(read(&rows, 300, 2).0, positions);
}

#[test]
fn respooled_messages_of_packed_items_are_found() {
    let packed: Vec<Record> = (1..=16).map(|k| message(NOW, 1, k)).collect();
    let more: Vec<Record> = (17..=32).map(|k| message(NOW, 1, k)).collect();
    let rows = log(&[&packed, &more, &[Record::respool(NOW, vec![16, 17, 32])]]);
    assert_eq!(read(&rows, 32, 256).0, [16, 17, 32]);
}

#[test]
fn progress_is_told() {
    let rows = log(&[
        &[message(NOW, 1, 1), spooled(NOW, 1, 2)],
        &[message(NOW, 1, 3)],
    ]);
    let mut reader = SpoolReader::new(&owner(), 0, u64::MAX).with_page_items(1);
    let mut seen = Vec::new();
    loop {
        match reader.step(Some(&Index::default())) {
            Step::Ask(op) => {
                let (items, next) = answer(&rows, op, &mut 0);
                reader.on_page(&items, next).unwrap();
            }
            Step::Batch(batch) => seen.push((batch.len(), reader.read_to())),
            Step::Done => break,
            step => panic!("{step:?}"),
        }
    }
    assert_eq!(seen, [(1, 2)]);
    assert_eq!(reader.read_to(), 3);
}

#[test]
fn an_end_can_be_given() {
    let rows = log(&[
        &[spooled(NOW, 1, 1), spooled(NOW, 1, 2)],
        &[spooled(NOW, 1, 3)],
    ]);
    let mut reader = SpoolReader::new(&owner(), 0, 2);
    let Step::Ask(op) = reader.step(Some(&Index::default())) else {
        panic!("no query")
    };
    let (items, next) = answer(&rows, op, &mut 0);
    reader.on_page(&items, next).unwrap();
    let Step::Batch(batch) = reader.step(Some(&Index::default())) else {
        panic!("no batch")
    };
    assert_eq!(batch.iter().map(|s| s.position).collect::<Vec<_>>(), [1]);
    assert!(matches!(reader.step(Some(&Index::default())), Step::Done));
    assert!(matches!(
        SpoolReader::new(&owner(), 1, 2).step(Some(&Index::default())),
        Step::Done
    ));
}

fn tail(rows: &BTreeMap<Vec<u8>, Item>, floor: u64) -> Tail {
    let mut reader = TailReader::new(&owner(), floor);
    loop {
        let (items, next) = answer(rows, reader.op(), &mut 0);
        if let Some(tail) = reader.on_page(&items, next).unwrap() {
            return tail;
        }
    }
}

#[test]
fn the_tail_says_where_the_log_stands() {
    let empty = tail(&log(&[]), 0);
    assert_eq!(
        (empty.next, empty.last_t, empty.spooled_after(0)),
        (1, 0, Some(0))
    );
    assert_eq!(
        tail(&log(&[]), 41).next,
        42,
        "above an erased account's log"
    );

    let rows = log(&[
        &[message(NOW, 1, 7), message(NOW + 1, 2, 1)],
        &[spooled(NOW + 2, 1, 5), Record::respool(NOW + 3, vec![1, 2])],
    ]);
    let read = tail(&rows, 0);
    assert_eq!((read.next, read.last_t), (5, NOW + 3));
    let highest: Vec<_> = read
        .origins
        .iter()
        .map(|(session, k)| (session.0, *k))
        .collect();
    assert_eq!(highest, [(1, 7), (2, 1)]);
    let positions: Vec<u64> = read.records.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, [1, 2, 3, 4]);
    assert_eq!(
        (read.spooled_after(0), read.spooled_after(3)),
        (Some(3), Some(2))
    );

    let long: Vec<Vec<Record>> = (1..=40).map(|k| vec![spooled(NOW, 1, k)]).collect();
    let long: Vec<&[Record]> = long.iter().map(Vec::as_slice).collect();
    let read = tail(&log(&long), 0);
    assert_eq!((read.next, read.records.len()), (41, 32));
    assert_eq!(
        (read.spooled_after(7), read.spooled_after(8)),
        (None, Some(32))
    );
}

#[test]
fn a_gap_in_the_tail_is_an_error() {
    let mut rows = log(&[
        &[message(NOW, 1, 1)],
        &[message(NOW, 1, 2)],
        &[message(NOW, 1, 3)],
    ]);
    let middle = rows.keys().nth(1).cloned().unwrap();
    rows.remove(&middle);
    let (items, next) = answer(&rows, TailReader::new(&owner(), 0).op(), &mut 0);
    let error = TailReader::new(&owner(), 0)
        .on_page(&items, next)
        .unwrap_err();
    assert!(
        matches!(error, LogError::Gap { expected: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_page_of_expired_items_is_passed_over() {
    let mut reader = TailReader::new(&owner(), 0);
    let next = Bytes::from_static(b"h\0\0\0\0\0\0\0\x05");
    assert_eq!(reader.on_page(&[], Some(next.clone())).unwrap(), None);
    let Op::Query { after, .. } = reader.op() else {
        panic!("no query")
    };
    assert_eq!(after, Some(next));
}

/// A put that was given up, and landed when the account of that name had been erased.
#[test]
fn what_stands_below_the_floor_is_no_part_of_the_log() {
    let item = |position, k| {
        let record = message(NOW, 1, k);
        let item = encode(&owner().owner(), position, &[&record], 0);
        (item.key.sk.to_vec(), item)
    };
    let mut rows = BTreeMap::from([item(5, 1), item(40, 2)]);
    let read = tail(&rows, 40);
    assert_eq!(
        (read.next, read.records, read.origins.len()),
        (41, vec![], 0)
    );
    rows.extend([item(41, 3)]);
    let read = tail(&rows, 40);
    let positions: Vec<u64> = read.records.iter().map(|(position, _)| *position).collect();
    assert_eq!((read.next, positions), (42, vec![41]));
}
