//! Folders and the configuration file, made once and left alone when they are right.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A folder that only its user may enter: it holds stored keys, certificates and messages.
const FOLDER: u32 = 0o700;
/// The configuration: for its user and the user's group; it holds no secret.
const FILE: u32 = 0o640;
/// A private key: for its user alone.
const SECRET: u32 = 0o600;

/// Bytes for which a folder must have room: a configuration has some thousands, a key less.
const ROOM: usize = 65_536;

/// A file or folder that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be {what}")]
pub struct FileError {
    path: String,
    what: &'static str,
    #[source]
    source: io::Error,
}

impl FileError {
    /// Whether there is no room for it.
    pub fn is_of_room(&self) -> bool {
        let kind = self.source.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.display().to_string();
    move |source| FileError { path, what, source }
}

/// Makes a folder and the ones above it. True if it was not there.
///
/// # Errors
/// Names the folder.
pub fn make_folder(path: &Path) -> Result<bool, FileError> {
    if path.is_dir() {
        return Ok(false);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER)
        .create(path)
        .map_err(failed(path, "made"))?;
    Ok(true)
}

/// Checks that files can be made in a folder, and that there is room for some.
///
/// # Errors
/// Names the folder.
pub fn check_writable(folder: &Path) -> Result<(), FileError> {
    let probe = folder.join(".cirrus-probe");
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&probe);
    let mut file = made.map_err(failed(folder, "written"))?;
    let filled = file.write_all(&[0; ROOM]);
    fs::remove_file(&probe).map_err(failed(&probe, "removed"))?;
    filled.map_err(failed(folder, "written"))
}

/// Writes a file in one step: a reader sees the old text or the new one. False if it already had
/// this text.
///
/// # Errors
/// Names the file.
pub fn write_file(path: &Path, text: &str) -> Result<bool, FileError> {
    write(path, text, FILE)
}

/// As [`write_file`], for what only the file's owner may read. The owner is that of the folder
/// above the file's own: the server's user where bootstrap is another one.
///
/// # Errors
/// Names the file.
pub fn write_secret(path: &Path, text: &str) -> Result<bool, FileError> {
    let written = write(path, text, SECRET)?;
    let folder = path.parent();
    if let Some((folder, above)) = folder.and_then(|f| Some((f, f.parent()?))) {
        let of = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid()));
        let give = || -> io::Result<()> {
            let (uid, gid) = of(above)?;
            for path in [folder, path] {
                if of(path)? != (uid, gid) {
                    chown(path, Some(uid), Some(gid))?;
                }
            }
            Ok(())
        };
        give().map_err(failed(path, "given to the server's user"))?;
    }
    Ok(written)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<bool, FileError> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        let permissions = Permissions::from_mode(mode);
        fs::set_permissions(path, permissions).map_err(failed(path, "given its mode"))?;
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let new = with_suffix(path, ".new");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        // The mode above is only for a file that is new, and less the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    written().map_err(failed(&new, "written"))?;
    fs::rename(&new, path).map_err(failed(path, "replaced"))?;
    Ok(true)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn made_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        assert!(make_folder(&folder).unwrap());
        assert!(!make_folder(&folder).unwrap());
        assert_eq!(mode(&folder), 0o700);
        check_writable(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let file = folder.join("c/cirrus.yaml");
        assert!(write_file(&file, "a: 1\n").unwrap());
        assert!(!write_file(&file, "a: 1\n").unwrap());
        assert!(write_file(&file, "a: 2\n").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a: 2\n");
        assert_eq!(mode(&file), 0o640);
        assert_eq!(fs::read_dir(folder.join("c")).unwrap().count(), 1);
        let key = folder.join("tls/referenced/0-key.pem");
        assert!(write_secret(&key, "k\n").unwrap());
        assert!(!write_secret(&key, "k\n").unwrap());
        assert_eq!(mode(&key), 0o600);
        assert_eq!(mode(&folder.join("tls/referenced")), 0o700);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let below = file.join("folder");
        let error = make_folder(&below).unwrap_err().to_string();
        assert_eq!(error, format!("{} cannot be made", below.display()));
        assert!(write_file(&below.join("c"), "").is_err());
        assert!(check_writable(&below).is_err());
    }
}
