//! The phase `discover`: where the user-data is, and who this machine is.

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, Shell, say};
use crate::code::Code;
use crate::metadata::{Client, Identity, MetadataError};
use crate::site::Surroundings;

/// How long the metadata is asked where it must answer: an instance's network may come up late.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is asked where nothing depends on it.
const PROBE: Duration = Duration::from_secs(1);
/// Bytes read of a file or of standard input: enough to say that it is too much.
const MAX_READ: u64 = 1_048_576;
/// Names the endpoint of the metadata.
const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

impl Shell {
    pub(super) async fn discover(&mut self) -> Result<String, Failure> {
        let given = self.args.source.user_data.clone();
        if let Some(text) = &given {
            self.source = Some(read(text)?);
        }
        let disabled = env("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v == "true");
        if self.args.source.no_metadata || disabled {
            return match given {
                Some(_) => Ok("user-data from the command line; not on EC2".into()),
                None => Err(absent("the instance metadata is disabled")),
            };
        }
        let endpoint = env(ENDPOINT);
        let must_answer = given.is_none() || endpoint.is_some();
        if must_answer {
            self.ask(endpoint.as_deref()).await
        } else {
            self.identity = probe().await;
            Ok(match &self.identity {
                Some(identity) => {
                    format!("user-data from the command line; {}", words(identity))
                }
                None => "user-data from the command line; not on EC2".into(),
            })
        }
    }

    async fn ask(&mut self, endpoint: Option<&str>) -> Result<String, Failure> {
        if self.source.is_none() {
            let seconds = PATIENCE.as_secs();
            say(&format!(
                "discover: asking the instance metadata for at most {seconds} s \
                 (--user-data gives user-data without it)"
            ));
        }
        let mut client = Client::new(endpoint, PATIENCE).map_err(|e| failure(&e))?;
        let identity = client.identity().await.map_err(|e| failure(&e))?;
        let line = words(&identity);
        self.identity = Some(identity);
        if self.source.is_some() {
            return Ok(format!("user-data from the command line; {line}"));
        }
        match client.user_data().await.map_err(|e| failure(&e))? {
            Some(bytes) => {
                let length = bytes.len();
                self.source = Some((bytes, "user-data".into()));
                Ok(format!("{length} bytes of user-data; {line}"))
            }
            None => Err(absent("the instance metadata has none")),
        }
    }
}

/// Where the world reaches this instance: its name, as SRV records need one, else its address.
/// `None` if it has neither, or the metadata does not say.
pub(super) async fn public_address() -> Option<String> {
    let mut client = metadata(PATIENCE).ok()?;
    for path in ["public-hostname", "public-ipv4", "ipv6"] {
        let found = client.get(&format!("meta-data/{path}")).await.ok()?;
        let found = found.and_then(|bytes| String::from_utf8(bytes).ok());
        let found = found.map(|text| text.trim().to_owned());
        if let Some(found) = found.filter(|text| !text.is_empty()) {
            return Some(found);
        }
    }
    None
}

/// Who this instance is, if it is one and says so quickly.
async fn probe() -> Option<Identity> {
    let mut client = Client::new(None, PROBE).ok()?;
    client.identity().await.ok()
}

fn words(identity: &Identity) -> String {
    let Identity {
        instance_id,
        zone,
        account,
        ..
    } = identity;
    format!("instance {instance_id} in {zone} of account {account}")
}

fn absent(why: &str) -> Failure {
    let message = format!("no user-data: {why}; give --user-data, for example domain=example.com");
    Failure::new(Code::UserDataAbsent, message)
}

fn failure(error: &MetadataError) -> Failure {
    let code = match error {
        MetadataError::Unreachable { .. } | MetadataError::Refused { .. } => {
            Code::MetadataUnreachable
        }
        MetadataError::Malformed { .. } => Code::MetadataMalformed,
        MetadataError::Client(_) => Code::Internal,
    };
    Failure::of(code, error)
}

/// The user-data of the command line, and its name in messages.
fn read(given: &str) -> Result<(Vec<u8>, String), Failure> {
    let unreadable = |name: &str, error: &dyn std::error::Error| {
        Failure::new(
            Code::UserDataUnreadable,
            format!("{name} cannot be read: {error}"),
        )
    };
    let mut bytes = Vec::new();
    if given == "-" {
        let stdin = std::io::stdin()
            .lock()
            .take(MAX_READ)
            .read_to_end(&mut bytes);
        stdin.map_err(|e| unreadable("standard input", &e))?;
        return Ok((bytes, "stdin".into()));
    }
    let Some(path) = given.strip_prefix('@') else {
        return Ok((given.as_bytes().to_vec(), "user-data".into()));
    };
    let file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    file.take(MAX_READ)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(path, &e))?;
    Ok((bytes, path.to_owned()))
}

/// A client of the instance metadata at its endpoint.
pub(super) fn metadata(deadline: Duration) -> Result<Client, MetadataError> {
    Client::new(env(ENDPOINT).as_deref(), deadline)
}

/// A variable that is set and not empty.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// What this process knows about its machine.
pub(super) fn surroundings(data_dir: Option<PathBuf>) -> Surroundings {
    let path = |name| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || Some(path("HOME")?.join(".local/share"));
    let absolute = |dir: PathBuf| std::path::absolute(&dir).unwrap_or(dir);
    let host_name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Surroundings {
        data_dir: data_dir.map(absolute),
        data_home: path("XDG_DATA_HOME").or_else(home),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        region: env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION")),
        host_name: Some(host_name),
        public_address: None,
        ipv6: TcpListener::bind("[::1]:0").is_ok(),
    }
}
