//! The end of an instance, with the real programs: `cirrus-bootstrap watch` beside a server that
//! drains. Metadata and AWS are emulated; that is no evidence about AWS.

use std::fs;
use std::process::Command;

use cirrus_tests::client::Client;
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::emulated::network::Network;
use cirrus_tests::emulated::services::{Group, Metric};
use cirrus_tests::process::{Process, free_address};
use serde_json::json;
use tempfile::TempDir;

use crate::boot::bootstrap;
use crate::cluster::{hear, identity, instance_id, resume, say, session, wait_for};

const GROUP: &str = "chat-nodes";
/// Looks as often as can be.
const USER_DATA: &str = "domain=localhost\ncluster.silence_ms=2000\ncluster.lease_ms=5000\n\
     cluster.cut_off_ms=10000\nwatch.poll_seconds=1\n\
     watch.gone_seconds=2\nwatch.backoff_seconds=1\nwatch.metrics_seconds=1";
/// Seconds for a drain, longer than anything here takes on a machine that is busy.
const DEADLINE: u32 = 60;
const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";
const SPOT: &str = "meta-data/spot/instance-action";

/// Two nodes of one group that serve together, and a watch beside each.
struct Pair {
    cloud: Cloud,
    nodes: [Node; 2],
    watches: [Process; 2],
    _network: Network,
}

impl Pair {
    fn start() -> Pair {
        let user_data = format!("{USER_DATA}\ndrain.deadline_seconds={DEADLINE}");
        let cloud = Cloud::start().unwrap();
        let network = Network::default();
        let nodes = [1, 2].map(|number| {
            let id = instance_id(usize::from(number));
            cloud.services().put_member(Group {
                name: GROUP.into(),
                instance: id.clone(),
                states: vec!["InService"],
                hooks: vec!["ready"],
                ..Group::default()
            });
            Node::launch_in(&network, number, &cloud, &id, &user_data).unwrap()
        });
        for node in &nodes {
            node.wait_for("code=ok").unwrap();
        }
        for node in &nodes {
            let settled = |status: &serde_json::Value| {
                status["members"] == 2 && status["awaited"] == 0 && status["leaving"] == 0
            };
            wait_for(node, settled);
        }
        let watches = [0, 1].map(|n: usize| nodes[n].watch().unwrap());
        Pair {
            cloud,
            nodes,
            watches,
            _network: network,
        }
    }

    /// The group takes a node away.
    fn take_away(&self, n: usize) {
        self.cloud.services().change(&instance_id(n + 1), |group| {
            group.states = vec!["Terminating:Wait"];
            // The group is a little late.
            group.early = 1;
        });
        self.nodes[n].metadata().set(LIFECYCLE, Some(b"Terminated"));
    }
}

fn says(watch: &Process, words: &str) -> String {
    let found = |line: &str| line.contains(words).then(|| line.to_owned());
    watch.wait_for(words, found).unwrap()
}

/// A node that its group takes away hands its sessions over, whatever befalls its watch meanwhile:
/// metadata that fails and forgets tokens, and a death in the middle of the drain.
#[test]
fn a_node_that_its_group_takes_away_hands_its_sessions_over() {
    let mut pair = Pair::start();
    for name in ["romeo", "juliet"] {
        pair.nodes[0].add_account(&identity(name)).unwrap();
    }
    let (mut romeo, id) = session(&pair.nodes[0], "romeo");
    // She can't resume, so the drain waits for her.
    let mut juliet = Client::connect(pair.nodes[0].address(), identity("juliet")).unwrap();
    juliet.send("<presence/>").unwrap();
    assert_eq!(juliet.element().unwrap().name, "presence");
    let members = says(&pair.watches[0], "the view has 2 members");
    for n in 1..=2 {
        assert!(members.contains(&instance_id(n)), "{members}");
    }

    let metadata = pair.nodes[0].metadata();
    metadata.fail_next(2);
    metadata.forget_tokens();
    pair.take_away(0);
    says(&pair.watches[0], "the hook drain of chat-nodes waits");
    pair.watches[0].kill().unwrap();
    pair.watches[0] = pair.nodes[0].watch().unwrap();
    says(&pair.watches[0], "the server is to stop within 60 s");

    say(&mut juliet, "romeo", "one");
    let mut romeo_again = resume(&pair.nodes[1], "romeo", (&id, 1));
    drop(std::mem::replace(&mut romeo, {
        hear(&mut romeo_again, "one");
        romeo_again
    }));
    juliet.disconnect().unwrap();
    let ended = pair.nodes[0].process().wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", pair.nodes[0].process().log());
    says(&pair.watches[0], "the server has ended");
    says(
        &pair.watches[0],
        "the hook drain of chat-nodes is complete: CONTINUE",
    );
    let group = pair.cloud.services().member(&instance_id(1)).unwrap();
    assert_eq!(
        group.completed,
        [("drain".to_owned(), "CONTINUE".to_owned())]
    );
    assert!(group.heartbeats > 0);
    wait_for(&pair.nodes[1], |status| status["members"] == 1);
    say(&mut romeo, "romeo", "two");
    hear(&mut romeo, "two");
}

/// A spot notice alone: what is left of it is the drain's deadline, and no group hears anything.
#[test]
fn a_spot_notice_ends_a_server_in_time() {
    let mut pair = Pair::start();
    pair.nodes[0].add_account(&identity("romeo")).unwrap();
    let (_romeo, id) = session(&pair.nodes[0], "romeo");
    // A notice whose time has come leaves the server a second, unless the watch has just seen that
    // there was none.
    pair.watches[0].kill().unwrap();
    let notice = json!({ "action": "terminate", "time": "2020-01-01T00:00:00Z" }).to_string();
    pair.nodes[0].metadata().set(SPOT, Some(notice.as_bytes()));
    pair.watches[0] = pair.nodes[0].watch().unwrap();
    says(&pair.watches[0], "spot notice: terminate in 0 s");
    says(&pair.watches[0], "the server is to stop within 1 s");
    let ended = pair.nodes[0].process().wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", pair.nodes[0].process().log());
    says(&pair.watches[0], "the server has ended");
    resume(&pair.nodes[1], "romeo", (&id, 1));
    let group = pair.cloud.services().member(&instance_id(1)).unwrap();
    assert_eq!((group.completed, group.heartbeats), (Vec::new(), 0));
}

/// The scaling policy's metric: each node tells how many sessions it has, under the names that
/// Terraform's policy and alarms ask for.
#[test]
fn sessions_are_published_under_the_policys_names() {
    let cloud = Cloud::start().unwrap();
    let user_data = format!("{USER_DATA}\ndrain.deadline_seconds=2");
    let mut node = Node::start(&cloud, &instance_id(1), &user_data).unwrap();
    cloud.services().deny("PutMetricData");
    let watch = node.watch().unwrap();
    says(
        &watch,
        "warning: CloudWatch takes no figures, and is tried again: Cirrus: PutMetricData: \
         AccessDenied",
    );
    cloud.services().allow();
    says(&watch, "CloudWatch takes figures again");
    node.add_account(&identity("romeo")).unwrap();
    let (_romeo, _) = session(&node, "romeo");
    let seen = |name: &str, value: f64| {
        let metrics = cloud.services().metrics();
        let is = |it: &Metric| {
            it.namespace == "Cirrus"
                && it.dimensions == ["Domain=localhost"]
                && it.name == name
                && (it.value - value).abs() < 0.5
        };
        metrics.iter().any(is)
    };
    let until = cirrus_tests::deadline();
    while !seen("Sessions", 1.0) {
        assert!(
            !cirrus_tests::left(until).is_zero(),
            "{:?}",
            cloud.services().metrics()
        );
        std::thread::yield_now();
    }
    assert!(seen("EntitiesSingleCopy", 0.0) && seen("StoreFailures", 0.0));
    let metrics = cloud.services().metrics();
    let terraform = terraform_metrics();
    for metric in &metrics {
        assert!(
            terraform.contains(&metric.name),
            "nobody asks for {}",
            metric.name
        );
    }
    for name in terraform {
        assert!(
            metrics.iter().any(|it| it.name == name),
            "nobody tells {name}"
        );
    }
}

/// Names of the metrics in the namespace `Cirrus` that the Terraform modules use.
fn terraform_metrics() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../terraform/modules");
    let read = |module: &str| fs::read_to_string(format!("{root}/{module}")).unwrap();
    let mut names = Vec::new();
    let scaling = read("cluster/scaling.tf");
    for part in scaling.split("namespace   = \"Cirrus\"").skip(1) {
        names.push(quoted(part));
    }
    let observability = read("observability/main.tf");
    let (alarms, _) = observability.split_once("resource ").unwrap();
    for part in alarms.split("metric = ").skip(1) {
        names.push(quoted(part));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
    names
}

fn quoted(text: &str) -> String {
    text.split('"').nth(1).unwrap().to_owned()
}

/// A machine that is no instance: it says so, and ends with the documented code, for which the unit
/// does not start it again.
#[test]
fn where_there_is_no_metadata() {
    let folder = TempDir::with_prefix("cirrus-watch-").unwrap();
    let config = folder.path().join("cirrus.yaml");
    fs::write(&config, "domains: [localhost]\nwatch: {start_seconds: 1}\n").unwrap();
    let watch = |name: &str, value: &str| {
        let mut command: Command = bootstrap();
        command
            .arg("watch")
            .arg("--config")
            .arg(&config)
            .env(name, value);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(30), "{text}");
        assert!(text.contains("watching is for EC2 instances"), "{text}");
        text
    };
    let nobody = format!("http://{}", free_address().unwrap());
    let text = watch("AWS_EC2_METADATA_SERVICE_ENDPOINT", &nobody);
    assert!(text.contains("did not answer within 1 s"), "{text}");
    let text = watch("AWS_EC2_METADATA_DISABLED", "true");
    assert!(text.contains("the instance metadata is disabled"), "{text}");
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../cloud-init/root/usr/lib/systemd/system/cirrus-watch.service"
    );
    let unit = fs::read_to_string(unit).unwrap();
    let prevented = unit
        .lines()
        .find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert!(prevented.unwrap().split(' ').any(|code| code == "30"));
}
