//! Expired items are absent to reads and conditions alike.

use cirrus_schema::TableId;

use super::{Checked, START_MS, Subject, conflict, ensure, equal, sks};
use crate::{Condition, Direction, Item, Op, Outcome, SkRange};

/// The second at which a case starts.
const START: u64 = START_MS / 1_000;

async fn expired(s: &Subject, case: &str, sk: &str) -> Result<Item, super::Failure> {
    let item = s.item(case, sk, 1).versioned(1).expiring(START + 10);
    s.table.put(item.clone(), Condition::Any, 99).await?;
    s.clock.set(START_MS + 10_000);
    Ok(item)
}

pub(super) async fn absent_to_reads(s: &Subject) -> Checked {
    let alive = s.item("reads", "b", 2);
    s.table.put(alive.clone(), Condition::Any, 0).await?;
    let item = expired(s, "reads", "a").await?;
    equal(&s.table.get(item.key.clone()).await?, &None, "get")?;
    let all = s
        .table
        .query_all(TableId::Archive, s.pk("reads"), SkRange::All)
        .await?;
    equal(&all, &vec![alive.clone()], "query")?;
    let keys = vec![item.key.clone(), alive.key.clone()];
    let got = s.table.apply(Op::BatchGet { keys }).await?;
    equal(&got, &Outcome::Items(vec![alive]), "batch")?;
    s.clock.set(START_MS);
    Ok(())
}

pub(super) async fn absent_to_conditions(s: &Subject) -> Checked {
    let first = expired(s, "conditions", "a").await?;
    let result = s
        .table
        .put(first.clone().versioned(2), Condition::Version(1), 100)
        .await;
    equal(
        &conflict(result, "put on its version")?,
        &None,
        "nothing is shown",
    )?;
    let result = s.table.put(first.clone(), Condition::Version(1), 99).await;
    equal(
        &conflict(result, "put with its nonce")?,
        &None,
        "nothing is shown",
    )?;
    let result = s
        .table
        .delete(first.key.clone(), Condition::Version(1))
        .await;
    equal(
        &conflict(result, "delete on its version")?,
        &None,
        "nothing is shown",
    )?;
    let second = s.item("conditions", "a", 2);
    s.table.put(second.clone(), Condition::Absent, 101).await?;
    equal(
        &s.table.get(first.key.clone()).await?,
        &Some(second),
        "its place is free",
    )?;
    let third = expired(s, "conditions", "b").await?;
    s.table
        .delete(third.key, Condition::Any)
        .await
        .map_err(Into::into)
}

pub(super) async fn by_whole_seconds(s: &Subject) -> Checked {
    let item = s.item("seconds", "a", 1).expiring(START + 10);
    s.table.put(item.clone(), Condition::Any, 0).await?;
    for (now_ms, alive) in [(0, true), (9_999, true), (10_000, false), (20_000, false)] {
        s.clock.set(START_MS + now_ms);
        let got = s.table.get(item.key.clone()).await?;
        equal(&got.is_some(), &alive, &format!("{now_ms} ms later"))?;
    }
    Ok(())
}

pub(super) async fn pages_skip_expired(s: &Subject) -> Checked {
    let mut alive = Vec::new();
    for n in 0..12u8 {
        let item = s.item("pages", [n], u64::from(n));
        if n % 4 == 0 {
            alive.push(item.key.sk.clone());
            s.table.put(item, Condition::Any, 0).await?;
        } else {
            s.table
                .put(item.expiring(START + 10), Condition::Any, 0)
                .await?;
        }
    }
    s.clock.set(START_MS + 11_000);
    for direction in [Direction::Forward, Direction::Backward] {
        let (mut got, mut after) = (Vec::new(), None);
        for page in 0.. {
            ensure(page < 20, "the pages never end")?;
            let op = Op::Query {
                table: TableId::Archive,
                pk: s.pk("pages"),
                range: SkRange::All,
                direction,
                limit: Some(2),
                after,
            };
            let (items, next) = s.page(op).await?;
            got.extend(sks(&items));
            ensure(got.len() <= alive.len(), format!("too much: {got:?}"))?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        equal(&got, &alive, "the living, once each")?;
        alive.reverse();
    }
    Ok(())
}

pub(super) async fn rewritten_expiry_counts(s: &Subject) -> Checked {
    let item = s.item("rewritten", "a", 1).versioned(1);
    s.table
        .put(item.clone().expiring(START + 10), Condition::Absent, 0)
        .await?;
    let later = item.clone().versioned(2).expiring(START + 20);
    s.table.put(later.clone(), Condition::Version(1), 0).await?;
    s.clock.set(START_MS + 15_000);
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(later),
        "alive for longer",
    )?;
    let never = item.clone().versioned(3);
    s.table.put(never.clone(), Condition::Version(2), 0).await?;
    s.clock.set(START_MS + 25_000);
    equal(
        &s.table.get(item.key).await?,
        &Some(never),
        "alive for ever",
    )
}
