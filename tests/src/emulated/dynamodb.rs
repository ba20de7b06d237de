//! DynamoDB on this machine: dynoxide, in this process, behind a [`Front`].
//!
//! What it lacks and the front answers: continuous backups (point-in-time recovery), which are
//! remembered per table, and nothing else. Accepts any signature; expires nothing by itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use cirrus_schema::TableId;
use cirrus_store::fault::Faults;
use cirrus_store::{RequestKind, Target};
use dynoxide::Database;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::front::{Front, Request, Service};

/// A running emulator. It ends when this is dropped.
pub struct DynamoDb {
    front: Front,
    refusals: Arc<Mutex<Refusals>>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl DynamoDb {
    /// Starts an emulator that keeps everything in memory.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn in_memory(faults: Faults) -> Result<DynamoDb> {
        let database = Database::memory().map_err(|error| anyhow!("{error:?}"))?;
        DynamoDb::start(database, faults)
    }

    /// Starts an emulator that keeps everything in a file.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn in_file(file: &Path, faults: Faults) -> Result<DynamoDb> {
        let path = file.to_str().context("the file's name is not UTF-8")?;
        let database = Database::new(path).map_err(|error| anyhow!("{error:?}"))?;
        DynamoDb::start(database, faults)
    }

    fn start(database: Database, faults: Faults) -> Result<DynamoDb> {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let server = thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || {
                // Whoever started it has gone if nobody is told.
                let told = serve(database, stopped, |address| drop(tell.send(Ok(address))));
                if let Err(error) = told {
                    drop(tell.send(Err(error)));
                }
            })?;
        let behind = told.recv().context("the emulator has ended")??;
        let api = Api::default();
        let refusals = Arc::clone(&api.refusals);
        let front = Front::start(api, behind, faults)?;
        Ok(DynamoDb {
            front,
            refusals,
            stop: Some(stop),
            server: Some(server),
        })
    }

    /// Refuses a call from now on, as without permission: `CreateTable`.
    pub fn deny(&self, call: &'static str) {
        self.refusals().denied.insert(call);
    }

    /// Takes all calls again.
    pub fn allow(&self) {
        *self.refusals() = Refusals::default();
    }

    /// Refuses every call from now on, as AWS does to a machine whose clock is behind.
    pub fn find_clock_behind(&self) {
        self.refusals().clock_behind = true;
    }

    /// Refuses, as AWS does, what is signed more than five minutes before or after this machine's
    /// time. [`DynamoDb::allow`] ends it.
    pub fn look_at_clocks(&self) {
        self.refusals().clocks = true;
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `AWS_ENDPOINT_URL_DYNAMODB`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.front.endpoint()
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            // It ends when its last connection has; a panic in it has failed the test already.
            drop(server.join());
        }
    }
}

fn serve(
    database: Database,
    stopped: oneshot::Receiver<()>,
    started: impl FnOnce(SocketAddr),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        started(listener.local_addr()?);
        let shutdown = async move { drop(stopped.await) };
        let served = dynoxide::server::serve_with_shutdown(listener, database, shutdown).await;
        served.map_err(|error| anyhow!(error))
    })
}

/// The calls of DynamoDB, by the header `x-amz-target`.
#[derive(Default)]
struct Api {
    /// Tables with point-in-time recovery.
    recoverable: Mutex<BTreeSet<String>>,
    refusals: Arc<Mutex<Refusals>>,
}

/// What is refused before anything is looked at.
#[derive(Default)]
struct Refusals {
    denied: BTreeSet<&'static str>,
    clock_behind: bool,
    /// Whether the times of signatures count.
    clocks: bool,
}

impl Api {
    fn refusal(&self, request: &Request, call: &str) -> Option<(u16, String)> {
        let refusals = self.refusals.lock();
        let refusals = refusals.unwrap_or_else(PoisonError::into_inner);
        let (kind, message) = if refusals.clock_behind {
            let date = request.headers.get("x-amz-date")?;
            let message = format!(
                "Signature expired: {date} is now earlier than 20991231T235500Z (20991231T235959Z \
                 - 5 min.)"
            );
            ("InvalidSignatureException", message)
        } else if let Some(message) = refusals.clocks.then(|| of_another_time(request)).flatten() {
            ("InvalidSignatureException", message)
        } else if refusals.denied.contains(call) {
            let message = format!("User: node is not authorized to perform: dynamodb:{call}");
            ("AccessDeniedException", message)
        } else {
            return None;
        };
        let kind = format!("com.amazon.coral.service#{kind}");
        let body = json!({ "__type": kind, "message": message });
        Some((400, body.to_string()))
    }
}

/// What AWS says to a signature of another time; nothing to one of now.
fn of_another_time(request: &Request) -> Option<String> {
    let date = request.headers.get("x-amz-date")?;
    let signed = seconds_of(date)?;
    let now = i64::try_from(now()).ok()?;
    match signed - now {
        -300..=300 => None,
        ..-300 => Some(format!("Signature expired: {date} is too early")),
        _ => Some(format!("Signature not yet current: {date} is too late")),
    }
}

/// Seconds since 1970 of a date such as `20261129T012046Z`.
fn seconds_of(date: &str) -> Option<i64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    // The year begins in March, so that the day that comes and goes is its last one.
    let (year, month) = (year - i64::from(month < 3), (month + 9) % 12);
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // Days from the first of March of the year 0 to 1970.
    let days = days - 719_468;
    Some(days * 86_400 + number(9, 11)? * 3_600 + number(11, 13)? * 60 + number(13, 15)?)
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the clock that a machine's is compared with is the real one"
)]
fn now() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

fn call(request: &Request) -> Option<&str> {
    request
        .headers
        .get("x-amz-target")?
        .split_once('.')
        .map(|(_, call)| call)
}

fn table_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let named = body
        .get("TableName")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let batch = || {
        body.get("RequestItems")?
            .as_object()?
            .keys()
            .next()
            .cloned()
    };
    named.or_else(batch)
}

impl Service for Api {
    fn target(&self, request: &Request) -> Option<Target> {
        let kind = match call(request)? {
            "PutItem" => RequestKind::Put,
            "DeleteItem" => RequestKind::Delete,
            "GetItem" => RequestKind::Get,
            "Query" => RequestKind::Query,
            "BatchGetItem" => RequestKind::BatchGet,
            _ => return None,
        };
        let name = table_of(&request.body)?;
        let table = TableId::from_name(name.rsplit('-').next()?)?;
        Some(Target::Table(kind, table))
    }

    fn answer(&self, request: &Request) -> Option<(u16, String)> {
        let call = call(request)?;
        if let Some(refusal) = self.refusal(request, call) {
            return Some(refusal);
        }
        if !matches!(
            call,
            "UpdateContinuousBackups" | "DescribeContinuousBackups"
        ) {
            return None;
        }
        let name = table_of(&request.body)?;
        let mut recoverable = self
            .recoverable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if call == "UpdateContinuousBackups" {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            let wanted = &body["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
            match wanted.as_bool()? {
                true => recoverable.insert(name.clone()),
                false => recoverable.remove(&name),
            };
        }
        let status = if recoverable.contains(&name) {
            "ENABLED"
        } else {
            "DISABLED"
        };
        let answer = json!({ "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": { "PointInTimeRecoveryStatus": status },
        } });
        Some((200, answer.to_string()))
    }

    fn throttled(&self) -> (u16, &'static str) {
        let body = concat!(
            r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","#,
            r#""message":"planned"}"#
        );
        (400, body)
    }

    fn failed(&self) -> (u16, &'static str) {
        let body = concat!(
            r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","#,
            r#""message":"planned"}"#
        );
        (500, body)
    }

    fn media_type(&self) -> &'static str {
        "application/x-amz-json-1.0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_signatures_are_read() {
        for (date, seconds) in [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20000301T000000Z", 951_868_800),
            ("20261129T012046Z", 1_795_915_246),
        ] {
            assert_eq!(seconds_of(date), Some(seconds), "{date}");
        }
        assert_eq!(seconds_of("yesterday"), None);
    }
}
