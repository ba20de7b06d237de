//! What a server keeps: a folder with a store that can be copied, and its content as text.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use cirrus_store::{Clock, EmbeddedOptions, EmbeddedTable, dump_lines};

/// Copies a folder with everything in it; sockets are left out.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Every file below a folder with its content, as sorted lines: to show that nothing changed.
///
/// # Errors
/// When something cannot be read.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            lines.push(format!("{}/", path.display()));
            lines.extend(files(&path)?);
        } else if path.is_file() {
            lines.push(format!(
                "{} {}",
                path.display(),
                fs::read(&path)?.escape_ascii()
            ));
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

/// All items of all tables and all blobs of the embedded store in this folder, as sorted lines.
/// No server may have it open.
///
/// # Errors
/// When the store cannot be read.
pub fn dump(store: &Path) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let table = EmbeddedTable::open(&EmbeddedOptions::new(store), clock())?;
    let blobs = table.blobs();
    Ok(runtime.block_on(dump_lines(&table, &blobs))?)
}

/// The store knows an item that has expired by the wall clock.
#[expect(clippy::disallowed_methods, reason = "the clock of a real store")]
fn clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
