//! What the embedded store has confirmed survives kill -9, wherever it strikes.
//!
//! The test starts itself again as a child that writes without end and prints each confirmed
//! write, kills it after a number of them, opens the folder, and looks for all of them.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use cirrus_schema::{BucketId, TableId};
use cirrus_store::{
    Attrs, Blob, BlobKey, Condition, EmbeddedOptions, EmbeddedTable, Item, Key, StoreError, Table,
};

/// Set in the child: the folder and the number of the round, separated by `|`.
const ROLE: &str = "CIRRUS_KILL_TEST";
/// Writers in the child, each with keys of its own.
const WRITERS: u64 = 24;
/// Small, so that the log turns over and the database is written many times in a round.
const LOG_FILE: u64 = 60_000;

fn open(folder: &Path) -> Arc<EmbeddedTable> {
    let options = EmbeddedOptions {
        log_file: LOG_FILE,
        ..EmbeddedOptions::new(folder)
    };
    Arc::new(EmbeddedTable::open(&options, Arc::new(|| 0)).unwrap())
}

fn counter_key(writer: u64) -> Key {
    Key::new(
        TableId::Cluster,
        &b"counters"[..],
        writer.to_be_bytes().to_vec(),
    )
}

fn log_key(writer: u64, number: u64) -> Key {
    let pk = format!("log{writer}");
    Key::new(TableId::Archive, pk, number.to_be_bytes().to_vec())
}

fn blob_key(writer: u64, number: u64) -> BlobKey {
    BlobKey::new(BucketId::Data, format!("{writer}/{number}"))
}

/// One writer of the child: a counter that is changed on its version, one item inserted per step,
/// and now and then a blob.
async fn write_for_ever(table: Arc<EmbeddedTable>, writer: u64) -> Result<(), StoreError> {
    let blobs = table.blobs();
    let (table, blobs): (&dyn Table, &dyn Blob) = (&*table, &blobs);
    let say = |what: &str, number: u64| {
        // One write call: lines of different threads don't mix.
        let line = format!("{what} {writer} {number}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    let mut version = table
        .get(counter_key(writer))
        .await?
        .map_or(0, |item| item.version);
    loop {
        let next = version + 1;
        let attrs = Attrs::new().with("z", vec![writer as u8; 300]);
        table
            .put(
                Item::new(log_key(writer, next), attrs),
                Condition::Absent,
                next.into(),
            )
            .await?;
        say("log", next);
        if next.is_multiple_of(10) {
            blobs
                .put(
                    blob_key(writer, next),
                    Bytes::from(vec![writer as u8; 10_000]),
                )
                .await?;
            say("blob", next);
        }
        let counter = Item::new(counter_key(writer), Attrs::new()).versioned(next);
        let condition = if version == 0 {
            Condition::Absent
        } else {
            Condition::Version(version)
        };
        table
            .put(counter, condition, u128::from(next) << 64)
            .await?;
        say("count", next);
        version = next;
    }
}

/// Not a test by itself: what the child does.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let table = open(Path::new(&folder));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write_for_ever(Arc::clone(&table), writer));
        }
        let ended = writers.join_next().await;
        panic!("a writer ended: {ended:?}");
    });
}

fn start_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The highest number that was confirmed, per kind and writer.
type Confirmed = HashMap<(String, u64), u64>;

/// Kills a child after it has confirmed so many writes.
fn round(folder: &Path, confirm: usize, confirmed: &mut Confirmed) {
    let mut child = start_child(folder);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut note = |line: &str| -> bool {
        let parts: Vec<&str> = line.split(' ').collect();
        let [kind @ ("log" | "count" | "blob"), writer, number] = parts[..] else {
            return false;
        };
        let key = (kind.to_owned(), writer.parse().unwrap());
        confirmed.insert(key, number.parse().unwrap());
        true
    };
    let mut seen = 0;
    while seen < confirm {
        let line = lines.next().expect("the child ended by itself").unwrap();
        seen += usize::from(note(&line));
    }
    child.kill().unwrap();
    // What it had still said is confirmed as well; its last line may be cut off.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        note(line);
    }
    child.wait().unwrap();
}

async fn check(folder: &Path, confirmed: &Confirmed) {
    let table = open(folder);
    let blobs = table.blobs();
    let (tables, blobs): (&dyn Table, &dyn Blob) = (&*table, &blobs);
    for ((kind, writer), last) in confirmed {
        match kind.as_str() {
            "count" => {
                let version = tables
                    .get(counter_key(*writer))
                    .await
                    .unwrap()
                    .unwrap()
                    .version;
                // More than was read of the child's confirmations may be there, never less.
                assert!(version >= *last, "{writer}: {last}, found {version}");
            }
            "log" => {
                for number in 1..=*last {
                    let item = tables.get(log_key(*writer, number)).await.unwrap();
                    assert!(
                        item.is_some(),
                        "item {number} of {writer} of {last} is gone"
                    );
                }
            }
            _ => {
                for number in (10..=*last).step_by(10) {
                    let body = blobs.get(blob_key(*writer, number), None).await.unwrap();
                    let expected = Bytes::from(vec![*writer as u8; 10_000]);
                    assert!(body == Some(expected), "blob {number} of {writer}");
                }
            }
        }
    }
}

#[test]
fn whatever_was_confirmed_survives_kill() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let mut confirmed = Confirmed::new();
    // Numbers without a common pattern, so that the kill strikes at different moments.
    for confirm in [1, 37, 411, 1_203, 5, 2_111, 777, 1_999] {
        round(folder.path(), confirm, &mut confirmed);
        runtime.block_on(check(folder.path(), &confirmed));
    }
    let total: u64 = confirmed.values().sum();
    println!("confirmed and found: {total}");
}
