//! Archives are sealed, and nobody notices.

mod join;
mod retention;
mod retract;

use std::sync::atomic::{AtomicU64, Ordering};

use cirrus_schema::keys::archive;
use cirrus_schema::{BucketId, TableId};
use cirrus_store::{BlobOp, BlobOutcome, Direction, SkRange};

use super::*;

const DAY_MS: u64 = 86_400_000;
const TODAY: u64 = 20_000;

/// Juliet and Romeo online, with segments of so many messages and a clock that is the store's too.
struct Sealed {
    world: World,
    clock: Arc<AtomicU64>,
}

impl Sealed {
    /// The account is deleted, and nothing of its archive is left.
    fn erase(&mut self) {
        let user = BareJid::parse(JULIET).unwrap();
        self.world.event(Event::Erase { user, token: 2 });
        assert_eq!(self.world.done.pop(), Some(Ok(())));
        assert_eq!(
            (self.index(), self.digests(), self.segments().len()),
            (0, 0, 0)
        );
    }

    fn new(records: u64) -> Self {
        Self::keeping(records, 0)
    }

    /// Messages are kept for so many days.
    fn keeping(records: u64, days: u64) -> Self {
        Self::with(|limits| {
            limits.seal_records = records;
            limits.retention_days = days;
        })
    }

    fn with(set: impl FnOnce(&mut Limits)) -> Self {
        let clock = Arc::new(AtomicU64::new(TODAY * DAY_MS + 1));
        let time = Arc::clone(&clock);
        let table = Arc::new(MemoryTable::new(Arc::new(move || {
            time.load(Ordering::Relaxed)
        })));
        for user in [JULIET, ROMEO] {
            account(&table, user);
        }
        let mut config = config();
        set(&mut config.limits);
        let time = Arc::clone(&clock);
        let blobs = MemoryBlob::timed(Arc::new(move || time.load(Ordering::Relaxed)));
        let world = World::over(table, Arc::new(blobs), Arc::new(config));
        let mut sealed = Self { world, clock };
        sealed.pass(0);
        sealed.online();
        sealed
    }

    fn online(&mut self) {
        self.world.online(1, JULIET, "balcony");
        self.world.online(2, ROMEO, "orchard");
        self.world.drain(1);
    }

    /// Time passes.
    fn pass(&mut self, milliseconds: u64) {
        let now = self.clock.fetch_add(milliseconds, Ordering::Relaxed) + milliseconds;
        self.world.now = now;
        self.world.event(Event::Tick);
    }

    fn say(&mut self, from: u64, upto: u64) {
        self.say_long(from, upto, 1);
    }

    /// With bodies of so many bytes at least.
    fn say_long(&mut self, from: u64, upto: u64, length: usize) {
        for n in from..=upto {
            self.world.say(1, &message(ROMEO, &format!("{n:0length$}")));
            self.world.read_all(1);
            self.world.read_all(2);
        }
    }

    /// The store fails at the `step`th request while these are said, and all is lost that is in
    /// memory if it `dies`. Then there is time to try again.
    fn say_interrupted(mut self, (from, upto): (u64, u64), step: u64, dies: bool) -> Self {
        self.world.fails = Some(self.world.asked + step);
        self.say(from, upto);
        self.world.fails = None;
        self.no_row_is_without_its_object();
        if dies {
            self.world = self.world.killed();
            self.online();
        }
        for _ in 0..4 {
            self.pass(1_000);
        }
        self
    }

    /// The bodies of the whole archive of Juliet, page by page.
    fn all(&mut self) -> Vec<u64> {
        let (mut bodies, mut set) = (Vec::new(), "<max>7</max>".to_owned());
        loop {
            let (page, end) = self.world.archive(1, "", &set);
            bodies.extend(page.iter().map(|(body, _)| body.parse::<u64>().unwrap()));
            if end.contains("complete='true'") {
                return bodies;
            }
            let (_, last) = page.last().unwrap();
            set = format!("<max>7</max><after>{last}</after>");
        }
    }

    fn segments(&self) -> Vec<String> {
        self.segments_of(&juliet())
    }

    fn segments_of(&self, owner: &[u8]) -> Vec<String> {
        let op = BlobOp::List {
            bucket: BucketId::Data,
            prefix: crate::segment::folder(owner),
            after: None,
            limit: 1_000,
        };
        let Ok(BlobOutcome::Page(page)) = self.world.blobs.apply_now(op) else {
            panic!("no list");
        };
        page.blobs.into_iter().map(|blob| blob.name).collect()
    }

    fn rows(&self, first: Vec<u8>, last: Vec<u8>) -> usize {
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&juliet()).into(),
            range: SkRange::Between(first.into(), last.into()),
            direction: Direction::Forward,
            limit: None,
            after: None,
        };
        match self.world.table.apply_now(op).result {
            Ok(Outcome::Page { items, .. }) => items.len(),
            other => panic!("{other:?}"),
        }
    }

    fn index(&self) -> usize {
        self.rows(archive::segment_sk(0), archive::segment_sk(u64::MAX))
    }

    /// Every row of a segment or digest has its object, whatever has failed.
    fn no_row_is_without_its_object(&self) {
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&juliet()).into(),
            range: SkRange::All,
            direction: Direction::Forward,
            limit: None,
            after: None,
        };
        let Ok(Outcome::Page { items, .. }) = self.world.table.apply_now(op).result else {
            panic!("no rows");
        };
        let is_row = |sk: &[u8]| {
            archive::segment_last(sk)
                .or(archive::digest_last(sk))
                .is_some()
        };
        let names = self.segments();
        for row in items.iter().filter(|item| is_row(&item.key.sk)) {
            let object = crate::segment::object_of(&juliet(), row).unwrap();
            assert!(names.contains(&object.name), "{} has no object", row.key);
        }
    }

    fn due(&mut self) -> Result<(), String> {
        let user = BareJid::parse(JULIET).unwrap();
        self.world.event(Event::Seal { user, token: 1 });
        self.world.done.pop().expect("it is answered at once")
    }
}

fn juliet() -> Vec<u8> {
    BareJid::parse(JULIET).unwrap().owner()
}

#[test]
fn full_segments_are_sealed_as_they_come() {
    let mut it = Sealed::new(16);
    it.say(1, 15);
    assert_eq!(it.index(), 0);
    it.say(16, 40);
    assert_eq!((it.index(), it.segments().len()), (2, 2));
    assert_eq!(it.all(), (1..=40).collect::<Vec<_>>());
    assert_eq!(it.world.home.census().tally.unreadable, 0);
}

#[test]
fn a_segment_that_is_full_by_its_bytes_and_packs_well_is_left_as_it_is() {
    let mut it = Sealed::with(|limits| {
        limits.seal_records = 16;
        limits.seal_bytes = 4_096;
    });
    it.say_long(1, 40, 600);
    let census = it.world.home.census();
    assert_eq!(census.tally.seal_failures, 0);
    it.due().unwrap();
    assert!(it.segments().len() >= 5, "{:?}", it.segments());
    assert_eq!(it.all(), (1..=40).collect::<Vec<_>>());
}

#[test]
fn what_is_due_is_sealed_before_it_expires_and_read_for_ever() {
    let mut it = Sealed::new(16);
    it.say(1, 20);
    it.due().unwrap();
    assert_eq!((it.index(), it.segments().len()), (2, 2), "16 and 4");
    it.say(21, 25);
    it.due().unwrap();
    assert_eq!((it.index(), it.segments().len()), (2, 2), "16 and 9");
    it.due().unwrap();
    it.say(26, 40);
    it.due().unwrap();
    assert_eq!((it.index(), it.segments().len()), (3, 3), "16, 16 and 8");
    assert_eq!(it.all(), (1..=40).collect::<Vec<_>>());
    // All items expire; the log goes on where it was.
    it.pass(100 * DAY_MS);
    assert_eq!(it.rows(archive::hot_sk(0), archive::hot_sk(u64::MAX)), 0);
    assert_eq!(it.all(), (1..=40).collect::<Vec<_>>());
    it.world = it.world.killed();
    it.online();
    it.say(41, 50);
    assert_eq!(it.all(), (1..=50).collect::<Vec<_>>());
    assert_eq!(it.index(), 3, "the newest has taken in the one of 8");
}

/// The store fails at every step of sealing, one after the other; and so dies the home.
#[test]
fn every_step_can_fail() {
    let mut failures = 0;
    for (step, dies) in (1..20).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(16);
        it.say(1, 20);
        it.due().unwrap();
        it.say(21, 27);
        it.world.fails = Some(it.world.asked + step);
        let sealed = it.due();
        it.world.fails = None;
        failures += usize::from(sealed.is_err());
        it.no_row_is_without_its_object();
        if dies {
            it.world = it.world.killed();
            it.online();
        }
        assert_eq!(it.all(), (1..=27).collect::<Vec<_>>(), "step {step}");
        it.pass(1_000);
        it.due().unwrap();
        if dies {
            // What no row names is removed when it is old.
            it.pass(2 * DAY_MS);
            it.due().unwrap();
        }
        assert_eq!((it.index(), it.segments().len()), (2, 2), "step {step}");
        it.pass(100 * DAY_MS);
        assert_eq!(it.all(), (1..=27).collect::<Vec<_>>(), "step {step}");
    }
    assert_eq!(
        failures, 16,
        "old segment, log, object, row, old row, old object, index, objects"
    );
}

/// Each attempt gets one segment further, and a second later comes the next: a store that now and
/// then fails does not let the rest wait ever longer.
#[test]
fn what_gets_on_is_not_slowed_down() {
    let mut it = Sealed::new(4);
    it.say(1, 3);
    it.world.fails = Some(it.world.asked + 3);
    it.say(4, 40);
    assert_eq!(
        it.index(),
        0,
        "the first attempt fails, and the next is not due"
    );
    for round in 1..=8 {
        // The index, the log, the object, its row, and the log again.
        it.world.fails = Some(it.world.asked + 5);
        it.pass(1_000);
        assert_eq!(it.index(), round);
    }
}

#[test]
fn a_segment_that_is_missing_or_damaged_is_an_error_to_who_asks() {
    let mut it = Sealed::new(16);
    it.say(1, 40);
    let name = it.segments().remove(0);
    let at = cirrus_store::BlobKey::new(BucketId::Data, name);
    let body = bytes::Bytes::from_static(b"CAS1 and nothing that follows 1SAC");
    let content_type = None;
    let put = BlobOp::Put {
        at: at.clone(),
        body,
        content_type,
    };
    for op in [put, BlobOp::Delete { at }] {
        it.world.blobs.apply_now(op).unwrap();
        let before = it.world.home.census().tally.unreadable;
        it.world.say(1, &super::archive::query("", "<max>5</max>"));
        let answer = it.world.read_all(1).pop().unwrap();
        assert!(answer.contains("<internal-server-error"), "{answer}");
        assert_eq!(it.world.home.census().tally.unreadable, before + 1);
        // What is in other segments, and not sealed, is there.
        let (page, _) = it.world.archive(1, "", "<max>24</max><before/>");
        assert_eq!(page.len(), 24);
    }
}

#[test]
fn what_waits_is_delivered_from_segments() {
    let mut it = Sealed::new(16);
    it.world.pipe(2, PipeEvent::Closed { clean: true });
    for n in 1..=40 {
        it.world.say(1, &message(ROMEO, &n.to_string()));
        it.world.read_all(1);
    }
    let user = BareJid::parse(ROMEO).unwrap();
    it.world.event(Event::Seal { user, token: 1 });
    it.world.done.pop().unwrap().unwrap();
    it.pass(100 * DAY_MS);
    it.world = it.world.killed();
    it.world.online(1, JULIET, "balcony");
    it.world.say(1, &message(ROMEO, "41"));
    it.world.bind(2, ROMEO, "orchard");
    it.world.say(2, "<presence/>");
    let got = it.world.read_all(2);
    let bodies: Vec<_> = got
        .iter()
        .filter_map(|xml| super::archive::between(xml, "<body>", "</body>"))
        .map(|body| body.parse::<u64>().unwrap())
        .collect();
    assert_eq!(bodies, (1..=41).collect::<Vec<_>>());
}

#[test]
fn a_deleted_account_leaves_no_segment() {
    let mut it = Sealed::new(16);
    it.say(1, 40);
    assert_eq!(it.segments().len(), 2);
    it.erase();
}

/// A message to a user and one in the sender's archive: two units, also when that seals a segment,
/// but for the segment's row and the due row of a week.
#[test]
fn sealing_costs_one_unit_a_segment_and_one_a_week() {
    let mut it = Sealed::new(256);
    it.say(1, 1);
    let units = |it: &mut Sealed, upto: u64| {
        it.world.held = true;
        let (mut units, mut objects) = (0, 0);
        for n in 0..upto {
            it.world.say(1, &message(ROMEO, &n.to_string()));
            while let Some((token, op)) = it.world.waiting.pop_front() {
                let answer = it.world.table.apply_now(op);
                units += answer.usage.write_units;
                let result = answer.result;
                it.world.event(Event::Store { token, result });
            }
            it.world.read_all(1);
            it.world.read_all(2);
            objects = it.segments().len();
        }
        it.world.held = false;
        (units, objects)
    };
    assert_eq!(units(&mut it, 200), (400, 0));
    assert_eq!(units(&mut it, 100), (202, 1), "a row in each archive");
    assert_eq!(units(&mut it, 100), (200, 1));
    it.pass(8 * DAY_MS);
    assert_eq!(units(&mut it, 50), (102, 1), "a due row for each archive");
}

/// What is not archived, and was delivered, is not kept for ever.
#[test]
fn what_belongs_to_no_archive_is_not_sealed() {
    let mut it = Sealed::new(16);
    let passing = "<no-permanent-store xmlns='urn:xmpp:hints'/>";
    it.world.pipe(2, PipeEvent::Closed { clean: true });
    for n in 1..=15 {
        let said = message(ROMEO, &n.to_string());
        let said = said.replace("</message>", &format!("{passing}</message>"));
        it.world.say(1, &said);
        it.world.read_all(1);
    }
    it.world.bind(2, ROMEO, "orchard");
    it.world.say(2, "<presence/>");
    assert!(it.world.read_all(2).len() > 15);
    let romeo = BareJid::parse(ROMEO).unwrap();
    let user = romeo.clone();
    it.world.event(Event::Seal { user, token: 1 });
    it.world.done.pop().unwrap().unwrap();
    let name = it.segments_of(&romeo.owner()).remove(0);
    let at = cirrus_store::BlobKey::new(BucketId::Data, name);
    let op = BlobOp::Get { at, range: None };
    let Ok(BlobOutcome::Body(Some(object))) = it.world.blobs.apply_now(op) else {
        panic!("no object");
    };
    let segment = crate::segment::Segment::open(object).unwrap();
    let records = segment.records(&(0..u64::MAX)).unwrap();
    assert_eq!(records.len(), 15);
    assert!(
        records
            .iter()
            .all(|(_, record)| record.as_message().is_none())
    );
}

const NURSE: &str = "nurse@example.com";

impl Sealed {
    /// Juliet says that many things, every 34th of them to her nurse, who has no account.
    fn say_some_to_nurse(&mut self, from: u64, upto: u64) {
        for n in from..=upto {
            let to = if n % 34 == 0 { NURSE } else { ROMEO };
            self.world.say(1, &message(to, &n.to_string()));
            self.world.read_all(1);
            self.world.read_all(2);
        }
    }

    /// What she said to her nurse, page by page, oldest or newest first; the most requests that
    /// a page took, and the pages.
    fn with_nurse(&mut self, backward: bool) -> (Vec<u64>, u64, usize) {
        let with = format!("<field var='with'><value>{NURSE}</value></field>");
        let (mut bodies, mut most) = (Vec::new(), 0);
        let mut pages = 0;
        let mut set = if backward { "<before/>" } else { "" }.to_owned();
        loop {
            let before = self.world.asked;
            let (page, end) = self.world.archive(1, &with, &format!("<max>5</max>{set}"));
            most = most.max(self.world.asked - before);
            let mut found: Vec<u64> = page.iter().map(|(body, _)| body.parse().unwrap()).collect();
            if backward {
                found.reverse();
            }
            bodies.extend(found);
            pages += 1;
            if end.contains("complete='true'") {
                return (bodies, most, pages);
            }
            set = match backward {
                true => format!("<before>{}</before>", page.first().unwrap().1),
                false => format!("<after>{}</after>", page.last().unwrap().1),
            };
        }
    }

    fn digests(&self) -> usize {
        self.rows(archive::digest_sk(0), archive::digest_sk(u64::MAX))
    }

    /// All of it is found, by full pages where digests have most of it.
    fn check_nurse(&mut self, upto: u64, full: bool) {
        let mut expected: Vec<_> = (1..=upto).filter(|n| n % 34 == 0).collect();
        for backward in [false, true] {
            let (found, most, pages) = self.with_nurse(backward);
            assert_eq!(found, expected);
            // A home that has just begun reads the index too.
            assert!(most <= 4 + u64::from(!full), "{most} requests for a page");
            assert!(!full || pages <= expected.len() / 5 + 1, "{pages} pages");
            expected.reverse();
        }
    }
}

/// Every message with the nurse is in another segment, and few requests find them all.
#[test]
fn who_is_seldom_met_is_found_in_few_requests() {
    let mut it = Sealed::new(4);
    it.say_some_to_nurse(1, 64);
    assert_eq!(it.digests(), 0, "the newest segment may be replaced");
    it.say_some_to_nurse(65, 72);
    assert_eq!((it.digests(), it.segments().len()), (1, 3 + 1));
    it.check_nurse(72, true);
    it.say_some_to_nurse(73, 350);
    assert_eq!((it.digests(), it.index()), (1, 5 + 7), "it has grown");
    assert_eq!(it.segments().len(), 5 + 7 + 1);
    it.check_nurse(350, true);
    assert_eq!(it.all(), (1..=350).collect::<Vec<_>>());
    // Its process dies, and its items expire.
    it.due().unwrap();
    it.pass(100 * DAY_MS);
    it.world = it.world.killed();
    it.online();
    it.check_nurse(350, true);
    assert_eq!(it.world.home.census().tally.unreadable, 0);
    it.erase();
}

/// The store fails at every step of making a digest and of letting it grow; and so dies the home.
#[test]
fn every_step_of_a_digest_can_fail() {
    for (step, dies) in (1..60).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(4);
        it.say_some_to_nurse(1, 71);
        it.say_some_to_nurse(72, 131);
        it.world.fails = Some(it.world.asked + step);
        it.say_some_to_nurse(132, 135);
        it.world.fails = None;
        if dies {
            it.world = it.world.killed();
            it.online();
        }
        it.pass(1_000);
        it.check_nurse(131, false);
        drop(it.due());
        it.say_some_to_nurse(136, 160);
        drop(it.due());
        // What it left behind is removed when it is a day old.
        it.pass(2 * DAY_MS);
        it.due().unwrap();
        assert_eq!(it.digests(), 1, "step {step}");
        let objects = it.segments().len() - it.index();
        assert_eq!(
            objects, 1,
            "step {step}: of what it replaced nothing is left"
        );
    }
}

/// A digest is a copy: without it, or with a damaged one, everything is found in segments.
#[test]
fn a_digest_that_is_missing_or_damaged_is_not_needed() {
    let mut it = Sealed::new(4);
    it.say_some_to_nurse(1, 80);
    let folder = crate::segment::folder(&juliet());
    let name = it
        .segments()
        .into_iter()
        .find(|name| name.starts_with(&format!("{folder}d-")));
    let at = cirrus_store::BlobKey::new(BucketId::Data, name.unwrap());
    let put = BlobOp::Put {
        at: at.clone(),
        body: bytes::Bytes::from_static(b"CAD1 and nothing that follows"),
        content_type: None,
    };
    let expected: Vec<_> = (1..=80).filter(|n| n % 34 == 0).collect();
    for op in [put, BlobOp::Delete { at }] {
        it.world.blobs.apply_now(op).unwrap();
        let before = it.world.home.census().tally.unreadable;
        assert_eq!(it.with_nurse(false).0, expected);
        assert!(it.world.home.census().tally.unreadable > before);
    }
}

/// Behind the newest segment, which is not full, a part of the log expires that no attempt could
/// seal; what comes after it is sealed nevertheless.
#[test]
fn a_gap_behind_a_segment_that_is_not_full_does_not_stop_sealing() {
    let mut it = Sealed::new(16);
    it.say(1, 4);
    it.due().unwrap();
    assert_eq!(it.index(), 1);
    it.say(5, 8);
    it.pass(60 * DAY_MS);
    it.say(9, 12);
    // Only the second part has expired.
    it.pass(60 * DAY_MS);
    it.due().unwrap();
    assert_eq!(it.index(), 2, "the one of 4, and what is behind the gap");
    assert_eq!(it.all(), (1..=4).chain(9..=12).collect::<Vec<_>>());
    it.pass(100 * DAY_MS);
    assert_eq!(it.all(), (1..=4).chain(9..=12).collect::<Vec<_>>());
    it.say(13, 14);
    it.due().unwrap();
    assert_eq!(it.all(), (1..=4).chain(9..=14).collect::<Vec<_>>());
}

/// The row with the cursor says how far the log went when all of it has expired unsealed.
#[test]
fn a_log_of_which_nothing_is_left_goes_on_behind_its_cursor() {
    for sealed in [0, 5] {
        let mut it = Sealed::new(256);
        for n in 1..=20 {
            it.world.say(2, &message(JULIET, &n.to_string()));
            it.world.read_all(1);
            it.world.read_all(2);
            if n == sealed {
                it.due().unwrap();
            }
        }
        it.world.pipe(1, PipeEvent::Closed { clean: true });
        it.world = it.world.killed();
        it.pass(100 * DAY_MS);
        assert_eq!(it.rows(archive::hot_sk(0), archive::hot_sk(u64::MAX)), 0);
        it.world.online(2, ROMEO, "orchard");
        it.world.say(2, &message(JULIET, "21"));
        it.world.read_all(2);
        let behind = it.rows(archive::hot_sk(21), archive::hot_sk(u64::MAX));
        assert_eq!(behind, 1, "no position is used twice");
        it.world.bind(1, JULIET, "balcony");
        it.world.say(1, "<presence/>");
        let got = it.world.read_all(1);
        let late = got.iter().filter(|xml| xml.contains("<body>21</body>"));
        assert_eq!(late.count(), 1, "{got:?}");
        let all: Vec<_> = (1..=sealed).chain([21]).collect();
        assert_eq!(it.all(), all);
        it.due().unwrap();
        it.pass(100 * DAY_MS);
        it.world = it.world.killed();
        it.online();
        assert_eq!(it.all(), all);
    }
}
