//! The server's configuration beside the watch: bootstrap writes it while the watch starts, and an
//! operator may change it later.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use cirrus_config::Config;

use crate::watch::Settings;

/// Bytes of a configuration that are read.
const MAX_CONFIG: u64 = cirrus_config::MAX_FILE_BYTES as u64 + 1;

/// The configuration, as far as it is there.
pub(super) struct Site {
    file: PathBuf,
    pub(super) config: Config,
    /// The file that was read last, right or wrong.
    seen: Option<Edition>,
}

/// What is another when a file was replaced or written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edition {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Edition {
    fn of(its: &Metadata) -> Self {
        Self {
            device: its.dev(),
            inode: its.ino(),
            modified: (its.mtime(), its.mtime_nsec()),
            bytes: its.len(),
        }
    }
}

impl Site {
    /// With the defaults until a configuration is there.
    pub(super) fn new(file: PathBuf) -> Result<Self, String> {
        Ok(Self {
            file,
            config: Config::new("localhost")?,
            seen: None,
        })
    }

    /// Reads the file if it is another than the last time; whether the configuration is new.
    ///
    /// # Errors
    /// The file is wrong, which is said once; what was known before stays.
    pub(super) fn read(&mut self) -> Result<bool, String> {
        let edition = match std::fs::metadata(&self.file) {
            Ok(its) => Edition::of(&its),
            // What cannot be looked at now may be there the next time.
            Err(_) => return Ok(false),
        };
        if self.seen == Some(edition) {
            return Ok(false);
        }
        let (edition, bytes) = self.open().map_err(|error| {
            self.seen = Some(edition);
            format!("{} cannot be read: {error}", self.file.display())
        })?;
        self.seen = Some(edition);
        self.config =
            Config::parse_bytes(&bytes, &self.file.display().to_string()).map_err(|errors| {
                let first = errors.first().map(ToString::to_string);
                format!("the configuration is wrong: {}", first.unwrap_or_default())
            })?;
        Ok(true)
    }

    /// The file that is there now, which may be a newer one than that which was looked at.
    fn open(&self) -> io::Result<(Edition, Vec<u8>)> {
        let file = File::open(&self.file)?;
        let edition = Edition::of(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(MAX_CONFIG).read_to_end(&mut bytes)?;
        Ok((edition, bytes))
    }

    pub(super) fn settings(&self) -> Settings {
        let (watch, drain) = (&self.config.watch, &self.config.drain);
        Settings {
            poll_ms: watch.poll_seconds * 1_000,
            backoff_ms: watch.backoff_seconds * 1_000,
            gone_ms: watch.gone_seconds * 1_000,
            hook_ms: watch.hook_seconds * 1_000,
            spot_reserve_seconds: watch.spot_reserve_seconds,
            rebalance: watch.rebalance,
            metrics_ms: watch.metrics_seconds * 1_000,
            drain_ms: drain.deadline_seconds * 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The configuration of the previous boot is there first, and bootstrap replaces it.
    #[test]
    fn a_configuration_that_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cirrus.yaml");
        let mut site = Site::new(file.clone()).unwrap();
        assert_eq!(site.read(), Ok(false));
        let put = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &file).unwrap();
        };
        put("domains: [localhost]\ndrain: {deadline_seconds: 70}\n");
        assert_eq!(site.read(), Ok(true));
        assert_eq!(site.read(), Ok(false));
        assert_eq!(site.settings().drain_ms, 70_000);
        put("domains: [localhost]\ndrain: {deadline_seconds: 30}\n");
        assert_eq!(site.read(), Ok(true));
        assert_eq!(site.settings().drain_ms, 30_000);

        put("domains: [localhost]\ndrain: {deadline_seconds: soon}\n");
        let error = site.read().unwrap_err();
        assert!(error.contains("the configuration is wrong"), "{error}");
        assert_eq!(site.read(), Ok(false), "it is said once");
        assert_eq!(site.settings().drain_ms, 30_000);
        fs::remove_file(&file).unwrap();
        assert_eq!(site.read(), Ok(false));
        assert_eq!(site.settings().drain_ms, 30_000);
        put("domains: [localhost]\ndrain: {deadline_seconds: 20}\n");
        assert_eq!(site.read(), Ok(true));
        assert_eq!(site.settings().drain_ms, 20_000);
    }
}
