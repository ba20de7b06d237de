//! Measures durable writes: the database alone, and the embedded store with its log in front.
//!
//!     cargo run --release -p cirrus-store --example write_bench -- [folder] [writes] [only]
//!
//! `only` runs one line, for instance `submit/256`.
//!
//! The load is that of an archive: items of about 300 bytes, inserted if absent, each owner's in
//! ascending order, the owners taken in turn. Prints per number of writes in flight: writes per
//! second, microseconds of CPU per write (user and system, all threads, moving to the database
//! included), and writes per commit. The CPU figure is what the server's core pays.
#![expect(clippy::print_stdout, reason = "a program that prints its result")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use cirrus_schema::keys::archive;
use cirrus_store::{
    Attrs, Clock, Condition, EmbeddedOptions, EmbeddedTable, Item, Key, Op, Outcome, Table,
};
use redb::{Database, ReadableTable, TableDefinition};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const OWNERS: u64 = 200;
const BODY: usize = 200;
const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("items");

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "write-bench".to_owned());
    let writes: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let folder = Path::new(&folder);
    let only = arguments.next();
    let wanted = |name: &str, in_flight: u64| {
        only.as_ref()
            .is_none_or(|only| *only == format!("{name}/{in_flight}"))
    };
    println!("backend     in flight   writes/s   CPU us/write   writes/commit");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()?;
    for in_flight in [1, 16, 128, 256, 1_024] {
        let writes = if only.is_some() {
            writes
        } else {
            writes.min(in_flight * 4_000)
        };
        let run = (folder, in_flight, writes);
        if wanted("redb", in_flight) {
            measure("redb", run, || redb_alone(folder, in_flight, writes))?;
        }
        if wanted("apply", in_flight) {
            measure("apply", run, || {
                runtime.block_on(in_tasks(folder, in_flight, writes))
            })?;
        }
        if wanted("submit", in_flight) {
            measure("submit", run, || {
                runtime.block_on(by_calls(folder, in_flight, writes))
            })?;
        }
    }
    Ok(())
}

/// Runs a load that returns the number of its commits, and prints what it took.
fn measure(
    name: &str,
    (_, in_flight, writes): (&Path, u64, u64),
    load: impl FnOnce() -> Result<u64, Failure>,
) -> Result<(), Failure> {
    let (cpu, start) = (cpu_seconds()?, Instant::now());
    let commits = load()?;
    let (cpu, wall) = (cpu_seconds()? - cpu, start.elapsed().as_secs_f64());
    let per_second = writes as f64 / wall;
    let each = cpu * 1e6 / writes as f64;
    let per_commit = writes as f64 / commits.max(1) as f64;
    println!("{name:<12} {in_flight:>8} {per_second:>10.0} {each:>14.2} {per_commit:>15.1}");
    Ok(())
}

/// CPU time of this process and its ended threads, in seconds, from the kernel's count of ticks.
fn cpu_seconds() -> Result<f64, Failure> {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    // After the name in parentheses: field 12 is user time, 13 system time.
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    Ok((ticks(12).ok_or("no user time")? + ticks(13).ok_or("no system time")?) / TICKS)
}

fn key(number: u64) -> Key {
    let owner = format!("example.com\0user{:05}", number % OWNERS);
    archive::hot(owner.as_bytes(), number / OWNERS).into()
}

fn item(number: u64) -> Item {
    let attrs = Attrs::new()
        .with("v", 1)
        .with("t", 1_700_000_000_000 + number)
        .with("w", "someone@example.com")
        .with("z", vec![7; BODY]);
    Item::new(key(number), attrs)
}

fn put(number: u64) -> Op {
    let nonce = u128::from(number) + 1;
    Op::Put {
        item: item(number),
        condition: Condition::Absent,
        nonce,
    }
}

fn redb_alone(folder: &Path, in_flight: u64, writes: u64) -> Result<u64, Failure> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("alone.redb");
    let database = Database::create(&path)?;
    let value = vec![7u8; BODY + 70];
    let mut commits = 0;
    for first in (0..writes).step_by(usize::try_from(in_flight)?) {
        let write = database.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for number in first..(first + in_flight).min(writes) {
                let Key { pk, sk, .. } = key(number);
                let key = [&pk[..], &sk].concat();
                if table.get(&key[..])?.is_none() {
                    table.insert(&key[..], &value[..])?;
                }
            }
        }
        write.commit()?;
        commits += 1;
    }
    drop(database);
    std::fs::remove_dir_all(folder)?;
    Ok(commits)
}

fn open(folder: &Path) -> Result<Arc<EmbeddedTable>, Failure> {
    let clock: Clock = Arc::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64)
    });
    Ok(Arc::new(EmbeddedTable::open(
        &EmbeddedOptions::new(folder),
        clock,
    )?))
}

fn close(table: Arc<EmbeddedTable>, folder: &Path) -> Result<u64, Failure> {
    let commits = table.commits();
    drop(table);
    std::fs::remove_dir_all(folder)?;
    Ok(commits)
}

/// Each write in flight is a task of its own that waits for its answer.
async fn in_tasks(folder: &Path, in_flight: u64, writes: u64) -> Result<u64, Failure> {
    let table = open(folder)?;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (table, next) = (Arc::clone(&table), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= writes {
                    return Ok(());
                }
                match table.apply(put(number)).await {
                    Ok(Outcome::Put) => {}
                    other => return Err(format!("{other:?}")),
                }
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined??;
    }
    close(table, folder)
}

/// One task submits and collects all answers, as an entity's home does.
async fn by_calls(folder: &Path, in_flight: u64, writes: u64) -> Result<u64, Failure> {
    let table = open(folder)?;
    let worker = Arc::clone(&table);
    // On a worker thread, where the server's tasks run.
    tokio::spawn(async move { submit_all(&worker, in_flight, writes).await }).await??;
    close(table, folder)
}

async fn submit_all(
    table: &Arc<EmbeddedTable>,
    in_flight: u64,
    writes: u64,
) -> Result<(), Failure> {
    let (answers, mut answered) = tokio::sync::mpsc::channel(usize::try_from(in_flight)?);
    let submit = |number: u64| {
        let answers = answers.clone();
        let done = Box::new(move |answer: cirrus_store::Answer| {
            // There is room: the channel holds as many as are in flight.
            let _ = answers.try_send(answer.result);
        });
        Arc::clone(table).submit(put(number), done);
    };
    (0..in_flight.min(writes)).for_each(submit);
    let (mut next, mut left) = (in_flight, writes);
    let mut batch = Vec::new();
    while left > 0 {
        answered.recv_many(&mut batch, 256).await;
        for result in batch.drain(..) {
            result?;
            left -= 1;
            if next < writes {
                submit(next);
                next += 1;
            }
        }
    }
    Ok(())
}
