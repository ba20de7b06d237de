//! A node is lost, and all of its clients come to another at once.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::Balancer;
use cirrus_tests::emulated::cloud::Node;

use crate::cluster::{ONE, hear, identity, say, session, signal, wait_for};
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
const PAIRS: usize = 2;
/// Messages of each pair before the storm.
const CALM: usize = 100;
/// Each says something so often: below the limit of stanzas, whose wait is not what is measured.
const PACE: Duration = Duration::from_millis(10);

/// Two who are served already: one talks, one listens.
struct Served {
    speaker: Client,
    listener: Client,
    to: String,
}

impl Served {
    fn begin(node: &Node, n: usize) -> Served {
        let to = format!("juliet{n}");
        Served {
            speaker: session(node, &format!("romeo{n}")).0,
            listener: session(node, &to).0,
            to,
        }
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
    let (doors, folder) = (&pair.doors, pair.folder.path());
    // Some clients come past it.
    let front = Front::Haproxy(Balancer::start(doors).unwrap());
    // All clients come from one address.
    let user_data =
        format!("{USER_DATA}\nrebalance.enabled=false\nlimits.connections_per_address=10000");
    let mut first = pair.launch(1, &user_data);
    first.wait_for("code=ok").unwrap();
    Pair::add(&mut first, (0..count).map(|n| format!("a{n}")));
    Pair::add(&mut first, (0..NEW).map(|n| format!("n{n}")));
    for n in 0..PAIRS {
        for name in ["romeo", "juliet"] {
            first.add_account(&identity(&format!("{name}{n}"))).unwrap();
        }
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
        wait_for(&first, |status| status["sessions"] == count);
        // It lets few in who are new.
        let few = "limits.logins_per_second=2\nlimits.logins_burst=2";
        let second = pair.launch(2, &format!("{user_data}\n{few}"));
        second.wait_for("code=ok").unwrap();
        let mut served: Vec<_> = (0..PAIRS).map(|n| Served::begin(&second, n)).collect();
        let settled = |status: &serde_json::Value| {
            let copied = status["awaited"] == 0 && status["entities_single_copy"] == 0;
            status["members"] == 2 && copied
        };
        wait_for(&second, settled);
        wait_for(&first, settled);
        let calm = all_talk(&mut served, |done| done < CALM);
        signal(first.server().unwrap(), "KILL");
        first.process().wait().unwrap();
        let begun = Instant::now();
        let address = second.address();
        let log_in = |n: usize| {
            let user = Identity::new(&format!("n{n}@localhost"), "wherefore").unwrap();
            scope.spawn(move || Client::connect(address, user).unwrap())
        };
        let new: Vec<_> = (0..NEW).map(log_in).collect();
        // Until it knows that the other is gone, nothing can be handled that had its copy there.
        wait_for(&second, |status| status["members"] == 1);
        let served = scope.spawn({
            let storm = &storm;
            move || all_talk(&mut served, |_| storm.load(Ordering::Relaxed))
        });
        wait_for(&second, |status| {
            status["connections"].as_u64() >= Some(count as u64)
        });
        let new: Vec<Client> = new.into_iter().map(|it| it.join().unwrap()).collect();
        let everybody = (count + NEW + 2 * PAIRS) as u64;
        wait_for(&second, |status| status["sessions"] == everybody);
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
