//! Installs what the tests need beside cargo: a Python environment with pinned packages, and the
//! third-party clients that Debian ships. Does nothing where all of it is there.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::Run;

/// Debian packages and the program by which each is recognised.
const PACKAGES: &[(&str, &[&str])] = &[
    ("go-sendxmpp", &["go-sendxmpp", "--version"]),
    ("haproxy", &["haproxy", "-v"]),
    ("pebble", &["pebble", "-help"]),
    ("python3-venv", &["python3", "-c", "import venv, ensurepip"]),
    ("systemd", &["systemd-analyze", "--version"]),
];

/// Those of an emulated machine: to make its disk and to run it.
const MACHINE_PACKAGES: &[(&str, &[&str])] = &[
    ("binutils", &["strip", "--version"]),
    ("dnsmasq-base", &["dnsmasq", "--version"]),
    ("e2fsprogs", &["mke2fs", "-V"]),
    ("fdisk", &["sfdisk", "--version"]),
    (
        "grub-pc-bin",
        &["test", "-e", "/usr/lib/grub/i386-pc/boot.img"],
    ),
    ("iproute2", &["ip", "-V"]),
    ("mmdebstrap", &["mmdebstrap", "--version"]),
    ("openssh-client", &["ssh", "-V"]),
    ("qemu-system-x86", &["qemu-system-x86_64", "--version"]),
    ("qemu-utils", &["qemu-img", "--version"]),
    (
        "seabios",
        &["test", "-e", "/usr/share/seabios/bios-256k.bin"],
    ),
];

/// What builds images.
const PACKER: (&str, &[&str]) = ("packer", &["packer", "version"]);

/// The Python environment of the tests, below the workspace's root.
pub const VENV: &str = "tests/.venv";
/// The pinned packages of that environment.
pub const REQUIREMENTS: &str = "tests/requirements.txt";

/// Installs what is missing.
///
/// # Errors
/// Says what is missing and how to install it by hand.
pub fn install(run: &Run) -> Result<String, String> {
    debian_packages(PACKAGES)?;
    python_environment(run.root())?;
    // One test of many needs it, and says so when it is skipped.
    Ok(match debian_packages(&[PACKER]) {
        Ok(()) => String::new(),
        Err(error) => format!("packer/ will not be validated: {error}"),
    })
}

/// Installs what an emulated machine needs in addition.
///
/// # Errors
/// Says what is missing and how to install it by hand.
pub fn install_machine(run: &Run) -> Result<String, String> {
    install(run)?;
    debian_packages(MACHINE_PACKAGES)?;
    Ok(String::new())
}

/// Installs Packer.
///
/// # Errors
/// Says how to install it by hand.
pub fn install_packer(_: &Run) -> Result<String, String> {
    debian_packages(&[PACKER])?;
    Ok(String::new())
}

/// Whether the command can be started and ends with 0.
#[must_use]
pub fn has(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else {
        return false;
    };
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn debian_packages(wanted: &[(&'static str, &[&str])]) -> Result<(), String> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(_, probe)| !has(probe))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("install by hand: apt-get install {}", missing.join(" "));
    if !has(&["apt-get", "--version"]) {
        return Err(format!("no apt-get here; {by_hand}"));
    }
    let prefix: &[&str] = if has(&["sh", "-c", "test $(id -u) = 0"]) {
        &[]
    } else if has(&["sudo", "-n", "true"]) {
        &["sudo", "-n"]
    } else {
        return Err(format!(
            "neither root nor sudo without a password; {by_hand}"
        ));
    };
    let apt = |arguments: &[&str]| -> Result<(), String> {
        let mut line: Vec<&str> = prefix.to_vec();
        line.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        line.extend(arguments);
        checked(&line).map_err(|error| format!("{error}; {by_hand}"))
    };
    apt(&["update"])?;
    let named = versions(&missing)?;
    let mut install = vec![
        "install",
        "-y",
        "--no-install-recommends",
        "--allow-downgrades",
    ];
    install.extend(named.iter().map(String::as_str));
    apt(&install)
}

/// The packages of QEMU with the version that they must have in common: tools of a newer one that
/// are installed already would keep the machine itself out.
fn versions(packages: &[&str]) -> Result<Vec<String>, String> {
    const MACHINE: &str = "qemu-system-x86";
    const TOOLS: &str = "qemu-utils";
    if !packages.contains(&MACHINE) {
        return Ok(packages
            .iter()
            .map(|package| (*package).to_owned())
            .collect());
    }
    let output = Command::new("apt-cache").args(["policy", MACHINE]).output();
    let output = output.map_err(|error| format!("apt-cache could not be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    let version = version.ok_or_else(|| format!("apt-cache knows no {MACHINE}"))?;
    let others = packages
        .iter()
        .filter(|package| ![MACHINE, TOOLS].contains(package));
    let mut named: Vec<String> = others.map(|package| (*package).to_owned()).collect();
    named.extend([MACHINE, TOOLS].map(|package| format!("{package}={version}")));
    Ok(named)
}

/// Makes the environment anew whenever the list of packages is not the one it was made from.
fn python_environment(root: &Path) -> Result<(), String> {
    let requirements = root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let venv = root.join(VENV);
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    checked(&[
        OsStr::new("python3"),
        "-m".as_ref(),
        "venv".as_ref(),
        "--clear".as_ref(),
        venv.as_os_str(),
    ])?;
    let pip = venv.join("bin/pip");
    checked(&[
        pip.as_os_str(),
        "install".as_ref(),
        "--quiet".as_ref(),
        "--requirement".as_ref(),
        requirements.as_os_str(),
    ])?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn checked<S: AsRef<OsStr>>(line: &[S]) -> Result<(), String> {
    let shown = || {
        let words: Vec<_> = line
            .iter()
            .map(|word| word.as_ref().to_string_lossy())
            .collect();
        words.join(" ")
    };
    let Some((program, arguments)) = line.split_first() else {
        return Ok(());
    };
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("`{}` could not be started: {error}", shown()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_or_is_not_there_is_not_had() {
        assert!(has(&["true"]));
        assert!(!has(&["false"]));
        assert!(!has(&["no-such-program-anywhere"]));
        assert!(!has(&[]));
    }

    #[test]
    fn a_failed_command_is_named_whole() {
        let error = checked(&["sh", "-c", "exit 3"]).unwrap_err();
        assert!(
            error.contains("sh -c exit 3") && error.contains('3'),
            "{error}"
        );
    }
}
