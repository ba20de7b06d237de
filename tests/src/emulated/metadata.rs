//! The instance metadata service of EC2, version 2, as an instance sees it; what it says can be
//! changed while it runs.
//!
//! It holds what clients rely on: no answer without a token, tokens that die, 404 for what is not
//! there, folders that list what is in them, the extra headers it refuses. It does not know version
//! 1, throttling by packet rate, or the signature of the identity document.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

/// Bytes of a request's head; what is longer is cut off.
const MAX_HEAD: u64 = 16_384;
/// Seconds that a token may be good for, as EC2 allows.
const TOKEN_SECONDS: std::ops::RangeInclusive<u64> = 1..=21_600;
/// A connection on which nothing comes is closed.
const IDLE: Duration = Duration::from_secs(30);

/// An instance, as its metadata describes it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// The AWS account, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// The availability zone.
    pub zone: String,
    /// The private address.
    pub address: String,
    /// The role whose credentials are handed out.
    pub role: String,
    /// The access key of the credentials.
    pub access_key: String,
    /// The secret key of the credentials.
    pub secret_key: String,
}

impl Default for Instance {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            id: text("i-0123456789abcdef0"),
            account: text("000000000000"),
            region: text("eu-west-1"),
            zone: text("eu-west-1a"),
            address: text("10.0.2.15"),
            role: text("cirrus-node"),
            access_key: text("test"),
            secret_key: text("test"),
        }
    }
}

/// What a running metadata service says of one instance. It stops answering when this is dropped.
#[derive(Debug)]
pub struct Metadata {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    others: Others,
    /// From where its instance asks, if others ask at the same address.
    from: Option<IpAddr>,
}

/// What instances are told that ask from these addresses.
type Others = Arc<Mutex<BTreeMap<IpAddr, Arc<Mutex<State>>>>>;

#[derive(Debug, Default)]
struct State {
    /// Values by path, without the version: `user-data`, `meta-data/instance-id`.
    values: BTreeMap<String, Vec<u8>>,
    /// Tokens and when they die.
    tokens: BTreeMap<String, Instant>,
    /// Tokens handed out so far.
    handed: u64,
    /// Requests that still fail with 503.
    failing: u32,
    /// Everything is refused with 403.
    disabled: bool,
    /// Method and path of every request.
    requests: Vec<String>,
    stopped: bool,
}

impl Metadata {
    /// Starts the service for an instance, on a free port of this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(instance: &Instance, user_data: Option<&[u8]>) -> Result<Metadata> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Metadata::start_at(free, instance, user_data)
    }

    /// As [`Metadata::start`], at this address.
    ///
    /// # Errors
    /// When the address can't be had.
    pub fn start_at(
        address: SocketAddr,
        instance: &Instance,
        user_data: Option<&[u8]>,
    ) -> Result<Metadata> {
        let listener = TcpListener::bind(address);
        let listener = listener.with_context(|| format!("the metadata at {address}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let others = Others::default();
        let metadata = Metadata {
            address,
            state,
            others,
            from: None,
        };
        metadata.describe(instance);
        metadata.set_user_data(user_data);
        let state = Arc::clone(&metadata.state);
        let others = Arc::clone(&metadata.others);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if lock(&state).stopped {
                    return;
                }
                let from = socket.peer_addr().ok().map(|it| it.ip());
                let other = from.and_then(|it| lock(&others).get(&it).cloned());
                let state = other.unwrap_or_else(|| Arc::clone(&state));
                // A client that goes away ends only its own connection.
                thread::spawn(move || drop(converse(&socket, &state)));
            }
        });
        Ok(metadata)
    }

    /// What another instance is told by the same service: the one that asks from this address.
    #[must_use]
    pub fn for_another(
        &self,
        from: IpAddr,
        instance: &Instance,
        user_data: Option<&[u8]>,
    ) -> Metadata {
        let other = Metadata {
            address: self.address,
            state: Arc::default(),
            others: Arc::clone(&self.others),
            from: Some(from),
        };
        other.describe(instance);
        other.set_user_data(user_data);
        lock(&self.others).insert(from, Arc::clone(&other.state));
        other
    }

    /// The value of `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces the user-data; `None` is an instance without.
    pub fn set_user_data(&self, user_data: Option<&[u8]>) {
        self.set("user-data", user_data);
    }

    /// Replaces what is said about the instance.
    pub fn describe(&self, instance: &Instance) {
        let Instance {
            id,
            account,
            region,
            zone,
            address,
            role,
            ..
        } = instance;
        let document = json!({
            "accountId": account, "architecture": "x86_64", "availabilityZone": zone,
            "imageId": "ami-0abcdef1234567890", "instanceId": id, "instanceType": "t3.small",
            "pendingTime": "2026-01-01T00:00:00Z", "privateIp": address, "region": region,
            "version": "2017-09-30",
        });
        let credentials = json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": instance.access_key, "SecretAccessKey": instance.secret_key,
            "Token": "session", "Expiration": "2099-01-01T00:00:00Z",
        });
        let profile = format!("arn:aws:iam::{account}:instance-profile/{role}");
        let info = json!({ "Code": "Success", "InstanceProfileArn": profile });
        for (path, value) in [
            ("dynamic/instance-identity/document", document.to_string()),
            ("meta-data/instance-id", id.clone()),
            ("meta-data/local-ipv4", address.clone()),
            ("meta-data/placement/region", region.clone()),
            ("meta-data/placement/availability-zone", zone.clone()),
            ("meta-data/iam/info", info.to_string()),
            ("meta-data/services/domain", "amazonaws.com".to_owned()),
            ("meta-data/services/partition", "aws".to_owned()),
        ] {
            self.set(path, Some(value.as_bytes()));
        }
        let path = format!("meta-data/iam/security-credentials/{role}");
        self.set(&path, Some(credentials.to_string().as_bytes()));
    }

    /// Sets the value at a path below the version, such as
    /// `meta-data/autoscaling/target-lifecycle-state`; `None` takes it away.
    pub fn set(&self, path: &str, value: Option<&[u8]>) {
        let mut state = lock(&self.state);
        match value {
            Some(value) => state.values.insert(path.to_owned(), value.to_vec()),
            None => state.values.remove(path),
        };
    }

    /// Lets the next requests fail with 503.
    pub fn fail_next(&self, requests: u32) {
        lock(&self.state).failing = requests;
    }

    /// Makes every token invalid.
    pub fn forget_tokens(&self) {
        lock(&self.state).tokens.clear();
    }

    /// Switches the service off for the instance (or on again): every request gets 403.
    pub fn disable(&self, disabled: bool) {
        lock(&self.state).disabled = disabled;
    }

    /// Method and path of every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        if let Some(from) = self.from {
            lock(&self.others).remove(&from);
            return;
        }
        lock(&self.state).stopped = true;
        // The accepting thread sees it with the next connection.
        drop(TcpStream::connect(self.address));
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's head: its first line in parts, and the headers in lower case.
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    ttl: Option<u64>,
}

impl Answer {
    fn of(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            body: body.into(),
            ttl: None,
        }
    }
}

/// Answers the requests of one connection until it ends.
fn converse(socket: &TcpStream, state: &Mutex<State>) -> Result<()> {
    socket.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(socket);
    while let Some(request) = read(&mut reader)? {
        let answer = answer(&request, &mut lock(state));
        let Answer { status, body, ttl } = answer;
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Server: EC2ws\r\n",
            reason(status),
            body.len()
        );
        if let Some(ttl) = ttl {
            head += &format!("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {ttl}\r\n");
        }
        let mut socket = socket;
        socket.write_all(&[head.as_bytes(), b"\r\n", &body].concat())?;
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    }
}

/// The next request; `None` when the client has closed.
fn read(reader: &mut BufReader<&TcpStream>) -> Result<Option<Request>> {
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request {
        method,
        path,
        headers,
    }))
}

fn answer(request: &Request, state: &mut State) -> Answer {
    state
        .requests
        .push(format!("{} {}", request.method, request.path));
    if state.failing > 0 {
        state.failing -= 1;
        return Answer::of(503, "");
    }
    // What a proxy has forwarded is not from this instance.
    if state.disabled || request.headers.contains_key("x-forwarded-for") {
        return Answer::of(403, "");
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let Some((_version, path)) = path.trim_start_matches('/').split_once('/') else {
        return Answer::of(404, "");
    };
    match (request.method.as_str(), path) {
        ("PUT", "api/token") => token(request, state),
        ("GET", path) => match request.headers.get("x-aws-ec2-metadata-token") {
            Some(token) if state.tokens.get(token).is_some_and(|dies| *dies > now()) => {
                value(path, state)
            }
            _ => Answer::of(401, ""),
        },
        _ => Answer::of(405, ""),
    }
}

fn token(request: &Request, state: &mut State) -> Answer {
    let ttl = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds");
    let ttl: Option<u64> = ttl.and_then(|text| text.parse().ok());
    let Some(ttl) = ttl.filter(|ttl| TOKEN_SECONDS.contains(ttl)) else {
        return Answer::of(400, "");
    };
    state.handed += 1;
    let token = format!("AQAEAEmulatedToken{:08}==", state.handed);
    state
        .tokens
        .insert(token.clone(), now() + Duration::from_secs(ttl));
    Answer {
        ttl: Some(ttl),
        ..Answer::of(200, token)
    }
}

/// A value, or what a folder has in it, unless that is a value itself (`public-keys/`).
fn value(path: &str, state: &State) -> Answer {
    let path = path.trim_end_matches('/');
    let folder = format!("{path}/");
    if let Some(value) = [path, folder.as_str()]
        .iter()
        .find_map(|name| state.values.get(*name))
    {
        return Answer::of(200, value.clone());
    }
    let below = state
        .values
        .keys()
        .filter_map(|name| name.strip_prefix(folder.as_str()));
    let mut names: Vec<String> = below
        .map(|rest| match rest.split_once('/') {
            Some((name, _)) => format!("{name}/"),
            None => rest.to_owned(),
        })
        .collect();
    names.dedup();
    if names.is_empty() {
        Answer::of(404, "")
    } else {
        Answer::of(200, names.join("\n"))
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens die by the real clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one request; the status and the body.
    fn ask(metadata: &Metadata, method: &str, path: &str, header: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(metadata.address).unwrap();
        let head = format!("{method} /latest/{path} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn token(metadata: &Metadata) -> String {
        let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
        let (status, token) = ask(metadata, "PUT", "api/token", ttl);
        assert_eq!(status, 200);
        format!("X-aws-ec2-metadata-token: {token}\r\n")
    }

    fn start() -> Metadata {
        Metadata::start(&Instance::default(), Some(b"domain=example.com")).unwrap()
    }

    /// A list of keys is no listing of a folder: each has a name beside its number.
    #[test]
    fn a_folder_that_is_a_value() {
        let metadata = Metadata::start(&Instance::default(), None).unwrap();
        metadata.set("meta-data/public-keys/", Some(b"0=packer"));
        metadata.set(
            "meta-data/public-keys/0/openssh-key",
            Some(b"ssh-ed25519 A"),
        );
        let token = token(&metadata);
        let get = |path: &str| ask(&metadata, "GET", path, &token).1;
        assert!(get("meta-data/").lines().any(|line| line == "public-keys/"));
        assert_eq!(get("meta-data/public-keys/"), "0=packer");
        assert_eq!(get("meta-data/public-keys/0/openssh-key"), "ssh-ed25519 A");
    }

    #[test]
    fn values_and_folders_with_a_token() {
        let metadata = start();
        let token = token(&metadata);
        let get = |path: &str| ask(&metadata, "GET", path, &token);
        assert_eq!(get("user-data"), (200, "domain=example.com".into()));
        assert_eq!(get("meta-data/placement/region"), (200, "eu-west-1".into()));
        assert_eq!(
            get("meta-data/placement/"),
            (200, "availability-zone\nregion".into())
        );
        assert_eq!(
            get("meta-data/iam/"),
            (200, "info\nsecurity-credentials/".into())
        );
        let lifecycle = "meta-data/autoscaling/target-lifecycle-state";
        assert_eq!(get(lifecycle).0, 404);
        metadata.set(lifecycle, Some(b"Terminated"));
        assert_eq!(get(lifecycle), (200, "Terminated".into()));
        metadata.set_user_data(None);
        assert_eq!(get("user-data").0, 404);
    }

    #[test]
    fn what_is_refused() {
        let metadata = start();
        assert_eq!(ask(&metadata, "GET", "user-data", "").0, 401);
        assert_eq!(ask(&metadata, "PUT", "api/token", "").0, 400);
        let long = "X-aws-ec2-metadata-token-ttl-seconds: 21601\r\n";
        assert_eq!(ask(&metadata, "PUT", "api/token", long).0, 400);
        let token = token(&metadata);
        let forwarded = format!("{token}X-Forwarded-For: 192.0.2.1\r\n");
        assert_eq!(ask(&metadata, "GET", "user-data", &forwarded).0, 403);
        metadata.fail_next(1);
        assert_eq!(ask(&metadata, "GET", "user-data", &token).0, 503);
        assert_eq!(ask(&metadata, "GET", "user-data", &token).0, 200);
        metadata.forget_tokens();
        assert_eq!(ask(&metadata, "GET", "user-data", &token).0, 401);
        metadata.disable(true);
        assert_eq!(ask(&metadata, "PUT", "api/token", "").0, 403);
        assert_eq!(metadata.requests().len(), 9);
    }
}
