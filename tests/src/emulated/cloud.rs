//! A region without anything in it, and instances that are launched there with user-data.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use cirrus_store::fault::Faults;
use serde_json::json;
use tempfile::TempDir;

use super::dynamodb::DynamoDb;
use super::metadata::{Instance, Metadata};
use super::s3::S3;
use crate::client::Identity;
use crate::dialogue::play::Stage;
use crate::process::{Process, binary, free_address};
use crate::server::call;

/// DynamoDB and S3, empty at first.
pub struct Cloud {
    dynamodb: DynamoDb,
    s3: S3,
}

impl Cloud {
    /// Starts both.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start() -> Result<Cloud> {
        Cloud::with_faults(Faults::none())
    }

    /// Starts both, with faults that befall DynamoDB.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn with_faults(faults: Faults) -> Result<Cloud> {
        Ok(Cloud {
            dynamodb: DynamoDb::in_memory(faults)?,
            s3: S3::start(Faults::none())?,
        })
    }

    /// Where DynamoDB is.
    #[must_use]
    pub fn dynamodb(&self) -> String {
        self.dynamodb.endpoint()
    }

    /// Switches the versioning of a bucket on, as somebody could.
    ///
    /// # Errors
    /// When S3 refuses.
    pub fn version_bucket(&self, bucket: &str) -> Result<()> {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        let address = self.s3();
        let address = address.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address)?;
        let length = body.len();
        write!(
            socket,
            "PUT /{bucket}?versioning HTTP/1.1\r\nhost: {address}\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "S3 answered {answer:?}");
        Ok(())
    }

    /// Where S3 is.
    #[must_use]
    pub fn s3(&self) -> String {
        self.s3.endpoint()
    }
}

/// An instance: its metadata, and `cirrus-bootstrap` with the server that it starts. Nothing but
/// the environment tells them that this is not AWS. Everything is killed when this is dropped.
pub struct Node {
    folder: TempDir,
    metadata: Metadata,
    cloud: [(&'static str, String); 2],
    process: Process,
    address: SocketAddr,
    tls_address: SocketAddr,
}

impl Node {
    /// Launches an instance with this user-data, to which ports and folders of this machine are
    /// added; it need not be up yet.
    ///
    /// # Errors
    /// When it cannot be launched.
    pub fn launch(cloud: &Cloud, id: &str, user_data: &str) -> Result<Node> {
        let (address, tls_address) = (free_address()?, free_address()?);
        let user_data = format!(
            "{user_data}\nlisten.c2s={address}\nlisten.c2s_tls={tls_address}\n\
             listen.health=127.0.0.1:0\nauth.iterations=4096\n"
        );
        let instance = Instance {
            id: id.to_owned(),
            ..Instance::default()
        };
        let metadata = Metadata::start(&instance, Some(user_data.as_bytes()))?;
        let folder = TempDir::with_prefix("cirrus-node-")?;
        let cloud = [
            ("AWS_ENDPOINT_URL_DYNAMODB", cloud.dynamodb()),
            ("AWS_ENDPOINT_URL_S3", cloud.s3()),
        ];
        let process = run(folder.path(), &metadata, &cloud)?;
        Ok(Node {
            folder,
            metadata,
            cloud,
            process,
            address,
            tls_address,
        })
    }

    /// Launches an instance and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(cloud: &Cloud, id: &str, user_data: &str) -> Result<Node> {
        let node = Node::launch(cloud, id, user_data)?;
        node.wait_for("code=ok")?;
        Ok(node)
    }

    /// Launches an instance and waits until it stands by.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_standby(cloud: &Cloud, id: &str, user_data: &str) -> Result<Node> {
        let node = Node::launch(cloud, id, user_data)?;
        node.wait_for("code=standby")?;
        Ok(node)
    }

    /// The id of the server's process.
    ///
    /// # Errors
    /// When bootstrap has not exactly one child.
    pub fn server(&self) -> Result<u32> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(children.trim().parse()?)
    }

    /// Waits for a line with this word, and gives the line.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for(&self, word: &str) -> Result<String> {
        let found = |line: &str| line.contains(word).then(|| line.to_owned());
        self.process.wait_for(word, found)
    }

    /// The process of bootstrap; the server ends with it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The metadata of the instance.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        data(self.folder.path()).join("control.sock")
    }

    /// Starts bootstrap again on the same instance; it need not be up yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_again(&mut self) -> Result<()> {
        self.process = run(self.folder.path(), &self.metadata, &self.cloud)?;
        Ok(())
    }
}

impl Stage for Node {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn tls_address(&self) -> SocketAddr {
        self.tls_address
    }

    fn add_account(&mut self, identity: &Identity) -> Result<()> {
        let (jid, password) = (identity.bare(), &identity.password);
        let request = json!({ "v": 1, "call": "user.add", "jid": jid, "password": password });
        let answer = call(&self.control(), &request)?;
        ensure!(answer["ok"] == true, "the server refused: {answer}");
        Ok(())
    }

    fn restart(&mut self, signal: &str) -> Result<()> {
        self.process.signal(signal)?;
        let status = self.process.wait()?;
        ensure!(
            signal != "TERM" || status.success(),
            "SIGTERM ended it with {status}:\n{}",
            self.process.log()
        );
        self.launch_again()?;
        // After a death it stands by until its old lease has run out.
        self.wait_for("\"message\":\"ready\"").map(drop)
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn run(folder: &Path, metadata: &Metadata, cloud: &[(&'static str, String)]) -> Result<Process> {
    let mut command = Command::new(binary("cirrus-bootstrap")?);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.arg("run").arg("--data-dir").arg(data(folder));
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint());
    command.envs(cloud.iter().map(|(name, value)| (name, value)));
    Process::start("cirrus-bootstrap", &mut command)
}
