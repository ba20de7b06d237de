//! Python environments of tools that only the infrastructure's checks need, below `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::checked;

/// The environment of `tests/emulators/NAME.txt`, made anew whenever that file has changed.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn environment(root: &Path, name: &str) -> Result<PathBuf, String> {
    let requirements = root.join(format!("tests/emulators/{name}.txt"));
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let venv = root.join("target/terraform").join(name);
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return Ok(venv);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&venv);
    checked(make.stdin(Stdio::null()), "python3 -m venv")?;
    let mut install = Command::new(venv.join("bin/pip"));
    install
        .args(["install", "--quiet", "--requirement"])
        .arg(&requirements);
    checked(install.stdin(Stdio::null()), "pip")?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(venv)
}
