//! Several nodes on the same tables: sessions outlive the node that held them.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cirrus_loss::Arguments;
use cirrus_loss::ledger::UnderWay;
use cirrus_loss::report::Report;
use cirrus_loss::rng::Rng;
use cirrus_store::fault::{Faults, Rates};
use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::emulated::network::Network;
use cirrus_tests::server::call;
use clap::Parser as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// More patience with each other than by default: a machine that runs many tests at once may give a
/// node no time for a second.
const USER_DATA: &str =
    "domain=localhost\ncluster.silence_ms=2000\ncluster.lease_ms=5000\ncluster.cut_off_ms=10000";
/// The defaults, for a run that is to be measured; all clients come from one address.
const MEASURED: &str = "domain=localhost\nlimits.connections_per_address=10000";

/// Accounts that talk while nodes suffer; another number with `CIRRUS_LOSS_ACCOUNTS`.
fn accounts() -> usize {
    let number = std::env::var("CIRRUS_LOSS_ACCOUNTS").ok();
    number.and_then(|it| it.parse().ok()).unwrap_or(30)
}

pub(crate) fn instance_id(n: usize) -> String {
    format!("i-{n:017x}")
}

struct Cluster {
    nodes: Vec<Node>,
    /// What befalls DynamoDB.
    faults: Faults,
    /// Between the nodes, and from them to DynamoDB and S3.
    network: Network,
    _cloud: Cloud,
}

impl Cluster {
    fn start(count: usize) -> Self {
        let faults = Faults::none();
        let cloud = Cloud::with_faults(faults.clone()).unwrap();
        let mut user_data = if is_measured() { MEASURED } else { USER_DATA }.to_owned();
        // More lines of it, for a measurement.
        user_data += &std::env::var("CIRRUS_CLUSTER_USER_DATA").unwrap_or_default();
        let network = Network::default();
        let launch = |n| {
            let number = u8::try_from(n).unwrap();
            Node::launch_in(&network, number, &cloud, &instance_id(n), &user_data).unwrap()
        };
        let nodes: Vec<Node> = (1..=count).map(launch).collect();
        for node in &nodes {
            node.wait_for("code=ok").unwrap();
        }
        let cluster = Self {
            nodes,
            faults,
            network,
            _cloud: cloud,
        };
        cluster.settled(count);
        cluster
    }

    /// Waits until every node knows of so many, and everything is where it should be, with a copy.
    fn settled(&self, members: usize) {
        self.others_settled(usize::MAX, members);
    }

    /// The same of all but one.
    fn others_settled(&self, but: usize, members: usize) {
        let others = self.nodes.iter().enumerate().filter(|(n, _)| *n != but);
        for (_, node) in others {
            let settled = |status: &Value| {
                status["members"] == members
                    && status["awaited"] == 0
                    && status["leaving"] == 0
                    && status["entities_single_copy"] == 0
            };
            wait_for(node, settled);
        }
    }

    /// Where all accounts are before that node is hit.
    fn before_hit(&self, node: usize) -> Hit {
        let (mut homes, mut copies) = (Vec::new(), Vec::new());
        for n in 0..accounts() {
            let jid = format!("u{n}@localhost");
            let question = json!({"v": 1, "call": "cluster.status", "jid": jid});
            let answer = call(&self.nodes[0].control(), &question).unwrap();
            let number = |field: &str| {
                let instance = answer["account"][field].as_str()?;
                (0..self.nodes.len()).find(|n| instance == instance_id(n + 1))
            };
            homes.push(number("home"));
            copies.push(number("copy"));
        }
        Hit {
            node,
            homes,
            copies,
        }
    }

    /// Kills the server of a node as nothing else could. It is a member no more.
    fn kill(&mut self, n: usize) -> Node {
        let mut node = self.nodes.remove(n);
        signal(node.server().unwrap(), "KILL");
        node.process().wait().unwrap();
        node
    }
}

/// Asks a node about the cluster until that holds.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause is between two questions, not for two things to meet"
)]
pub(crate) fn wait_for(node: &Node, holds: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..600 {
        if let Ok(status) = call(&node.control(), &json!({"v": 1, "call": "cluster.status"})) {
            if holds(&status) {
                return;
            }
            last = status;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never came to that: {last}");
}

pub(crate) fn identity(name: &str) -> Identity {
    let password = if name == "romeo" { "wherefore" } else { "lies" };
    Identity::new(&format!("{name}@localhost"), password).unwrap()
}

/// A session that can be resumed: the client, and what to resume it with.
pub(crate) fn session(node: &Node, name: &str) -> (Client, String) {
    session_of(node, identity(name))
}

pub(crate) fn session_of(node: &Node, identity: Identity) -> (Client, String) {
    let mut client = Client::connect(node.address(), identity).unwrap();
    client
        .send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        .unwrap();
    let enabled = client.element().unwrap();
    assert_eq!(enabled.name, "enabled");
    let id = enabled.attr("id").unwrap().to_owned();
    client.send("<presence/>").unwrap();
    assert_eq!(client.element().unwrap().name, "presence");
    (client, id)
}

/// Resumes on another node, having handled `h` stanzas.
pub(crate) fn resume(node: &Node, name: &str, session: (&str, u32)) -> Client {
    resume_at(node.address(), identity(name), session)
}

/// The same at an address.
pub(crate) fn resume_at(address: SocketAddr, identity: Identity, (id, h): (&str, u32)) -> Client {
    let Identity { local, host, .. } = &identity;
    let resource = identity.resource.as_ref();
    let jid = resource.map(|resource| format!("{local}@{host}/{resource}"));
    let mut client = Client::dial(address, identity).unwrap();
    client.open_stream().unwrap();
    client.start_tls().unwrap();
    client.open_stream().unwrap();
    client.authenticate().unwrap();
    client.open_stream().unwrap();
    (client.former_jid, client.acks.received) = (jid, h);
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' h='{h}' previd='{id}'/>");
    client.send(resume).unwrap();
    let resumed = client.element().unwrap();
    assert_eq!(resumed.name, "resumed", "{resumed}");
    client
}

pub(crate) fn say(client: &mut Client, to: &str, text: &str) {
    let message = format!("<message type='chat' to='{to}@localhost'><body>{text}</body></message>");
    client.send(message).unwrap();
}

pub(crate) fn hear(client: &mut Client, text: &str) {
    let heard = client.element().unwrap();
    assert_eq!(heard.name, "message", "{heard:?}");
    assert!(format!("{heard:?}").contains(text), "{heard:?}");
}

#[test]
fn a_session_goes_on_on_another_node_when_its_own_is_killed() {
    let mut cluster = Cluster::start(3);
    for name in ["romeo", "juliet"] {
        cluster.nodes[0].add_account(&identity(name)).unwrap();
    }
    let (mut romeo, id) = session(&cluster.nodes[0], "romeo");
    let (mut juliet, _) = session(&cluster.nodes[1], "juliet");
    say(&mut romeo, "juliet", "one");
    hear(&mut juliet, "one");
    say(&mut juliet, "romeo", "two");
    hear(&mut romeo, "two");
    cluster.settled(3);
    let _dead = cluster.kill(0);
    say(&mut juliet, "romeo", "three");
    // He has handled his own presence and a message.
    let mut romeo = resume(&cluster.nodes[1], "romeo", (&id, 2));
    hear(&mut romeo, "three");
    say(&mut romeo, "juliet", "four");
    hear(&mut juliet, "four");
    cluster.settled(2);
}

/// How much a run does to a cluster; more of it with `CIRRUS_LOSS_FAULTS` and `CIRRUS_LOSS_OPTIONS`.
fn faults() -> usize {
    let number = std::env::var("CIRRUS_LOSS_FAULTS").ok();
    number.and_then(|it| it.parse().ok()).unwrap_or(2)
}

/// How long a node is suspended at least.
fn suspension() -> Duration {
    Duration::from_secs(if is_measured() { 30 } else { 0 })
}

/// The run is no part of the ordinary tests: it takes its time, and has the machine for itself.
fn is_measured() -> bool {
    std::env::var_os("CIRRUS_LOSS_OPTIONS").is_some()
}

/// Where accounts had their homes and copies when a node was hit, by the numbers of nodes.
struct Hit {
    node: usize,
    homes: Vec<Option<usize>>,
    copies: Vec<Option<usize>>,
}

/// How many of the messages under way when a node was hit had something on it.
#[derive(Clone, Copy, Default)]
struct Concerned {
    home: usize,
    copy: usize,
    pipe: usize,
}

impl Concerned {
    fn of(hit: &Hit, under_way: &[UnderWay]) -> Self {
        let mut all = Self::default();
        for it in under_way {
            let there = |places: &[Option<usize>]| {
                let ends = [it.pair.0, it.pair.1];
                ends.iter()
                    .any(|end| places[*end as usize] == Some(hit.node))
            };
            all.home += usize::from(there(&hit.homes));
            all.copy += usize::from(there(&hit.copies));
            let servers = [it.servers.0, it.servers.1];
            all.pipe += usize::from(servers.contains(&Some(hit.node)));
        }
        all
    }
}

/// What a fault does to the nth node, and what makes it whole again.
type Fault = fn(&mut Cluster, usize);

/// Three nodes and thirty clients are load enough for a machine that runs other tests too.
pub(crate) static ONE: Mutex<()> = Mutex::new(());

/// Many clients talk through three nodes while one after the other suffers.
#[expect(
    clippy::print_stdout,
    reason = "the lines are what `--nocapture` is for"
)]
fn suffer(nodes: usize, fault: Fault) -> Vec<Report> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempDir::with_prefix("cirrus-loss-").unwrap();
    let mut cluster = Cluster::start(nodes);
    for n in 0..accounts() {
        let user = Identity::new(&format!("u{n}@localhost"), "wherefore").unwrap();
        cluster.nodes[0].add_account(&user).unwrap();
    }
    let (password, script) = (folder.path().join("password"), folder.path().join("faults"));
    std::fs::write(&password, "wherefore\n").unwrap();
    // The script asks for a fault by a file, and waits until that is gone.
    let asked = folder.path().join("fault");
    let file = asked.display();
    let ask = format!("run: touch {file}; while [ -e {file} ]; do sleep 0.05; done");
    let lines = format!(
        "wait 1s\nrepeat {}\nfault it\n{ask}\nend\nwait 1s\nagain\n",
        faults()
    );
    std::fs::write(&script, lines).unwrap();
    let given = std::env::var("CIRRUS_LOSS_OPTIONS").unwrap_or_default();
    let number = accounts();
    let options = format!("--accounts {number} --breaks 1 --leaves 0.5 --unmanaged 0 --insecure");
    let given = if given.is_empty() {
        "--rate 60 --time 3s"
    } else {
        &given
    };
    let mut arguments = vec!["cirrus-loss".to_owned()];
    arguments.extend(options.split_whitespace().map(str::to_owned));
    arguments.extend(given.split_whitespace().map(str::to_owned));
    for node in &cluster.nodes {
        arguments.extend(["--server".to_owned(), node.address().to_string()]);
    }
    let paths = [("--password-file", &password), ("--faults", &script)];
    for (name, path) in paths {
        arguments.extend([name.to_owned(), path.display().to_string()]);
    }
    let arguments = Arguments::parse_from(arguments);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| cirrus_loss::run(&arguments, &|_| {}));
        let mut hits = Vec::new();
        let mut rng = Rng::new(1, 0);
        let mut any = move || usize::try_from(rng.below(nodes as u64)).unwrap();
        let mut next = cluster.before_hit(any());
        while !run.is_finished() {
            if asked.exists() {
                fault(&mut cluster, next.node);
                let after = cluster.before_hit(any());
                hits.push(std::mem::replace(&mut next, after));
                std::fs::remove_file(&asked).unwrap();
            }
            pause(Duration::from_millis(20));
        }
        // Why it ended, if it ended early.
        let reports = run.join().unwrap().unwrap();
        assert_eq!(hits.len(), faults());
        let mut all = Concerned::default();
        for (hit, window) in hits.iter().zip(reports.iter().flat_map(|it| &it.windows)) {
            let one = Concerned::of(hit, &window.under_way);
            println!(
                "node {} hit: {} messages under way, their home on it {}, copy {}, pipe {}",
                hit.node,
                window.under_way.len(),
                one.home,
                one.copy,
                one.pipe
            );
            (all.home, all.copy, all.pipe) = (
                all.home + one.home,
                all.copy + one.copy,
                all.pipe + one.pipe,
            );
        }
        // Fewer faults may find nothing under way.
        if faults() >= 20 {
            assert!(all.home > 0 && all.copy > 0 && all.pipe > 0);
        }
        reports
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks, and as a fault itself; not for two things to meet"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Nothing is lost, doubled or reordered, and nobody has to log in again.
#[expect(
    clippy::print_stdout,
    reason = "the table is what `--nocapture` is for"
)]
fn nothing_happened(reports: &[Report]) {
    let [report] = reports else {
        panic!("{} reports", reports.len())
    };
    let it = &report.judgement;
    let text = cirrus_loss::report::table(reports);
    println!("{text}");
    assert_eq!((it.lost, it.doubled, it.reordered), (0, 0, 0), "{text}");
    assert_eq!((it.stray, it.violations), (0, 0), "{text}");
    assert_eq!((it.ghosts, it.flaps), (0, 0), "{text}");
    assert!(report.sessions.broke > 0, "{text}");
    assert_eq!(report.sessions.lost, 0, "{text}");
}

#[test]
fn nobody_notices_that_nodes_are_killed() {
    let reports = suffer(3, kill_and_replace);
    nothing_happened(&reports);
}

fn kill_and_replace(cluster: &mut Cluster, n: usize) {
    let node = &mut cluster.nodes[n];
    signal(node.server().unwrap(), "KILL");
    node.process().wait().unwrap();
    start_again(node);
    cluster.settled(cluster.nodes.len());
}

/// Whoever is left has to see in the store that the other's lease has lapsed.
#[test]
fn nobody_notices_that_one_of_two_nodes_is_killed() {
    let reports = suffer(2, kill_and_replace);
    nothing_happened(&reports);
}

/// Starts a node again, as a service manager would: on a machine that is busy, the others may find
/// it silent for too long while it takes its slots, and then it ends.
fn start_again(node: &mut Node) {
    for _ in 0..3 {
        node.launch_again().unwrap();
        if node.wait_for("code=ok").is_ok() {
            return;
        }
    }
    panic!("it does not come up:\n{}", node.process().log());
}

#[test]
fn nobody_notices_that_nodes_are_stopped() {
    let reports = suffer(3, stop_and_replace);
    nothing_happened(&reports);
}

/// Half of the sessions are on the one that goes, and all on the other then.
#[test]
fn nobody_notices_that_one_of_two_nodes_is_stopped() {
    let reports = suffer(2, stop_and_replace);
    nothing_happened(&reports);
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "how long it took is what `--nocapture` is for"
)]
fn stop_and_replace(cluster: &mut Cluster, n: usize) {
    let node = &mut cluster.nodes[n];
    let begun = std::time::Instant::now();
    node.process().signal("TERM").unwrap();
    assert!(node.process().wait().unwrap().success());
    println!(
        "node {n} has ended after {} ms",
        begun.elapsed().as_millis()
    );
    let log = node.process().log();
    for line in log.lines().filter(|line| line.contains("its clients ")) {
        println!("{line}");
    }
    start_again(node);
    cluster.settled(cluster.nodes.len());
}

/// A connection whose session can't be resumed elsewhere stays, with all that it is good for, until
/// its client leaves; the deadline of the drain is not reached here. One whose session can be
/// resumed is broken.
#[test]
fn a_node_that_stops_keeps_connections_that_cannot_be_resumed() {
    let mut cluster = Cluster::start(2);
    for name in ["romeo", "juliet"] {
        cluster.nodes[0].add_account(&identity(name)).unwrap();
    }
    let (mut romeo, id) = session(&cluster.nodes[0], "romeo");
    let mut juliet = Client::connect(cluster.nodes[0].address(), identity("juliet")).unwrap();
    juliet.send("<presence/>").unwrap();
    assert_eq!(juliet.element().unwrap().name, "presence");
    cluster.nodes[0].process().signal("TERM").unwrap();
    assert!(romeo.element().is_err(), "the connection is broken");
    let mut romeo = resume(&cluster.nodes[1], "romeo", (&id, 1));
    say(&mut romeo, "juliet", "one");
    hear(&mut juliet, "one");
    say(&mut juliet, "romeo", "two");
    hear(&mut romeo, "two");
    assert!(cluster.nodes[0].process().runs().unwrap());
    juliet.disconnect().unwrap();
    assert!(cluster.nodes[0].process().wait().unwrap().success());
}

/// The time to stop is up before anything has moved, as when an instance is taken away without much
/// of a notice.
#[test]
fn sessions_go_on_when_a_node_has_no_time_to_stop() {
    let mut cluster = Cluster::start(2);
    let mut sessions = Vec::new();
    for n in 0..8 {
        let (name, password) = (format!("user{n}"), "lies");
        let user = Identity::new(&format!("{name}@localhost"), password).unwrap();
        cluster.nodes[0].add_account(&user).unwrap();
        let (client, id) = session_of(&cluster.nodes[0], user);
        sessions.push((client, name, id));
    }
    let stop = json!({"v": 1, "call": "server.stop", "deadline_seconds": 0});
    call(&cluster.nodes[0].control(), &stop).unwrap();
    let ended = cluster.nodes[0].process().wait().unwrap();
    assert!(ended.success(), "{}", cluster.nodes[0].process().log());
    for (_, name, id) in &sessions {
        let mut client = resume(&cluster.nodes[1], name, (id, 1));
        say(&mut client, name, "one");
        hear(&mut client, "one");
    }
}

/// A node hears and says nothing for so long that the others go on without it. When it wakes it finds
/// out before it has said anything, and is started anew.
#[test]
fn nobody_notices_that_nodes_are_suspended() {
    let reports = suffer(3, |cluster, n| {
        let server = cluster.nodes[n].server().unwrap();
        signal(server, "STOP");
        cluster.others_settled(n, 2);
        pause(suspension());
        signal(server, "CONT");
        found_out(&mut cluster.nodes[n]);
        start_again(&mut cluster.nodes[n]);
        cluster.settled(3);
    });
    nothing_happened(&reports);
}

/// Waits until the server of a node has found that it must not serve, and has ended.
fn found_out(node: &mut Node) {
    node.wait_for("must not serve any more").unwrap();
    node.process().wait().unwrap();
}

/// Cuts a node off until the others go on without it and it has ended, then starts it again.
fn cut_off(cluster: &mut Cluster, n: usize, cut: fn(&Network, u8)) {
    let number = u8::try_from(n + 1).unwrap();
    cut(&cluster.network, number);
    cluster.others_settled(n, 2);
    found_out(&mut cluster.nodes[n]);
    cluster.network.heal(number);
    start_again(&mut cluster.nodes[n]);
    cluster.settled(3);
}

/// A node is cut off from the others and from the store, not from its clients. It finds out before it
/// has promised them anything, and ends.
#[test]
fn nobody_notices_that_nodes_are_cut_off() {
    let reports = suffer(3, |cluster, n| cut_off(cluster, n, Network::cut));
    nothing_happened(&reports);
}

/// The same when it reaches the store, and clients.
#[test]
fn nobody_notices_that_nodes_hear_no_others() {
    let reports = suffer(3, |cluster, n| cut_off(cluster, n, Network::cut_links));
    nothing_happened(&reports);
}

/// The same as with a healthy store, while that refuses one request in twenty and loses answers.
#[test]
fn nobody_notices_that_nodes_are_killed_while_the_store_is_troubled() {
    let reports = suffer(3, |cluster, n| {
        cluster.faults.set_seeded(
            7,
            Rates {
                throttle: 50,
                fail: 20,
                timeout: 10,
                late: 10,
            },
        );
        kill_and_replace(cluster, n);
        cluster.faults.clear();
    });
    nothing_happened(&reports);
}

pub(crate) fn signal(process: u32, name: &str) {
    let status = std::process::Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status();
    assert!(status.unwrap().success());
}
