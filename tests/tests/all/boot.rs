//! From user-data to a running server, with the real programs.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cirrus_tests::client::{Client, Identity};
use cirrus_tests::emulated::metadata::{Instance, Metadata};
use cirrus_tests::process::{Process, binary, free_address};
use tempfile::TempDir;

/// A folder, and user-data for a server in it on free ports.
struct Site {
    folder: TempDir,
    c2s: SocketAddr,
    user_data: String,
}

impl Site {
    fn new() -> Site {
        let folder = TempDir::with_prefix("cirrus-boot-").unwrap();
        let (c2s, tls) = (free_address().unwrap(), free_address().unwrap());
        let user_data = format!(
            "domain=localhost\nlisten.c2s={c2s}\nlisten.c2s_tls={tls}\n\
             listen.health=127.0.0.1:0\nauth.iterations=4096\n"
        );
        Site {
            folder,
            c2s,
            user_data,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, words: &[&str]) -> Command {
        let (verb, options) = words.split_first().unwrap();
        let mut command = bootstrap();
        command
            .arg(verb)
            .arg("--data-dir")
            .arg(self.data())
            .args(options);
        command
    }

    fn run(&self) -> Process {
        let words = ["run", "--no-metadata", "--user-data", &self.user_data];
        Process::start("cirrus-bootstrap", &mut self.command(&words)).unwrap()
    }
}

/// The program, with nothing of this machine's environment that it would heed.
pub(crate) fn bootstrap() -> Command {
    let mut command = Command::new(binary("cirrus-bootstrap").unwrap());
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The one status line.
pub(crate) fn status(text: &str) -> &str {
    let mut lines = text.lines().filter(|line| line.starts_with("CIRRUS-BOOT "));
    let status = lines
        .next()
        .unwrap_or_else(|| panic!("no status line in:\n{text}"));
    assert_eq!(lines.next(), None, "two status lines in:\n{text}");
    status
}

pub(crate) fn word_after(process: &Process, key: &str) -> String {
    let word = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next().map(str::to_owned))?
    };
    process.wait_for(key, word).unwrap()
}

pub(crate) fn stopped(mut process: Process) -> String {
    process.signal("TERM").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0), "{}", process.log());
    process.log()
}

/// Connects, starts TLS, logs in and binds.
fn log_in(address: SocketAddr, jid: &str, password: &str) {
    Client::connect(address, Identity::new(jid, password).unwrap()).unwrap();
}

/// One line of user-data, and with the account it prints one can log in. A second run finds
/// everything as it is.
#[test]
fn a_line_of_user_data_becomes_a_server() {
    let site = Site::new();
    let process = site.run();
    let (jid, password) = (
        word_after(&process, "account"),
        word_after(&process, "password"),
    );
    assert_eq!(jid, "me@localhost");
    process
        .wait_for("Make an account", |line| {
            line.starts_with("Make an").then_some(())
        })
        .unwrap();
    log_in(site.c2s, &jid, &password);
    let log = stopped(process);
    assert!(
        status(&log).starts_with("CIRRUS-BOOT ok phase=ready code=ok "),
        "{log}"
    );
    let config = site.data().join("cirrus.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        !text.contains(&password),
        "the password is in {}",
        config.display()
    );

    let process = site.run();
    assert_eq!(word_after(&process, "account"), "me@localhost");
    process
        .wait_for("Make an account", |line| {
            line.starts_with("Make an").then_some(())
        })
        .unwrap();
    log_in(site.c2s, &jid, &password);
    let log = stopped(process);
    for line in [
        "every folder exists, nothing changed",
        "is as it should be",
        "(from before)",
    ] {
        assert!(log.contains(line), "{line:?} is not in:\n{log}");
    }
}

/// A server whose bootstrap is killed ends, and the next one serves.
#[test]
fn a_server_does_not_outlive_its_bootstrap() {
    let site = Site::new();
    let mut process = site.run();
    word_after(&process, "password");
    process.kill().unwrap();
    // The server holds its output; the end of that is its own end.
    process.wait().unwrap();
    let process = site.run();
    word_after(&process, "account");
    stopped(process);
}

/// Bad user-data: the exit code, the status line, and nothing made.
#[test]
fn bad_user_data_changes_nothing() {
    let site = Site::new();
    for (text, exit, expected) in [
        ("", 15, "code=user-data-empty"),
        ("exa_mple.com", 20, "phase=parse code=config-invalid"),
        ("domian=localhost", 20, "did you mean `domains`?"),
        (
            "domain=localhost\nlimits.depth=deep",
            20,
            "user-data:2:14: limits.depth: expected a",
        ),
        (
            "domain=localhost\nlimits.depth=5",
            20,
            "5 is out of range; allowed are 8 to 512",
        ),
        (
            "domains: [localhost]\nlog: {level: loud}",
            20,
            "user-data:2:14: log.level: `loud`",
        ),
        ("domains: [localhost\n", 20, "not YAML"),
        ("#!/bin/sh\ntrue", 17, "code=user-data-foreign"),
        ("MIME-Version: 1.0\n\nx y", 17, "code=user-data-foreign"),
        ("two words", 18, "code=user-data-unrecognised"),
        ("@/nonexistent", 11, "/nonexistent cannot be read"),
        (
            "domain=example.com\nstore.backend=aws",
            21,
            "store.region is needed",
        ),
        (
            "domain=localhost\nlisten.control=/nonexistent/c",
            0,
            "code=ok",
        ),
    ] {
        let mut check = site.command(&["check", "--no-metadata", "--user-data", text]);
        let output = check.output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(exit), "{text}: {said}");
        assert!(status(&said).contains(expected), "{text}: {said}");
        if exit != 0 {
            let run = site
                .command(&["run", "--no-metadata", "--user-data", text])
                .output();
            assert_eq!(run.unwrap().status.code(), Some(exit), "{text}");
        }
    }
    assert!(!site.data().exists());
}

#[test]
fn a_wrong_command_line_has_a_status_line_too() {
    let output = bootstrap()
        .args(["run", "--user-dat", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(status(&stderr(&output)).contains("fail phase=discover code=usage"));
    let help = bootstrap().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(!stderr(&help).contains("CIRRUS-BOOT"));
}

#[test]
fn plan_and_render_change_nothing() {
    let site = Site::new();
    let words = |verb| [verb, "--no-metadata", "--user-data", &site.user_data];
    let plan = site.command(&words("plan")).output().unwrap();
    let text = String::from_utf8(plan.stdout.clone()).unwrap();
    assert!(
        text.contains("/data/store: would be made"),
        "{text}{}",
        stderr(&plan)
    );
    let render = site.command(&words("render")).output().unwrap();
    let file = site.folder.path().join("rendered.yaml");
    std::fs::write(&file, &render.stdout).unwrap();
    assert!(!site.data().exists());
    // The server agrees that it is a configuration.
    let mut server = Command::new(binary("cirrus-server").unwrap());
    let checked = server
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", stderr(&checked));
    // So does bootstrap itself: what it rendered says everything, and stays as it is.
    let again = format!("@{}", file.display());
    let again = site
        .command(&["render", "--no-metadata", "--user-data", &again])
        .output()
        .unwrap();
    assert_eq!(again.stdout, render.stdout);
}

#[test]
fn a_server_that_cannot_run_is_told() {
    let site = Site::new();
    let run = |server: &Path| {
        let mut command = site.command(&[
            "run",
            "--no-metadata",
            "--user-data",
            &site.user_data,
            "--server",
        ]);
        let output = command.arg(server).output().unwrap();
        (
            output.status.code().unwrap(),
            status(&stderr(&output)).to_owned(),
        )
    };
    let (exit, line) = run(Path::new("/nonexistent/cirrus-server"));
    assert_eq!(exit, 60, "{line}");
    let (exit, line) = run(Path::new("/bin/false"));
    assert_eq!(exit, 61, "{line}");
    assert!(line.contains("phase=ready code=server-exited"), "{line}");
    // Somebody else has the port, and even speaks XMPP there: it is not our server.
    let other = Site::new();
    let other_run = other.run();
    word_after(&other_run, "password");
    let mut taken = Site::new();
    taken.user_data = taken
        .user_data
        .replace(&taken.c2s.to_string(), &other.c2s.to_string());
    let mut process = taken.run();
    assert_eq!(
        process.wait().unwrap().code(),
        Some(61),
        "{}",
        process.log()
    );
    drop(other_run);
}

#[test]
fn a_signal_before_the_server_is_ready_ends_it_all() {
    let site = Site::new();
    // A server that never gets ready.
    let script = site.folder.path().join("cirrus-server");
    std::fs::write(&script, "#!/bin/sh\necho up\nexec sleep 600\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let mut words = vec![
        "run",
        "--no-metadata",
        "--user-data",
        &site.user_data,
        "--server",
    ];
    words.push(script.to_str().unwrap());
    let mut process = Process::start("cirrus-bootstrap", &mut site.command(&words)).unwrap();
    process
        .wait_for("up", |line| (line == "up").then_some(()))
        .unwrap();
    process.signal("INT").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(70));
    assert!(
        status(&process.log()).contains("code=interrupted"),
        "{}",
        process.log()
    );
    words.extend(["--ready-seconds", "1"]);
    let output = site.command(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(62), "{}", stderr(&output));
}

/// `check` on an emulated instance.
fn check_on(metadata: &Metadata) -> (i32, String) {
    let mut command = bootstrap();
    command
        .arg("check")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint());
    let output = command.output().unwrap();
    (output.status.code().unwrap(), stderr(&output))
}

#[test]
fn an_instance_takes_its_user_data_from_the_metadata() {
    let metadata = Metadata::start(&Instance::default(), Some(b"domain=example.com")).unwrap();
    metadata.fail_next(2);
    let (exit, said) = check_on(&metadata);
    assert_eq!(exit, 0, "{said}");
    for line in [
        "18 bytes of user-data; instance i-0123456789abcdef0 in eu-west-1a of account 000000000000",
        "DynamoDB and S3 in eu-west-1, names begin with example.com",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    assert!(metadata.requests().iter().all(|request| {
        request.starts_with("PUT /latest/api/token") || request.starts_with("GET /latest/")
    }));
    metadata.set_user_data(Some(b"domain=example.com\nlimits.dept=1\n"));
    let (exit, said) = check_on(&metadata);
    assert_eq!(exit, 20, "{said}");
    metadata.set_user_data(None);
    let (exit, said) = check_on(&metadata);
    assert_eq!(exit, 10, "{said}");
    assert!(
        status(&said).contains("the instance metadata has none"),
        "{said}"
    );
    metadata.disable(true);
    let (exit, said) = check_on(&metadata);
    assert_eq!(exit, 30, "{said}");
    assert!(
        status(&said).contains("switched off for this instance"),
        "{said}"
    );
}

#[test]
fn metadata_that_makes_no_sense() {
    let metadata = Metadata::start(&Instance::default(), Some(b"example.com")).unwrap();
    metadata.set("dynamic/instance-identity/document", Some(b"<html>"));
    let (exit, said) = check_on(&metadata);
    assert_eq!(exit, 31, "{said}");
    // A listener that is no metadata service.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut command = bootstrap();
    command.args(["check", "--user-data", "example.com"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.env(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        format!("http://{address}"),
    );
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

/// A disk without room is named, with what to do about it, before anything is written.
#[test]
fn a_full_disk_is_named() {
    let site = Site::new();
    std::fs::create_dir(site.data()).unwrap();
    // A file system of its own, which ends with the process; who is not root here is it there.
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "true"]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine allows no namespaces, so no disk of a known size");
        return;
    }
    let script = "mount -t tmpfs -o size=32k none \"$0\" && exec \"$@\"";
    let command = site.command(&["run", "--no-metadata", "--user-data", &site.user_data]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c"]);
    unshare.arg(script).arg(site.data());
    unshare.arg(command.get_program()).args(command.get_args());
    let output = unshare.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(45), "{said}");
    let words = format!(
        "message=\"{} cannot be written: No space left on device (os error 28); make room on the \
         disk, or give the machine a larger one\"",
        site.data().display()
    );
    let line = said.lines().find(|line| line.starts_with("CIRRUS-BOOT "));
    let line = line.unwrap();
    assert!(
        line.starts_with("CIRRUS-BOOT fail phase=provision code=disk-full ")
            && line.ends_with(&words),
        "{line}"
    );
}
