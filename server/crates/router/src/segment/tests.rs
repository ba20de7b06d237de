//! Round trips, the index, and hostile objects.

use cirrus_schema::TableId;
use proptest::prelude::*;

use super::*;
use crate::log::{Flags, LogError};

fn record(position: u64, peer: u64, archive: bool, text: &str) -> Record {
    let peer = BareJid::parse(&format!("peer{peer}@example.net")).unwrap();
    let stanza = format!("<message><body>{position} {text}</body></message>");
    let t = 1_795_000_000_000 + position * 10;
    Record::message(t, Direction::In, peer, None, stanza).with_flags(Flags {
        archive,
        ..Flags::default()
    })
}

fn records(first: u64, count: u64) -> Vec<Record> {
    (first..first + count)
        .map(|n| record(n, n % 7, n % 5 != 0, "x"))
        .collect()
}

#[test]
fn what_was_sealed_is_read() {
    for count in [1, 31, 32, 33, 256] {
        let records = records(1_000, count);
        let built = build(1_000, &records).unwrap();
        let segment = Segment::open(built.bytes.clone()).unwrap();
        assert_eq!(segment.range(), 1_000..1_000 + count);
        let all = segment.records(&(0..u64::MAX)).unwrap();
        assert_eq!(all, (1_000..).zip(records.clone()).collect::<Vec<_>>());
        let some = segment.records(&(1_000 + count / 2..1_000 + count));
        assert_eq!(some.unwrap(), all[count as usize / 2..]);
        let archived = records
            .iter()
            .filter(|r| r.as_message().unwrap().flags.archive);
        assert_eq!(built.archived, archived.count() as u64);
    }
    assert!(build(1, &[]).is_none());
}

/// The golden: what is stored must be read for ever.
#[test]
fn format_1_is_read() {
    let golden: &[u8] = include_bytes!("golden/segment-v1.bin");
    let segment = Segment::open(golden.into()).unwrap();
    let all = segment.records(&(0..u64::MAX)).unwrap();
    assert_eq!(all, (7..).zip(records(7, 70)).collect::<Vec<_>>());
}

#[test]
fn a_peer_is_found_in_its_frames_only() {
    let mut records = records(1, 256);
    records[100] = record(101, 99, true, "rare");
    let built = build(1, &records).unwrap();
    let segment = Segment::open(built.bytes.clone()).unwrap();
    let rare = peer_hash(&BareJid::parse("peer99@example.net").unwrap());
    let all = 0..u64::MAX;
    assert_eq!(segment.frames(&all, Some(rare)), [3]);
    let found = segment.frame(3).unwrap();
    assert!(found.iter().any(|(position, _)| *position == 101));
    let stranger = peer_hash(&BareJid::parse("stranger@example.net").unwrap());
    assert!(segment.frames(&all, Some(stranger)).is_empty());
    let row = Row::new(1, 0, 256, &built);
    assert!(row.may_have(Some(rare)) && !row.may_have(Some(stranger)));
}

#[test]
fn a_filter_knows_its_peers_and_few_others() {
    let records: Vec<_> = (0..1_000).map(|n| record(n, n, true, "")).collect();
    let row = Row::new(0, 0, 1_000, &build(0, &records).unwrap());
    let hash = |n: u64| peer_hash(&BareJid::parse(&format!("peer{n}@example.net")).unwrap());
    assert!((0..1_000).all(|n| row.may_have(Some(hash(n)))));
    let strangers = (1_000..11_000)
        .filter(|n| row.may_have(Some(hash(*n))))
        .count();
    assert!(strangers < 400, "{strangers} of 10,000");
    let mut index = Index::default();
    index.take(&[row.item(b"h\0u")]).unwrap();
    index.finish();
    assert_eq!(index.rows(), [row]);
}

#[test]
fn rows_may_overlap() {
    let row = |first: u64, last: u64| {
        let records = records(first, last - first + 1);
        Row::new(
            first,
            records[0].t,
            records.len(),
            &build(first, &records).unwrap(),
        )
    };
    let rows = [
        row(1, 40),
        row(1, 100),
        row(90, 150),
        row(151, 160),
        row(151, 155),
    ];
    let mut index = Index::default();
    for row in &rows {
        index.take(&[row.item(b"h\0u")]).unwrap();
    }
    index.finish();
    let spans: Vec<_> = index
        .rows()
        .iter()
        .map(|row| (row.from, row.last))
        .collect();
    assert_eq!(spans, [(1, 100), (101, 150), (151, 160)]);
    assert_eq!(index.covered.len(), 2);
    assert_eq!(index.of(100).unwrap().first, 1);
    assert_eq!(index.of(101).unwrap().first, 90);
    assert_eq!((index.sealed(), index.of(161)), (160, None));
}

#[test]
fn what_nobody_will_ask_for_is_not_sealed() {
    let spooled = record(1, 1, false, "s").with_flags(Flags {
        spool: true,
        ..Flags::default()
    });
    let nothing =
        |record: &Record| matches!(&record.content, Content::Respool(all) if all.is_empty());
    let thinned = |mut record: Record, position, delivered| {
        thin(position, &mut record, delivered);
        nothing(&record)
    };
    assert!(!thinned(record(1, 1, true, ""), 1, 9));
    assert!(!thinned(record(1, 1, false, ""), 1, 0));
    assert!(thinned(record(1, 1, false, ""), 1, 1));
    assert!(!thinned(spooled.clone(), 10, 9));
    assert!(thinned(spooled, 9, 9));
    assert!(!thinned(Record::respool(1, vec![4]), 10, 9));
    assert!(thinned(Record::respool(1, vec![4]), 9, 9));
}

#[test]
fn a_damaged_row_is_named() {
    let built = build(5, &records(5, 3)).unwrap();
    let good = Row::new(5, 0, 3, &built).item(b"h\0u");
    let mut bad = vec![good.clone(); 4];
    bad[0].attrs.set("v", 9);
    bad[1].attrs.remove("k");
    bad[2].attrs.set("f", 9);
    bad[3].attrs.set("p", vec![1, 2, 3]);
    for item in bad {
        let error = Index::default().take(&[item]).unwrap_err();
        let named =
            matches!(&error, LogError::Corrupt { key, .. } if key.table == TableId::Archive);
        assert!(named, "{error}");
    }
    Index::default().take(&[good]).unwrap();
}

#[test]
fn a_tombstone_is_a_row_of_the_index() {
    let tombstone = Tombstone {
        by: 9,
        t: 1_000,
        id: "r".into(),
    };
    let good = tombstone.item(b"h\0u", 5);
    let mut index = Index::default();
    index.take(std::slice::from_ref(&good)).unwrap();
    index.finish();
    assert_eq!(index.tombstone(5), Some(&tombstone));
    assert_eq!((index.len(), index.rows().len()), (1, 0));
    assert!(object_of(b"h\0u", &good).is_none());
    let mut bad = vec![good.clone(); 2];
    bad[0].attrs.set("v", 9);
    bad[1].attrs.remove("i");
    for item in bad {
        let error = Index::default().take(&[item]).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
    }
}

/// What is left of a short message may be longer than it was.
#[test]
fn a_frame_that_nobody_could_unpack_is_not_made() {
    let mut all: Vec<_> = (1..=30).map(|n| record(n, 1, true, "x")).collect();
    all.push(record(31, 1, true, &"y".repeat(FRAME_BYTES - 8_000)));
    all.push(record(32, 1, true, &"z".repeat(FRAME_BYTES)));
    let built = [(1, &all[..]), (33, &[record(33, 1, true, "x")])].map(|(first, records)| {
        let built = build(first, records).unwrap();
        let row = Row::new(first, first, records.len(), &built);
        (Segment::open(built.bytes).unwrap(), row)
    });
    let (parts, rows): (Vec<_>, Vec<_>) = built.into_iter().unzip();
    let tombstone = Tombstone {
        by: 40,
        t: 1_000,
        id: "'".repeat(512).into(),
    };
    for (retracted, laid) in [(1..=2, 2), (1..=30, 0)] {
        let known = retracted.map(|position| (position, tombstone.clone()));
        let joined = join(&parts, &rows, &known.collect()).unwrap();
        assert_eq!(joined.laid.len(), laid);
        let segment = Segment::open(joined.built.bytes).unwrap();
        assert_eq!(segment.records(&(0..u64::MAX)).unwrap().len(), 33);
    }
}

/// Any object is read or refused, and what is read stays within bounds.
pub(super) fn any_object(object: &[u8]) {
    let Ok(segment) = Segment::open(Bytes::copy_from_slice(object)) else {
        return;
    };
    if let Ok(records) = segment.records(&(0..u64::MAX)) {
        assert!(records.len() <= MAX_RECORDS);
    }
}

/// The golden: what is stored must be read for ever.
#[test]
fn format_1_of_a_digest_is_read() {
    let golden: &[u8] = include_bytes!("golden/digest-v1.bin");
    let all = read_digest(&Bytes::from_static(golden), None).unwrap();
    assert_eq!(all, digest_peers());
    for (hash, records) in digest_peers() {
        let one = read_digest(&Bytes::from_static(golden), Some(hash)).unwrap();
        assert_eq!(one.into_iter().collect::<Vec<_>>(), [(hash, records)]);
    }
    assert!(
        read_digest(&Bytes::from_static(golden), Some(9))
            .unwrap()
            .is_empty()
    );
}

/// 39 peers with 3 KB of messages each: two blocks.
fn digest_peers() -> BTreeMap<u32, Vec<(u64, Record)>> {
    let of = |peer: u64| {
        let text = "x".repeat(900);
        let records = (0..3).map(|n| (n * 100 + peer, record(n * 100 + peer, peer, true, &text)));
        let jid = BareJid::parse(&format!("peer{peer}@example.net")).unwrap();
        (peer_hash(&jid), records.collect())
    };
    (1..40).map(of).collect()
}

#[test]
fn a_digest_is_written_as_its_golden() {
    let built = digest::build(&digest_peers()).unwrap();
    let read = read_digest(&built, None).unwrap();
    assert_eq!(read, digest_peers());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write("src/segment/golden/digest-v1.bin", &built).unwrap();
    }
}

proptest! {
    /// Any digest is read or refused; damage is noticed, or takes nothing but whole peers away.
    #[test]
    fn any_digest_is_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let made_up: Vec<u8> = b"CAD1".iter().chain(&bytes).copied().collect();
        drop(read_digest(&made_up.into(), None));
        let mut damaged = digest::build(&digest_peers()).unwrap().to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        let whole = digest_peers();
        for with in [None, whole.keys().next().copied()] {
            let Ok(read) = read_digest(&damaged.clone().into(), with) else { continue };
            prop_assert!(read.iter().all(|(hash, records)| whole.get(hash) == Some(records)));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        any_object(&bytes);
    }

    /// One byte of a segment is another one: that is noticed, wherever it is.
    #[test]
    fn damage_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let all = records(3, 70);
        let mut bytes = build(3, &all).unwrap().bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        any_object(&bytes);
        let read = Segment::open(bytes.into()).and_then(|it| it.records(&(0..u64::MAX)));
        if let Ok(read) = read {
            // What zstd ignores is no damage.
            prop_assert_eq!(read, (3..).zip(all).collect::<Vec<_>>());
        }
    }

    /// A footer of any kind, packed as it should be.
    #[test]
    fn any_footer_is_read_or_refused(footer in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packed = packer().unwrap().compress(&footer).unwrap();
        let mut object = HEAD.to_vec();
        object.extend_from_slice(&packed);
        object.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        object.extend_from_slice(&(footer.len() as u32).to_be_bytes());
        object.extend_from_slice(TAIL);
        any_object(&object);
    }
}
