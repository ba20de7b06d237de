//! The command line's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Call, parse_answer, write_request};

/// How long the server may take for one answer: removing an account waits for the store.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of one answer.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "no server is running: nothing answers on {0}\n\
         start one with `cirrus-server run --config FILE`, or name its socket with --control"
    )]
    NotRunning(PathBuf),
    /// The user may not speak to the server.
    #[error("{0} belongs to another user: run this as the server's user, or as root")]
    Forbidden(PathBuf),
    /// The conversation broke.
    #[error("the server on {path} did not answer: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Something else answers.
    #[error("what answers on {0} is not a cirrus-server of this version")]
    NotUnderstood(PathBuf),
}

/// A connection to a running server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the server.
    pub(crate) fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                path: path.to_owned(),
            }),
            Err(error) => Err(failed(path, error)),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, call: &Call) -> Result<Answer, ClientError> {
        let broken = |source| ClientError::Broken {
            path: self.path.clone(),
            source,
        };
        self.stream
            .get_mut()
            .write_all(&write_request(call))
            .map_err(broken)?;
        let mut line = Vec::new();
        let mut bounded = self.stream.by_ref().take(MAX_ANSWER);
        bounded.read_until(b'\n', &mut line).map_err(broken)?;
        if line.is_empty() {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        parse_answer(&line).ok_or_else(|| ClientError::NotUnderstood(self.path.clone()))
    }
}

fn failed(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(path),
        _ => ClientError::Broken { path, source },
    }
}
