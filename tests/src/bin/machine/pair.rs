//! Two machines of one group, of which one is taken away while clients talk.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cirrus_loss::Arguments;
use cirrus_tests::machine::checked;
use cirrus_tests::machine::disk::Disk;
use cirrus_tests::machine::guest::Guest;
use cirrus_tests::machine::pair::Pair;
use cirrus_tests::machine::scene;
use clap::Parser as _;
use tempfile::TempDir;

/// Accounts that talk.
const ACCOUNTS: usize = 8;
/// Seconds that a machine under emulation may take to go.
const GONE: Duration = Duration::from_secs(180);
/// Between two looks at what the group has heard.
const LOOK: Duration = Duration::from_millis(200);

/// Boots two machines at the same moment, lets clients talk through both, and has the group take
/// one away meanwhile. Nothing may be lost, and every session go on.
pub(crate) fn boot(workspace: &Path, disk: &Path) -> Result<()> {
    let user_data = workspace.join("terraform/tests/user-data/one-domain.txt");
    let pair = Pair::start(&fs::read_to_string(&user_data)?)?;
    let accounts: Vec<String> = (0..ACCOUNTS)
        .map(|n| format!("u{n}@{}", scene::DOMAIN))
        .collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    pair.prepare(&Disk::open(disk), &accounts)?;
    let folder = TempDir::with_prefix_in("pair-", disk.parent().context("the disk's folder")?)?;
    let copy = folder.path().join("disk.raw");
    checked(
        Command::new("cp")
            .arg("--sparse=always")
            .args([disk, &copy]),
    )?;
    let guests = [
        pair.switch_on(0, &Disk::open(disk))?,
        pair.switch_on(1, &Disk::open(&copy))?,
    ];
    let done = come_up(&guests).and_then(|()| talk(&pair, &guests[0], folder.path()));
    if done.is_err() {
        for guest in &guests {
            eprintln!("-- console");
            for line in guest.console() {
                eprintln!("{line}");
            }
        }
    }
    done?;
    for guest in guests {
        guest.power_off()?;
    }
    Ok(())
}

/// Waits until both serve, and know each other.
fn come_up(guests: &[Guest; 2]) -> Result<()> {
    println!("two machines, seconds since power-on:");
    for (guest, name) in guests.iter().zip(["one", "other"]) {
        for words in ["CIRRUS-BOOT ", scene::ACCOUNT_MADE, scene::REPORT] {
            let (seconds, line) = guest.wait_for(words)?;
            println!("  {seconds:>6.1}  {name}: {line}");
            ensure!(
                words != "CIRRUS-BOOT " || line.contains("CIRRUS-BOOT ok "),
                "it does not serve: {line}"
            );
        }
    }
    let two = |guest: &Guest| {
        let nodes = |line: &String| line.contains(scene::NODES) && line.trim_end().ends_with(" 2");
        guest.console().iter().any(nodes)
    };
    // Whoever came first may have been alone when it reported.
    ensure!(guests.iter().any(two), "they are not one cluster");
    Ok(())
}

/// Clients talk through both, one of which goes.
fn talk(pair: &Pair, goes: &Guest, folder: &Path) -> Result<()> {
    let (password, script) = (folder.join("password"), folder.join("faults"));
    fs::write(&password, format!("{}\n", scene::PASSWORD))?;
    // The script asks for the fault by a file, and waits until that is gone.
    let asked = folder.join("fault");
    let file = asked.display();
    let ask = format!("run: touch {file}; while [ -e {file} ]; do sleep 0.1; done");
    fs::write(
        &script,
        format!("wait 5s\nfault goes\n{ask}\nend\nwait 5s\n"),
    )?;
    let options = format!(
        "cirrus-loss --accounts {ACCOUNTS} --unmanaged 0 --rate 20 --pings 2 --breaks 0 --leaves 0 \
         --logins 2 --silence 20s --insecure --domain {} --server {} --server {} \
         --password-file {} --faults {}",
        scene::DOMAIN,
        pair.c2s(0)?,
        pair.c2s(1)?,
        password.display(),
        script.display()
    );
    let arguments = Arguments::try_parse_from(options.split_whitespace())?;
    let reports = thread::scope(|scope| {
        let run = scope.spawn(|| cirrus_loss::run(&arguments, &|line| println!("    {line}")));
        while !run.is_finished() {
            if asked.exists() {
                take_away(pair, goes)?;
                fs::remove_file(&asked)?;
            }
            pause();
        }
        run.join()
            .unwrap_or_else(|_| anyhow::bail!("the loss test has panicked"))
    })?;
    println!("{}", cirrus_loss::report::table(&reports));
    let [report] = reports.as_slice() else {
        anyhow::bail!("{} reports", reports.len());
    };
    let (it, sessions) = (&report.judgement, &report.sessions);
    let bad = it.lost + it.doubled + it.reordered + it.stray + it.violations + it.ghosts + it.flaps;
    ensure!(bad == 0 && sessions.lost == 0, "it was noticed");
    ensure!(sessions.broke > 0, "nobody was on the machine that went");
    Ok(())
}

/// The group wants a machine gone, and waits for its word.
fn take_away(pair: &Pair, goes: &Guest) -> Result<()> {
    pair.notify(0);
    let begun = now();
    let drained = |(hook, result): &(String, String)| hook == "drain" && result == "CONTINUE";
    while !pair.heard(0).iter().any(drained) {
        ensure!(
            begun.elapsed() < GONE,
            "its group has heard {:?} after {GONE:?}",
            pair.heard(0)
        );
        pause();
    }
    println!(
        "  {:>6.1}  one: drained, {:.1} s after the notice",
        goes.seconds(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
fn pause() {
    thread::sleep(LOOK);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a machine's seconds are real ones"
)]
fn now() -> Instant {
    Instant::now()
}
