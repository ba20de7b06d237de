//! A node is lost, and all of its clients come to another at once.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::elastic::Balancer;

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

/// Somebody who is served already talks on as long as it is wanted; the times of all round trips,
/// sorted.
#[expect(
    clippy::disallowed_methods,
    reason = "how long it took is what is measured"
)]
fn talk_on(pair: &mut [Client; 2], goes_on: impl Fn(usize) -> bool) -> Vec<Duration> {
    let [romeo, juliet] = pair;
    let mut times = Vec::new();
    while goes_on(times.len()) {
        let begun = Instant::now();
        let text = format!("message {}", times.len());
        say(romeo, "juliet", &text);
        hear(juliet, &text);
        times.push(begun.elapsed());
        // A pace below the limit of stanzas, whose wait is not what is measured.
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort();
    times
}

/// Median and 99th percentile.
fn quantiles(sorted: &[Duration]) -> [Duration; 2] {
    [50, 99].map(|percent| sorted[sorted.len() * percent / 100])
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
    for name in ["romeo", "juliet"] {
        first.add_account(&identity(name)).unwrap();
    }
    let arguments = talk("a{}", (count, 30), &front, folder);
    let storm = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _ends = Ends(folder);
        let run = scope.spawn(|| cirrus_loss::run(&arguments, &|_| {}));
        wait_for(&first, |status| status["sessions"] == count);
        // It lets few in who are new.
        let few = "limits.logins_per_second=2\nlimits.logins_burst=2";
        let second = pair.launch(2, &format!("{user_data}\n{few}"));
        second.wait_for("code=ok").unwrap();
        let mut served = ["romeo", "juliet"].map(|name| session(&second, name).0);
        let settled = |status: &serde_json::Value| {
            let copied = status["awaited"] == 0 && status["entities_single_copy"] == 0;
            status["members"] == 2 && copied
        };
        wait_for(&second, settled);
        wait_for(&first, settled);
        let calm = talk_on(&mut served, |done| done < count);
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
            move || talk_on(&mut served, |_| storm.load(Ordering::Relaxed))
        });
        wait_for(&second, |status| {
            status["connections"].as_u64() >= Some(count as u64)
        });
        let new: Vec<Client> = new.into_iter().map(|it| it.join().unwrap()).collect();
        let everybody = (count + NEW + 2) as u64;
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
        assert!((NEW / 2..=NEW + 2).contains(&paced), "{paced}");
        assert!(!times.is_empty());
        println!(
            "{count} resumed and {NEW} logged in {seconds:.1} s after the kill; meanwhile {} round \
             trips, p50 and p99 {:?}, beside {:?} before",
            times.len(),
            quantiles(&times),
            quantiles(&calm),
        );
    });
}
