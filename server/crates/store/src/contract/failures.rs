//! A store that throttles, fails, is slow or dies: errors are bounded and true, and no fault makes
//! a write count twice or a confirmed one vanish.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cirrus_schema::BucketId;

use super::{Checked, Failure, Subject, conflict, ensure, equal};
use crate::fault::Fault;
use crate::{BlobKey, Condition, StoreError};

/// Longer than any deadline a subject is given.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// The retryable error that a request must have ended with.
fn retryable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Result<StoreError, Failure> {
    match result {
        Err(error) if error.is_retryable() => Ok(error),
        other => Err(Failure(format!(
            "expected an error to try again, got {other:?}"
        ))),
    }
}

/// Success, or an error after which the same request may be made again.
fn done_or_retryable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Checked {
    if result.is_ok() {
        Ok(())
    } else {
        retryable(result).map(drop)
    }
}

/// What a healthy store says about how often the request was tried.
fn bounded(s: &Subject) -> Checked {
    let requests = s.faults.requests();
    s.faults.clear();
    let expected = 1..=s.attempts;
    ensure(
        expected.contains(&requests),
        format!("{requests} tries, allowed {expected:?}"),
    )
}

pub(super) async fn throttled_then_repeated(s: &Subject) -> Checked {
    let item = s.item("throttled", "a", 1);
    s.faults.set_list([Fault::Throttle]);
    done_or_retryable(s.table.put(item.clone(), Condition::Absent, 1).await)?;
    s.table.put(item.clone(), Condition::Absent, 1).await?;
    s.faults.set_list([Fault::Throttle]);
    done_or_retryable(s.table.get(item.key.clone()).await)?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item),
        "written once",
    )
}

pub(super) async fn throttled_for_ever(s: &Subject) -> Checked {
    let item = s.item("overload", "a", 1);
    s.faults.set_always(Fault::Throttle);
    let error = retryable(s.table.put(item.clone(), Condition::Absent, 1).await)?;
    bounded(s)?;
    let is_throttled = matches!(error, StoreError::Throttled { .. });
    ensure(
        is_throttled && !error.outcome_unknown(),
        format!("got {error:?}"),
    )?;
    s.faults.set_always(Fault::Throttle);
    retryable(s.table.get(item.key.clone()).await)?;
    bounded(s)?;
    equal(&s.table.get(item.key).await?, &None, "nothing was written")
}

pub(super) async fn failing_for_ever(s: &Subject) -> Checked {
    let item = s.item("failing", "a", 1);
    s.faults.set_always(Fault::Fail { carried_out: false });
    let error = retryable(s.table.put(item.clone(), Condition::Absent, 1).await)?;
    bounded(s)?;
    ensure(
        matches!(error, StoreError::Unavailable { .. }),
        format!("got {error:?}"),
    )?;
    ensure(
        error.outcome_unknown(),
        "the caller can't know what became of it",
    )?;
    s.faults.set_always(Fault::Fail { carried_out: false });
    retryable(s.table.get(item.key.clone()).await)?;
    bounded(s)?;
    s.table
        .put(item, Condition::Absent, 2)
        .await
        .map_err(Into::into)
}

pub(super) async fn never_answering(s: &Subject) -> Checked {
    let item = s.item("silent", "a", 1);
    s.faults.set_always(Fault::Timeout { carried_out: false });
    let error = retryable(s.table.put(item.clone(), Condition::Absent, 1).await)?;
    bounded(s)?;
    ensure(
        matches!(error, StoreError::Timeout { .. }),
        format!("got {error:?}"),
    )?;
    ensure(
        error.outcome_unknown(),
        "the caller can't know what became of it",
    )?;
    s.table
        .put(item, Condition::Absent, 2)
        .await
        .map_err(Into::into)
}

pub(super) async fn slower_than_the_deadline(s: &Subject) -> Checked {
    let item = s.item("slow", "a", 1);
    s.faults.set_always(Fault::Delay(FOR_EVER));
    let error = retryable(s.table.put(item.clone(), Condition::Absent, 1).await)?;
    bounded(s)?;
    ensure(
        matches!(error, StoreError::Timeout { .. }),
        format!("got {error:?}"),
    )?;
    s.table
        .put(item, Condition::Absent, 1)
        .await
        .map_err(Into::into)
}

/// A put whose success stays hidden succeeds when tried again, and others see it as written.
async fn hidden_success(s: &Subject, case: &str, fault: Fault) -> Checked {
    let item = |version| s.item(case, "a", version).versioned(version);
    s.faults.set_list([fault]);
    done_or_retryable(s.table.put(item(1), Condition::Absent, 71).await)?;
    s.faults.clear();
    let result = s.table.put(item(9), Condition::Absent, 72).await;
    equal(
        &conflict(result, "another writer")?,
        &Some(item(1)),
        "it was carried out",
    )?;
    s.table.put(item(1), Condition::Absent, 71).await?;
    s.faults.set_list([fault]);
    done_or_retryable(s.table.put(item(2), Condition::Version(1), 73).await)?;
    s.table.put(item(2), Condition::Version(1), 73).await?;
    equal(
        &s.table.get(item(1).key).await?,
        &Some(item(2)),
        "one change",
    )
}

pub(super) async fn success_behind_a_timeout(s: &Subject) -> Checked {
    hidden_success(s, "hidden_timeout", Fault::Timeout { carried_out: true }).await
}

pub(super) async fn success_behind_a_failure(s: &Subject) -> Checked {
    hidden_success(s, "hidden_failure", Fault::Fail { carried_out: true }).await
}

pub(super) async fn timeout_without_success(s: &Subject) -> Checked {
    let item = s.item("lost", "a", 1);
    s.faults.set_list([Fault::Timeout { carried_out: false }]);
    done_or_retryable(s.table.put(item.clone(), Condition::Absent, 81).await)?;
    s.table.put(item.clone(), Condition::Absent, 81).await?;
    equal(
        &s.table.get(item.key.clone()).await?,
        &Some(item),
        "written once",
    )
}

pub(super) async fn late_write_finds_the_place_taken(s: &Subject) -> Checked {
    let late = s.item("late", "a", 1);
    s.faults.set(move |number, _| match number {
        // Its own retries, if there are any, must not come through either.
        0 => Fault::Late { after: 100 },
        _ => Fault::Timeout { carried_out: false },
    });
    retryable(s.table.put(late.clone(), Condition::Absent, 91).await)?;
    s.faults.clear();
    let winner = s.item("late", "a", 2);
    s.table.put(winner.clone(), Condition::Absent, 92).await?;
    for _ in 0..110 {
        let got = s.table.get(winner.key.clone()).await?;
        equal(
            &got,
            &Some(winner.clone()),
            "the late write changes nothing",
        )?;
    }
    Ok(())
}

pub(super) async fn death_in_mid_batch(s: &Subject) -> Checked {
    let items: Vec<_> = (0..20u8)
        .map(|n| s.item("death", [n], u64::from(n)))
        .collect();
    s.faults.set(|number, _| match number {
        7 => Fault::Die { carried_out: true },
        _ => Fault::None,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for (n, item) in items.iter().cloned().enumerate() {
        let table = Arc::clone(&s.table);
        tasks.spawn(async move {
            let put = table.put(item, Condition::Absent, n as u128 + 1);
            (n, put.await)
        });
    }
    let (mut confirmed, mut failed) = (Vec::new(), 0);
    while let Some(joined) = tasks.join_next().await {
        let (n, result) = joined.map_err(|error| Failure(error.to_string()))?;
        match result {
            Ok(()) => confirmed.push(n),
            other => {
                retryable(other)?;
                failed += 1;
            }
        }
    }
    ensure(
        confirmed.len() == 7 && failed == 13,
        format!("{confirmed:?}, {failed} failed"),
    )?;
    s.faults.clear();
    for n in confirmed {
        let got = s.table.get(items[n].key.clone()).await?;
        equal(&got.as_ref(), &Some(&items[n]), "confirmed, hence there")?;
    }
    for (n, item) in items.into_iter().enumerate() {
        s.table
            .put(item.clone(), Condition::Absent, n as u128 + 1)
            .await?;
        equal(
            &s.table.get(item.key.clone()).await?,
            &Some(item),
            "there in the end",
        )?;
    }
    Ok(())
}

fn blob(s: &Subject, name: &str) -> BlobKey {
    BlobKey::new(BucketId::Data, format!("t{:016x}/{name}", s.run))
}

pub(super) async fn blobs_throttled_then_repeated(s: &Subject) -> Checked {
    let (at, body) = (blob(s, "throttled"), Bytes::from_static(b"body"));
    s.faults.set_list([Fault::Throttle]);
    done_or_retryable(s.blob.put(at.clone(), body.clone()).await)?;
    s.blob.put(at.clone(), body.clone()).await?;
    s.faults.set_list([Fault::Throttle]);
    done_or_retryable(s.blob.get(at.clone(), None).await)?;
    equal(&s.blob.get(at, None).await?, &Some(body), "as written")
}

pub(super) async fn blobs_failing_for_ever(s: &Subject) -> Checked {
    let (at, body) = (blob(s, "failing"), Bytes::from_static(b"body"));
    for fault in [Fault::Fail { carried_out: false }, Fault::Delay(FOR_EVER)] {
        s.faults.set_always(fault);
        let error = retryable(s.blob.put(at.clone(), body.clone()).await)?;
        bounded(s)?;
        ensure(
            error.outcome_unknown(),
            "the caller can't know what became of it",
        )?;
        s.faults.set_always(fault);
        retryable(s.blob.get(at.clone(), None).await)?;
        bounded(s)?;
    }
    equal(&s.blob.get(at, None).await?, &None, "nothing was written")
}

pub(super) async fn blob_success_behind_a_timeout(s: &Subject) -> Checked {
    // A segment's name is a function of its content: who finds it there has written it.
    let (at, body) = (blob(s, "hidden"), Bytes::from_static(b"body"));
    s.faults.set_list([Fault::Timeout { carried_out: true }]);
    done_or_retryable(s.blob.put_if_absent(at.clone(), body.clone()).await)?;
    equal(
        &s.blob.put_if_absent(at.clone(), body.clone()).await?,
        &false,
        "it is there",
    )?;
    equal(&s.blob.get(at, None).await?, &Some(body), "whole")
}
