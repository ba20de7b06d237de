//! Reads the configuration file.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use cirrus_config::{Config, ConfigError, MAX_FILE_BYTES};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It says what can't be.
    #[error("{}", lines(.0))]
    Wrong(Vec<ConfigError>),
}

/// Reads and checks the configuration.
pub(crate) fn load(path: &Path) -> Result<Config, LoadError> {
    let read = || {
        let mut bytes = Vec::new();
        // One byte more than allowed is enough to be refused by name.
        let limit = MAX_FILE_BYTES as u64 + 1;
        std::fs::File::open(path)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    Config::parse_bytes(&bytes, &path.display().to_string()).map_err(LoadError::Wrong)
}

/// Where the control socket is when nobody says otherwise.
pub(crate) fn usual_control() -> PathBuf {
    Config::new("localhost")
        .map(|config| config.listen.control)
        .unwrap_or_default()
}

fn lines(errors: &[ConfigError]) -> String {
    let mut lines = String::new();
    for error in errors {
        let separator = if lines.is_empty() { "" } else { "\n" };
        // Writing into a String can't fail.
        let _ = write!(lines, "{separator}{error}");
    }
    lines
}
