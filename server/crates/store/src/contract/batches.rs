//! Batch gets: order, more than one request or answer holds, what is refused.

use bytes::Bytes;
use cirrus_schema::TableId;

use super::{Checked, Failure, Subject, equal, sks};
use crate::limits::MAX_BATCH;
use crate::{Attrs, Condition, Item, Key, Op, Outcome, StoreError};

async fn batch(s: &Subject, keys: Vec<Key>) -> Result<Vec<Item>, Failure> {
    match s.table.apply(Op::BatchGet { keys }).await? {
        Outcome::Items(items) => Ok(items),
        other => Err(Failure(format!("a batch was answered with {other:?}"))),
    }
}

pub(super) async fn in_order_of_keys(s: &Subject) -> Checked {
    for sk in ["a", "b", "c", "d"] {
        s.table
            .put(s.item("order", sk, 0), Condition::Any, 0)
            .await?;
    }
    let keys = ["d", "x", "a", "c"].map(|sk| s.key("order", sk)).to_vec();
    let got = sks(&batch(s, keys).await?);
    equal(
        &got,
        &["d", "a", "c"]
            .map(|sk| Bytes::from_static(sk.as_bytes()))
            .to_vec(),
        "order",
    )?;
    equal(&batch(s, vec![]).await?, &vec![], "no keys")?;
    equal(
        &batch(s, vec![s.key("order", "x")]).await?,
        &vec![],
        "no items",
    )
}

pub(super) async fn beyond_one_request(s: &Subject) -> Checked {
    let keys: Vec<Key> = (0..250u64)
        .map(|n| s.key("requests", n.to_be_bytes()))
        .collect();
    for key in keys.iter().step_by(2) {
        s.table
            .put(Item::new(key.clone(), Attrs::new()), Condition::Any, 0)
            .await?;
    }
    let expected: Vec<Bytes> = keys.iter().step_by(2).map(|key| key.sk.clone()).collect();
    equal(
        &sks(&batch(s, keys).await?),
        &expected,
        "every second key exists",
    )
}

pub(super) async fn beyond_one_answer(s: &Subject) -> Checked {
    // 60 * 300 KB = 18 MB, of which the provider answers 16 MB at most and leaves the rest.
    let body = Bytes::from(vec![0xa5; 300 * 1_024]);
    let keys: Vec<Key> = (0..60u8).map(|n| s.key("answers", [n])).collect();
    for key in &keys {
        let item = Item::new(key.clone(), Attrs::new().with("z", body.clone()));
        s.table.put(item, Condition::Any, 0).await?;
    }
    let expected: Vec<Bytes> = keys.iter().map(|key| key.sk.clone()).collect();
    equal(
        &sks(&batch(s, keys).await?),
        &expected,
        "nothing is left out",
    )
}

pub(super) async fn repeated_keys(s: &Subject) -> Checked {
    s.table
        .put(s.item("repeated", "a", 1), Condition::Any, 0)
        .await?;
    let keys = ["a", "b", "a"].map(|sk| s.key("repeated", sk)).to_vec();
    let expected = vec![s.item("repeated", "a", 1); 2];
    equal(
        &batch(s, keys).await?,
        &expected,
        "answered as often as asked",
    )
}

pub(super) async fn refused_batches(s: &Subject) -> Checked {
    let key = s.key("refused", "a");
    let other = Key::new(TableId::Rosters, key.pk.clone(), key.sk.clone());
    for keys in [vec![key.clone(); MAX_BATCH + 1], vec![key.clone(), other]] {
        match s.table.apply(Op::BatchGet { keys }).await {
            Err(StoreError::Invalid { .. }) => {}
            other => return Err(Failure(format!("expected a refusal, got {other:?}"))),
        }
    }
    Ok(())
}
