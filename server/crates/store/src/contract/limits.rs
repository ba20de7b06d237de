//! What is too large or malformed is refused alike, and changes nothing.

use bytes::Bytes;

use super::{Checked, Failure, Subject, equal};
use crate::limits::{MAX_ATTRS, MAX_ITEM, MAX_NAME, MAX_PK, MAX_SK};
use crate::{Attrs, Condition, Item, Key, Op, SkRange, StoreError};

fn filled(s: &Subject, case: &str, total: usize) -> Item {
    let mut item = Item::new(s.key(case, "a"), Attrs::new().with("z", Bytes::new()));
    let rest = total - item.size(true);
    item.attrs.set("z", vec![7; rest]);
    item
}

pub(super) async fn largest_item(s: &Subject) -> Checked {
    let item = filled(s, "largest", MAX_ITEM);
    s.table.put(item.clone(), Condition::Absent, 1).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item),
        "as it was",
    )
}

fn too_large<T: std::fmt::Debug>(result: Result<T, StoreError>, expected: usize) -> Checked {
    match result {
        Err(StoreError::TooLarge { bytes, .. }) => equal(&bytes, &expected, "its size"),
        other => Err(Failure(format!("expected too large, got {other:?}"))),
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Checked {
    match result {
        Err(error @ StoreError::Invalid { .. }) if !error.is_retryable() => Ok(()),
        other => Err(Failure(format!("expected a refusal, got {other:?}"))),
    }
}

pub(super) async fn item_too_large(s: &Subject) -> Checked {
    let item = filled(s, "too_large", MAX_ITEM + 1);
    let before = s.item("too_large", "a", 1);
    s.table.put(before.clone(), Condition::Absent, 1).await?;
    too_large(
        s.table.put(item.clone(), Condition::Any, 2).await,
        MAX_ITEM + 1,
    )?;
    equal(
        &s.table.get(item.key).await?,
        &Some(before),
        "nothing changed",
    )
}

pub(super) async fn key_lengths(s: &Subject) -> Checked {
    let table = cirrus_schema::TableId::Archive;
    let mut pk = s.pk("lengths").to_vec();
    pk.resize(MAX_PK, 0xee);
    let longest = Key::new(table, pk.clone(), vec![0xdd; MAX_SK]);
    let item = Item::new(longest.clone(), Attrs::new().with("t", 1));
    s.table.put(item.clone(), Condition::Absent, 1).await?;
    equal(
        &s.table.get(longest.clone()).await?,
        &Some(item.clone()),
        "the longest key",
    )?;
    let got = s
        .table
        .query_all(table, pk.clone(), SkRange::Prefix(longest.sk.clone()))
        .await?;
    equal(&got, &vec![item], "and as a range")?;
    let wider = Key::new(table, [&pk[..], b"x"].concat(), &b"a"[..]);
    too_large(s.table.get(wider).await, MAX_PK + 1)?;
    let wider = Key::new(table, &b"a"[..], vec![0xdd; MAX_SK + 1]);
    too_large(s.table.get(wider.clone()).await, MAX_SK + 1)?;
    too_large(
        s.table
            .put(Item::new(wider, Attrs::new()), Condition::Any, 0)
            .await,
        MAX_SK + 1,
    )?;
    invalid(s.table.get(Key::new(table, Bytes::new(), &b"a"[..])).await)?;
    invalid(s.table.get(Key::new(table, &b"a"[..], Bytes::new())).await)?;
    let none = Op::Query {
        table,
        pk: s.pk("lengths"),
        range: SkRange::All,
        direction: crate::Direction::Forward,
        limit: Some(0),
        after: None,
    };
    invalid(s.table.apply(none).await)
}

pub(super) async fn attribute_names(s: &Subject) -> Checked {
    let longest = "n".repeat(MAX_NAME);
    let item = Item::new(
        s.key("names", "a"),
        Attrs::new().with(&longest, 1).with("#:\u{e9}", 2),
    );
    s.table.put(item.clone(), Condition::Any, 0).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item),
        "names of all kinds",
    )?;
    for name in ["", "pk", "sk", "e", "exp", "_", &format!("{longest}n")] {
        let item = Item::new(s.key("names", "b"), Attrs::new().with(name, 1));
        invalid(s.table.put(item, Condition::Any, 0).await)?;
    }
    equal(
        &s.table.get(s.key("names", "b")).await?,
        &None,
        "nothing was written",
    )
}

pub(super) async fn many_attributes(s: &Subject) -> Checked {
    let name = |n: usize| format!("a{n}");
    let mut item = Item::new(s.key("many", "a"), Attrs::new());
    for n in 0..MAX_ATTRS {
        item.attrs.set(&name(n), n as u64);
    }
    s.table.put(item.clone(), Condition::Any, 5).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item.clone()),
        "as many as allowed",
    )?;
    item.attrs.set(&name(MAX_ATTRS), 0);
    invalid(s.table.put(item, Condition::Any, 6).await)
}
