//! Blobs as files.
//!
//! A blob is written under a temporary name, synced, and then given its name in one step: by a
//! rename, or, if it must be absent, by a link, which fails if there is one. Its folder is synced
//! after. All of it happens on the runtime's blocking threads, a few at a time.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use cirrus_schema::BucketId;
use tokio::sync::Semaphore;

use super::folder::{Folder, failed};
use super::path::{Part, decode, encode};
use crate::{
    Blob, BlobEntry, BlobKey, BlobOp, BlobOutcome, BlobPage, BoxFuture, Presign, StoreError, check,
};

/// Blob requests that touch the disk at the same time.
const AT_ONCE: usize = 4;
/// A folder that another request removes between its creation and its use is created again, so
/// often.
const TRIES: usize = 8;

/// All buckets, in the folder of an embedded store. Clones are the same store.
#[derive(Clone)]
pub struct FolderBlob(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// Names the temporary files.
    count: AtomicU64,
    at_once: Arc<Semaphore>,
    /// Keeps the folder locked.
    _folder: Arc<Folder>,
}

impl FolderBlob {
    /// Prepares the folder for blobs. Once per folder and process: it removes what is unfinished.
    pub(super) fn open(folder: Arc<Folder>) -> Result<FolderBlob, StoreError> {
        let root = folder.path().join("blobs");
        let inner = Inner {
            root: root.clone(),
            count: AtomicU64::new(0),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            _folder: folder,
        };
        let unprepared = |error| failed(&root, "the folder for blobs can't be prepared", error);
        inner.prepare().map_err(unprepared)?;
        Ok(FolderBlob(Arc::new(inner)))
    }
}

impl Inner {
    /// Creates the folders, and removes what an interrupted process has left half written.
    fn prepare(&self) -> io::Result<()> {
        let unfinished = self.unfinished();
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        for bucket in BucketId::ALL {
            fs::create_dir_all(self.bucket(bucket))?;
        }
        sync_folder(&self.root)
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    fn bucket(&self, bucket: BucketId) -> PathBuf {
        self.root.join(bucket.name())
    }

    fn path(&self, at: &BlobKey) -> PathBuf {
        self.bucket(at.bucket).join(encode(&at.name))
    }

    fn carry_out(&self, op: &BlobOp) -> io::Result<BlobOutcome> {
        Ok(match op {
            BlobOp::Put { at, body, .. } => BlobOutcome::Put(self.put(at, body, true)?),
            BlobOp::PutIfAbsent { at, body } => BlobOutcome::Put(self.put(at, body, false)?),
            BlobOp::Get { at, range } => BlobOutcome::Body(self.get(at, range.as_ref())?),
            BlobOp::Delete { at } => {
                self.delete(at)?;
                BlobOutcome::Deleted
            }
            BlobOp::List {
                bucket,
                prefix,
                after,
                limit,
            } => {
                let (folder, limit) = (self.bucket(*bucket), *limit as usize);
                BlobOutcome::Page(list(&folder, prefix, after.as_deref(), limit)?)
            }
        })
    }

    /// Whether the blob was written: always, if it may replace another.
    fn put(&self, at: &BlobKey, body: &[u8], replace: bool) -> io::Result<bool> {
        let path = self.path(at);
        if !replace && path.exists() {
            return Ok(false);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let temporary = self.unfinished().join(number.to_string());
        let mut file = File::create_new(&temporary)?;
        file.write_all(body)?;
        file.sync_all()?;
        drop(file);
        let written = self.give_name(&temporary, &path, replace);
        if !matches!(written, Ok(true)) || !replace {
            // A failure leaves a file that the next start removes.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn give_name(&self, temporary: &Path, path: &Path, replace: bool) -> io::Result<bool> {
        let folder = path.parent().unwrap_or(&self.root);
        let mut tries = 0;
        loop {
            self.create_folders(folder)?;
            let named = match replace {
                true => fs::rename(temporary, path),
                false => fs::hard_link(temporary, path),
            };
            tries += 1;
            match named {
                Ok(()) => {
                    sync_folder(folder)?;
                    return Ok(true);
                }
                Err(error) if !replace && error.kind() == ErrorKind::AlreadyExists => {
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::NotFound && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates a folder and those above it, durably.
    fn create_folders(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.root);
        self.create_folders(above)?;
        match fs::create_dir(folder) {
            Ok(()) => sync_folder(above),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            // Removed meanwhile with the last blob in it: the caller tries again.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn get(&self, at: &BlobKey, range: Option<&Range<u64>>) -> io::Result<Option<Bytes>> {
        let mut file = match File::open(self.path(at)) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut body = Vec::new();
        match range {
            None => drop(file.read_to_end(&mut body)?),
            Some(range) => {
                file.seek(SeekFrom::Start(range.start.min(i64::MAX as u64)))?;
                file.take(range.end - range.start).read_to_end(&mut body)?;
            }
        }
        Ok(Some(body.into()))
    }

    fn delete(&self, at: &BlobKey) -> io::Result<()> {
        let (path, bucket) = (self.path(at), self.bucket(at.bucket));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut folder = path.parent();
        // Folders that have become empty go too; one that hasn't ends it.
        while let Some(empty) = folder
            && empty != bucket
            && fs::remove_dir(empty).is_ok()
        {
            folder = empty.parent();
        }
        sync_folder(folder.unwrap_or(&bucket))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // Removed meanwhile: then there is nothing in it to be kept.
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Names are sorted after all were read: listing is for dumps, not for a user's path.
fn list(folder: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<BlobPage> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), Vec::new())];
    while let Some((folder, start)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_name().to_str().and_then(decode) {
                Some(Part::Folder(part)) => {
                    let start = [&start[..], &part].concat();
                    if start.starts_with(prefix.as_bytes()) || prefix.as_bytes().starts_with(&start)
                    {
                        folders.push((entry.path(), start));
                    }
                }
                Some(Part::File(part)) => {
                    let name = String::from_utf8([&start[..], &part].concat());
                    let name = name.map_err(io::Error::other)?;
                    if name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after) {
                        found.push((name, entry));
                    }
                }
                None => {}
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let entry = |(name, entry): (String, fs::DirEntry)| {
        let about = entry.metadata()?;
        let since = about.modified()?.duration_since(UNIX_EPOCH).ok();
        Ok(BlobEntry {
            name,
            length: about.len(),
            modified: since.and_then(|since| u64::try_from(since.as_millis()).ok()),
        })
    };
    let blobs = found
        .into_iter()
        .map(entry)
        .collect::<io::Result<Vec<BlobEntry>>>()?;
    let next = blobs
        .last()
        .filter(|_| !is_last)
        .map(|blob| blob.name.clone());
    Ok(BlobPage { blobs, next })
}

impl Blob for FolderBlob {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        Box::pin(async move {
            check::check_blob(&op)?;
            let place = op.place();
            let unavailable = |source| StoreError::Unavailable {
                place,
                outcome_unknown: true,
                source: Some(source),
            };
            let inner = Arc::clone(&self.0);
            let permit = match Arc::clone(&inner.at_once).acquire_owned().await {
                Ok(permit) => permit,
                Err(error) => return Err(unavailable(error.into())),
            };
            let worked = tokio::task::spawn_blocking(move || {
                let result = inner.carry_out(&op);
                drop(permit);
                result
            });
            match worked.await {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(error)) => Err(unavailable(error.into())),
                Err(error) => Err(unavailable(error.into())),
            }
        })
    }

    fn presign(
        &self,
        _at: BlobKey,
        _what: Presign,
        _valid: Duration,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(async { Ok(None) })
    }
}
