//! Segments are joined to larger ones, objects that no row names are removed, and a long index does
//! not stay in memory.

use bytes::Bytes;
use cirrus_store::BlobKey;

use super::retention::range;
use super::*;

impl Sealed {
    fn numbered(&mut self, upto: u64) {
        assert_eq!(self.all(), (1..=upto).collect::<Vec<_>>());
    }

    /// The last `max` messages before the one with that number, and the requests that it took.
    fn page_before(&mut self, n: u64, max: u64) -> (Vec<u64>, u64) {
        let (mut id, mut set) = (String::new(), "<max>50</max>".to_owned());
        while id.is_empty() {
            let (page, _) = self.world.archive(1, "", &set);
            let found = page.iter().find(|(body, _)| *body == n.to_string());
            id = found.map(|(_, id)| id.clone()).unwrap_or_default();
            set = format!("<max>50</max><after>{}</after>", page.last().unwrap().1);
        }
        let before = self.world.asked;
        let set = format!("<max>{max}</max><before>{id}</before>");
        let (page, _) = self.world.archive(1, "", &set);
        let numbers = page.iter().map(|(body, _)| body.parse().unwrap());
        (numbers.collect(), self.world.asked - before)
    }

    fn object(&self, name: &str) -> BlobKey {
        let folder = crate::segment::folder(&juliet());
        BlobKey::new(BucketId::Data, format!("{folder}{name}"))
    }
}

#[test]
fn sixteen_segments_become_one_and_pages_stay_as_cheap() {
    let mut it = Sealed::new(4);
    it.say(1, 67);
    assert_eq!((it.index(), it.digests()), (16, 0));
    it.say(68, 72);
    assert_eq!((it.index(), it.digests()), (1 + 2, 1), "64, 4 and 4");
    assert_eq!(it.segments().len(), 3 + 1);
    it.numbered(72);
    it.say(73, 200);
    assert_eq!((it.index(), it.segments().len()), (3 + 2, 5 + 1));
    it.due().unwrap();
    it.pass(100 * DAY_MS);
    it.world = it.world.killed();
    it.online();
    it.numbered(200);
    for n in [200, 130, 66, 40, 5] {
        let (page, asked) = it.page_before(n, 20);
        let expected: Vec<_> = (n.saturating_sub(20).max(1)..n).collect();
        assert_eq!(page, expected);
        assert!(asked <= 4, "{asked} requests for 20 before {n}");
    }
    let (page, asked) = it.page_before(60, 20);
    assert_eq!((page.len(), asked), (20, 2), "where it is, and what it is");
    assert_eq!(it.world.home.census().tally.unreadable, 0);
    it.erase();
}

/// With a contact who is in no digest, because there are too many messages, and with one who is.
#[test]
fn contacts_are_found_in_joined_segments() {
    let mut it = Sealed::new(4);
    it.say_some_to_nurse(1, 350);
    assert!(it.index() < 30, "{}", it.index());
    it.check_nurse(350, true);
    let with = format!("<field var='with'><value>{ROMEO}</value></field>");
    let (mut found, mut set) = (Vec::new(), "<max>9</max>".to_owned());
    loop {
        let (page, end) = it.world.archive(1, &with, &set);
        found.extend(page.iter().map(|(body, _)| body.parse::<u64>().unwrap()));
        if end.contains("complete='true'") {
            break;
        }
        set = format!("<max>9</max><after>{}</after>", page.last().unwrap().1);
    }
    let expected: Vec<_> = (1..=350).filter(|n| n % 34 != 0).collect();
    assert_eq!(found, expected);
}

/// The store fails at every step, one after the other; and so dies the home. What that leaves
/// behind is removed a day later.
#[test]
fn every_step_of_a_joining_can_fail() {
    for (step, dies) in (1..90).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(4);
        it.say(1, 67);
        it = it.say_interrupted((68, 72), step, dies);
        let mut expected = it.all();
        if dies {
            // What was not accepted yet is lost.
            assert_eq!(expected, range(1, expected.len() as u64), "step {step}");
            assert!(expected.len() >= 67, "step {step}");
        } else {
            // It goes on by itself.
            assert_eq!(expected, range(1, 72), "step {step}");
            assert!(it.index() <= 3, "step {step}: {} rows", it.index());
            let rows = it.index() + it.digests();
            assert_eq!(it.segments().len(), rows, "step {step}");
        }
        it.pass(2 * DAY_MS);
        it.say(73, 76);
        expected.extend(73..=76);
        drop(it.due());
        it.pass(2 * DAY_MS);
        it.due().unwrap();
        assert_eq!(it.all(), expected, "step {step}");
        assert!(it.index() <= 4, "step {step}: {} rows", it.index());
        let rows = it.index() + it.digests();
        assert_eq!(it.segments().len(), rows, "step {step}: nothing is left");
        assert_eq!(it.world.home.census().tally.unreadable, 0, "step {step}");
    }
}

#[test]
fn what_no_row_names_is_removed_when_it_is_old() {
    let mut it = Sealed::new(4);
    it.say(1, 10);
    let names = ["0000000000000001-0000000000000004-0123456789abcdef", "d-x"];
    for name in names {
        let op = BlobOp::Put {
            at: it.object(name),
            body: Bytes::from_static(b"left behind"),
            content_type: None,
        };
        it.world.blobs.apply_now(op).unwrap();
    }
    it.due().unwrap();
    assert_eq!((it.index(), it.segments().len()), (3, 3 + 2), "too young");
    it.pass(DAY_MS + 1);
    it.due().unwrap();
    assert_eq!((it.index(), it.segments().len()), (3, 3));
    it.numbered(10);
    assert_eq!(it.world.home.census().tally.unreadable, 0);
}

/// Another node that believes it is the home has sealed too. Its objects are named by its rows,
/// which this one has not read yet.
#[test]
fn what_another_node_has_sealed_is_not_left_behind() {
    let mut it = Sealed::new(16);
    it.say(1, 10);
    let mut config = config();
    config.limits.seal_records = 16;
    let (table, blobs) = (Arc::clone(&it.world.table), Arc::clone(&it.world.blobs));
    let mut other = World::over(table, blobs, Arc::new(config));
    other.now = it.world.now;
    let user = BareJid::parse(JULIET).unwrap();
    it.world.archive(1, "", "");
    other.event(Event::Seal { user, token: 1 });
    assert_eq!(other.done.pop(), Some(Ok(())));
    assert_eq!((it.index(), it.segments().len()), (1, 1));
    it.pass(2 * DAY_MS);
    it.say(11, 12);
    it.due().unwrap();
    let names = it.segments();
    assert_eq!(names.len(), it.index(), "{names:?}");
    it.pass(100 * DAY_MS);
    it.numbered(12);
}

#[test]
fn a_long_index_is_read_again() {
    let mut it = Sealed::new(4);
    it.say(1, 40);
    let ask = |it: &mut Sealed| {
        let before = it.world.asked;
        it.world.archive(1, "", "<max>5</max>");
        it.world.asked - before
    };
    ask(&mut it);
    assert_eq!(ask(&mut it), 2, "two segments");
    let mut config = config();
    config.limits.seal_records = 4;
    config.limits.index_rows = 8;
    it.world.config = Arc::new(config);
    it.world = it.world.killed();
    it.online();
    ask(&mut it);
    assert_eq!(ask(&mut it), 3, "and the index");
}
