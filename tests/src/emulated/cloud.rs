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
use super::network::{self, Network};
use super::s3::S3;
use super::services::Services;
use crate::client::Identity;
use crate::dialogue::play::Stage;
use crate::elastic::Doors;
use crate::process::{Process, binary, free_address};
use crate::server::call;

/// DynamoDB, S3 and the other services, empty at first.
pub struct Cloud {
    dynamodb: DynamoDb,
    s3: S3,
    services: Services,
}

impl Cloud {
    /// Starts all.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start() -> Result<Cloud> {
        Cloud::with_faults(Faults::none())
    }

    /// Starts all, with faults that befall DynamoDB.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn with_faults(faults: Faults) -> Result<Cloud> {
        Ok(Cloud {
            dynamodb: DynamoDb::in_memory(faults)?,
            s3: S3::start(Faults::none())?,
            services: Services::start()?,
        })
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &DynamoDb {
        &self.dynamodb
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
        self.put(&format!("{bucket}?versioning"), body).map(drop)
    }

    /// How many tables and buckets there are.
    ///
    /// # Errors
    /// When one of the two does not say.
    pub fn objects(&self) -> Result<usize> {
        let endpoint = self.dynamodb();
        let tables = exchange(
            &endpoint,
            "POST / HTTP/1.1\r\nx-amz-target: DynamoDB_20120810.ListTables\r\n\
             content-type: application/x-amz-json-1.0\r\nx-amz-date: 20261129T000000Z\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=test/20261129/eu-west-1/dynamodb/\
             aws4_request, SignedHeaders=host, Signature=0",
            "{}",
        )?;
        let (_, list) = tables.split_once("\r\n\r\n").unwrap_or_default();
        let list: serde_json::Value = serde_json::from_str(list)?;
        let tables = list["TableNames"].as_array().map_or(0, Vec::len);
        let buckets = exchange(&self.s3(), "GET / HTTP/1.1", "")?;
        Ok(tables + buckets.matches("<Bucket>").count())
    }

    /// Makes a bucket in the region of the emulated instances.
    ///
    /// # Errors
    /// When S3 refuses.
    pub fn make_bucket(&self, bucket: &str) -> Result<()> {
        let place = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint>\
                     </CreateBucketConfiguration>";
        self.put(bucket, place).map(drop)
    }

    /// Puts an object, or makes a bucket in S3's first region if there is no key (`bucket/key`).
    /// Gives the version, if the bucket has versions.
    ///
    /// # Errors
    /// When S3 refuses.
    pub fn put(&self, path: &str, body: &str) -> Result<Option<String>> {
        let answer = exchange(&self.s3(), &format!("PUT /{path} HTTP/1.1"), body)?;
        let mut headers = answer.lines().filter_map(|line| line.split_once(": "));
        let version = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-amz-version-id"));
        Ok(version.map(|(_, id)| id.trim().to_owned()))
    }

    /// Parameter Store, Secrets Manager, Auto Scaling and EC2.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Where S3 is.
    #[must_use]
    pub fn s3(&self) -> String {
        self.s3.endpoint()
    }
}

/// One request, of which all but what belongs to the connection is given; the whole answer, which
/// must be of status 200.
fn exchange(endpoint: &str, head: &str, body: &str) -> Result<String> {
    let address = endpoint.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        socket,
        "{head}\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{endpoint} answered {answer:?}"
    );
    Ok(answer)
}

/// Programs that are others than those of this build.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// `cirrus-bootstrap`.
    pub bootstrap: Option<PathBuf>,
    /// `cirrus-server`, if it is not beside that.
    pub server: Option<PathBuf>,
}

/// An instance: its metadata, and `cirrus-bootstrap` with the server that it starts. Nothing but
/// the environment tells them that this is not AWS. Everything is killed when this is dropped.
pub struct Node {
    folder: TempDir,
    programs: Programs,
    metadata: Metadata,
    cloud: Vec<(&'static str, String)>,
    process: Process,
    address: SocketAddr,
    tls_address: SocketAddr,
    health: SocketAddr,
}

impl Node {
    /// Launches an instance with this user-data, to which ports and folders of this machine are
    /// added; it need not be up yet.
    ///
    /// # Errors
    /// When it cannot be launched.
    pub fn launch(cloud: &Cloud, id: &str, user_data: &str) -> Result<Node> {
        let user_data = format!("{user_data}\nlisten.links=127.0.0.1:0\ncluster.address=127.0.0.1");
        let stores = [cloud.dynamodb(), cloud.s3()];
        let programs = Programs::default();
        Node::place(programs, cloud, id, &user_data, stores, Doors::free()?)
    }

    /// The same, as the node of this number in a network.
    ///
    /// # Errors
    /// When it cannot be launched.
    pub fn launch_in(
        network: &Network,
        number: u8,
        cloud: &Cloud,
        id: &str,
        user_data: &str,
    ) -> Result<Node> {
        Node::launch_behind(network, number, cloud, id, user_data, Doors::free()?)
    }

    /// The same, with doors that somebody knows already.
    ///
    /// # Errors
    /// When it cannot be launched.
    pub fn launch_behind(
        network: &Network,
        number: u8,
        cloud: &Cloud,
        id: &str,
        user_data: &str,
        doors: Doors,
    ) -> Result<Node> {
        let programs = Programs::default();
        Node::launch_with(programs, network, number, cloud, id, user_data, doors)
    }

    /// The same, with these programs instead of those of this build.
    ///
    /// # Errors
    /// When it cannot be launched.
    pub fn launch_with(
        programs: Programs,
        network: &Network,
        number: u8,
        cloud: &Cloud,
        id: &str,
        user_data: &str,
        doors: Doors,
    ) -> Result<Node> {
        let port = free_address()?.port();
        network.links(number, port)?;
        let way = |endpoint: String| -> Result<String> {
            let behind = endpoint.trim_start_matches("http://").parse()?;
            Ok(format!("http://{}", network.way(number, behind)?))
        };
        let (inner, outer) = (network::inner(number), network::outer(number));
        let links = format!("listen.links={inner}:{port}\ncluster.address={outer}");
        let stores = [way(cloud.dynamodb())?, way(cloud.s3())?];
        let user_data = format!("{user_data}\n{links}");
        Node::place(programs, cloud, id, &user_data, stores, doors)
    }

    fn place(
        programs: Programs,
        cloud: &Cloud,
        id: &str,
        user_data: &str,
        stores: [String; 2],
        doors: Doors,
    ) -> Result<Node> {
        let (address, tls_address) = (doors.c2s, doors.c2s_tls);
        // The world's authority is no part of a test, and port 80 is not ours.
        let acme = if user_data.contains("acme.") {
            ""
        } else {
            "acme.enabled=false\n"
        };
        let user_data = format!(
            "{user_data}\n{acme}listen.c2s={address}\nlisten.c2s_tls={tls_address}\n\
             listen.health={}\nauth.iterations=4096\n",
            doors.health
        );
        let instance = Instance {
            id: id.to_owned(),
            ..Instance::default()
        };
        let metadata = Metadata::start(&instance, Some(user_data.as_bytes()))?;
        // Its clients are on this machine too.
        metadata.set("meta-data/public-ipv4", Some(b"127.0.0.1"));
        let folder = TempDir::with_prefix("cirrus-node-")?;
        if cloud.services.member(id).is_some() {
            let path = "meta-data/autoscaling/target-lifecycle-state";
            metadata.set(path, Some(b"InService"));
        }
        let mut environment = cloud.services.environment();
        let [dynamodb, s3] = stores;
        environment.push(("AWS_ENDPOINT_URL_DYNAMODB", dynamodb));
        environment.push(("AWS_ENDPOINT_URL_S3", s3));
        let cloud = environment;
        let process = run(folder.path(), &metadata, &cloud, &programs)?;
        Ok(Node {
            folder,
            programs,
            metadata,
            cloud,
            process,
            address,
            tls_address,
            health: doors.health,
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

    /// Where health and metrics are.
    #[must_use]
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// The folder of everything durable that is on the instance itself.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data(self.folder.path())
    }

    /// Starts the watch beside the server, as its unit does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(&self) -> Result<Process> {
        let mut command = bootstrap(&self.metadata, &self.cloud, &self.programs)?;
        command.arg("watch").arg("--config");
        command.arg(self.data().join("cirrus.yaml"));
        Process::start("cirrus-bootstrap watch", &mut command)
    }

    /// Starts bootstrap again on the same instance; it need not be up yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_again(&mut self) -> Result<()> {
        let folder = self.folder.path();
        self.process = run(folder, &self.metadata, &self.cloud, &self.programs)?;
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
        // After a death it waits to join until its old lease has run out.
        self.wait_for("\"message\":\"ready\"").map(drop)
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn run(
    folder: &Path,
    metadata: &Metadata,
    cloud: &[(&'static str, String)],
    programs: &Programs,
) -> Result<Process> {
    let mut command = bootstrap(metadata, cloud, programs)?;
    command.arg("run").arg("--data-dir").arg(data(folder));
    if let Some(server) = &programs.server {
        command.arg("--server").arg(server);
    }
    Process::start("cirrus-bootstrap", &mut command)
}

/// The program, on an instance with this metadata in this cloud.
fn bootstrap(
    metadata: &Metadata,
    cloud: &[(&'static str, String)],
    programs: &Programs,
) -> Result<Command> {
    let mut command = match &programs.bootstrap {
        Some(program) => Command::new(program),
        None => Command::new(binary("cirrus-bootstrap")?),
    };
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint());
    command.envs(cloud.iter().map(|(name, value)| (name, value)));
    Ok(command)
}
