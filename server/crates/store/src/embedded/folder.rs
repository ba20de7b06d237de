//! The folder of an embedded store: its marker, its lock, its files.
//!
//! ```text
//! FORMAT       what this folder is, and its version
//! lock         locked by the process that has the store open; says which
//! tables.redb  the database
//! log-0 log-1  the log
//! blobs/       one folder per bucket, and one for blobs that are being written
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Place, Source, StoreError};

const MARKER: &str = "FORMAT";
const LOCK: &str = "lock";
/// First line of the marker. The number rises with each change that an older version can't read.
const FORMAT: &str = "cirrus-store 1";

/// An existing, locked folder. The lock ends with the value.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be, locks it, and checks that it is one of ours.
    pub(super) fn open(path: &Path) -> Result<Folder, StoreError> {
        fs::create_dir_all(path).map_err(|error| {
            failed(
                path,
                "the folder can't be created: check its parent's rights",
                error,
            )
        })?;
        let lock = lock(path)?;
        match fs::read_to_string(path.join(MARKER)) {
            Ok(text) => check_marker(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => mark(path)?,
            Err(error) => return Err(failed(path, "the marker file FORMAT can't be read", error)),
        }
        Ok(Folder {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("tables.redb")
    }
}

/// An error of opening the store in this folder.
pub(super) fn failed(path: &Path, reason: &str, source: impl Into<Source>) -> StoreError {
    let place = Place::Path(path.to_owned());
    let source: Source = source.into();
    StoreError::Open {
        place,
        reason: format!("{reason} ({source})"),
        source: Some(source),
    }
}

fn refused(path: &Path, reason: String) -> StoreError {
    StoreError::Open {
        place: Place::Path(path.to_owned()),
        reason,
        source: None,
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = path.join(LOCK);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file);
    let mut opened =
        options.map_err(|error| failed(path, "the file lock can't be opened", error))?;
    match opened.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&file).unwrap_or_default();
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                holder => holder.to_owned(),
            };
            let reason = format!(
                "{holder} has this store open: stop it, or choose another folder for this one"
            );
            return Err(refused(path, reason));
        }
        Err(TryLockError::Error(error)) => {
            return Err(failed(
                path,
                "the file system can't lock the file lock",
                error,
            ));
        }
    }
    let note = format!("process {}\n", std::process::id());
    let written = opened
        .set_len(0)
        .and_then(|()| opened.write_all(note.as_bytes()));
    written.map_err(|error| failed(path, "the file lock can't be written", error))?;
    Ok(opened)
}

fn check_marker(path: &Path, text: &str) -> Result<(), StoreError> {
    match text.lines().next().unwrap_or_default() {
        FORMAT => Ok(()),
        other => Err(refused(
            path,
            format!(
                "its file FORMAT says {other:?}, this version reads \
                 {FORMAT:?} only: use the version that wrote it"
            ),
        )),
    }
}

/// Marks an empty folder as ours.
fn mark(path: &Path) -> Result<(), StoreError> {
    let unreadable = |error| failed(path, "the folder can't be read", error);
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if name != LOCK {
            let reason = format!(
                "the folder has no file FORMAT but holds {name:?}: it is not \
                 a store. Choose an empty folder or a new one"
            );
            return Err(refused(path, reason));
        }
    }
    let write = || {
        let mut file = File::create(path.join(MARKER))?;
        file.write_all(format!("{FORMAT}\n").as_bytes())?;
        file.sync_all()?;
        File::open(path)?.sync_all()
    };
    write().map_err(|error| failed(path, "the marker file FORMAT can't be written", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = Folder::open(&path).unwrap();
        let error = Folder::open(&path).unwrap_err().to_string();
        let expected = format!(
            "{}: process {} has this store open: stop it, or choose another folder for this one",
            path.display(),
            std::process::id()
        );
        assert_eq!(error, expected);
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn foreign_and_newer_folders_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("photo.jpg"), "x").unwrap();
        let error = Folder::open(temp.path()).unwrap_err().to_string();
        assert!(
            error.contains("holds \"photo.jpg\": it is not a store"),
            "{error}"
        );
        let newer = tempfile::tempdir().unwrap();
        fs::write(newer.path().join(MARKER), "cirrus-store 2\n").unwrap();
        let error = Folder::open(newer.path()).unwrap_err().to_string();
        assert!(error.contains("FORMAT says \"cirrus-store 2\""), "{error}");
    }
}
