//! Boots the image in an emulated machine: `cargo xtask boot` runs this.
//!
//! `machine boot BINARIES CACHE` installs the programs of the folder BINARIES into a base from the
//! folder CACHE (made if it is not there), boots the result twice, and logs in from outside.
//! `machine image FILE` does the same with a raw disk that Packer has made.
//! `machine forms BINARIES CACHE` and `machine image-forms FILE` boot it once, and let it go on
//! with every form of user-data, or with those whose names have one of some words in them.
//! `machine pair BINARIES CACHE` and `machine image-pair FILE` boot two of them as two instances of
//! one group, of which one is taken away while clients talk.
//! `machine base CACHE` makes what Packer begins with, `machine archive CACHE` only what that is
//! made of. `machine ami BINARIES CACHE PYTHON` has Packer build an AMI of that base in an emulated
//! EC2, for which PYTHON has the packages.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod pair;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use cirrus_tests::agent::{Agent, Library};
use cirrus_tests::machine::disk::Disk;
use cirrus_tests::machine::forms::{self, Trouble};
use cirrus_tests::machine::guest::{C2S, Guest};
use cirrus_tests::machine::held::Held;
use cirrus_tests::machine::scene::{self, Scene};
use cirrus_tests::machine::{ami, base, checked, trial};
use tempfile::TempDir;

/// Size of the machine's disk.
const MEBIBYTES: u64 = 3_072;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["boot", binaries, cache] => install(binaries.as_ref(), cache.as_ref(), &["inside"]),
        ["forms", binaries, cache, words @ ..] => {
            let inside = [&["inside-forms"], words].concat();
            install(binaries.as_ref(), cache.as_ref(), &inside)
        }
        ["image", disk] => scene::enter_namespace(&["inside", disk]),
        ["image-forms", disk, words @ ..] => {
            scene::enter_namespace(&[&["inside-forms"], words, &[disk]].concat())
        }
        ["pair", binaries, cache] => install(binaries.as_ref(), cache.as_ref(), &["inside-pair"]),
        ["image-pair", disk] => scene::enter_namespace(&["inside-pair", disk]),
        ["inside-pair", disk] => pair::boot(&workspace(), disk.as_ref()),
        ["ami", binaries, cache, python] => {
            scene::enter_namespace(&["inside-ami", binaries, cache, python])
        }
        ["inside-ami", binaries, cache, python] => build_ami(binaries, cache, python),
        ["inside", disk] => boot(&Disk::open(disk.as_ref())),
        ["inside-forms", words @ .., disk] => try_forms(&Disk::open(disk.as_ref()), words),
        ["base", cache] => packer_base(cache.as_ref()),
        ["archive", cache] => base::archive(&workspace(), cache.as_ref()).map(drop),
        _ => Err(anyhow::anyhow!(
            "usage: machine boot BINARIES CACHE | image FILE | forms BINARIES CACHE [WORDS]... | \
             image-forms FILE [WORDS]... | pair BINARIES CACHE | image-pair FILE | \
             (base | archive) CACHE | ami BINARIES CACHE PYTHON"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn workspace() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Makes a disk, and does with it what the arguments say, in a network of its own.
fn install(binaries: &Path, cache: &Path, arguments: &[&str]) -> Result<()> {
    let archive = base::archive(&workspace(), cache).context("the base")?;
    let folder = TempDir::with_prefix_in("boot-", cache)?;
    let root = folder.path().join("root");
    base::unpack(&archive, &root)?;
    base::install(&workspace(), binaries, &root, &folder.path().join("files"))?;
    let disk = cache.join("disk.raw");
    Disk::make(&root, &disk, MEBIBYTES)?;
    drop(folder);
    let disk = disk.display().to_string();
    scene::enter_namespace(&[arguments, &[&disk]].concat())
}

/// Boots a disk until its services would start, and lets it go on from there with every form of
/// user-data. Prints a table, and whatever is not as it should be.
fn try_forms(disk: &Disk, words: &[&str]) -> Result<()> {
    let scene = Scene::start("")?;
    scene.prepare(disk)?;
    let mut forms = forms::all(&workspace(), scene.cloud())?;
    forms.retain(|form| words.is_empty() || words.iter().any(|word| form.name.contains(word)));
    let before = scene.cloud().objects()?;
    let held = Held::make(disk)?;
    println!("| user-data | status line | hook | tag | made | cloud-init | seconds |");
    println!("|---|---|---|---|---:|---|---:|");
    let mut failed = 0;
    let mut spoilt = false;
    for form in &forms {
        // One that says nothing at all does not keep the others from being seen.
        let mut seen = match trial::run(&scene, &held, form, wall()) {
            Ok(seen) => seen,
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", form.name);
                continue;
            }
        };
        seen.objects -= before;
        println!("| {} | {seen} |", form.name);
        let mut faults = seen.faults(form);
        // Other troubles come when something may have been made: whole buckets, or all.
        spoilt |= form.trouble != Trouble::None || form.code == "ok";
        if !spoilt && seen.objects > 0 {
            faults.push(format!("{} tables and buckets were made", seen.objects));
        }
        if !faults.is_empty() {
            failed += 1;
            eprintln!("{}: {}", form.name, faults.join("; "));
            for line in seen.console {
                eprintln!("    {line}");
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} boots went wrong", forms.len());
    Ok(())
}

fn build_ami(binaries: &str, cache: &str, python: &str) -> Result<()> {
    let base = Disk::open(&fs::canonicalize(cache)?.join("base.raw"));
    let binaries = fs::canonicalize(binaries)?;
    let name = ami::build(&workspace(), &base, &binaries, python.as_ref())?;
    println!("{name}");
    Ok(())
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a machine that was kept needs the real time"
)]
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Boots a disk with the user-data that Terraform renders for one domain, logs in, and boots it
/// again. Its group hears of the first boot, once.
fn boot(disk: &Disk) -> Result<()> {
    let user_data = workspace().join("terraform/tests/user-data/one-domain.txt");
    let scene = Scene::start(&fs::read_to_string(&user_data)?)?;
    scene.prepare(disk)?;
    for (name, made, report) in [
        (
            "first boot",
            "made ",
            "report: the hook ready of example-com-nodes is complete",
        ),
        (
            "second boot",
            "10 tables and buckets exist, nothing changed",
            "report: no hook waits",
        ),
    ] {
        let guest = Guest::start(disk)?;
        if let Err(error) = watch(&guest, name, (made, report)) {
            for line in guest.console() {
                eprintln!("{line}");
            }
            return Err(error.context(format!("the {name}")));
        }
        guest.power_off()?;
    }
    let heard = scene.heard();
    let expected = [("ready".to_owned(), "CONTINUE".to_owned())];
    ensure!(heard == expected, "the group has heard {heard:?}");
    Ok(())
}

fn watch(guest: &Guest, name: &str, (made, report): (&str, &str)) -> Result<()> {
    println!("{name}, seconds since power-on:");
    let step = |words: &str| -> Result<String> {
        let (seconds, line) = guest.wait_for(words)?;
        println!("  {seconds:>6.1}  {line}");
        Ok(line)
    };
    for phase in [
        "discover",
        "parse",
        "validate",
        "provision",
        "secrets",
        "render",
        "start",
    ] {
        let line = step(&format!("cirrus-bootstrap: {phase}: "))?;
        if phase == "provision" && !line.contains("nothing changed") {
            // It tells each table before the sum.
            step(made)?;
        }
    }
    let status = step("CIRRUS-BOOT ")?;
    ensure!(
        status.contains("CIRRUS-BOOT ok phase=ready code=ok"),
        "it did not serve: {status}"
    );
    step(report)?;
    step(scene::ACCOUNT_MADE)?;
    let folder = TempDir::with_prefix("client-")?;
    let mut client = Agent::start(
        Library::Slixmpp,
        scene::ACCOUNT,
        scene::PASSWORD,
        folder.path(),
    )?;
    let session = client.connect(C2S)?;
    println!(
        "  {:>6.1}  a client has logged in: {session}",
        guest.seconds()
    );
    let report = step(scene::REPORT)?;
    for line in guest.console() {
        if line.contains("MACHINE ") && !line.contains(scene::REPORT) {
            println!("          {}", line.trim());
        }
    }
    println!(
        "          {} MiB of this machine's memory",
        guest.resident()?
    );
    ensure!(
        report.contains("failed=[] cloud-init-warnings=0"),
        "something did not go well: {report}"
    );
    Ok(())
}

/// What Packer's local build begins with: a disk without Cirrus, a key, and a seed that lets the
/// user `admin` in with it.
fn packer_base(cache: &Path) -> Result<()> {
    let archive = base::archive(&workspace(), cache).context("the base")?;
    let folder = TempDir::with_prefix_in("base-", cache)?;
    let root = folder.path().join("root");
    base::unpack(&archive, &root)?;
    Disk::make(&root, &cache.join("base.raw"), MEBIBYTES)?;
    let key = cache.join("base_key");
    if !key.exists() {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "packer", "-f"])
            .arg(&key);
        checked(&mut keygen)?;
    }
    let public = fs::read_to_string(cache.join("base_key.pub"))?;
    let seed = cache.join("seed");
    fs::create_dir_all(&seed)?;
    fs::write(seed.join("meta-data"), "instance-id: packer\n")?;
    let user_data = format!(
        "#cloud-config\nsystem_info:\n  default_user:\n    name: admin\n    lock_passwd: true\n    \
         sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]\n    shell: /bin/bash\nssh_authorized_keys:\n  - {}\n",
        public.trim()
    );
    fs::write(seed.join("user-data"), user_data)?;
    ensure!(!public.is_empty(), "ssh-keygen made no key");
    Ok(())
}
