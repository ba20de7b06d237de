//! The records by which clients find nodes where no balancer stands in front of them.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::binary;

/// Puts what `cluster dns` prints on the node of this control socket into a file, as a whole.
///
/// # Errors
/// When the command fails, as where no node serves; then the file stays as it is.
pub fn publish(control: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new(binary("cirrus-server")?);
    let printed = command
        .args(["cluster", "dns", "--control"])
        .arg(control)
        .output()?;
    let said = String::from_utf8_lossy(&printed.stderr);
    ensure!(printed.status.success(), "cluster dns: {said}");
    let new = file.with_extension("new");
    std::fs::write(&new, printed.stdout)?;
    Ok(std::fs::rename(new, file)?)
}
