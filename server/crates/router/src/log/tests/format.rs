//! The stored format: golden, round trips, and damage.

use cirrus_store::{Item, Value};
use proptest::prelude::*;

use super::super::record::encode;
use super::*;

fn items() -> Vec<Item> {
    let all = Flags {
        archive: true,
        spool: true,
        marker: true,
    };
    let first = message(NOW, u128::MAX - 1, 300).with_flags(all);
    let peer = BareJid::parse("example.net").unwrap();
    let second = Record::message(
        NOW + 130,
        Direction::Out,
        peer.clone(),
        None,
        &b"<message/>"[..],
    );
    let third = Record::message(NOW + 130, Direction::Own, peer, None, Bytes::new());
    let fourth = Record::respool(NOW + 131, vec![9, 7, 1_000, 9]);
    vec![
        encode(
            b"example.com\0juliet",
            258,
            &[&first, &second, &third, &fourth],
            0,
        ),
        encode(b"example.com\0juliet", 262, &[&second], NOW + 999),
    ]
}

fn text(item: &Item) -> String {
    let mut lines = format!("{} e={} exp={:?}\n", item.key, item.version, item.expires);
    for (name, value) in item.attrs.iter() {
        lines += &match value {
            Value::N(number) => format!("  {name} N {number}\n"),
            Value::S(text) => format!("  {name} S {text}\n"),
            Value::B(bytes) => format!("  {name} B {}\n", bytes.escape_ascii()),
        };
    }
    lines
}

#[test]
fn format_1_is_as_it_was() {
    let golden = include_str!("../golden/log-v1.txt");
    assert_eq!(items().iter().map(text).collect::<String>(), golden);
}

#[test]
fn items_are_read_back() {
    let items = items();
    let (seq, records) = decode(&items[0]).unwrap();
    assert_eq!((seq, records.len()), (258, 4));
    assert_eq!(records[0].as_message().unwrap().origin.unwrap().k, 300);
    assert_eq!(records[1].t, NOW + 130);
    assert_eq!(records[3], Record::respool(NOW + 131, vec![7, 9, 1_000]));
    let (_, raised) = decode(&items[1]).unwrap();
    assert_eq!(raised[0].t, NOW + 999, "time never goes backwards");
}

/// A message with a 100-byte body and the attributes that clients send costs one write unit.
#[test]
fn a_short_message_is_far_below_one_unit() {
    let body = "x".repeat(100);
    let stanza = format!(
        "<message type='chat' id='0123456789abcdef0123456789abcdef' to='juliet@example.com' \
         from='romeo@example.net/0123456789abcdef'><body>{body}</body>\
         <active xmlns='http://jabber.org/protocol/chatstates'/>\
         <request xmlns='urn:xmpp:receipts'/>\
         <origin-id xmlns='urn:xmpp:sid:0' id='0123456789abcdef0123456789abcdef'/></message>"
    );
    let peer = BareJid::parse("romeo@example.net").unwrap();
    let origin = Origin {
        session: SessionId(u128::MAX),
        k: 1_000,
    };
    let record = Record::message(
        NOW,
        Direction::In,
        peer,
        Some(origin),
        stanza.as_bytes().to_vec(),
    );
    let item = encode(&owner().owner(), 1_000, &[&record], 0);
    let size = |value: &Value| match value {
        Value::B(bytes) => bytes.len(),
        Value::S(text) => text.len(),
        Value::N(_) => 10,
    };
    let attrs: usize = item
        .attrs
        .iter()
        .map(|(name, value)| name.len() + size(value))
        .sum();
    // Two key names and keys, the nonce, and the provider's overhead of an item.
    let stored = 2 + item.key.pk.len() + 2 + item.key.sk.len() + attrs + 1 + 16 + 100;
    let overhead = stored - stanza.len();
    assert!(stored < 1_000, "{stored} bytes");
    assert!(overhead < 250, "{overhead} bytes besides the stanza");
}

#[test]
fn damage_is_named() {
    let good = items().remove(0);
    let reason = |change: &dyn Fn(&mut Item)| {
        let mut item = good.clone();
        change(&mut item);
        match decode(&item).unwrap_err() {
            LogError::Corrupt { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let set = |name: &'static str, value: u64| {
        move |item: &mut Item| {
            item.attrs.set(name, value);
        }
    };
    assert_eq!(reason(&set("v", 2)), "unknown format");
    assert_eq!(reason(&set("n", 0)), "the number of records");
    assert_eq!(reason(&set("n", 17)), "the number of records");
    assert_eq!(reason(&set("n", 3)), "bytes after the last record");
    assert_eq!(reason(&set("n", 5)), "a damaged record");
    assert_eq!(reason(&set("t", u64::MAX)), "a damaged record");
    assert_eq!(
        reason(&|item| drop(item.attrs.remove("z"))),
        "an attribute is missing"
    );
    assert_eq!(
        reason(&|item| item.key.sk = Bytes::from_static(b"t12345678")),
        "not a hot item"
    );
}

fn record() -> impl Strategy<Value = Record> {
    let direction = prop::sample::select(vec![Direction::In, Direction::Out, Direction::Own]);
    let origin = prop::option::of((any::<u128>(), any::<u64>()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let stanza = prop::collection::vec(any::<u8>(), 0..200);
    let message = (0..1_000_000u64, direction, flags, origin, stanza).prop_map(
        |(t, direction, (archive, spool, marker), origin, stanza)| {
            let peer = BareJid::parse("romeo@example.net").unwrap();
            let origin = origin.map(|(session, k)| Origin {
                session: SessionId(session),
                k,
            });
            Record::message(t, direction, peer, origin, stanza).with_flags(Flags {
                archive,
                spool,
                marker,
            })
        },
    );
    let respool = (0..1_000_000u64, prop::collection::vec(any::<u64>(), 0..20))
        .prop_map(|(t, positions)| Record::respool(t, positions));
    prop_oneof![4 => message, 1 => respool]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_record_round_trips(
        records in prop::collection::vec(record(), 1..=MAX_RECORDS),
        seq in any::<u64>(),
        not_before in 0..1_000_000u64,
    ) {
        let all: Vec<&Record> = records.iter().collect();
        let item = encode(b"h\0u", seq, &all, not_before);
        let bound: usize = records.iter().map(Record::size).sum();
        prop_assert!(item.attrs.get_b("z").unwrap().len() <= bound);
        let (read_seq, read) = decode(&item).unwrap();
        prop_assert_eq!(read_seq, seq);
        let mut t = not_before;
        for (read, written) in read.iter().zip(&records) {
            t = t.max(written.t);
            prop_assert_eq!(read.t, t);
            prop_assert_eq!(&read.content, &written.content);
        }
        prop_assert_eq!(read.len(), records.len());
    }

    #[test]
    fn damaged_bytes_are_an_error_or_other_records(
        records in prop::collection::vec(record(), 1..4),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let all: Vec<&Record> = records.iter().collect();
        let mut item = encode(b"h\0u", 1, &all, 0);
        let body = item.attrs.get_b("z").unwrap().to_vec();
        item.attrs.set("z", &body[..cut.index(body.len())]);
        prop_assert!(decode(&item).is_err(), "a body that was cut short is never whole");
        let mut flipped = body;
        let at = flip.index(flipped.len());
        flipped[at] ^= 1 << bit;
        item.attrs.set("z", flipped);
        let _ = decode(&item);
    }
}
