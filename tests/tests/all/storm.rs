//! A node is lost, and all of its clients come to another at once.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::{Balancer, Doors};
use cirrus_tests::emulated::cloud::Node;
use cirrus_tests::server::call;
use serde_json::json;

use crate::cluster::{ONE, hear, identity, instance_id, say, session, signal, wait_for};
use crate::elastic::{Ends, Front, Pair, USER_DATA, nothing_happened, over, talk};
use crate::rebalance::metric;

/// Sessions of the node that is lost; another number with `CIRRUS_STORM_SESSIONS`, for a run that
/// has the machine for itself.
fn sessions() -> usize {
    let number = std::env::var("CIRRUS_STORM_SESSIONS").ok();
    number.and_then(|it| it.parse().ok()).unwrap_or(60)
}

/// Others, who log in anew in the same moment.
const NEW: usize = 12;

/// Pairs who talk on the node that stays.
const PAIRS: usize = 4;
/// Messages of each pair before the storm.
const CALM: usize = 100;
/// Each says something so often: below the limit of stanzas, whose wait is not what is measured.
const PACE: Duration = Duration::from_millis(50);

/// Accounts among which there are enough that the node which is lost has no part in.
const CANDIDATES: usize = 120;

/// Two who are served already: one talks, one listens.
struct Served {
    speaker: Client,
    listener: Client,
    to: String,
}

impl Served {
    /// Those whose home and copy are on other nodes than the first: what they say does not have to
    /// wait until others know that it is lost.
    fn on(node: &Node) -> Vec<Served> {
        let first = instance_id(1);
        let is_elsewhere = |name: &String| {
            let jid = format!("{name}@localhost");
            let question = json!({"v": 1, "call": "cluster.status", "jid": jid});
            let account = &call(&node.control(), &question).unwrap()["account"];
            account["home"] != *first && account["copy"] != *first
        };
        let names = (0..CANDIDATES).map(|n| format!("c{n}"));
        let names: Vec<String> = names.filter(is_elsewhere).take(2 * PAIRS).collect();
        assert_eq!(names.len(), 2 * PAIRS);
        let pair = |names: &[String]| Served {
            speaker: session(node, &names[0]).0,
            listener: session(node, &names[1]).0,
            to: names[1].clone(),
        };
        names.chunks(2).map(pair).collect()
    }

    /// Talks as long as it is wanted; how long each message took from when it was due, so that one
    /// that has to wait for another counts as well.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long it took is what is measured"
    )]
    fn talk_on(&mut self, goes_on: impl Fn(usize) -> bool) -> Vec<Duration> {
        let (mut due, mut times) = (Instant::now(), Vec::new());
        while goes_on(times.len()) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let text = format!("message {}", times.len());
            say(&mut self.speaker, &self.to, &text);
            hear(&mut self.listener, &text);
            times.push(due.elapsed());
            due += PACE;
        }
        times
    }
}

/// All pairs talk; the times of all their messages, sorted.
fn all_talk(served: &mut [Served], goes_on: impl Fn(usize) -> bool + Sync) -> Vec<Duration> {
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let talk = |it| scope.spawn(|| Served::talk_on(it, &goes_on));
        let threads: Vec<_> = served.iter_mut().map(talk).collect();
        let times = threads.into_iter().map(|it| it.join().unwrap());
        times.flatten().collect()
    });
    times.sort();
    times
}

/// Median, 99th percentile and the longest.
fn quantiles(sorted: &[Duration]) -> [Duration; 3] {
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
    [50, 99, 100].map(at)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it took is what `--nocapture` is for"
)]
fn those_who_are_served_are_served_while_many_come() {
    if !Balancer::is_installed() {
        eprintln!("skipped: no haproxy on this machine, and it could not be installed");
        return;
    }
    let count = sessions();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new();
    let folder = pair.folder.path();
    let [one, two] = pair.doors;
    let doors = [one, two, Doors::free().unwrap()];
    // Some clients come past it.
    let front = Front::Haproxy(Balancer::start(&doors).unwrap());
    // All clients come from one address.
    // Others to compare with, `key=value` with spaces between.
    let more = std::env::var("CIRRUS_STORM_OPTIONS").unwrap_or_default();
    let more = more.replace(' ', "\n");
    let user_data = format!(
        "{USER_DATA}\nrebalance.enabled=false\nlimits.connections_per_address=10000\n{more}"
    );
    let mut first = pair.launch(1, &user_data);
    first.wait_for("code=ok").unwrap();
    Pair::add(&mut first, (0..count).map(|n| format!("a{n}")));
    Pair::add(&mut first, (0..NEW).map(|n| format!("n{n}")));
    for n in 0..CANDIDATES {
        first.add_account(&identity(&format!("c{n}"))).unwrap();
    }
    let arguments = talk("a{}", (count, 30), &front, folder);
    let storm = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _ends = Ends(folder);
        let run = scope.spawn(|| {
            // They are on other machines: the nodes do not share theirs with them.
            rustix::process::nice(10).unwrap();
            cirrus_loss::run(&arguments, &|_| {})
        });
        // Each wait has its own time.
        for part in [count / 3, 2 * count / 3, count] {
            wait_for(&first, |it| it["sessions"].as_u64() >= Some(part as u64));
        }
        // It lets few in who are new.
        let few = "limits.logins_per_second=2\nlimits.logins_burst=2";
        let others = [
            pair.launch(2, &format!("{user_data}\n{few}")),
            pair.launch_behind(3, doors[2], &user_data),
        ];
        for node in &others {
            node.wait_for("code=ok").unwrap();
        }
        for node in others.iter().chain([&first]) {
            wait_for(node, |status| {
                let copied = status["awaited"] == 0 && status["entities_single_copy"] == 0;
                status["members"] == 3 && copied
            });
        }
        let mut served = Served::on(&others[0]);
        let calm = all_talk(&mut served, |done| done < CALM);
        signal(first.server().unwrap(), "KILL");
        first.process().wait().unwrap();
        let begun = Instant::now();
        let served = scope.spawn({
            let storm = &storm;
            move || all_talk(&mut served, |_| storm.load(Ordering::Relaxed))
        });
        let address = others[0].address();
        let log_in = |n: usize| {
            let user = Identity::new(&format!("n{n}@localhost"), "wherefore").unwrap();
            scope.spawn(move || Client::connect(address, user).unwrap())
        };
        let new: Vec<_> = (0..NEW).map(log_in).collect();
        let new: Vec<Client> = new.into_iter().map(|it| it.join().unwrap()).collect();
        let everybody = count + NEW + 2 * PAIRS;
        let back = || {
            let on = |doors| metric(doors, "cirrus_sessions{state=\"attached\"}");
            doors[1..].iter().map(on).sum::<usize>() == everybody
        };
        wait_for(&others[0], |_| back());
        let seconds = begun.elapsed().as_secs_f64();
        storm.store(false, Ordering::Relaxed);
        let times = served.join().unwrap();
        over("a{}", folder);
        let reports = run.join().unwrap().unwrap();
        drop(new);
        nothing_happened(&reports);
        let sessions = &reports[0].sessions;
        assert!(sessions.broke >= count as u64, "{}", sessions.broke);
        // Resumed sessions have not waited for a turn, but the new ones have.
        let paced = metric(&doors[1], "cirrus_logins_paced_total");
        assert!((NEW / 2..=NEW + 2 * PAIRS).contains(&paced), "{paced}");
        assert!(!times.is_empty());
        println!(
            "{count} resumed and {NEW} logged in {seconds:.1} s after the kill; meanwhile {} messages, \
             p50, p99 and longest {:?}, beside {:?} before",
            times.len(),
            quantiles(&times),
            quantiles(&calm),
        );
    });
}
