//! Blobs, and reading everything.

use std::sync::Arc;

use bytes::Bytes;
use cirrus_schema::{BucketId, TableId};

use super::{Checked, Failure, START_MS, Subject, ensure, equal};
use crate::{BlobKey, BlobOp, Condition, StoreError};

fn at(s: &Subject, name: &str) -> BlobKey {
    BlobKey::new(BucketId::Data, format!("t{:016x}/{name}", s.run))
}

pub(super) async fn put_then_get(s: &Subject) -> Checked {
    let body = Bytes::from((0..=255).collect::<Vec<u8>>());
    equal(&s.blob.get(at(s, "one"), None).await?, &None, "before")?;
    s.blob.put(at(s, "one"), body.clone()).await?;
    equal(&s.blob.get(at(s, "one"), None).await?, &Some(body), "after")?;
    s.blob.put(at(s, "empty"), Bytes::new()).await?;
    equal(
        &s.blob.get(at(s, "empty"), None).await?,
        &Some(Bytes::new()),
        "without content",
    )
}

pub(super) async fn put_replaces(s: &Subject) -> Checked {
    s.blob
        .put(at(s, "twice"), Bytes::from_static(b"longer"))
        .await?;
    let typed = BlobOp::Put {
        at: at(s, "twice"),
        body: Bytes::from_static(b"new"),
        content_type: Some("text/plain".into()),
    };
    s.blob.apply(typed).await?;
    equal(
        &s.blob.get(at(s, "twice"), None).await?,
        &Some(Bytes::from_static(b"new")),
        "the new",
    )
}

pub(super) async fn put_if_absent(s: &Subject) -> Checked {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    equal(
        &s.blob.put_if_absent(at(s, "absent"), first.clone()).await?,
        &true,
        "it was absent",
    )?;
    equal(
        &s.blob
            .put_if_absent(at(s, "absent"), second.clone())
            .await?,
        &false,
        "no more",
    )?;
    equal(
        &s.blob.get(at(s, "absent"), None).await?,
        &Some(first),
        "the first stays",
    )?;
    s.blob.delete(at(s, "absent")).await?;
    equal(
        &s.blob.put_if_absent(at(s, "absent"), second).await?,
        &true,
        "absent again",
    )
}

pub(super) async fn parallel_inserts_have_one_winner(s: &Subject) -> Checked {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16u8 {
        let (blob, at) = (Arc::clone(&s.blob), at(s, "winner"));
        // Long enough that a writer could be seen half way.
        let body = Bytes::from(vec![n; 100_000]);
        tasks.spawn(async move { (n, blob.put_if_absent(at, body).await) });
    }
    let mut winners = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let (n, result) = joined.map_err(|error| Failure(error.to_string()))?;
        if result? {
            winners.push(n);
        }
    }
    ensure(winners.len() == 1, format!("winners: {winners:?}"))?;
    let body = s.blob.get(at(s, "winner"), None).await?;
    equal(
        &body,
        &Some(Bytes::from(vec![winners[0]; 100_000])),
        "the winner's, whole",
    )
}

pub(super) async fn parts(s: &Subject) -> Checked {
    s.blob
        .put(at(s, "parts"), Bytes::from_static(b"0123456789"))
        .await?;
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..100, "56789"),
        (0..u64::MAX, "0123456789"),
        (10..11, ""),
        (50..60, ""),
    ] {
        let got = s.blob.get(at(s, "parts"), Some(range.clone())).await?;
        equal(
            &got,
            &Some(Bytes::from_static(expected.as_bytes())),
            &format!("{range:?}"),
        )?;
    }
    equal(
        &s.blob.get(at(s, "no parts"), Some(0..5)).await?,
        &None,
        "of an absent blob",
    )?;
    s.blob.put(at(s, "parts"), Bytes::new()).await?;
    let got = s.blob.get(at(s, "parts"), Some(0..5)).await?;
    equal(&got, &Some(Bytes::new()), "of an empty blob")
}

pub(super) async fn delete_is_idempotent(s: &Subject) -> Checked {
    s.blob.delete(at(s, "gone")).await?;
    s.blob.put(at(s, "gone"), Bytes::from_static(b"x")).await?;
    s.blob.delete(at(s, "gone")).await?;
    equal(&s.blob.get(at(s, "gone"), None).await?, &None, "gone")?;
    s.blob.delete(at(s, "gone")).await.map_err(Into::into)
}

pub(super) async fn list_in_pages(s: &Subject) -> Checked {
    let names = [
        "l/a", "l/a.b", "l/a/x", "l/a/y/z", "l/b", "l/b0", "l/\u{e9}", "l2", "k",
    ];
    for (n, name) in names.iter().enumerate() {
        s.blob.put(at(s, name), Bytes::from(vec![0; n])).await?;
    }
    let prefix = at(s, "l/").name;
    let mut expected: Vec<(String, u64)> =
        names[..7].iter().map(|n| at(s, n).name).zip(0..).collect();
    expected.sort();
    for limit in [1, 2, 7, 1_000] {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = s.blob.list(BucketId::Data, &prefix, after, limit).await?;
            ensure(page.blobs.len() <= limit as usize, "a page above its limit")?;
            got.extend(page.blobs.into_iter().map(|blob| (blob.name, blob.length)));
            after = page.next;
            ensure(got.len() <= expected.len(), format!("too much: {got:?}"))?;
            if after.is_none() {
                break;
            }
        }
        equal(&got, &expected, &format!("pages of {limit}"))?;
    }
    let page = s
        .blob
        .list(BucketId::Data, &at(s, "nothing").name, None, 10)
        .await?;
    ensure(
        page.blobs.is_empty() && page.next.is_none(),
        "nothing has that prefix",
    )?;
    match s.blob.list(BucketId::Data, &prefix, None, 0).await {
        Err(StoreError::Invalid { .. }) => Ok(()),
        other => Err(Failure(format!("pages of nothing: {other:?}"))),
    }
}

const NAMES: [&str; 9] = [
    "seg/ab/0123456789abcdef/1-256-deadbeef",
    "a b+c%20d&e=f?g#h",
    "\u{e9}\u{1f600}/\u{65e5}\u{672c}.txt",
    "...",
    ".hidden/..x",
    "~!@$*()[]{}'\",;:<>|^`",
    "UPPER/lower",
    "upper/LOWER",
    "trailing.tmp",
];

pub(super) async fn names_of_all_kinds(s: &Subject) -> Checked {
    let long = "n".repeat(900);
    let names = NAMES.into_iter().chain([long.as_str()]);
    for (n, name) in names.clone().enumerate() {
        let name = at(s, &format!("names/{name}"));
        equal(
            &s.blob
                .put_if_absent(name, Bytes::from(vec![n as u8]))
                .await?,
            &true,
            "new",
        )?;
    }
    let page = s
        .blob
        .list(BucketId::Data, &at(s, "names/").name, None, 100)
        .await?;
    let listed: Vec<String> = page.blobs.into_iter().map(|blob| blob.name).collect();
    let mut expected: Vec<String> = names
        .clone()
        .map(|name| at(s, &format!("names/{name}")).name)
        .collect();
    expected.sort();
    equal(&listed, &expected, "the list")?;
    for (n, name) in names.enumerate() {
        let name = at(s, &format!("names/{name}"));
        let got = s.blob.get(name.clone(), None).await?;
        equal(&got, &Some(Bytes::from(vec![n as u8])), &name.name)?;
    }
    Ok(())
}

pub(super) async fn refused_names(s: &Subject) -> Checked {
    let long = "x".repeat(1_025);
    for name in [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../../b",
        "a/./b",
        "a\0b",
        "a\nb",
        &long,
    ] {
        let name = BlobKey::new(BucketId::Data, name);
        match s.blob.put(name.clone(), Bytes::new()).await {
            Err(StoreError::Invalid { .. } | StoreError::TooLarge { .. }) => {}
            other => return Err(Failure(format!("{name}: {other:?}"))),
        }
        ensure(s.blob.get(name, None).await.is_err(), "nor can it be read")?;
    }
    Ok(())
}

pub(super) async fn buckets_are_separate(s: &Subject) -> Checked {
    let key = |bucket| BlobKey {
        bucket,
        name: at(s, "bucket").name,
    };
    for bucket in BucketId::ALL {
        s.blob
            .put_if_absent(key(bucket), Bytes::from(bucket.name()))
            .await?;
    }
    s.blob.delete(key(BucketId::Logs)).await?;
    for bucket in BucketId::ALL {
        let expected = (bucket != BucketId::Logs).then(|| Bytes::from(bucket.name()));
        equal(
            &s.blob.get(key(bucket), None).await?,
            &expected,
            bucket.name(),
        )?;
    }
    Ok(())
}

pub(super) async fn large_blob(s: &Subject) -> Checked {
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let body = Bytes::from(body);
    s.blob.put(at(s, "large"), body.clone()).await?;
    let part = s
        .blob
        .get(at(s, "large"), Some(1_000_000..1_000_100))
        .await?;
    equal(&part, &Some(body.slice(1_000_000..1_000_100)), "a part")?;
    ensure(
        s.blob.get(at(s, "large"), None).await? == Some(body),
        "the whole",
    )
}

pub(super) async fn dump_has_everything(s: &Subject) -> Checked {
    let mut expected = Vec::new();
    for n in 0..30u8 {
        let item = s.item("dump", [n], u64::from(n)).versioned(2);
        s.table.put(item.clone(), Condition::Any, 7).await?;
        expected.push(item);
    }
    let expired = s.item("dump", "z", 0).expiring(START_MS / 1_000);
    s.table.put(expired, Condition::Any, 7).await?;
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let page = s.dump.dump(TableId::Archive, after).await?;
        got.extend(
            page.items
                .into_iter()
                .filter(|item| item.key.pk == s.pk("dump")),
        );
        after = page.next;
        ensure(got.len() <= expected.len(), "items come twice")?;
        if after.is_none() {
            break;
        }
    }
    got.sort_by(|a, b| a.key.cmp(&b.key));
    equal(&got, &expected, "every item once, the expired left out")
}
