//! A layer in front of an emulator of AWS: it passes requests on, lets them suffer planned faults,
//! and answers administration calls that the emulator lacks.
//!
//! It speaks just enough HTTP/1.1: requests of a known length, and answers passed back byte for
//! byte. Connections to the emulator are kept for the next request.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cirrus_store::Target;
use cirrus_store::fault::{Fault, Faults};

/// Bytes of a request's head.
const MAX_HEAD: u64 = 65_536;
/// Bytes of a request's body.
const MAX_BODY: usize = 128 * 1_024 * 1_024;
/// Connections to the emulator that are kept without a request.
const MAX_IDLE: usize = 64;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// The head as it came, without the empty line.
    head: Vec<u8>,
}

impl Request {
    /// Whether the client wants the connection to end with the answer.
    fn ends_connection(&self) -> bool {
        let wants = self.headers.get("connection");
        wants.is_some_and(|wants| wants.eq_ignore_ascii_case("close"))
    }
}

/// What a front knows of the service behind it.
pub trait Service: Send + Sync + 'static {
    /// What the request is for, if faults can befall it.
    fn target(&self, request: &Request) -> Option<Target>;

    /// The answer to a call that the emulator lacks: status and body.
    fn answer(&self, request: &Request) -> Option<(u16, String)>;

    /// The service's refusal for load: status and body.
    fn throttled(&self) -> (u16, &'static str);

    /// The service's failure: status and body.
    fn failed(&self) -> (u16, &'static str);

    /// The media type of the answers above.
    fn media_type(&self) -> &'static str;
}

/// A running front. It ends when this is dropped; requests that are held back are never made.
pub struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    service: Box<dyn Service>,
    behind: SocketAddr,
    faults: Faults,
    /// Connections to the emulator that wait for a request.
    idle: Mutex<Vec<BufReader<TcpStream>>>,
    /// Requests that are made later, by the number of the request before which they are.
    late: Mutex<VecDeque<(u64, Request)>>,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Front {
    /// Starts a front before the emulator at `behind`, on a free port of this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(service: impl Service, behind: SocketAddr, faults: Faults) -> Result<Front> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the front")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service: Box::new(service),
            behind,
            faults,
            idle: Mutex::default(),
            late: Mutex::default(),
            stopped: Mutex::default(),
            changed: Condvar::new(),
        });
        let front = Front {
            address,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if *lock(&shared.stopped) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A client that goes away ends only its own connection.
                thread::spawn(move || drop(shared.converse(&socket)));
            }
        });
        Ok(front)
    }

    /// Where clients find the service.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.changed.notify_all();
        // The accepting thread sees it with the next connection.
        drop(TcpStream::connect(self.address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Answers the requests of one connection until it ends.
    fn converse(&self, socket: &TcpStream) -> Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket);
        while let Some(request) = read(&mut reader, socket)? {
            match self.answer(&request)? {
                Some(answer) => (&mut &*socket).write_all(&answer)?,
                None => return self.hold(socket),
            }
            if request.ends_connection() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The answer to a request; none = there shall be none.
    fn answer(&self, request: &Request) -> Result<Option<Vec<u8>>> {
        if let Some((status, body)) = self.service.answer(request) {
            return Ok(Some(self.response(status, &body)));
        }
        let Some(target) = self.service.target(request) else {
            return self.pass_on(request).map(Some);
        };
        for late in self.take_due() {
            // Nobody waits for its answer.
            drop(self.pass_on(&late));
        }
        let failed = || {
            let (status, body) = self.service.failed();
            Some(self.response(status, body))
        };
        match self.faults.next(target) {
            Fault::None => self.pass_on(request).map(Some),
            Fault::Delay(time) => {
                if self.rest(time) {
                    return Ok(None);
                }
                self.pass_on(request).map(Some)
            }
            Fault::Throttle => {
                let (status, body) = self.service.throttled();
                Ok(Some(self.response(status, body)))
            }
            Fault::Fail { carried_out } | Fault::Die { carried_out } => {
                if carried_out {
                    self.pass_on(request)?;
                }
                Ok(failed())
            }
            Fault::Timeout { carried_out } => {
                if carried_out {
                    self.pass_on(request)?;
                }
                Ok(None)
            }
            Fault::Late { after } => {
                let due = self.faults.requests() + u64::from(after.max(1)) - 1;
                lock(&self.late).push_back((due, request.clone()));
                Ok(None)
            }
        }
    }

    fn take_due(&self) -> Vec<Request> {
        let now = self.faults.requests();
        let mut late = lock(&self.late);
        let (due, left) = late.drain(..).partition(|(due, _)| *due <= now);
        *late = left;
        let due: VecDeque<(u64, Request)> = due;
        due.into_iter().map(|(_, request)| request).collect()
    }

    /// Waits; `true` = the front was stopped meanwhile.
    fn rest(&self, time: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let waited = self
            .changed
            .wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Keeps a connection open until the client gives up.
    fn hold(&self, socket: &TcpStream) -> Result<()> {
        let mut rest = [0; 1_024];
        while (&mut &*socket).read(&mut rest)? > 0 {}
        socket.shutdown(Shutdown::Both)?;
        Ok(())
    }

    /// The emulator's answer, byte for byte.
    fn pass_on(&self, request: &Request) -> Result<Vec<u8>> {
        let whole = [&request.head[..], b"\r\n", &request.body].concat();
        let kept = lock(&self.idle).pop();
        if let Some(connection) = kept
            && let Some(answer) = self.ask(connection, request, &whole)?
        {
            return Ok(answer);
        }
        let socket = TcpStream::connect(self.behind).context("the emulator")?;
        socket.set_nodelay(true)?;
        let answer = self.ask(BufReader::new(socket), request, &whole)?;
        answer.context("the emulator has not answered")
    }

    /// The emulator's answer; `None` where it had closed the connection before.
    fn ask(
        &self,
        mut connection: BufReader<TcpStream>,
        request: &Request,
        whole: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        if connection.get_mut().write_all(whole).is_err() {
            return Ok(None);
        }
        let mut answer = Vec::new();
        if !matches!(connection.read_until(b'\n', &mut answer), Ok(1..)) {
            return Ok(None);
        }
        let without_body = request.method == "HEAD";
        let stays = read_answer(&mut connection, without_body, &mut answer)?;
        let mut idle = lock(&self.idle);
        if stays && connection.buffer().is_empty() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(Some(answer))
    }

    fn response(&self, status: u16, body: &str) -> Vec<u8> {
        let kind = self.service.media_type();
        let length = body.len();
        format!(
            "HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Reads what follows the first line of an answer. Whether the connection stays.
fn read_answer(
    source: &mut BufReader<TcpStream>,
    without_body: bool,
    answer: &mut Vec<u8>,
) -> Result<bool> {
    let status = answer.get(9..12).unwrap_or_default();
    let without_body = without_body || matches!(status, b"204" | b"304");
    let (mut length, mut chunked, mut stays) = (None, false, true);
    loop {
        let line = line(source, answer)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match (name, value.trim()) {
            ("content-length", value) => length = Some(value.parse()?),
            ("transfer-encoding", "chunked") => chunked = true,
            ("connection", "close") => stays = false,
            _ => {}
        }
    }
    if without_body {
        return Ok(stays);
    }
    if chunked {
        loop {
            let length = u64::from_str_radix(&line(source, answer)?, 16)?;
            if length == 0 {
                // Trailers, and an empty line.
                while !line(source, answer)?.is_empty() {}
                return Ok(stays);
            }
            bytes(source, length, answer)?;
            line(source, answer)?;
        }
    }
    let Some(length) = length else {
        source.read_to_end(answer)?;
        return Ok(false);
    };
    bytes(source, length, answer)?;
    Ok(stays)
}

/// Appends a line; it is given back without its end, in lower case.
fn line(source: &mut BufReader<TcpStream>, answer: &mut Vec<u8>) -> Result<String> {
    let mut line = Vec::new();
    if source.read_until(b'\n', &mut line)? == 0 {
        bail!("the emulator's answer ends too early");
    }
    answer.extend_from_slice(&line);
    Ok(String::from_utf8_lossy(&line)
        .trim_end()
        .to_ascii_lowercase())
}

/// Appends so many bytes.
fn bytes(source: &mut BufReader<TcpStream>, length: u64, answer: &mut Vec<u8>) -> Result<()> {
    let read = source.take(length).read_to_end(answer)?;
    if read as u64 != length {
        bail!("the emulator's answer ends after {read} of {length} bytes");
    }
    Ok(())
}

/// The next request; `None` when the client has closed.
fn read(reader: &mut BufReader<&TcpStream>, socket: &TcpStream) -> Result<Option<Request>> {
    let mut source = reader.by_ref().take(MAX_HEAD);
    let mut first = String::new();
    if source.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (mut head, mut headers) = (first.into_bytes(), BTreeMap::new());
    loop {
        let mut line = String::new();
        source.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        if !matches!(name.as_str(), "connection" | "expect") {
            head.extend_from_slice(line.as_bytes());
        }
        headers.insert(name, value.trim().to_owned());
    }
    if headers
        .get("expect")
        .is_some_and(|what| what.eq_ignore_ascii_case("100-continue"))
    {
        (&mut &*socket).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length: usize = match headers.get("content-length") {
        Some(length) => length.parse().context("content-length")?,
        None if headers.contains_key("transfer-encoding") => bail!("a body of unknown length"),
        None => 0,
    };
    if length > MAX_BODY {
        bail!("a body of {length} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
        head,
    }))
}
