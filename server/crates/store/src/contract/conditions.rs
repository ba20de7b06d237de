//! Single items, conditions, versions and nonces.

use std::sync::Arc;

use bytes::Bytes;
use cirrus_schema::TableId;

use super::{Checked, Failure, Subject, conflict, ensure, equal};
use crate::{Attrs, Condition, Item, Key, StoreError};

pub(super) async fn put_then_get(s: &Subject) -> Checked {
    let attrs = Attrs::new()
        .with("v", 1)
        .with("n", u64::MAX)
        .with("b", Bytes::from((0..=255).collect::<Vec<u8>>()))
        .with("s", "text, \u{1f600} and \u{0}")
        .with("eb", Bytes::new())
        .with("es", "")
        .with("zero", 0);
    let item = Item::new(s.key("put_then_get", "a"), attrs)
        .versioned(3)
        .expiring(4_100_000_000);
    equal(&s.table.get(item.key.clone()).await?, &None, "before")?;
    s.table.put(item.clone(), Condition::Any, 0).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item.clone()),
        "after",
    )?;
    s.table.put(item.clone(), Condition::Any, u128::MAX).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item.clone()),
        "the nonce is not seen",
    )?;
    let bare = Item::new(s.key("put_then_get", "b"), Attrs::new());
    s.table.put(bare.clone(), Condition::Absent, 1).await?;
    equal(
        &s.table.get(bare.key.clone()).await?,
        &Some(bare),
        "without attributes",
    )
}

pub(super) async fn put_replaces_whole_items(s: &Subject) -> Checked {
    let first = Item::new(
        s.key("replaces", "a"),
        Attrs::new().with("a", 1).with("b", 2),
    );
    s.table
        .put(first.clone().versioned(7), Condition::Any, 0)
        .await?;
    let second = Item::new(first.key.clone(), Attrs::new().with("b", 3));
    s.table.put(second.clone(), Condition::Any, 0).await?;
    equal(
        &s.table.get(first.key).await?,
        &Some(second),
        "nothing of the first is left",
    )
}

pub(super) async fn put_if_absent(s: &Subject) -> Checked {
    let first = s.item("absent", "a", 1);
    s.table.put(first.clone(), Condition::Absent, 11).await?;
    let second = s.item("absent", "a", 2);
    let result = s.table.put(second, Condition::Absent, 12).await;
    let existing = conflict(result, "the place is taken")?;
    equal(
        &existing,
        &Some(first.clone()),
        "the conflict shows who has it",
    )?;
    equal(
        &s.table.get(first.key.clone()).await?,
        &Some(first),
        "the first stays",
    )
}

pub(super) async fn put_on_version(s: &Subject) -> Checked {
    let item = |version| s.item("version", "a", version).versioned(version);
    let result = s.table.put(item(2), Condition::Version(1), 20).await;
    equal(&conflict(result, "nothing there")?, &None, "nothing there")?;
    s.table.put(item(1), Condition::Absent, 21).await?;
    s.table.put(item(2), Condition::Version(1), 22).await?;
    let result = s.table.put(item(2), Condition::Version(1), 23).await;
    equal(
        &conflict(result, "an old version")?,
        &Some(item(2)),
        "the newer one is shown",
    )?;
    let result = s.table.put(item(4), Condition::Version(3), 24).await;
    conflict(result, "a version to come")?;
    equal(
        &s.table.get(item(1).key).await?,
        &Some(item(2)),
        "the second stays",
    )
}

pub(super) async fn version_zero_is_no_version(s: &Subject) -> Checked {
    let item = s.item("zero", "a", 1);
    conflict(
        s.table.put(item.clone(), Condition::Version(0), 30).await,
        "nothing there",
    )?;
    s.table.put(item.clone(), Condition::Absent, 31).await?;
    conflict(
        s.table.put(item.clone(), Condition::Version(1), 32).await,
        "no version",
    )?;
    s.table
        .put(item.clone().versioned(1), Condition::Version(0), 33)
        .await?;
    conflict(
        s.table.put(item, Condition::Version(0), 34).await,
        "a version now",
    )
    .map(drop)
}

pub(super) async fn delete_of_absent(s: &Subject) -> Checked {
    let key = s.key("delete_absent", "a");
    s.table.delete(key.clone(), Condition::Any).await?;
    let result = s.table.delete(key.clone(), Condition::Version(1)).await;
    equal(
        &conflict(result, "there is no version")?,
        &None,
        "nothing there",
    )?;
    match s.table.delete(key, Condition::Absent).await {
        Err(StoreError::Invalid { .. }) => Ok(()),
        other => Err(Failure(format!("a delete that wants it absent: {other:?}"))),
    }
}

pub(super) async fn delete_on_version(s: &Subject) -> Checked {
    let item = s.item("delete", "a", 1).versioned(5);
    s.table.put(item.clone(), Condition::Any, 0).await?;
    let result = s
        .table
        .delete(item.key.clone(), Condition::Version(4))
        .await;
    equal(
        &conflict(result, "another version")?,
        &Some(item.clone()),
        "it is shown",
    )?;
    s.table
        .delete(item.key.clone(), Condition::Version(5))
        .await?;
    equal(&s.table.get(item.key.clone()).await?, &None, "gone")?;
    s.table.put(item.clone(), Condition::Absent, 0).await?;
    s.table.delete(item.key.clone(), Condition::Any).await?;
    equal(&s.table.get(item.key.clone()).await?, &None, "gone again")
}

pub(super) async fn same_nonce_is_success(s: &Subject) -> Checked {
    let item = s.item("nonce", "a", 1);
    s.table.put(item.clone(), Condition::Absent, 41).await?;
    s.table.put(item.clone(), Condition::Absent, 41).await?;
    conflict(
        s.table.put(item.clone(), Condition::Absent, 42).await,
        "another nonce",
    )?;
    conflict(
        s.table.put(item.clone(), Condition::Absent, 0).await,
        "no nonce",
    )?;
    let second = s.item("nonce", "a", 2).versioned(1);
    s.table
        .put(second.clone(), Condition::Version(0), 43)
        .await?;
    s.table
        .put(second.clone(), Condition::Version(0), 43)
        .await?;
    equal(&s.table.get(item.key).await?, &Some(second), "written once")?;
    let plain = s.item("nonce", "b", 1);
    s.table.put(plain.clone(), Condition::Absent, 0).await?;
    conflict(
        s.table.put(plain, Condition::Absent, 0).await,
        "no nonce is no identity",
    )
    .map(drop)
}

pub(super) async fn overwritten_nonce_is_forgotten(s: &Subject) -> Checked {
    let item = |version| s.item("forgotten", "a", version).versioned(version);
    s.table.put(item(1), Condition::Absent, 51).await?;
    s.table.put(item(2), Condition::Version(1), 52).await?;
    let result = s.table.put(item(1), Condition::Absent, 51).await;
    equal(
        &conflict(result, "overwritten since")?,
        &Some(item(2)),
        "by this",
    )
}

const INCREMENTS: u64 = 50;

pub(super) async fn parallel_increments(s: &Subject) -> Checked {
    let zero = s.item("increments", "a", 0).versioned(1);
    s.table.put(zero.clone(), Condition::Absent, 60).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..INCREMENTS {
        let (table, key) = (Arc::clone(&s.table), zero.key.clone());
        tasks.spawn(async move {
            let mut nonce = u128::from(task + 1) << 64;
            let mut current = table.get(key).await?;
            while let Some(item) = current {
                nonce += 1;
                let count = item.attrs.get_n("t").unwrap_or_default();
                let next = Item::new(item.key, Attrs::new().with("t", count + 1));
                let next = next.versioned(item.version + 1);
                match table
                    .put(next, Condition::Version(item.version), nonce)
                    .await
                {
                    Err(StoreError::Conflict { existing, .. }) => {
                        current = existing.map(|item| *item);
                    }
                    other => return other,
                }
            }
            Ok(())
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.map_err(|error| Failure(error.to_string()))??;
    }
    let end = s.table.get(zero.key.clone()).await?;
    let count = end.as_ref().and_then(|item| item.attrs.get_n("t"));
    equal(&count, &Some(INCREMENTS), "each increment counts once")?;
    equal(
        &end.map(|item| item.version),
        &Some(INCREMENTS + 1),
        "as does each version",
    )
}

pub(super) async fn parallel_inserts_have_one_winner(s: &Subject) -> Checked {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 1..=20 {
        let (table, item) = (Arc::clone(&s.table), s.item("winner", "a", task));
        tasks.spawn(async move {
            let result = table.put(item, Condition::Absent, u128::from(task)).await;
            (task, result)
        });
    }
    let (mut winners, mut shown) = (Vec::new(), Vec::new());
    while let Some(joined) = tasks.join_next().await {
        let (task, result) = joined.map_err(|error| Failure(error.to_string()))?;
        match result {
            Ok(()) => winners.push(task),
            other => shown.push(conflict(other, "a loser")?.and_then(|i| i.attrs.get_n("t"))),
        }
    }
    ensure(winners.len() == 1, format!("winners: {winners:?}"))?;
    ensure(
        shown.iter().all(|seen| *seen == Some(winners[0])),
        "every loser saw the winner",
    )
}

pub(super) async fn tables_are_separate(s: &Subject) -> Checked {
    let key = |table| Key::new(table, s.pk("separate"), &b"a"[..]);
    for (mark, table) in TableId::ALL.into_iter().enumerate() {
        let item = Item::new(key(table), Attrs::new().with("t", mark as u64));
        s.table.put(item, Condition::Absent, 0).await?;
    }
    s.table.delete(key(TableId::Rooms), Condition::Any).await?;
    for (mark, table) in TableId::ALL.into_iter().enumerate() {
        let expected = (table != TableId::Rooms).then_some(mark as u64);
        let got = s
            .table
            .get(key(table))
            .await?
            .and_then(|item| item.attrs.get_n("t"));
        equal(&got, &expected, table.name())?;
    }
    Ok(())
}
