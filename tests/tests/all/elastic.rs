//! A group that grows and shrinks as Terraform's policies want, with a load that rises and falls, and
//! nobody who notices.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use cirrus_loss::Arguments;
use cirrus_loss::report::{Report, table};
use cirrus_tests::client::Identity;
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::{Balancer, Doors, Group, Pen, Scaling, Version};
use cirrus_tests::emulated::cloud::{Cloud, Node, Programs};
use cirrus_tests::emulated::network::Network;
use cirrus_tests::server::call;
use clap::Parser as _;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{ONE, instance_id};

/// A drain that is quick, a watch that looks as often as it can, and more patience between nodes than
/// by default: the machine runs other tests too.
pub(crate) const USER_DATA: &str = "domain=localhost\ncluster.silence_ms=2000\ncluster.lease_ms=5000\n\
     cluster.cut_off_ms=10000\ndrain.settle_seconds=1\ndrain.deadline_seconds=20\n\
     watch.poll_seconds=1\nwatch.gone_seconds=2\nwatch.metrics_seconds=1";
/// A minute of the policies.
pub(crate) const MINUTE_MS: u64 = 1_000;
/// How long each part may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A number of the environment, for a run that is to be measured.
fn given(name: &str, otherwise: usize) -> usize {
    let number = std::env::var(format!("CIRRUS_ELASTIC_{name}")).ok();
    number.and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

/// What clients find the nodes by: haproxy, pen, or SRV records in a file of this folder.
pub(crate) enum Front {
    Haproxy(Balancer),
    Pen(Pen),
    Records(TempDir),
}

impl Front {
    /// Haproxy, unless the environment says otherwise.
    pub(crate) fn new(doors: &[Doors]) -> Front {
        let asked = |name| std::env::var_os(name).is_some();
        if asked("CIRRUS_ELASTIC_DNS") {
            return Front::Records(TempDir::with_prefix("cirrus-records-").unwrap());
        }
        match asked("CIRRUS_ELASTIC_PEN") {
            true => Front::Pen(Pen::start(doors).unwrap()),
            false => Front::Haproxy(Balancer::start_telling(doors).unwrap()),
        }
    }

    /// What nodes behind it are to be told. Theirs is one machine, so everybody is the balancer.
    pub(crate) fn user_data(&self) -> String {
        let networks = match self {
            Front::Haproxy(_) => "\nlisten.proxy_networks=127.0.0.0/8",
            // It does not say for whom its connections are.
            Front::Pen(_) => "",
            Front::Records(_) => "\ncluster.public_address=auto",
        };
        format!("{USER_DATA}{networks}")
    }

    /// The first version of nodes behind it.
    pub(crate) fn version(&self) -> Version {
        Version {
            user_data: self.user_data(),
            programs: Programs::default(),
        }
    }

    /// The records, where clients find nodes by them.
    pub(crate) fn records(&self) -> Option<PathBuf> {
        match self {
            Front::Records(folder) => Some(folder.path().join("zone")),
            Front::Haproxy(_) | Front::Pen(_) => None,
        }
    }

    /// Has the group do its part, if there is one.
    pub(crate) fn follow(&self, group: &mut Group) {
        if let Some(file) = self.records() {
            group.publish_to(file);
        }
    }

    /// By which option the loss test finds the nodes.
    fn option(&self) -> [String; 2] {
        let server = |address: SocketAddr| ["--server".to_owned(), address.to_string()];
        match self {
            Front::Haproxy(balancer) => server(balancer.address()),
            Front::Pen(pen) => server(pen.address()),
            Front::Records(folder) => {
                let file = folder.path().join("zone");
                ["--records".to_owned(), file.display().to_string()]
            }
        }
    }
}

/// Two places for nodes of a cluster, each in a network of its own, and a folder for those who talk
/// through them.
pub(crate) struct Pair {
    cloud: Cloud,
    network: Network,
    pub(crate) doors: [Doors; 2],
    pub(crate) folder: TempDir,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let folder = TempDir::with_prefix("cirrus-pair-").unwrap();
        std::fs::write(folder.path().join("password"), "wherefore\n").unwrap();
        Pair {
            cloud: Cloud::start().unwrap(),
            network: Network::default(),
            doors: [Doors::free().unwrap(), Doors::free().unwrap()],
            folder,
        }
    }

    /// Starts the first or the second node.
    pub(crate) fn launch(&self, n: usize, user_data: &str) -> Node {
        self.launch_behind(n, self.doors[n - 1], user_data)
    }

    /// Starts a node behind other doors.
    pub(crate) fn launch_behind(&self, n: usize, doors: Doors, user_data: &str) -> Node {
        let (number, id) = (u8::try_from(n).unwrap(), instance_id(n));
        Node::launch_behind(&self.network, number, &self.cloud, &id, user_data, doors).unwrap()
    }

    /// Makes accounts, by a node that serves.
    pub(crate) fn add(node: &mut Node, names: impl IntoIterator<Item = String>) {
        for name in names {
            let user = Identity::new(&format!("{name}@localhost"), "wherefore").unwrap();
            node.add_account(&user).unwrap();
        }
    }
}

/// Clients that talk until a file says that it is over.
pub(crate) fn talk(
    users: &str,
    (accounts, rate): (usize, usize),
    front: &Front,
    folder: &Path,
) -> Arguments {
    let file = |name: &str| folder.join(format!("{name}-{}", &users[..1]));
    let (script, over) = (file("script"), file("over"));
    let lines = format!(
        "until over within 20m: cat {} 2>/dev/null || true\n",
        over.display()
    );
    std::fs::write(&script, lines).unwrap();
    let options = format!(
        "cirrus-loss --users {users} --accounts {accounts} --rate {rate} --pings 2 --breaks 0 \
         --leaves 0 --unmanaged 0 --time 2s --insecure"
    );
    let mut arguments: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    arguments.extend(front.option());
    for (name, path) in [
        ("--password-file", folder.join("password")),
        ("--faults", script),
    ] {
        arguments.extend([name.to_owned(), path.display().to_string()]);
    }
    Arguments::parse_from(arguments)
}

pub(crate) fn over(users: &str, folder: &Path) {
    std::fs::write(folder.join(format!("over-{}", &users[..1])), "over\n").unwrap();
}

/// Ends all talk when the test fails, so that it fails at once.
pub(crate) struct Ends<'a>(pub(crate) &'a Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        over("a{}", self.0);
        over("b{}", self.0);
    }
}

/// Makes accounts, on a node of a group.
pub(crate) fn add(group: &Group, letter: &str, count: usize) {
    let control = group.control().unwrap();
    for n in 0..count {
        let jid = format!("{letter}{n}@localhost");
        let add = json!({ "v": 1, "call": "user.add", "jid": jid, "password": "wherefore" });
        assert_eq!(call(&control, &add).unwrap()["ok"], true);
    }
}

/// Lets the group do what it does until it has so many nodes, and none comes or goes.
pub(crate) fn until(group: &mut Group, nodes: usize) {
    let end = cirrus_tests::deadline_in(PATIENCE);
    while group.settled_at() != Some(nodes) {
        let ticked = group.tick();
        if ticked.is_err() || cirrus_tests::left(end).is_zero() {
            let said = group.said().join("\n");
            panic!("no {nodes} nodes: {ticked:?}\n{said}\n{}", group.log());
        }
        pause();
    }
}

/// Lets the group do what it does for a while.
pub(crate) fn go_on(group: &mut Group, time: Duration) {
    let end = cirrus_tests::deadline_in(time);
    while !cirrus_tests::left(end).is_zero() {
        group.tick().unwrap();
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

pub(crate) fn nothing_happened(reports: &[Report]) {
    let [report] = reports else {
        panic!("{} reports", reports.len())
    };
    let (it, text) = (&report.judgement, table(reports));
    assert_eq!((it.lost, it.doubled, it.reordered), (0, 0, 0), "{text}");
    assert_eq!((it.stray, it.violations), (0, 0), "{text}");
    assert_eq!((it.ghosts, it.flaps), (0, 0), "{text}");
    assert_eq!(report.sessions.lost, 0, "{text}");
}

/// 1 -> 3 -> 1, or to `CIRRUS_ELASTIC_NODES` with `CIRRUS_ELASTIC_SESSIONS` each: every node comes
/// and goes through its hook; some clients stay all the time.
#[test]
fn nobody_notices_that_a_group_grows_and_shrinks() {
    let (most, sessions) = (given("NODES", 3), given("SESSIONS", 12));
    if !Balancer::is_installed() {
        eprintln!("skipped: no haproxy on this machine, and it could not be installed");
        return;
    }
    let variables = [
        ("domains", "[\"localhost\"]".to_owned()),
        ("sessions_per_node", sessions.to_string()),
        ("size", format!("{{ min = 1, max = {most} }}")),
        ("scale_in_minutes", "5".to_owned()),
    ];
    let Some(plan) = xtask::terraform::plan("elastic", &variables).unwrap() else {
        eprintln!("skipped: no terraform on this machine");
        return;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scaling = Scaling::of_plan(&plan, MINUTE_MS).unwrap();
    assert_eq!((scaling.min, scaling.max), (1, most));
    let doors: Vec<Doors> = (0..=most).map(|_| Doors::free().unwrap()).collect();
    let front = Front::new(&doors);
    let mut group = Group::start(&scaling, front.version(), doors).unwrap();
    front.follow(&mut group);
    until(&mut group, 1);

    let folder = TempDir::with_prefix("cirrus-elastic-").unwrap();
    std::fs::write(folder.path().join("password"), "wherefore\n").unwrap();
    // Few enough for one node, and enough for all with those that come and go.
    let stay = sessions * 2 / 3;
    let come = most * sessions - stay;
    for (letter, count) in [("a", stay), ("b", come)] {
        add(&group, letter, count);
    }
    let those_that_stay = talk("a{}", (stay, stay * 2), &front, folder.path());
    let those_that_come = talk("b{}", (come, come * 2), &front, folder.path());
    std::thread::scope(|scope| {
        let _ends = Ends(folder.path());
        let staying = scope.spawn(|| cirrus_loss::run(&those_that_stay, &|_| {}));
        go_on(&mut group, Duration::from_secs(3));
        assert_eq!(group.settled_at(), Some(1), "one is enough for these");
        let coming = scope.spawn(|| cirrus_loss::run(&those_that_come, &|_| {}));
        until(&mut group, most);
        go_on(&mut group, Duration::from_secs(5));
        assert_eq!(group.settled_at(), Some(most), "{:?}", group.said());
        over("b{}", folder.path());
        while !coming.is_finished() {
            go_on(&mut group, Duration::from_millis(100));
        }
        until(&mut group, 1);
        go_on(&mut group, Duration::from_secs(3));
        over("a{}", folder.path());
        while !staying.is_finished() {
            go_on(&mut group, Duration::from_millis(100));
        }
        for line in group.said() {
            println!("{line}");
        }
        for (run, moved) in [(staying, true), (coming, false)] {
            let reports = run.join().unwrap().unwrap();
            println!("{}", table(&reports));
            nothing_happened(&reports);
            assert!(
                !moved || reports[0].sessions.broke > 0,
                "nobody had to move"
            );
        }
    });
    let times = group.times();
    assert_eq!((times.most, times.to_go.len()), (most, most - 1));
    let list = |times: &[Duration]| -> Vec<String> {
        let seconds = times.iter().map(Duration::as_secs_f64);
        seconds.map(|it| format!("{it:.1}")).collect()
    };
    println!(
        "seconds from decision to serving: {}",
        list(&times.to_serve).join(", ")
    );
    println!(
        "seconds from notice to gone: {}",
        list(&times.to_go).join(", ")
    );
}
