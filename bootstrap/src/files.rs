//! Folders and the configuration file, made once and left alone when they are right.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::{Path, PathBuf};

/// A folder that only its user may enter: it holds stored keys, certificates and messages.
const FOLDER: u32 = 0o700;
/// The configuration, which holds no secret: for its user and the user's group. A private key of a
/// server whose user is not the file's.
const FILE: u32 = 0o640;
/// A private key: for its user alone.
const SECRET: u32 = 0o600;
/// The bits of a mode that say who may do what.
const MODE: u32 = 0o777;
/// What a folder's group needs to find files in it.
const GROUP_ENTERS: u32 = 0o050;

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
    write(path, text, Access::Mode(FILE))
}

/// As [`write_file`], for what only the server may read. The server's user is the owner of the
/// folder above the file's own, and bootstrap may be another one. Where the file's own folder gives
/// its files the server's group, that group reads them, so that no right to give files away is
/// needed; otherwise they are given to the server's user.
///
/// # Errors
/// Names the file or its folder.
pub fn write_secret(path: &Path, text: &str) -> Result<bool, FileError> {
    let above = path.parent().and_then(|it| Some((it, it.parent()?)));
    let Some((folder, above)) = above else {
        return write(path, text, Access::Mode(SECRET));
    };
    make_folder(folder)?;
    let its = fs::metadata(above).map_err(failed(above, "looked at"))?;
    let (uid, gid) = (its.uid(), its.gid());
    let access = Access::Server { uid, gid };
    let let_in = access.let_in(folder);
    let_in.map_err(failed(folder, "given to the server's user"))?;
    write(path, text, access)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// Whom this mode lets.
    Mode(u32),
    /// The server's user alone.
    Server { uid: u32, gid: u32 },
}

impl Access {
    /// The mode that a file of this owner and group is to have. None if no mode would do.
    fn mode(self, its: &Metadata) -> Option<u32> {
        match self {
            Self::Mode(mode) => Some(mode),
            Self::Server { uid, .. } if its.uid() == uid => Some(SECRET),
            Self::Server { gid, .. } if its.gid() == gid => Some(FILE),
            Self::Server { .. } => None,
        }
    }

    fn is_right(self, its: &Metadata) -> bool {
        self.mode(its) == Some(its.mode() & MODE)
    }

    /// Makes it so for a file that is new. The kernel is asked only for what is not so already: its
    /// refusal would count although there was nothing to do.
    fn give(self, file: &File) -> io::Result<()> {
        if let (Self::Server { uid, gid }, None) = (self, self.mode(&file.metadata()?)) {
            fchown(file, Some(uid), Some(gid))?;
        }
        let its = file.metadata()?;
        match self.mode(&its) {
            Some(mode) if !self.is_right(&its) => {
                file.set_permissions(Permissions::from_mode(mode))
            }
            _ => Ok(()),
        }
    }

    /// Lets the server's user into a folder, if it cannot enter yet.
    fn let_in(self, folder: &Path) -> io::Result<()> {
        let Self::Server { uid, gid } = self else {
            return Ok(());
        };
        let its = fs::metadata(folder)?;
        let by_group = its.gid() == gid && its.mode() & GROUP_ENTERS == GROUP_ENTERS;
        if its.uid() == uid || by_group {
            return Ok(());
        }
        chown(folder, Some(uid), Some(gid))
    }
}

fn write(path: &Path, text: &str, access: Access) -> Result<bool, FileError> {
    let is_same = fs::read(path).is_ok_and(|old| old == text.as_bytes());
    if is_same && fs::metadata(path).is_ok_and(|its| access.is_right(&its)) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let new = with_suffix(path, ".new");
    let written = || -> io::Result<()> {
        // What a boot that was cut short has left may be another user's.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(SECRET)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        access.give(&file)?;
        file.sync_all()
    };
    written().map_err(failed(&new, "written"))?;
    fs::rename(&new, path).map_err(failed(path, "replaced"))?;
    Ok(!is_same)
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

    /// A mode that has gone wrong is mended by another file, as the old one may be another user's;
    /// what a boot that was cut short has left is no hindrance.
    #[test]
    fn a_wrong_mode_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("tls/referenced/0-key.pem");
        write_secret(&key, "k\n").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        fs::write(with_suffix(&key, ".new"), "half").unwrap();
        assert!(!write_secret(&key, "k\n").unwrap());
        assert_eq!(mode(&key), 0o600);
        assert_eq!(fs::read_dir(key.parent().unwrap()).unwrap().count(), 1);
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
