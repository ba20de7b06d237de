//! The append log: two files of bounded size, used in turn.
//!
//! Every commit is one frame at the end of the active file, written and synced before anybody is
//! answered. A full file is sealed and its content moved to the database; only then may it be
//! overwritten. The files are filled with zeros ahead of the frames, and recycled, so that a sync
//! writes data only and no metadata of the file system.

use std::{
    fs::{File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::frame::{FRAME, FileHeader, FrameBuilder, HEADER, changes, find, is_followed};
use super::map::Map;

/// Zeros are written ahead of the frames in pieces of this size.
const AHEAD: u64 = 1_024 * 1_024;

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{}: {reason}; restore the folder from a copy of it", path.display())]
    Damaged { path: PathBuf, reason: String },
}

struct Segment {
    path: PathBuf,
    file: File,
    /// Length of the file: up to here a write needs no new blocks.
    length: u64,
}

/// The log, open for appending.
pub(super) struct Log {
    segments: [Segment; 2],
    /// Which segment is appended to.
    active: usize,
    header: FileHeader,
    /// Number of the next frame.
    number: u32,
    /// Where the next frame goes.
    position: u64,
    /// Most bytes of one segment.
    limit: u64,
    /// A sync failed: what is on disk is unknown, and nothing may be confirmed any more.
    broken: bool,
}

/// What the log held beyond the database.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The content of the full file with its generation, if it isn't in the database yet.
    pub sealed: Option<(u64, Map)>,
    /// The content of the active file.
    pub active: Map,
}

impl Log {
    /// Opens or creates the log in `folder`. Generations up to `applied` are in the database.
    pub(super) fn open(
        folder: &Path,
        applied: u64,
        limit: u64,
    ) -> Result<(Log, Recovered), LogError> {
        let segments = [
            open_segment(folder, "log-0")?,
            open_segment(folder, "log-1")?,
        ];
        File::open(folder)?.sync_all()?;
        let mut read = Vec::new();
        let mut newest = applied;
        for (at, segment) in segments.iter().enumerate() {
            let bytes = read_all(segment)?;
            if let Some(header) = FileHeader::decode(&bytes) {
                newest = newest.max(header.generation);
                if header.generation > applied {
                    read.push((at, header, bytes));
                }
            }
        }
        read.sort_by_key(|(_, header, _)| header.generation);
        let mut log = Log {
            segments,
            active: 0,
            header: FileHeader {
                generation: newest,
                salt: 0,
                previous: 0,
            },
            number: 0,
            position: 0,
            limit,
            broken: false,
        };
        let mut recovered = Recovered::default();
        check_generations(&log, applied, &read)?;
        match &read[..] {
            [] => log.begin(0)?,
            [(at, header, bytes)] => recovered.active = log.resume(*at, *header, bytes)?,
            [(first, old, sealed), (second, new, bytes), ..] => {
                let end = replay(sealed, old.salt);
                if u64::from(end.number) != new.previous {
                    let reason = format!(
                        "it has {} of the {} frames that were written",
                        end.number, new.previous
                    );
                    return Err(log.damaged(*first, reason));
                }
                recovered.sealed = Some((old.generation, end.map));
                recovered.active = log.resume(*second, *new, bytes)?;
            }
        }
        Ok((log, recovered))
    }

    /// Goes on at the end of a file that was in use.
    fn resume(&mut self, at: usize, header: FileHeader, bytes: &[u8]) -> Result<Map, LogError> {
        let end = replay(bytes, header.salt);
        if end.is_followed {
            let reason = format!(
                "frame {} at byte {} is damaged, and frames follow it",
                end.number, end.position
            );
            return Err(self.damaged(at, reason));
        }
        (self.active, self.header) = (at, header);
        (self.number, self.position) = (end.number, end.position);
        Ok(end.map)
    }

    fn damaged(&self, at: usize, reason: impl Into<String>) -> LogError {
        LogError::Damaged {
            path: self.segments[at].path.clone(),
            reason: reason.into(),
        }
    }

    /// The active file.
    pub(super) fn path(&self) -> &Path {
        &self.segments[self.active].path
    }

    /// Generation of the active file.
    pub(super) fn generation(&self) -> u64 {
        self.header.generation
    }

    /// Whether a frame of this length still goes into the active file.
    pub(super) fn has_room(&self, frame: usize) -> bool {
        self.position + frame as u64 <= self.limit || self.number == 0
    }

    /// Part of the active file that is used, in percent.
    pub(super) fn used_percent(&self) -> u64 {
        self.position * 100 / self.limit.max(1)
    }

    /// Seals the active file and begins the other, whose content must be in the database. The
    /// header becomes durable with the first frame.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.begin(1 - self.active)
    }

    fn begin(&mut self, at: usize) -> io::Result<()> {
        let header = FileHeader {
            generation: self.header.generation + 1,
            // Nobody outside the process can know it.
            salt: RandomState::new().hash_one(self.header.generation) as u32,
            previous: u64::from(self.number),
        };
        self.segments[at].write(&header.encode(), 0)?;
        (self.active, self.header) = (at, header);
        (self.number, self.position) = (0, HEADER);
        Ok(())
    }

    /// Nothing is appended any more: what an earlier sync was to keep may be lost.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Appends a frame and makes it durable.
    pub(super) fn append(&mut self, frame: &mut FrameBuilder) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier sync of the log failed"));
        }
        let bytes = frame.seal(self.header.salt, self.number);
        let segment = &mut self.segments[self.active];
        segment.write(bytes, self.position)?;
        if let Err(error) = segment.file.sync_data() {
            self.broken = true;
            return Err(error);
        }
        self.position += bytes.len() as u64;
        self.number += 1;
        Ok(())
    }
}

/// No generation between the database's and the newest may be missing.
fn check_generations(
    log: &Log,
    applied: u64,
    read: &[(usize, FileHeader, Vec<u8>)],
) -> Result<(), LogError> {
    for (expected, (at, header, _)) in (applied + 1..).zip(read) {
        if header.generation != expected {
            let reason = format!(
                "it continues at generation {}, but {expected} is missing",
                header.generation
            );
            return Err(log.damaged(*at, reason));
        }
    }
    Ok(())
}

fn open_segment(folder: &Path, name: &str) -> io::Result<Segment> {
    let path = folder.join(name);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = options?;
    let length = file.metadata()?.len();
    Ok(Segment { path, file, length })
}

fn read_all(segment: &Segment) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(segment.length).map_err(io::Error::other)?];
    segment.file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Segment {
    /// Writes at a place, with zeros behind it up to the next multiple of [`AHEAD`].
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1_024] = [0; 64 * 1_024];
        let end = at + bytes.len() as u64;
        while self.length < end.next_multiple_of(AHEAD) {
            self.file.write_all_at(&ZEROS, self.length)?;
            self.length += ZEROS.len() as u64;
        }
        self.file.write_all_at(bytes, at)
    }
}

/// What a file held.
struct End {
    map: Map,
    /// Number of whole frames.
    number: u32,
    /// Where the next one goes.
    position: u64,
    /// There are frames behind one that is not whole: this is no write that was cut off.
    is_followed: bool,
}

fn replay(bytes: &[u8], salt: u32) -> End {
    let mut end = End {
        map: Map::default(),
        number: 0,
        position: HEADER,
        is_followed: false,
    };
    loop {
        let rest = usize::try_from(end.position)
            .ok()
            .and_then(|at| bytes.get(at..));
        let rest = rest.unwrap_or_default();
        let Some(body) = find(rest, salt, end.number) else {
            // A damaged length says nothing of where the next frame is, so it is looked for.
            end.is_followed = is_followed(rest, salt, end.number);
            return end;
        };
        // The checksum held, so that the body is as this program wrote it.
        for (key, record) in changes(body).flatten() {
            end.map.insert(key, record);
        }
        end.number += 1;
        end.position += (FRAME + body.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10_000;

    fn append(log: &mut Log, key: &str, value: &str) {
        let mut frame = FrameBuilder::default();
        frame.clear();
        frame.push(key.as_bytes(), Some(value.as_bytes()));
        log.append(&mut frame).unwrap();
    }

    fn keys(map: &Map) -> Vec<String> {
        let mut keys = Vec::new();
        let all: Result<(), ()> = map.try_each(|key, _| {
            keys.push(String::from_utf8(key.to_vec()).unwrap());
            Ok(())
        });
        all.unwrap();
        keys
    }

    /// Why a log can't be opened.
    fn refusal(folder: &Path) -> String {
        let opened = Log::open(folder, 0, LIMIT).map(drop);
        opened.unwrap_err().to_string()
    }

    fn damage(folder: &Path, name: &str, at: u64) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(folder.join(name))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    #[test]
    fn appended_frames_are_recovered() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        assert!(recovered.sealed.is_none() && keys(&recovered.active).is_empty());
        append(&mut log, "a", "1");
        append(&mut log, "b", "2");
        let (mut log, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        assert_eq!(keys(&recovered.active), ["a", "b"]);
        append(&mut log, "c", "3");
        let (_, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        assert_eq!(keys(&recovered.active), ["a", "b", "c"]);
    }

    #[test]
    fn both_generations_are_recovered_until_applied() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        append(&mut log, "a", "1");
        log.rotate().unwrap();
        append(&mut log, "b", "2");
        let (_, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        let (generation, sealed) = recovered.sealed.unwrap();
        assert_eq!(
            (generation, keys(&sealed), keys(&recovered.active)),
            (1, vec!["a".into()], vec!["b".into()])
        );
        let (mut log, recovered) = Log::open(folder.path(), 1, LIMIT).unwrap();
        assert!(recovered.sealed.is_none());
        assert_eq!(keys(&recovered.active), ["b"]);
        // The first file is used again; what it held is not seen any more.
        log.rotate().unwrap();
        append(&mut log, "c", "3");
        let (log, recovered) = Log::open(folder.path(), 2, LIMIT).unwrap();
        assert_eq!(
            (log.generation(), keys(&recovered.active)),
            (3, vec!["c".into()])
        );
        let (log, recovered) = Log::open(folder.path(), 3, LIMIT).unwrap();
        assert_eq!((log.generation(), keys(&recovered.active).len()), (4, 0));
    }

    #[test]
    fn a_torn_end_is_cut_off_and_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        append(&mut log, "a", "1");
        let torn = log.position;
        append(&mut log, "b", &"2".repeat(1_000));
        damage(folder.path(), "log-0", torn + 500);
        let (mut log, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        assert_eq!(keys(&recovered.active), ["a"]);
        append(&mut log, "c", "3");
        let (_, recovered) = Log::open(folder.path(), 0, LIMIT).unwrap();
        assert_eq!(keys(&recovered.active), ["a", "c"]);
    }

    #[test]
    fn damage_before_the_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        let first = log.position + FRAME as u64;
        append(&mut log, "a", "1");
        append(&mut log, "b", "2");
        damage(folder.path(), "log-0", first);
        let error = refusal(folder.path());
        assert!(
            error.contains("log-0: frame 0 at byte 64 is damaged, and frames follow it"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_header_before_the_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        append(&mut log, "a", "1");
        let second = log.position;
        append(&mut log, "b", "2");
        let last = log.position;
        append(&mut log, "c", &"3".repeat(1_000));
        let open = || Log::open(folder.path(), 0, LIMIT).map(|(_, recovered)| recovered);
        for byte in 0..FRAME as u64 {
            damage(folder.path(), "log-0", second + byte);
            let error = refusal(folder.path());
            let told = format!("log-0: frame 1 at byte {second} is damaged, and frames follow it");
            assert!(error.contains(&told), "{byte}: {error}");
            damage(folder.path(), "log-0", second + byte);
        }
        assert_eq!(keys(&open().unwrap().active), ["a", "b", "c"]);
        // Of the last frame it can't be told from a write that was cut off.
        for byte in 0..FRAME as u64 {
            damage(folder.path(), "log-0", last + byte);
            assert_eq!(keys(&open().unwrap().active), ["a", "b"], "{byte}");
            damage(folder.path(), "log-0", last + byte);
        }
    }

    #[test]
    fn a_sealed_file_must_be_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        append(&mut log, "a", "1");
        let last = log.position;
        append(&mut log, "b", "2");
        log.rotate().unwrap();
        damage(folder.path(), "log-0", last);
        let error = refusal(folder.path());
        assert!(error.contains("it has 1 of the 2 frames"), "{error}");
    }

    #[test]
    fn a_missing_generation_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), 0, LIMIT).unwrap();
        log.rotate().unwrap();
        append(&mut log, "a", "1");
        damage(folder.path(), "log-0", 0);
        let error = refusal(folder.path());
        assert!(
            error.contains("continues at generation 2, but 1 is missing"),
            "{error}"
        );
    }
}
