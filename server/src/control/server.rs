//! The server's end of the control socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answer, Call, Refusal, parse_request, write_answer};

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 16;

/// What carries requests out.
pub(crate) trait Service: Send + Sync + 'static {
    /// Does what is asked.
    fn call(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// Bounds of the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// Bytes of one request line.
    pub(crate) request_bytes: usize,
}

/// The listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Another server answers on it.
    #[error("a server is already running: it answers on {0}")]
    Running(PathBuf),
    /// The system refuses.
    #[error("can't open the control socket {path}: {source}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl Control {
    /// Opens the socket, for its owner only. A file that a dead server left is replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, ControlError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ControlError::Running(path.to_owned()));
        }
        let open = || {
            if let Some(folder) = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
            {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(path)?)?;
            // Nobody can connect before it listens, so nobody comes between these two.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)?;
            UnixListener::from_std(socket.into())
        };
        match open() {
            Ok(listener) => Ok(Self {
                listener,
                path: path.to_owned(),
            }),
            Err(source) => Err(ControlError::Open {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve<S: Service>(self, service: Arc<S>, bounds: Bounds) {
        let places = Arc::new(Semaphore::new(bounds.connections));
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let refusal = Refusal::new("busy", "too many connections to the control socket");
                // One short line fits the socket's buffer.
                let _ = stream.write_all(&write_answer(Err(refusal))).await;
                continue;
            };
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &*service, bounds.request_bytes).await {
                    tracing::debug!(%error, "control connection");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A file that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse<S: Service>(mut stream: UnixStream, service: &S, limit: usize) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let line =
            match tokio::time::timeout(IDLE, read_line(&mut stream, &mut buffer, limit)).await {
                Ok(line) => line?,
                Err(_) => return Ok(()),
            };
        let answer = match line {
            Line::End => return Ok(()),
            Line::TooLong => {
                let message = format!("a request has at most {limit} bytes");
                stream
                    .write_all(&write_answer(Err(Refusal::new("too-long", message))))
                    .await?;
                stream.shutdown().await?;
                return discard(&mut stream).await;
            }
            Line::Whole(line) => match parse_request(&line) {
                Ok(call) => Box::pin(service.call(call)).await,
                Err(refusal) => Err(refusal),
            },
        };
        stream.write_all(&write_answer(answer)).await?;
    }
}

/// Reads on to no purpose, within bounds: closing with unread data would reset the connection and
/// destroy the answer.
async fn discard(stream: &mut UnixStream) -> io::Result<()> {
    const MOST: u64 = 16 * 1024 * 1024;
    let (mut rest, mut nowhere) = (stream.take(MOST), tokio::io::sink());
    let read = tokio::io::copy(&mut rest, &mut nowhere);
    // Whoever goes on longer than that is not reading the answer.
    let _ = tokio::time::timeout(IDLE, read).await;
    Ok(())
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

/// Takes the next line out of the buffer, reading as much as it needs. A last line may lack its
/// end.
async fn read_line(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Line> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            if end > limit {
                return Ok(Line::TooLong);
            }
            let rest = buffer.split_off(end + 1);
            let mut line = std::mem::replace(buffer, rest);
            line.pop();
            return Ok(Line::Whole(line));
        }
        if buffer.len() > limit {
            return Ok(Line::TooLong);
        }
        if stream.read_buf(buffer).await? == 0 {
            let rest = std::mem::take(buffer);
            return Ok(if rest.is_empty() {
                Line::End
            } else {
                Line::Whole(rest)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    struct Echo;

    impl Service for Echo {
        async fn call(&self, call: Call) -> Answer {
            let mut fields = Map::new();
            fields.insert("did".into(), format!("{call:?}").into());
            Ok(fields)
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            connections: 2,
            request_bytes: 128,
        }
    }

    struct Running {
        path: PathBuf,
        task: tokio::task::JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        let task = tokio::spawn(
            Control::open(&path)
                .unwrap()
                .serve(Arc::new(Echo), bounds()),
        );
        Running {
            path,
            task,
            _folder: folder,
        }
    }

    async fn exchange(path: &Path, sent: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        read
    }

    #[tokio::test]
    async fn requests_are_answered_in_order() {
        let server = start();
        let status = br#"{"v":1,"call":"server.status"}"#;
        let read = exchange(&server.path, &[&status[..], b"\n{}\n", status].concat()).await;
        let lines: Vec<_> = read.lines().collect();
        assert_eq!(lines.len(), 3, "{read}");
        assert!(
            lines[0].contains("ServerStatus") && lines[2].contains("ServerStatus"),
            "{read}"
        );
        assert!(lines[1].contains("bad-request"), "{read}");
    }

    #[tokio::test]
    async fn only_the_owner_may_open_it() {
        let server = start();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&server.path), 0o600);
        assert_eq!(mode(server.path.parent().unwrap()), 0o700);
    }

    #[tokio::test]
    async fn a_long_request_is_refused() {
        let server = start();
        for sent in [
            vec![b'x'; 1_000],
            [vec![b' '; 129], b"\n".to_vec()].concat(),
        ] {
            let read = exchange(&server.path, &sent).await;
            assert!(read.contains("too-long"), "{read}");
            assert!(read.contains("a request has at most 128 bytes"), "{read}");
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_hears_so() {
        let server = start();
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = UnixStream::connect(&server.path).await.unwrap();
            stream.write_all(b"{}\n").await.unwrap();
            stream.read_u8().await.unwrap();
            held.push(stream);
        }
        let mut read = String::new();
        let mut third = UnixStream::connect(&server.path).await.unwrap();
        third.read_to_string(&mut read).await.unwrap();
        assert!(read.contains("busy"), "{read}");
    }

    #[tokio::test]
    async fn a_second_server_is_refused_and_a_dead_ones_file_replaced() {
        let server = start();
        let error = Control::open(&server.path).unwrap_err();
        assert!(
            error.to_string().starts_with("a server is already running"),
            "{error}"
        );
        let file = std::fs::metadata(&server.path);
        assert!(
            file.is_ok(),
            "the refusal took the running server's socket away"
        );
        server.task.abort();
        assert!(server.task.await.is_err());
        assert!(!server.path.exists(), "the socket's file is left behind");
        std::os::unix::net::UnixListener::bind(&server.path).unwrap();
        assert!(server.path.exists());
        Control::open(&server.path).unwrap();
    }
}
