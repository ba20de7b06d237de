//! Queries: order, ranges, pages in both directions.

use bytes::Bytes;
use cirrus_schema::TableId;

use super::{Checked, Failure, Subject, ensure, equal, sks};
use crate::limits::{MAX_ITEM, MAX_PAGE};
use crate::{Attrs, Condition, Direction, Item, Key, Op, SkRange};

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

fn query(pk: Bytes, range: SkRange, direction: Direction, limit: Option<u32>) -> Op {
    Op::Query {
        table: TableId::Archive,
        pk,
        range,
        direction,
        limit,
        after: None,
    }
}

/// All pages of a query, each no longer than its limit.
async fn pages(s: &Subject, first: Op) -> Result<Vec<Vec<Item>>, Failure> {
    let (mut all, mut op) = (Vec::new(), first);
    loop {
        let (items, next) = s.page(op.clone()).await?;
        let Op::Query { limit, after, .. } = &mut op else {
            return Err(Failure("not a query".into()));
        };
        let most = limit.map_or(usize::MAX, |limit| limit as usize);
        ensure(
            items.len() <= most,
            format!("a page of {} above {most}", items.len()),
        )?;
        all.push(items);
        ensure(all.len() < 1_000, "the pages never end")?;
        if next.is_none() {
            return Ok(all);
        }
        *after = next;
    }
}

async fn all_sks(s: &Subject, op: Op) -> Result<Vec<Bytes>, Failure> {
    Ok(sks(&pages(s, op).await?.concat()))
}

async fn fill(s: &Subject, case: &str, keys: impl IntoIterator<Item = Vec<u8>>) -> Checked {
    for sk in keys {
        s.table.put(s.item(case, &sk, 0), Condition::Any, 0).await?;
    }
    Ok(())
}

/// Ascending, or descending for a backward query.
fn ordered(mut keys: Vec<Bytes>, direction: Direction) -> Vec<Bytes> {
    keys.sort_unstable();
    if direction == Direction::Backward {
        keys.reverse();
    }
    keys
}

fn text(keys: &[&str]) -> Vec<Bytes> {
    keys.iter()
        .map(|key| Bytes::copy_from_slice(key.as_bytes()))
        .collect()
}

pub(super) async fn sorted_bytewise(s: &Subject) -> Checked {
    let single = (0..=255u8).map(|byte| vec![byte]);
    let more = [
        &b"\0\0"[..],
        b"\x7f\xff",
        b"\x80\0",
        b"\xff\0",
        b"\xff\xff",
        b"a\0",
        b"a\0b",
    ];
    let keys: Vec<Vec<u8>> = single.chain(more.map(<[u8]>::to_vec)).collect();
    // Written in an order that is not theirs.
    fill(s, "sorted", keys.iter().rev().step_by(2).cloned()).await?;
    fill(s, "sorted", keys.iter().cloned()).await?;
    for direction in BOTH {
        let expected = ordered(keys.iter().cloned().map(Bytes::from).collect(), direction);
        let op = query(s.pk("sorted"), SkRange::All, direction, None);
        equal(&all_sks(s, op).await?, &expected, "order")?;
    }
    Ok(())
}

pub(super) async fn partition_keys_of_all_bytes(s: &Subject) -> Checked {
    let start = s.pk("bytes");
    let key = |byte: u8| {
        let pk = [&start[..], &[byte], &(0..=255).collect::<Vec<u8>>()[..]].concat();
        Key::new(TableId::Archive, pk, vec![byte, 0, byte])
    };
    for byte in 0..=255 {
        let item = Item::new(key(byte), Attrs::new().with("t", u64::from(byte)));
        s.table
            .put(item, Condition::Absent, u128::from(byte) + 1)
            .await?;
    }
    for byte in 0..=255 {
        let got = s
            .table
            .get(key(byte))
            .await?
            .and_then(|item| item.attrs.get_n("t"));
        equal(&got, &Some(u64::from(byte)), "by key")?;
        let op = query(key(byte).pk, SkRange::All, Direction::Forward, None);
        equal(&all_sks(s, op).await?, &vec![key(byte).sk], "by partition")?;
    }
    Ok(())
}

pub(super) async fn each_kind_of_range(s: &Subject) -> Checked {
    let keys = ["a", "b", "b\0", "ba", "bb", "c", "d"];
    fill(s, "kinds", keys.map(|key| key.as_bytes().to_vec())).await?;
    fill(
        s,
        "kinds",
        [vec![0xff], vec![0xff, 0xff], vec![0xff, 0xff, 1]],
    )
    .await?;
    let at = |key: &'static str| Bytes::from_static(key.as_bytes());
    let ff: Vec<Bytes> = vec![
        Bytes::from_static(b"\xff\xff"),
        Bytes::from_static(b"\xff\xff\x01"),
    ];
    for (range, expected) in [
        (SkRange::Prefix(at("b")), text(&["b", "b\0", "ba", "bb"])),
        (SkRange::Prefix(at("ba")), text(&["ba"])),
        (SkRange::Prefix(at("bc")), vec![]),
        (SkRange::Prefix(Bytes::from_static(b"\xff\xff")), ff.clone()),
        (SkRange::From(Bytes::from_static(b"\xff\xfe")), ff),
        (SkRange::To(at("b")), text(&["a", "b"])),
        (SkRange::To(at("aa")), text(&["a"])),
        (
            SkRange::Between(at("b\0"), at("bb")),
            text(&["b\0", "ba", "bb"]),
        ),
        (SkRange::Between(at("b!"), at("bz")), text(&["ba", "bb"])),
        (SkRange::Between(at("c"), at("c")), text(&["c"])),
        (SkRange::Between(at("cc"), at("cd")), vec![]),
        (SkRange::Between(at("c"), at("b")), vec![]),
    ] {
        for direction in BOTH {
            let op = query(s.pk("kinds"), range.clone(), direction, None);
            let what = format!("{range:?} {direction:?}");
            equal(
                &all_sks(s, op).await?,
                &ordered(expected.clone(), direction),
                &what,
            )?;
        }
    }
    Ok(())
}

pub(super) async fn empty_bounds(s: &Subject) -> Checked {
    fill(s, "bounds", [b"a".to_vec(), b"b".to_vec()]).await?;
    let none = Bytes::new;
    for (range, expected) in [
        (SkRange::Prefix(none()), text(&["a", "b"])),
        (SkRange::From(none()), text(&["a", "b"])),
        (SkRange::To(none()), vec![]),
        (
            SkRange::Between(none(), Bytes::from_static(b"a")),
            text(&["a"]),
        ),
        (SkRange::Between(none(), none()), vec![]),
    ] {
        let op = query(s.pk("bounds"), range.clone(), Direction::Forward, None);
        equal(&all_sks(s, op).await?, &expected, &format!("{range:?}"))?;
    }
    Ok(())
}

async fn in_pages(s: &Subject, case: &str, direction: Direction) -> Checked {
    let keys: Vec<Vec<u8>> = (0..50u64).map(|n| n.to_be_bytes().to_vec()).collect();
    fill(s, case, keys.clone()).await?;
    let between = SkRange::Between(keys[10].clone().into(), keys[39].clone().into());
    for (range, of_range) in [(SkRange::All, &keys[..]), (between, &keys[10..40])] {
        let expected = ordered(
            of_range.iter().cloned().map(Bytes::from).collect(),
            direction,
        );
        for limit in [1, 7, 30, 50, 51] {
            let op = query(s.pk(case), range.clone(), direction, Some(limit));
            let pages = pages(s, op).await?;
            equal(
                &sks(&pages.concat()),
                &expected,
                &format!("pages of {limit}"),
            )?;
            let first = pages.first().map(Vec::len);
            let full = expected.len().min(limit as usize);
            equal(&first, &Some(full), "the first page is full")?;
        }
    }
    Ok(())
}

pub(super) async fn pages_forward(s: &Subject) -> Checked {
    in_pages(s, "forward", Direction::Forward).await
}

pub(super) async fn pages_backward(s: &Subject) -> Checked {
    in_pages(s, "backward", Direction::Backward).await
}

/// A query over `a c e g` or a part of it that starts after a given key.
async fn after(
    s: &Subject,
    range: &SkRange,
    direction: Direction,
    token: &'static str,
) -> Result<String, Failure> {
    let mut op = query(s.pk("tokens"), range.clone(), direction, Some(10));
    if let Op::Query { after, .. } = &mut op {
        *after = Some(Bytes::from_static(token.as_bytes()));
    }
    let keys = all_sks(s, op).await?.concat();
    Ok(String::from_utf8_lossy(&keys).into_owned())
}

pub(super) async fn tokens_of_missing_items(s: &Subject) -> Checked {
    fill(
        s,
        "tokens",
        [b"a", b"c", b"e", b"g"].map(|key| key.to_vec()),
    )
    .await?;
    for (direction, token, expected) in [
        (Direction::Forward, "c", "eg"),
        (Direction::Forward, "d", "eg"),
        (Direction::Forward, "h", ""),
        (Direction::Backward, "e", "ca"),
        (Direction::Backward, "d", "ca"),
        (Direction::Backward, "A", ""),
    ] {
        let got = after(s, &SkRange::All, direction, token).await?;
        equal(
            &got,
            &expected.to_owned(),
            &format!("{direction:?} after {token}"),
        )?;
    }
    // An item that was there when the token was given, and no longer is.
    s.table.delete(s.key("tokens", "c"), Condition::Any).await?;
    equal(
        &after(s, &SkRange::All, Direction::Forward, "c").await?,
        &"eg".to_owned(),
        "deleted",
    )
}

pub(super) async fn tokens_outside_the_range(s: &Subject) -> Checked {
    fill(
        s,
        "tokens",
        [b"a", b"c", b"e", b"g"].map(|key| key.to_vec()),
    )
    .await?;
    let between = SkRange::Between(Bytes::from_static(b"b"), Bytes::from_static(b"f"));
    let (from, to) = (
        SkRange::From(Bytes::from_static(b"c")),
        SkRange::To(Bytes::from_static(b"e")),
    );
    let prefix = SkRange::Prefix(Bytes::from_static(b"c"));
    for (range, direction, token, expected) in [
        (&between, Direction::Forward, "a", "ce"),
        (&between, Direction::Forward, "g", ""),
        (&between, Direction::Backward, "g", "ec"),
        (&between, Direction::Backward, "a", ""),
        (&between, Direction::Backward, "b", ""),
        (&between, Direction::Forward, "f", ""),
        (&from, Direction::Forward, "a", "ceg"),
        (&from, Direction::Backward, "a", ""),
        (&to, Direction::Backward, "g", "eca"),
        (&to, Direction::Forward, "g", ""),
        (&prefix, Direction::Forward, "a", "c"),
        (&prefix, Direction::Forward, "d", ""),
        (&prefix, Direction::Backward, "d", "c"),
        (&prefix, Direction::Backward, "a", ""),
    ] {
        let got = after(s, range, direction, token).await?;
        equal(
            &got,
            &expected.to_owned(),
            &format!("{range:?} {direction:?} after {token}"),
        )?;
    }
    Ok(())
}

pub(super) async fn pages_of_large_items(s: &Subject) -> Checked {
    let body = Bytes::from(vec![0x5a; 300 * 1_024]);
    let mut expected = Vec::new();
    for n in 0..8u8 {
        let item = Item::new(s.key("large", [n]), Attrs::new().with("z", body.clone()));
        s.table.put(item.clone(), Condition::Any, 0).await?;
        expected.push(item.key.sk);
    }
    for direction in BOTH {
        let op = query(s.pk("large"), SkRange::All, direction, None);
        let pages = pages(s, op).await?;
        ensure(pages.len() > 1, "2.4 MB are more than one page")?;
        for page in &pages {
            let bytes: usize = page.iter().map(|item| item.size(false)).sum();
            ensure(
                bytes <= MAX_PAGE + MAX_ITEM,
                format!("a page of {bytes} bytes"),
            )?;
        }
        let expected = ordered(expected.clone(), direction);
        equal(&sks(&pages.concat()), &expected, "all pages together")?;
    }
    Ok(())
}

pub(super) async fn confusable_owners(s: &Subject) -> Checked {
    let start = s.pk("owners");
    let owners = [
        "h\0bob", "h\0bobby", "h\0bo", "h\0bob\0", "h\0", "h", "hh\0bob", "h\0BOB",
    ];
    let pk = |owner: &str| Bytes::from([&start[..], owner.as_bytes()].concat());
    for (mark, owner) in owners.iter().enumerate() {
        let key = Key::new(TableId::Archive, pk(owner), &b"by"[..]);
        let item = Item::new(key, Attrs::new().with("t", mark as u64));
        s.table
            .put(item, Condition::Absent, mark as u128 + 1)
            .await?;
    }
    for (mark, owner) in owners.iter().enumerate() {
        let op = query(pk(owner), SkRange::All, Direction::Forward, None);
        let items = pages(s, op).await?.concat();
        let marks: Vec<Option<u64>> = items.iter().map(|item| item.attrs.get_n("t")).collect();
        equal(&marks, &vec![Some(mark as u64)], owner)?;
    }
    let absent = query(pk("h\0b"), SkRange::All, Direction::Forward, None);
    equal(
        &pages(s, absent).await?.concat(),
        &vec![],
        "an owner of whom there is nothing",
    )
}

pub(super) async fn empty_partition(s: &Subject) -> Checked {
    for direction in BOTH {
        let op = query(s.pk("empty"), SkRange::All, direction, Some(5));
        equal(&s.page(op).await?, &(vec![], None), "nothing, and no more")?;
    }
    Ok(())
}
