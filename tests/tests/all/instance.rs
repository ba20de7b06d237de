//! An instance and the AWS around it: configurations and values that stand elsewhere, and what its
//! autoscaling group hears. The services are emulated; that is no evidence about AWS.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest;
use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::Doors;
use cirrus_tests::emulated::cloud::{Cloud, Node, Programs};
use cirrus_tests::emulated::network::Network;
use cirrus_tests::emulated::services::Group;
use cirrus_tests::process::binary;
use tempfile::TempDir;

const ID: &str = "i-0000000000000000a";

/// Runs a boot that must fail: its exit code, and what it printed.
fn fails(cloud: &Cloud, user_data: &str) -> (i32, String) {
    let mut node = Node::launch(cloud, ID, user_data).unwrap();
    let code = node.process().wait().unwrap().code().unwrap();
    (code, node.process().log())
}

fn sha256(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn group(states: &[&'static str]) -> Group {
    Group {
        name: "chat-nodes".into(),
        instance: ID.into(),
        states: states.to_vec(),
        hooks: vec!["ready"],
        ..Group::default()
    }
}

fn heard(hook: &str, result: &str) -> Vec<(String, String)> {
    vec![(hook.to_owned(), result.to_owned())]
}

/// One line of user-data names an object, its version and its hash. A wrong hash, an object or a
/// version that is not there, and a configuration with a fault end the boot, each with its name.
#[test]
fn a_configuration_in_s3() {
    let cloud = Cloud::start().unwrap();
    let first = "domains: [localhost]\nlimits: {depth: 32}\n";
    cloud.make_bucket("configs").unwrap();
    cloud.put("elsewhere", "").unwrap();
    cloud.version_bucket("configs").unwrap();
    let version = cloud.put("configs/cirrus.yaml", first).unwrap().unwrap();
    let second = "domains: [localhost]\nlimits: {depth: 33, what: 1}\n";
    cloud.put("configs/cirrus.yaml", second).unwrap();

    let hash = sha256(first);
    let pinned = format!("config=s3://configs/cirrus.yaml?versionId={version}&sha256={hash}");
    let mut node = Node::start(&cloud, ID, &pinned).unwrap();
    let romeo = Identity::new("romeo@localhost", "wherefore").unwrap();
    node.add_account(&romeo).unwrap();
    Client::connect(node.address(), romeo).unwrap();
    let log = node.process().log();
    let note = format!("s3://configs/cirrus.yaml: 41 bytes, version {version}");
    assert!(log.contains(&note), "{note:?} is not in:\n{log}");
    let rendered = std::fs::read_to_string(node.data().join("cirrus.yaml")).unwrap();
    assert!(rendered.contains("depth: 32"), "{rendered}");
    drop(node);

    let current = "config=s3://configs/cirrus.yaml";
    for (user_data, exit, expected) in [
        (
            format!("{current}?sha256={hash}"),
            23,
            "phase=parse code=reference-hash",
        ),
        (
            current.to_owned(),
            20,
            "message=\"s3://configs/cirrus.yaml:2:21: limits.what: unknown option",
        ),
        (
            "config=s3://configs/none".to_owned(),
            22,
            "message=\"user-data:1:8: config: s3://configs/none: configs/none: GetObject: \
             NoSuchKey",
        ),
        (
            "config=s3://elsewhere/cirrus.yaml".to_owned(),
            40,
            "(the bucket is in another region: keep it in the one of the instances)",
        ),
        ("config=ssm:/none".to_owned(), 22, "code=reference-absent"),
    ] {
        let (code, log) = fails(&cloud, &user_data);
        assert_eq!(code, exit, "{user_data}: {log}");
        assert!(log.contains(expected), "{expected:?} is not in:\n{log}");
    }
}

/// Values come from Parameter Store and Secrets Manager, the certificate with its key too; nothing
/// secret is printed, and the server's configuration has no reference in it.
#[test]
fn values_and_a_certificate_from_the_services() {
    let cloud = Cloud::start().unwrap();
    let (chain, key) = certificate();
    let services = cloud.services();
    services.put_parameter("/chat/domain", "String", "localhost");
    services.put_parameter("/chat/chain", "String", &chain);
    let secret = serde_json::json!({ "key": key, "depth": 77 }).to_string();
    services.put_secret("chat", &secret);
    let user_data = "domain=ssm:/chat/domain:1\nlimits.depth=secretsmanager:chat#depth\n\
                     tls.certificates=[{host: localhost, chain: ssm:/chat/chain, \
                     key: secretsmanager:chat#key}]";
    let mut node = Node::start(&cloud, ID, user_data).unwrap();
    let romeo = Identity::new("romeo@localhost", "wherefore").unwrap();
    node.add_account(&romeo).unwrap();
    Client::connect(node.address(), romeo).unwrap();
    let folder = node.data().join("tls/referenced");
    let written = std::fs::read_to_string(folder.join("0-key.pem")).unwrap();
    assert_eq!(written, key);
    assert_eq!(mode(&folder.join("0-key.pem")), 0o600);
    assert!(!node.data().join("tls/localhost.pem").exists());
    let rendered = std::fs::read_to_string(node.data().join("cirrus.yaml")).unwrap();
    assert!(rendered.contains("depth: 77"), "{rendered}");
    assert!(!rendered.contains("secretsmanager:"), "{rendered}");
    let log = node.process().log();
    let line = key.lines().nth(1).unwrap();
    assert!(!log.contains(line) && !rendered.contains(line), "{log}");
    drop(node);

    services.deny("GetSecretValue");
    let (code, log) = fails(&cloud, user_data);
    assert_eq!(code, 40, "{log}");
    let expected = "user-data:2:14: limits.depth: secretsmanager:chat#depth: chat: \
                    GetSecretValue: AccessDeniedException";
    assert!(log.contains(expected), "{log}");
}

/// As on the image: the folders are those of its tmpfiles.d, the server's user is another one than
/// root, and bootstrap has the rights of its unit and no others. The certificate is written at the
/// first boot, stays at the second, and is replaced when it has changed.
#[test]
fn a_certificate_for_a_server_with_another_user() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        eprintln!("skipped: folders of several users need root");
        return;
    }
    let place = TempDir::with_prefix("cirrus-rights-").unwrap();
    let cloud = Cloud::start().unwrap();
    let services = cloud.services();
    let put = || {
        let (chain, key) = certificate();
        services.put_parameter("/chat/chain", "String", &chain);
        services.put_secret("chat", &serde_json::json!({ "key": key }).to_string());
        key
    };
    let first = put();
    let programs = Programs {
        bootstrap: Some(as_on_the_image(place.path())),
        server: None,
    };
    let user_data = "domain=localhost\ntls.certificates=[{host: localhost, \
                     chain: ssm:/chat/chain, key: secretsmanager:chat#key}]";
    let doors = Doors::free().unwrap();
    let network = Network::default();
    let launched = Node::launch_with(programs, &network, 1, &cloud, ID, user_data, doors);
    let mut node = launched.unwrap();
    let folder = node.data().join("tls/referenced");
    let written = |node: &Node, key: &str| {
        node.wait_for("code=ok").unwrap();
        for file in ["0-key.pem", "0-chain.pem"] {
            let its = std::fs::metadata(folder.join(file)).unwrap();
            let access = (its.uid(), its.gid(), its.mode() & 0o7777);
            assert_eq!(access, (0, SERVER, 0o640), "{file}");
        }
        assert_eq!(
            std::fs::read_to_string(folder.join("0-key.pem")).unwrap(),
            key
        );
        let its = std::fs::metadata(&folder).unwrap();
        assert_eq!((its.gid(), its.mode() & 0o7777), (SERVER, 0o2750));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    };
    written(&node, &first);
    let again = |node: &mut Node| {
        node.process().signal("TERM").unwrap();
        node.process().wait().unwrap();
        node.launch_again().unwrap();
    };
    again(&mut node);
    written(&node, &first);
    let second = put();
    again(&mut node);
    written(&node, &second);
}

/// The server's user and group in that test: any but root's.
const SERVER: u32 = 65_534;

/// A program that makes the image's folders for the data folder that it is given, and becomes
/// bootstrap with the rights of its unit.
fn as_on_the_image(place: &Path) -> PathBuf {
    let system = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud-init/root/usr/lib");
    let unit = system.join("systemd/system/cirrus-bootstrap.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let bounding = |line: &str| {
        line.strip_prefix("CapabilityBoundingSet=")
            .map(str::to_owned)
    };
    let rights = unit.lines().find_map(bounding).unwrap();
    let rights = rights.to_lowercase().replace("cap_", "+");
    let folders = std::fs::read_to_string(system.join("tmpfiles.d/cirrus.conf")).unwrap();
    let ours = folders
        .lines()
        .filter(|line| line.contains("/var/lib/cirrus"));
    let ours = ours.collect::<Vec<_>>().join("\n") + "\n";
    let ours = ours.replace(" cirrus", &format!(" {SERVER}"));
    std::fs::write(place.join("folders"), ours).unwrap();
    let program = binary("cirrus-bootstrap").unwrap();
    let script = format!(
        "#!/bin/sh -e\nsed \"s|/var/lib/cirrus|$3|\" {folders} > {folders}.conf\n\
         systemd-tmpfiles --create {folders}.conf\n\
         exec setpriv --inh-caps=-all --bounding-set=-all,{rights} --no-new-privs {program} \"$@\"\n",
        folders = place.join("folders").display(),
        program = program.display(),
    );
    let path = place.join("bootstrap");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What an operator reads on the console when the machine can't do what it should: one status line
/// with the cause and the remedy, an exit code of its own, and nothing half configured.
#[test]
fn permissions_and_a_clock_are_named() {
    for (spoil, exit, status, words) in [
        (
            (|cloud: &Cloud| cloud.tables().deny("CreateTable")) as fn(&Cloud),
            40,
            "CIRRUS-BOOT fail phase=provision code=aws-refused",
            "CreateTable: AccessDeniedException: User: node is not authorized to perform: \
             dynamodb:CreateTable (the role or user of this machine lacks the permission; \
             docs/BOOT.md lists what an instance needs)",
        ),
        (
            |cloud: &Cloud| cloud.tables().find_clock_behind(),
            46,
            "CIRRUS-BOOT fail phase=provision code=clock-wrong",
            "(the clock of this machine is wrong: set it, and let it follow a time server; on \
             EC2 that is 169.254.169.123)",
        ),
    ] {
        let cloud = Cloud::start().unwrap();
        cloud.services().put_group(group(&["Pending:Wait"]));
        spoil(&cloud);
        let mut node = Node::launch(&cloud, ID, "domain=localhost").unwrap();
        assert_eq!(node.process().wait().unwrap().code(), Some(exit));
        let log = node.process().log();
        let line = log.lines().find(|line| line.starts_with(status));
        let line = line.unwrap_or_else(|| panic!("{status} is not in:\n{log}"));
        assert!(line.contains(words), "{line}");
        assert!(!node.data().join("cirrus.yaml").exists(), "{log}");
        let group = cloud.services().group().unwrap();
        assert_eq!(group.completed, heard("ready", "ABANDON"));
    }
}

/// A node that serves lets its group go on. It was ready before the group began to wait, and its
/// first words were too early.
#[test]
fn a_group_hears_that_its_instance_serves() {
    let cloud = Cloud::start().unwrap();
    let early = 2;
    cloud.services().put_group(Group {
        early,
        ..group(&["Pending", "Pending:Wait"])
    });
    let node = Node::start(&cloud, ID, "domain=localhost").unwrap();
    let line = node.wait_for("report: the hook").unwrap();
    assert!(
        line.ends_with("the hook ready of chat-nodes is complete, after 3 attempts: CONTINUE"),
        "{line}"
    );
    let group = cloud.services().group().unwrap();
    assert_eq!(group.completed, heard("ready", "CONTINUE"));
    tagged(&cloud, &node, "ok");
}

/// A boot that fails says so before it ends.
#[test]
fn a_group_hears_that_its_instance_failed() {
    let cloud = Cloud::start().unwrap();
    cloud.services().put_group(group(&["Pending:Wait"]));
    let mut node = Node::launch(&cloud, ID, "domain=exa_mple.com").unwrap();
    assert_eq!(node.process().wait().unwrap().code(), Some(20));
    let group = cloud.services().group().unwrap();
    assert_eq!(group.completed, heard("ready", "ABANDON"));
    tagged(&cloud, &node, "fail phase=parse code=config-invalid");
}

/// What AWS does not allow here is a warning; the node serves. A second boot has nothing to say,
/// and an instance in no group asks nothing.
#[test]
fn a_report_that_is_refused_fails_no_boot() {
    let cloud = Cloud::start().unwrap();
    let services = cloud.services();
    services.put_group(group(&["Pending:Wait"]));
    services.deny("CompleteLifecycleAction");
    services.deny("CreateTags");
    let node = Node::start(&cloud, ID, "domain=localhost").unwrap();
    let warning = node.wait_for("warning: the hook could not be").unwrap();
    assert!(
        warning.contains("CompleteLifecycleAction: AccessDenied: User: node is not"),
        "{warning}"
    );
    #[cfg(feature = "ec2")]
    node.wait_for("warning: the tag cirrus:boot could not be set")
        .unwrap();
    drop(node);
    services.put_group(group(&["InService"]));
    let node = Node::launch(&cloud, ID, "domain=localhost").unwrap();
    node.wait_for("report: no hook waits; in chat-nodes it is InService")
        .unwrap();
    drop(node);
    let calls = |cloud: &Cloud| {
        let calls = cloud.services().calls();
        // The metadata may not know of a group yet, so that is asked; and nobody is told.
        let others = ["CreateTags", "DescribeAutoScalingInstances"];
        let others = |call: &&String| others.contains(&call.as_str());
        calls.iter().filter(|call| !others(call)).count()
    };
    let before = calls(&cloud);
    let (code, _) = fails(cloud_without_group(&cloud), "domain=exa_mple.com");
    assert_eq!((code, calls(&cloud)), (20, before));
}

fn cloud_without_group(cloud: &Cloud) -> &Cloud {
    cloud.services().put_group(Group::default());
    cloud
}

/// The tag of the outcome, in a build that has it.
fn tagged(cloud: &Cloud, node: &Node, value: &str) {
    if cfg!(feature = "ec2") {
        node.wait_for("report: the tag cirrus:boot").unwrap();
        let tag = cloud.services().tag(ID, "cirrus:boot");
        assert_eq!(tag.as_deref(), Some(value));
    }
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).unwrap();
    metadata.permissions().mode() & 0o777
}

/// A certificate of localhost and its key: those that a server makes for itself.
fn certificate() -> (String, String) {
    let server = cirrus_tests::server::Server::start(&cirrus_tests::server::Options::new());
    let server = server.unwrap();
    let files: Vec<PathBuf> = std::fs::read_dir(server.folder().join("tls"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let at = text.find("-----BEGIN CERTIFICATE").unwrap();
    (text[at..].to_owned(), text[..at].to_owned())
}
