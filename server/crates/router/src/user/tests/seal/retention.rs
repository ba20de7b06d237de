//! What is too old is shown to nobody, and removed.

use super::super::archive::{between, query};
use super::*;

const DAYS: u64 = 30;

/// A message and its id.
type Said = (String, String);

impl Sealed {
    /// All of the archive, page by page, in either direction.
    fn whole(&mut self, backward: bool) -> Vec<Said> {
        let mut all = Vec::new();
        let mut set = if backward { "<before/>" } else { "" }.to_owned();
        loop {
            let (mut page, end) = self.world.archive(1, "", &format!("<max>7</max>{set}"));
            if end.contains("complete='true'") {
                if backward {
                    page.append(&mut all);
                    return page;
                }
                all.append(&mut page);
                return all;
            }
            if backward {
                set = format!("<before>{}</before>", page[0].1);
                page.append(&mut all);
                all = page;
            } else {
                set = format!("<after>{}</after>", page.last().unwrap().1);
                all.append(&mut page);
            }
        }
    }

    fn refused(&mut self, fields: &str, set: &str) -> String {
        self.world.say(1, &query(fields, set));
        self.world.read_all(1).pop().unwrap()
    }

    /// The ids of the first and the last message, as who asks and who binds is told.
    fn metadata(&mut self) -> Option<(String, String)> {
        let ask = "<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>";
        self.world.say(1, ask);
        let answer = self.world.read_all(1).pop().unwrap();
        ids(&answer)
    }

    /// The days on which Juliet's log is on a list.
    fn listed(&self, days: std::ops::Range<u64>) -> Vec<u64> {
        let listed = |day: &u64| {
            (0..archive::DUE_SHARDS).any(|shard| {
                let op = Op::Query {
                    table: TableId::Archive,
                    pk: archive::due_partition(*day as u32, shard).into(),
                    range: SkRange::All,
                    direction: Direction::Forward,
                    limit: None,
                    after: None,
                };
                match self.world.table.apply_now(op).result {
                    Ok(Outcome::Page { items, .. }) => {
                        items.iter().any(|item| item.key.sk == juliet())
                    }
                    other => panic!("{other:?}"),
                }
            })
        };
        days.filter(listed).collect()
    }
}

fn ids(metadata: &str) -> Option<(String, String)> {
    let id = |name| between(metadata, &format!("<{name} id='"), "'").map(str::to_owned);
    id("start").zip(id("end"))
}

fn numbers(said: &[Said]) -> Vec<u64> {
    said.iter().map(|(body, _)| body.parse().unwrap()).collect()
}

pub(super) fn range(from: u64, upto: u64) -> Vec<u64> {
    (from..=upto).collect()
}

/// XEP-0313: only the oldest messages may be missing, and whoever asks by the id of such a one is
/// told so.
#[test]
fn what_is_too_old_is_shown_to_nobody() {
    for (records, is_sealed) in [(4, true), (16, true), (1_000, false)] {
        let mut it = Sealed::keeping(records, DAYS);
        it.say(1, 20);
        let old = it.whole(false);
        it.pass(20 * DAY_MS);
        it.say(21, 30);
        if is_sealed {
            it.due().unwrap();
        }
        assert_eq!(numbers(&it.whole(false)), range(1, 30), "{records}");
        let first = it.metadata().unwrap().0;
        assert_eq!(first, old[0].1);

        it.pass((DAYS - 19) * DAY_MS);
        let young = it.whole(false);
        assert_eq!(numbers(&young), range(21, 30), "{records}");
        assert_eq!(it.whole(true), young);
        let ends = (young[0].1.clone(), young[9].1.clone());
        assert_eq!(it.metadata(), Some(ends));
        let (_, end) = it.world.archive(1, "", "<max>50</max>");
        assert!(end.contains("<count>10</count>"), "{end}");

        let ids = |id: &str| format!("<field var='ids'><value>{id}</value></field>");
        let answer = it.refused(&ids(&old[19].1), "");
        assert!(answer.contains("<item-not-found"), "{records}: {answer}");
        let (page, _) = it.world.archive(1, &ids(&young[0].1), "");
        assert_eq!(numbers(&page), [21]);
        if is_sealed {
            for set in ["before", "after"] {
                let set = format!("<{set}>{}</{set}>", old[1].1);
                let answer = it.refused("", &set);
                assert!(answer.contains("<item-not-found"), "{records}: {answer}");
            }
        }
        // All of it; and then it begins anew.
        it.pass(DAYS * DAY_MS);
        assert_eq!(it.whole(false), []);
        assert_eq!(it.whole(true), []);
        assert_eq!(it.metadata(), None);
        it.say(31, 32);
        let young = it.whole(false);
        assert_eq!(numbers(&young), [31, 32]);
        let ends = (young[0].1.clone(), young[1].1.clone());
        assert_eq!(it.metadata(), Some(ends));
    }
}

#[test]
fn what_is_too_old_is_removed_and_its_ids_are_never_used_again() {
    let mut it = Sealed::keeping(4, DAYS);
    it.say_some_to_nurse(1, 80);
    let old = it.whole(false);
    it.pass(10 * DAY_MS);
    it.say(81, 90);
    it.due().unwrap();
    let counts = (it.index(), it.digests(), it.segments().len());
    assert_eq!(counts, (1 + 4 + 3, 1, 8 + 1), "sixteen are joined");
    let first = it.listed(TODAY + 11..TODAY + 100);
    assert_eq!(first, [TODAY + 10 + 7, TODAY + DAYS]);

    it.pass((DAYS - 9) * DAY_MS);
    it.due().unwrap();
    assert_eq!((it.index(), it.digests(), it.segments().len()), (3, 0, 3));
    assert_eq!(it.whole(false).len(), 10);
    assert!(it.listed(TODAY..TODAY + 100).contains(&(TODAY + 10 + DAYS)));

    it.pass(10 * DAY_MS);
    it.due().unwrap();
    assert_eq!(
        (it.index(), it.segments().len()),
        (1, 0),
        "where it goes on"
    );
    it.due().unwrap();
    it.pass(100 * DAY_MS);
    assert_eq!(it.rows(archive::hot_sk(0), archive::hot_sk(u64::MAX)), 0);
    it.world = it.world.killed();
    it.online();
    assert_eq!(it.whole(false), []);
    it.say(91, 100);
    it.due().unwrap();
    let young = it.whole(false);
    assert_eq!(numbers(&young), range(91, 100));
    assert!(
        young
            .iter()
            .all(|(_, id)| old.iter().all(|(_, it)| it != id))
    );
    assert_eq!((it.index(), it.segments().len()), (3, 3));
    assert_eq!(it.world.home.census().tally.unreadable, 0);
}

/// A login asks the store for no more because something is too old: it tells where the archive
/// begins if what is kept is in the part of the log that it reads, and nothing otherwise.
#[test]
fn a_login_costs_the_same_when_the_first_message_is_too_old() {
    for (young, is_known) in [(10, true), (40, false)] {
        let mut it = Sealed::keeping(4, DAYS);
        it.say(1, 20);
        it.world.leave(1);
        it.pass(20 * DAY_MS);
        it.world.online(1, JULIET, "balcony");
        it.world.drain(1);
        it.say(21, 20 + young);
        let all = it.whole(false);
        it.world.leave(1);
        it.pass((DAYS - 19) * DAY_MS);
        it.world = it.world.killed();
        let (told, asked) = it.world.told_of_archive(1);
        assert_eq!(asked, 3, "the account, the roster, the log");
        let expected = (all[20].1.clone(), all.last().unwrap().1.clone());
        let told = told.map(|xml| ids(&xml).unwrap());
        assert_eq!(told, is_known.then(|| expected.clone()), "{young}");
        assert_eq!(it.metadata(), Some(expected), "{young}");
    }
}

/// The store fails at every step, one after the other; and so dies the home.
#[test]
fn every_step_of_a_removal_can_fail() {
    let mut failures = 0;
    for (step, dies) in (1..30).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::keeping(4, DAYS);
        it.say(1, 12);
        it.pass(10 * DAY_MS);
        it.say(13, 15);
        it.due().unwrap();
        it.pass((DAYS - 9) * DAY_MS);
        it.world.fails = Some(it.world.asked + step);
        failures += usize::from(it.due().is_err());
        it.world.fails = None;
        if dies {
            it.world = it.world.killed();
            it.online();
        }
        assert_eq!(numbers(&it.whole(false)), range(13, 15), "step {step}");
        it.pass(1_000);
        it.due().unwrap();
        assert_eq!((it.index(), it.segments().len()), (1, 1), "step {step}");
        it.pass(10 * DAY_MS);
        it.due().unwrap();
        assert_eq!((it.index(), it.segments().len()), (1, 0), "step {step}");
        it.say(16, 20);
        assert_eq!(numbers(&it.whole(false)), range(16, 20), "step {step}");
        assert_eq!(it.world.home.census().tally.unreadable, 0, "step {step}");
    }
    assert_eq!(
        failures, 18,
        "three objects and rows, index, objects, list; twice"
    );
}

/// A digest that grows leaves behind what is too old.
#[test]
fn a_digest_forgets_too() {
    let mut it = Sealed::keeping(4, DAYS);
    it.say_some_to_nurse(1, 40);
    it.pass(20 * DAY_MS);
    it.say_some_to_nurse(41, 75);
    assert_eq!(it.digests(), 1);
    it.pass((DAYS - 19) * DAY_MS);
    it.due().unwrap();
    it.say_some_to_nurse(76, 200);
    assert_eq!(it.digests(), 1);
    let expected: Vec<_> = (41..=200).filter(|n| n % 34 == 0).collect();
    assert_eq!(it.with_nurse(false).0, expected);
    let folder = crate::segment::folder(&juliet());
    let digest = it
        .segments()
        .into_iter()
        .find(|name| name.starts_with(&format!("{folder}d-")));
    let at = cirrus_store::BlobKey::new(BucketId::Data, digest.unwrap());
    let op = BlobOp::Get { at, range: None };
    let Ok(BlobOutcome::Body(Some(object))) = it.world.blobs.apply_now(op) else {
        panic!("no digest");
    };
    let peers = crate::segment::read_digest(&object, None).unwrap();
    let mut kept = peers.values().flatten();
    let kept_since = it.world.config.limits.kept_since(it.world.now);
    assert!(kept.all(|(_, record)| record.t >= kept_since));
    assert_eq!(it.world.home.census().tally.unreadable, 0);
}
