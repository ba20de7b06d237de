//! Tables and blobs in a folder of the local disk.
//!
//! Writes go to an append log, one frame and one sync for all that are waiting, and to a map in
//! memory; a full log file is moved to a redb database in the background. (The database alone costs
//! three to five times the CPU per write at 100 to 250 writes a commit, because each commit copies
//! and hashes a page per partition it touches; see `examples/write_bench.rs`.)
//!
//! A read that memory can answer is answered at once. Others read the database file and may wait
//! for the disk: they run on the runtime's blocking threads, a few at a time, so that they never
//! hold up the event loop.
//!
//! Not for several processes: the folder is locked. Limits: see [`EmbeddedOptions`]; memory holds
//! at most two log files' worth of items besides the page cache.

mod applier;
mod base;
mod blob;
mod codec;
mod control;
mod folder;
mod frame;
mod log;
mod map;
mod memory;
mod path;
mod queue;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use cirrus_schema::TableId;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::rules::{Page, bounds};
use crate::size::{usage_of_batch, usage_of_read};
use crate::table::{Answer, Done};
use crate::{
    BoxFuture, Clock, Direction, Dump, DumpPage, Item, Key, Op, Outcome, Place, SkRange,
    StoreError, Table, check,
};

use applier::Applier;
use base::{Base, BaseError};
use codec::{Scope, decode_head, decode_item, decode_key, encode_key, split_key};
use control::Control;
use folder::{Folder, failed};
use log::Log;
use memory::{Layers, Lookup, Memory, Sealed};
use queue::{Job, Queue, Reply};
use writer::{Tails, Writer};

pub use blob::FolderBlob;

/// Where the store is and what it may use.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The folder, created if there is none. It must be empty or a store.
    pub folder: PathBuf,
    /// Bytes of the database's page cache.
    pub cache: usize,
    /// Bytes of one log file. Memory holds the content of up to two.
    pub log_file: u64,
    /// Writes that may wait for the writer; who comes later waits to be queued.
    pub queue: usize,
    /// Reads of the disk at the same time.
    pub readers: usize,
    /// Least time between the beginnings of two commits, so that writes share them.
    pub pace: Duration,
}

impl EmbeddedOptions {
    /// The defaults: 32 MiB of cache, log files of 16 MiB, 4,096 queued writes, 2 readers, commits
    /// at least 300 us apart.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> EmbeddedOptions {
        EmbeddedOptions {
            folder: folder.into(),
            cache: 32 * 1_024 * 1_024,
            log_file: 16 * 1_024 * 1_024,
            queue: 4_096,
            readers: 2,
            pace: Duration::from_micros(300),
        }
    }
}

/// All tables, in a folder. Closed when it is dropped, which waits for the last commit.
pub struct EmbeddedTable {
    shared: Arc<Shared>,
    blobs: FolderBlob,
    readers: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What requests, and reads on other threads, need.
struct Shared {
    queue: Arc<Queue>,
    memory: Arc<Memory>,
    clock: Clock,
    control: Arc<Control>,
    /// Locked as long as anything may touch it.
    folder: Arc<Folder>,
}

impl EmbeddedTable {
    /// Opens the store, and recovers what the log holds. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`StoreError::Open`] names the folder, what is wrong with it, and what to do.
    pub fn open(options: &EmbeddedOptions, clock: Clock) -> Result<EmbeddedTable, StoreError> {
        let folder = Arc::new(Folder::open(&options.folder)?);
        let blobs = FolderBlob::open(Arc::clone(&folder))?;
        let path = folder.path().to_owned();
        let unopened =
            |error: BaseError| failed(&path, "the database tables.redb can't be opened", error);
        let base = open_base(&folder, options.cache).map_err(unopened)?;
        let applied = base.applied().map_err(unopened)?;
        let snapshot = Arc::new(base.snapshot().map_err(unopened)?);
        let (log, recovered) = Log::open(&path, applied, options.log_file)
            .map_err(|error| failed(&path, "the log can't be recovered", error))?;

        let control = Arc::new(Control::default());
        let sealed = recovered
            .sealed
            .map(|(generation, map)| Sealed { generation, map });
        if sealed.is_some() {
            control.sealed();
        }
        let layers = Layers {
            active: recovered.active,
            sealed: sealed.map(Arc::new),
            snapshot,
        };
        let memory = Arc::new(Memory::new(layers));
        let queue = Arc::new(Queue::new(options.queue.max(1)));
        let writer = Writer {
            queue: Arc::clone(&queue),
            memory: Arc::clone(&memory),
            control: Arc::clone(&control),
            clock: Arc::clone(&clock),
            log,
            tails: Tails::default(),
            pace: options.pace,
        };
        let applier = Applier {
            base,
            memory: Arc::clone(&memory),
            control: Arc::clone(&control),
            clock: Arc::clone(&clock),
        };
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let ended = Ended(Arc::clone(&control));
            let thread = thread::Builder::new().name(name.to_owned()).spawn(|| {
                let _ended = ended;
                body();
            });
            thread.map_err(|error| failed(&path, "no thread can be started", error))
        };
        let threads = vec![
            spawn("store-applier", Box::new(|| applier.run()))?,
            spawn("store-writer", Box::new(|| writer.run()))?,
        ];
        Ok(EmbeddedTable {
            shared: Arc::new(Shared {
                queue,
                memory,
                clock,
                control,
                folder,
            }),
            blobs,
            readers: Arc::new(Semaphore::new(options.readers.max(1))),
            threads: Mutex::new(threads),
        })
    }

    /// The blobs in the same folder.
    #[must_use]
    pub fn blobs(&self) -> FolderBlob {
        self.blobs.clone()
    }

    /// Why the store can't go on in this process, once it can't: it has to be opened anew, by
    /// another one.
    #[must_use]
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.shared.control.broken()
    }

    /// Number of commits since the store was opened: each is one frame and one sync.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.control.commits()
    }

    async fn write(&self, op: Op) -> Answer {
        let place = op.place();
        let (reply, answer) = oneshot::channel();
        let Some(job) = Job::new(op, Reply::Channel(reply)) else {
            return Answer::free(StoreError::invalid(place, "not a write"));
        };
        if let Err(job) = self.shared.queue.try_push(job)
            && self.shared.queue.push(job).await.is_err()
        {
            return Answer::free(closed(place, false));
        }
        answer
            .await
            .unwrap_or_else(|_| Answer::free(closed(place, true)))
    }

    /// Runs a read that may wait for the disk.
    async fn off_loop<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Shared) -> Result<T, BaseError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Ok(permit) = Arc::clone(&self.readers).acquire_owned().await else {
            return Err(closed(place, false));
        };
        let shared = Arc::clone(&self.shared);
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&shared);
            drop(permit);
            result
        });
        match worked.await {
            Ok(result) => result.map_err(|error| error.into_store_error(place)),
            Err(error) => Err(StoreError::Unavailable {
                place,
                outcome_unknown: false,
                source: Some(error.into()),
            }),
        }
    }

    async fn get(&self, key: Key) -> Answer {
        let encoded = encode_key(&key);
        let found = match self.shared.memory.lookup(&encoded) {
            Lookup::Known(record) => Ok(record),
            Lookup::Ask(snapshot) => {
                let place = Place::Item(key.clone());
                self.off_loop(place, move |_| snapshot.get(&encoded)).await
            }
        };
        let now_ms = (self.shared.clock)();
        let place = Place::Item(key.clone());
        let read = found.and_then(|record| {
            let Some(record) = record else {
                return Ok((None, 0));
            };
            let item = decode_item(key, &record).map_err(BaseError::from);
            let size = decode_head(&record)
                .map(|(_, size)| size)
                .map_err(BaseError::from);
            let corrupt = |error: BaseError| error.into_store_error(place);
            size.and_then(|size| Ok((Some(item?), size)))
                .map_err(corrupt)
        });
        match read {
            Ok((item, size)) => {
                let item = item.filter(|item| !item.is_expired(now_ms));
                Answer {
                    result: Ok(Outcome::Item(item)),
                    usage: usage_of_read(size),
                }
            }
            Err(error) => Answer::free(error),
        }
    }

    async fn query(&self, op: Op) -> Answer {
        let place = op.place();
        let Op::Query {
            table,
            pk,
            range,
            direction,
            limit,
            after,
        } = op
        else {
            return Answer::free(StoreError::invalid(place, "not a query"));
        };
        let page = Page::new(limit, (self.shared.clock)());
        let scan = move |shared: &Shared| {
            shared.query(table, &pk, &range, direction, limit, after.as_ref(), page)
        };
        match self.off_loop(place, scan).await {
            Ok(page) => {
                let (items, next, bytes) = page.finish();
                Answer {
                    result: Ok(Outcome::Page { items, next }),
                    usage: usage_of_read(bytes),
                }
            }
            Err(error) => Answer::free(error),
        }
    }

    async fn batch_get(&self, keys: Vec<Key>) -> Answer {
        let Some(first) = keys.first() else {
            return Answer {
                result: Ok(Outcome::Items(vec![])),
                usage: usage_of_batch([].into_iter()),
            };
        };
        let (place, now_ms) = (Place::Table(first.table), (self.shared.clock)());
        let work = move |shared: &Shared| shared.batch_get(&keys).map(|found| (keys, found));
        match self.off_loop(place, work).await {
            Ok((keys, found)) => {
                let size =
                    |found: &Option<(Item, usize)>| found.as_ref().map_or(0, |(_, size)| *size);
                let usage = usage_of_batch(keys.iter().zip(found.iter().map(size)));
                let items = found.into_iter().flatten().map(|(item, _)| item);
                let items = items.filter(|item| !item.is_expired(now_ms)).collect();
                Answer {
                    result: Ok(Outcome::Items(items)),
                    usage,
                }
            }
            Err(error) => Answer::free(error),
        }
    }
}

/// Told at the end of a thread of the store, also by a fault of it.
struct Ended(Arc<Control>);

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.0.is_stopping() {
            let why = "a thread of it has ended by a fault of this server";
            self.0.broke(why);
            self.0.failed(why.to_owned());
        }
    }
}

fn open_base(folder: &Folder, cache: usize) -> Result<Base, BaseError> {
    let path = folder.database();
    if path.exists() {
        Base::open(&path, cache)
    } else {
        Base::create(&path, cache)
    }
}

fn closed(place: Place, outcome_unknown: bool) -> StoreError {
    StoreError::Unavailable {
        place,
        outcome_unknown,
        source: Some("the store is closed, or its writer has ended".into()),
    }
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn query(
        &self,
        table: TableId,
        pk: &Bytes,
        range: &SkRange,
        direction: Direction,
        limit: Option<u32>,
        after: Option<&Bytes>,
        mut page: Page,
    ) -> Result<Page, BaseError> {
        if let Some(bounds) = bounds(range, direction, after) {
            let scope = Scope::partition(table, pk, bounds);
            let limit = limit.map_or(usize::MAX, |limit| limit as usize);
            self.memory
                .scan(&scope, direction, limit, |key, record, size| {
                    let sk = Bytes::copy_from_slice(split_key(key).1);
                    let key = Key::new(table, pk.clone(), sk);
                    Ok(page.push(decode_item(key, &record)?, size))
                })?;
        }
        Ok(page)
    }

    fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<(Item, usize)>>, BaseError> {
        let read = |key: &Key| {
            let encoded = encode_key(key);
            let record = match self.memory.lookup(&encoded) {
                Lookup::Known(record) => record,
                Lookup::Ask(snapshot) => snapshot.get(&encoded)?,
            };
            let Some(record) = record else {
                return Ok(None);
            };
            let (_, size) = decode_head(&record)?;
            Ok(Some((decode_item(key.clone(), &record)?, size)))
        };
        keys.iter().map(read).collect()
    }

    fn dump(&self, table: TableId, after: Option<Bytes>) -> Result<DumpPage, BaseError> {
        let (now_ms, mut bytes) = ((self.clock)(), 0);
        let mut page = DumpPage::default();
        let scope = Scope::table(table, after);
        self.memory.scan(
            &scope,
            Direction::Forward,
            usize::MAX,
            |key, record, size| {
                let item = decode_item(decode_key(key)?, &record)?;
                if !item.is_expired(now_ms) {
                    page.items.push(item);
                }
                bytes += size;
                let is_full = bytes >= crate::limits::MAX_PAGE;
                if is_full {
                    page.next = Some(Bytes::copy_from_slice(key));
                }
                Ok(!is_full)
            },
        )?;
        Ok(page)
    }
}

impl Table for EmbeddedTable {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        if let Err(error) = check::check(&op) {
            return Box::pin(async { Answer::free(error) });
        }
        match op {
            Op::Put { .. } | Op::Delete { .. } => Box::pin(self.write(op)),
            Op::Get { key } => Box::pin(self.get(key)),
            Op::Query { .. } => Box::pin(self.query(op)),
            Op::BatchGet { keys } => Box::pin(self.batch_get(keys)),
        }
    }

    fn submit(self: Arc<Self>, op: Op, done: Done) {
        if let Err(error) = check::check(&op) {
            return done(Answer::free(error));
        }
        let place = op.place();
        if !op.kind().is_write() {
            tokio::spawn(async move { done(self.apply_counted(op).await) });
            return;
        }
        let Some(job) = Job::new(op, Reply::Call(done)) else {
            return;
        };
        let Err(job) = self.shared.queue.try_push(job) else {
            return;
        };
        tokio::spawn(async move {
            if let Err(job) = self.shared.queue.push(job).await {
                job.reply.send(Answer::free(closed(place, false)));
            }
        });
    }
}

impl Dump for EmbeddedTable {
    fn dump(
        &self,
        table: TableId,
        after: Option<Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        let place = Place::Table(table);
        Box::pin(self.off_loop(place, move |shared| shared.dump(table, after)))
    }
}

impl Drop for EmbeddedTable {
    fn drop(&mut self) {
        self.shared.queue.close();
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                let folder = self.shared.folder.path().display();
                tracing::error!(%folder, "a store thread panicked");
            }
        }
    }
}
