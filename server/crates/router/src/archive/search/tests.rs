//! Any way of paging through an archive gives it whole, once, in order.

use std::sync::Arc;

use cirrus_jid::Jid;
use cirrus_store::{Attrs, BlobOutcome, Condition, MemoryBlob, MemoryTable, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::archive::filter::With;
use crate::log::Direction;
use crate::log::{Flags, MAX_BYTES};
use crate::segment::Index as SegmentIndex;
use crate::segment::{self, Row};

const OWNER: &str = "juliet@example.com";
const PEERS: [&str; 3] = ["romeo@example.com", "nurse@example.com", OWNER];

/// What one record is.
#[derive(Clone, Debug)]
enum Kind {
    /// With that peer, of so many bytes of body, so long after the one before.
    Message {
        peer: usize,
        body: usize,
        later: u64,
    },
    Spooled,
    Respool,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => (0..3usize, 0..400usize, prop_oneof![Just(0), 1..50u64])
            .prop_map(|(peer, body, later)| Kind::Message { peer, body, later }),
        1 => Just(Kind::Spooled),
        1 => Just(Kind::Respool),
    ]
}

/// A page: its messages in the order of giving, its ends, and whether it is the last.
type Given = (Vec<Hit>, Option<(Hit, Hit)>, bool);

/// A log in a table, from some position on.
struct Archive {
    table: MemoryTable,
    blobs: MemoryBlob,
    index: SegmentIndex,
    records: Vec<Record>,
    first: u64,
    floor: u64,
    objects: usize,
    /// The messages of the archive with the index of their peer.
    all: Vec<(Hit, usize)>,
    next: u64,
    requests: usize,
    largest: usize,
}

impl Archive {
    fn new(first: u64, items: &[Vec<Kind>]) -> Self {
        let mut archive = Self {
            table: MemoryTable::new(Arc::new(|| 0)),
            blobs: MemoryBlob::new(),
            index: SegmentIndex::default(),
            records: Vec::new(),
            first,
            floor: 0,
            objects: 0,
            all: Vec::new(),
            next: first,
            requests: 0,
            largest: 0,
        };
        let mut t = 1_000;
        for item in items {
            let records: Vec<_> = item
                .iter()
                .enumerate()
                .map(|(index, kind)| archive.record(index, kind, &mut t))
                .collect();
            archive.put(&records);
        }
        archive
    }

    fn record(&mut self, index: usize, kind: &Kind, t: &mut u64) -> Record {
        let position = self.next + index as u64;
        let message = |t: u64, peer: usize, body: usize, archive: bool| {
            let text = format!(
                "<message id='{position}'><body>{}</body></message>",
                "x".repeat(body)
            );
            let direction = match peer {
                2 => Direction::Own,
                _ if position.is_multiple_of(2) => Direction::Out,
                _ => Direction::In,
            };
            let peer = BareJid::parse(PEERS[peer]).unwrap();
            let flags = Flags {
                archive,
                spool: !archive,
                marker: false,
            };
            Record::message(t, direction, peer, None, text).with_flags(flags)
        };
        match kind {
            Kind::Message { peer, body, later } => {
                *t += later;
                self.all.push((Hit { position, t: *t }, *peer));
                message(*t, *peer, *body, true)
            }
            Kind::Spooled => message(*t, 0, 3, false),
            Kind::Respool => Record::respool(*t, vec![1]),
        }
    }

    fn put(&mut self, records: &[Record]) {
        let owner = BareJid::parse(OWNER).unwrap().owner();
        self.records.extend_from_slice(records);
        let records: Vec<_> = records.iter().collect();
        let item = crate::log::encode(&owner, self.next, &records, 0);
        let condition = Condition::Absent;
        let op = Op::Put {
            item,
            condition,
            nonce: 1,
        };
        self.table.apply_now(op).result.unwrap();
        let sizes = records.iter().filter_map(|record| record.as_message());
        let largest = sizes.map(|message| message.stanza.len()).max();
        self.largest = self.largest.max(largest.unwrap_or(0));
        self.next += records.len() as u64;
    }

    /// Seals so many of the records, in segments of that size; their items expire.
    fn seal(&mut self, count: usize, size: usize) {
        let owner = BareJid::parse(OWNER).unwrap().owner();
        let mut first = self.first;
        for records in self.records[..count.min(self.records.len())].chunks(size) {
            let built = segment::build(first, records).unwrap();
            let row = Row::new(first, records[0].t, records.len(), &built);
            let at = row.object(&owner);
            let body = built.bytes;
            let op = BlobOp::PutIfAbsent { at, body };
            self.blobs.apply_now(op).unwrap();
            self.index.add(row);
            first += records.len() as u64;
        }
        for position in self.first..first.saturating_sub(MAX_RECORDS as u64) {
            let key = archive::hot(&owner, position).into();
            let condition = Condition::Any;
            let op = Op::Delete { key, condition };
            self.table.apply_now(op).result.unwrap();
        }
    }

    /// Looks for one page; `None` when an id is not there.
    fn page(&mut self, filter: &Filter, page: &Page, bytes: usize) -> Option<Given> {
        let next = self.next;
        let owner = BareJid::parse(OWNER).unwrap();
        let floor = self.floor;
        let bounds = Bounds { floor, next, bytes };
        let mut search = Search::new(&owner, filter.clone(), page.clone(), bounds);
        let mut given = Vec::new();
        loop {
            // A search that moves to another node goes on there.
            let moved = crate::codec::encode(crate::codec::FORMAT, &search).unwrap();
            search = crate::codec::decode("a search", &moved).unwrap();
            match search.step(&self.index) {
                Step::Ask(op) => {
                    self.requests += 1;
                    let Outcome::Page { items, next } = self.table.apply_now(op).result.unwrap()
                    else {
                        panic!("not a page");
                    };
                    search.on_page(&items, next).unwrap();
                    assert!(search.kept <= bytes + self.largest, "it keeps what it may");
                }
                Step::Fetch(op) => {
                    self.requests += 1;
                    self.objects += 1;
                    let body = self.blobs.apply_now(op).unwrap();
                    let BlobOutcome::Body(Some(body)) = body else {
                        panic!("no segment");
                    };
                    search.on_segment(body).unwrap();
                    assert!(search.kept <= bytes + self.largest, "it keeps what it may");
                }
                Step::Give => {
                    let found = search.front().unwrap();
                    let id = format!("id='{}'", found.hit.position);
                    assert!(String::from_utf8_lossy(&found.stanza).contains(&id));
                    given.push(found.hit);
                    search.pop();
                }
                Step::Missing => return None,
                Step::Done => return Some((given, search.ends(), search.is_complete())),
            }
        }
    }

    fn matching(&self, filter: &Filter) -> Vec<Hit> {
        let with = |peer: usize| match &filter.with {
            None => true,
            Some(With::Own) => peer == 2,
            Some(With::Bare(jid)) => jid.as_str() == PEERS[peer],
            Some(With::Full(_)) => false,
        };
        let matching = self
            .all
            .iter()
            .filter(|(hit, peer)| with(*peer) && (filter.start..=filter.end).contains(&hit.t));
        matching.map(|(hit, _)| *hit).collect()
    }

    /// Pages through everything in one direction.
    fn walk(
        &mut self,
        filter: &Filter,
        backward: bool,
        sizes: &[usize],
        flip: bool,
        bytes: usize,
    ) -> Vec<Hit> {
        let mut all = Vec::new();
        let mut page = Page {
            backward,
            flip,
            ..Page::end(backward)
        };
        for size in sizes.iter().cycle() {
            page.max = *size;
            let (mut given, ends, complete) = self.page(filter, &page, bytes).unwrap();
            assert!(given.len() <= page.max);
            if flip {
                given.reverse();
            }
            assert_eq!(ends, given.first().copied().zip(given.last().copied()));
            let Some((first, last)) = ends else {
                assert!(complete, "an empty page is the last");
                break;
            };
            match backward {
                true => page.before = first.position,
                false => page.after = last.position,
            }
            match backward {
                true => drop(all.splice(0..0, given)),
                false => all.extend(given),
            }
            if complete {
                break;
            }
        }
        all
    }
}

fn filter(with: Option<usize>, all: &[(Hit, usize)], ends: Option<(Index, Index)>) -> Filter {
    let owner = BareJid::parse(OWNER).unwrap();
    let mut filter = Filter {
        with: with.map(|peer| With::new(&Jid::parse(PEERS[peer]).unwrap(), &owner)),
        ..Filter::default()
    };
    if let Some((start, end)) = ends.filter(|_| !all.is_empty()) {
        filter.start = start.get(all).0.t;
        filter.end = end.get(all).0.t;
    }
    filter
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn paging_gives_the_whole_once_in_order(
        first in prop_oneof![Just(1u64), 1..5_000u64],
        items in vec(vec(kind(), 1..=16), 0..40),
        with in proptest::option::of(0..3usize),
        ends in proptest::option::of((any::<Index>(), any::<Index>())),
        sizes in vec(1..40usize, 1..5),
        backward: bool,
        flip: bool,
        bytes in prop_oneof![Just(0usize), 200..5_000usize, Just(1_000_000)],
        (sealed, size) in (0..600usize, 1..80usize),
    ) {
        let mut archive = Archive::new(first, &items);
        archive.seal(sealed, size);
        let filter = filter(with, &archive.all, ends);
        let expected = archive.matching(&filter);
        prop_assert_eq!(archive.walk(&filter, backward, &sizes, flip, bytes), expected);
    }

    #[test]
    fn a_part_between_two_ids_is_that_part(
        items in vec(vec(kind(), 1..=16), 1..30),
        (after, before) in (any::<Index>(), any::<Index>()),
        max in 0..60usize,
        backward: bool,
        (sealed, size) in (0..400usize, 1..80usize),
    ) {
        let mut archive = Archive::new(1, &items);
        archive.seal(sealed, size);
        prop_assume!(!archive.all.is_empty());
        let (after, before) = (after.get(&archive.all).0, before.get(&archive.all).0);
        let page = Page {
            after: after.position,
            before: before.position,
            max,
            backward,
            ..Page::end(backward)
        };
        let mut inside = archive.matching(&Filter::default());
        inside.retain(|hit| hit.position > after.position && hit.position < before.position);
        let beyond = inside.len().saturating_sub(max);
        match backward {
            true => drop(inside.drain(..beyond)),
            false => inside.truncate(max),
        }
        let (given, _, complete) = archive.page(&Filter::default(), &page, 1_000).unwrap();
        if archive.objects > 0 && archive.requests >= REQUESTS as usize && !complete {
            // It is short, with the nearest of them.
            let start = if backward { inside.len() - given.len() } else { 0 };
            prop_assert_eq!(&given[..], &inside[start..start + given.len()]);
            return Ok(());
        }
        prop_assert_eq!(given, inside);
        prop_assert_eq!(complete, beyond == 0);
    }

    #[test]
    fn ids_are_found_or_missed(
        items in vec(vec(kind(), 1..=16), 1..30),
        ids in vec(any::<Index>(), 1..10),
        miss in proptest::option::of(any::<Index>()),
        (sealed, size) in (0..400usize, 1..80usize),
    ) {
        let mut archive = Archive::new(1, &items);
        archive.seal(sealed, size);
        prop_assume!(!archive.all.is_empty());
        let mut wanted: Vec<_> = ids.iter().map(|id| id.get(&archive.all).0).collect();
        wanted.sort_unstable_by_key(|hit| hit.position);
        wanted.dedup();
        let mut positions: Vec<_> = wanted.iter().map(|hit| hit.position).collect();
        let absent = (1..archive.next + 3)
            .filter(|at| !archive.all.iter().any(|(hit, _)| hit.position == *at));
        let absent: Vec<_> = absent.collect();
        let miss = miss.map(|miss| *miss.get(&absent));
        positions.extend(miss);
        positions.sort_unstable();
        let page = Page { ids: Some(positions), max: 256, ..Page::end(false) };
        let found = archive.page(&Filter::default(), &page, 1_000);
        match miss {
            Some(_) => prop_assert!(found.is_none()),
            None => prop_assert_eq!(found.unwrap().0, wanted),
        }
    }
}

/// So many messages, one an item, ten milliseconds apart, all but each `rare`th with the nurse.
fn long(count: usize, rare: usize) -> Archive {
    let message = |index: usize| {
        let peer = usize::from(!index.is_multiple_of(rare));
        vec![Kind::Message {
            peer,
            body: 60,
            later: 10,
        }]
    };
    let items: Vec<_> = (1..=count).map(message).collect();
    Archive::new(1, &items)
}

#[test]
fn a_page_at_any_depth_is_one_request() {
    let mut archive = long(20_000, 2);
    for after in [0, 5_000, 19_000] {
        for backward in [false, true] {
            archive.requests = 0;
            let mut page = Page {
                max: 256,
                backward,
                ..Page::end(backward)
            };
            match backward {
                true => page.before = after + 300,
                false => page.after = after,
            }
            let given = archive
                .page(&Filter::default(), &page, 512 * 1_024)
                .unwrap();
            assert_eq!((given.0.len(), archive.requests), (256, 1));
        }
    }
}

/// An item may begin before the position that is asked from, so reading begins earlier.
#[test]
fn a_page_begins_behind_its_id_where_messages_are_long() {
    let message = |_| {
        vec![Kind::Message {
            peer: 0,
            body: 150_000,
            later: 10,
        }]
    };
    let items: Vec<_> = (1..=40).map(message).collect();
    let mut archive = Archive::new(1, &items);
    for after in [1, 20, 30, 37] {
        let page = Page {
            max: 3,
            after,
            ..Page::end(false)
        };
        let filter = Filter::default();
        let (given, ..) = archive.page(&filter, &page, 512 * 1_024).unwrap();
        let given: Vec<u64> = given.iter().map(|hit| hit.position).collect();
        assert_eq!(given, [after + 1, after + 2, after + 3]);
    }
}

#[test]
fn a_page_of_a_sealed_archive_is_two_requests() {
    let mut archive = long(20_000, 2);
    archive.seal(19_900, 256);
    for after in [0, 5_000, 19_700] {
        for (max, backward) in [(50, false), (50, true), (256, false), (256, true)] {
            (archive.requests, archive.objects) = (0, 0);
            let mut page = Page {
                max,
                backward,
                ..Page::end(backward)
            };
            match backward {
                true => page.before = after + 300,
                false => page.after = after,
            }
            let given = archive.page(&Filter::default(), &page, 512 * 1_024);
            assert_eq!(given.unwrap().0.len(), max);
            // One more where the page reaches into what is not sealed.
            assert!(archive.requests <= 3, "{}", archive.requests);
            assert!(archive.objects <= 2, "{}", archive.objects);
        }
    }
    for (start, end, backward) in [(150_000, u64::MAX, false), (0, 150_000, true)] {
        archive.requests = 0;
        let filter = Filter {
            start,
            end,
            ..Filter::default()
        };
        let page = Page {
            max: 50,
            backward,
            ..Page::end(backward)
        };
        let (given, ..) = archive.page(&filter, &page, 100_000).unwrap();
        assert_eq!(given.len(), 50);
        assert!(archive.requests <= 2, "{} requests", archive.requests);
    }
}

/// Ten messages of 20,000 that are in no digest: one segment for each, and the end of the log.
#[test]
fn who_is_rarely_spoken_with_is_found_by_the_index() {
    let mut archive = long(20_000, 2_000);
    archive.seal(19_900, 256);
    let romeo = filter(Some(0), &archive.all, None);
    let page = Page {
        max: 50,
        ..Page::end(false)
    };
    let (given, _, complete) = archive.page(&romeo, &page, 100_000).unwrap();
    assert_eq!((given.len(), complete), (REQUESTS as usize, false));
    assert_eq!(archive.requests, REQUESTS as usize);
    archive.requests = 0;
    let all = archive.walk(&romeo, false, &[50], false, 100_000);
    assert_eq!(all, archive.matching(&romeo));
    assert!(archive.requests <= 12, "{}", archive.requests);
    let all = archive.walk(&romeo, true, &[3], false, 100_000);
    assert_eq!(all, archive.matching(&romeo));
}

#[test]
fn a_segment_that_is_none_fails_the_search() {
    let mut archive = long(300, 2);
    archive.seal(256, 256);
    let owner = BareJid::parse(OWNER).unwrap();
    let bounds = Bounds {
        floor: 0,
        next: 301,
        bytes: 9_000,
    };
    let mut search = Search::new(&owner, Filter::default(), Page::end(false), bounds);
    let step = search.step(&archive.index);
    assert!(matches!(step, Step::Fetch(_)), "{step:?}");
    assert!(search.on_segment(Bytes::from_static(b"CAS1")).is_err());
}

#[test]
fn a_time_is_found_by_halving() {
    let mut archive = long(20_000, 2);
    for (start, end, backward) in [(150_000, u64::MAX, false), (0, 150_000, true)] {
        archive.requests = 0;
        let filter = Filter {
            start,
            end,
            ..Filter::default()
        };
        let page = Page {
            max: 50,
            backward,
            ..Page::end(backward)
        };
        let (given, ..) = archive.page(&filter, &page, 100_000).unwrap();
        assert_eq!(given.len(), 50);
        let near = if backward { given[49] } else { given[0] };
        assert_eq!(near.t, 150_000);
        assert!(archive.requests <= 6 + 20, "{} requests", archive.requests);
    }
}

#[test]
fn who_is_rarely_spoken_with_is_found_within_the_budget_or_in_a_short_page() {
    let mut archive = long(20_000, 3_000);
    let romeo = filter(Some(0), &archive.all, None);
    let page = Page {
        max: 50,
        ..Page::end(false)
    };
    let (given, _, complete) = archive.page(&romeo, &page, 100_000).unwrap();
    assert!(!given.is_empty() && !complete);
    assert!(
        archive.requests <= REQUESTS as usize,
        "{}",
        archive.requests
    );
    let all = archive.walk(&romeo, false, &[50], false, 100_000);
    assert_eq!(all, archive.matching(&romeo));
}

#[test]
fn what_is_too_much_to_keep_is_read_again() {
    let big = Kind::Message {
        peer: 0,
        body: MAX_BYTES / 2,
        later: 1,
    };
    let mut archive = Archive::new(1, &vec![vec![big]; 12]);
    let page = Page {
        max: 10,
        ..Page::end(true)
    };
    let (given, _, complete) = archive.page(&Filter::default(), &page, MAX_BYTES).unwrap();
    assert_eq!((given.len(), complete), (10, false));
    assert_eq!(given[9].position, 12);
}

#[test]
fn a_full_address_is_that_of_the_message() {
    let owner = BareJid::parse(OWNER).unwrap();
    let with = |text: &str| With::new(&Jid::parse(text).unwrap(), &owner);
    let message = |direction, xml: &'static str| {
        let peer = BareJid::parse("romeo@example.com").unwrap();
        let record = Record::message(1, direction, peer, None, xml);
        record.as_message().cloned().unwrap()
    };
    let sent = message(
        Direction::Out,
        "<message to='romeo@example.com/a' from='juliet@example.com/b'/>",
    );
    let got = message(Direction::In, "<message from='romeo@example.com/a'/>");
    for (who, both) in [
        ("romeo@example.com", true),
        ("romeo@example.com/a", true),
        ("romeo@example.com/b", false),
        (OWNER, false),
        ("juliet@example.com/b", false),
    ] {
        assert_eq!(with(who).matches(&sent), both, "{who}");
        assert_eq!(with(who).matches(&got), both, "{who}");
    }
    let own = message(Direction::Own, "<message from='juliet@example.com/b'/>");
    assert!(with(OWNER).matches(&own) && with("juliet@example.com/x").matches(&own));
}

#[test]
fn an_item_that_is_none_fails_the_search() {
    let owner = BareJid::parse(OWNER).unwrap();
    let page = Page::end(false);
    let bounds = Bounds {
        floor: 0,
        next: 9,
        bytes: 9,
    };
    let mut search = Search::new(&owner, Filter::default(), page, bounds);
    let index = SegmentIndex::default();
    assert!(matches!(search.step(&index), Step::Ask(_)));
    let broken = Item::new(
        archive::hot(&owner.owner(), 1),
        Attrs::new().with("v", 9u64),
    );
    assert!(search.on_page(&[broken], None).is_err());
}

#[test]
fn what_stands_below_the_floor_is_not_in_the_archive() {
    for sealed in [0, 10, 30, 60] {
        let mut archive = long(100, 2);
        archive.floor = 40;
        archive.seal(sealed, 16);
        let all = Filter::default();
        let expected = archive.matching(&all).split_off(40);
        for backward in [false, true] {
            let walked = archive.walk(&all, backward, &[7], false, 100_000);
            assert_eq!(walked, expected, "{sealed}");
        }
        let late = Filter {
            start: 1,
            ..Filter::default()
        };
        let walked = archive.walk(&late, false, &[7], false, 100_000);
        assert_eq!(walked, expected, "{sealed}");
        for (position, known) in [(1, false), (40, false), (41, true), (90, true)] {
            let after = Page {
                after: position,
                ..Page::end(false)
            };
            let before = Page {
                before: position,
                ..Page::end(true)
            };
            let named = Page {
                ids: Some(vec![position]),
                ..Page::end(false)
            };
            for page in [after, before, named] {
                let found = archive.page(&all, &page, 100_000);
                assert_eq!(found.is_some(), known, "{sealed}: {page:?}");
            }
        }
    }
}
