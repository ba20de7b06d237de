//! A bootable disk of a root folder: GPT, GRUB for a BIOS, one ext4. Nothing is mounted, so no loop
//! device is needed; what is added later goes in through debugfs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::checked;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Where GRUB's core image begins, in sectors; it has 1 MiB.
const CORE: u64 = 2_048;
/// Where the root's file system begins, in sectors.
const ROOT: u64 = 4_096;
/// Sectors at the end that the second partition table needs, and some.
const TAIL: u64 = 2_048;
/// Of the root's file system: GRUB, the kernel and fstab find it by this.
const UUID: &str = "7a1c6f0e-5d0b-4a53-9a0c-c1225b007000";
/// What GRUB needs to read its configuration and the kernel.
const MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "ext2",
    "linux",
    "normal",
    "search",
    "search_fs_uuid",
    "serial",
    "terminal",
];

/// A disk's file.
#[derive(Debug)]
pub struct Disk {
    file: PathBuf,
}

impl Disk {
    /// Makes a disk of this many MiB from a root folder, to which a configuration of GRUB and a
    /// table of file systems are added.
    ///
    /// # Errors
    /// When the root has no kernel, does not fit, or a tool fails.
    pub fn make(root: &Path, file: &Path, mebibytes: u64) -> Result<Disk> {
        fs::write(
            root.join("etc/fstab"),
            format!("UUID={UUID} / ext4 errors=remount-ro 0 1\n"),
        )?;
        fs::create_dir_all(root.join("boot/grub"))?;
        fs::write(
            root.join("boot/grub/grub.cfg"),
            grub_configuration(&kernel(root)?),
        )?;
        // One that was there has blocks in places that stay empty.
        if file.exists() {
            fs::remove_file(file)?;
        }
        let sectors = mebibytes * 2_048;
        File::create(file)?.set_len(sectors * SECTOR)?;
        partition(file, sectors)?;
        let kibibytes = (sectors - ROOT - TAIL) / 2;
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "root", "-U", UUID]);
        mke2fs
            .arg("-E")
            .arg(format!("offset={},lazy_itable_init=1", ROOT * SECTOR));
        mke2fs
            .arg("-d")
            .arg(root)
            .arg(file)
            .arg(format!("{kibibytes}k"));
        checked(&mut mke2fs)?;
        install_grub(file)?;
        Ok(Disk {
            file: file.to_owned(),
        })
    }

    /// A disk that somebody else has made in the same way.
    #[must_use]
    pub fn open(file: &Path) -> Disk {
        Disk {
            file: file.to_owned(),
        }
    }

    /// Its file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Adds files, each with its absolute path, its mode and its text, and the folders above them.
    ///
    /// # Errors
    /// When debugfs does not do it.
    pub fn add(&self, files: &[(&str, u32, String)]) -> Result<()> {
        let folder = TempDir::with_prefix("cirrus-disk-")?;
        let mut commands = String::new();
        for (number, (path, mode, text)) in files.iter().enumerate() {
            let source = folder.path().join(number.to_string());
            fs::write(&source, text)?;
            fs::set_permissions(&source, fs::Permissions::from_mode(*mode))?;
            for (at, _) in path.match_indices('/').skip(1) {
                commands += &format!("mkdir {}\n", &path[..at]);
            }
            commands += &format!("rm {path}\nwrite {} {path}\n", source.display());
            commands += &format!("set_inode_field {path} mode 0{:o}\n", 0o100_000 | mode);
        }
        self.debugfs(&commands)?;
        for (path, ..) in files {
            let shown = self.debugfs(&format!("stat {path}\n"))?;
            ensure!(
                shown.contains("Inode:"),
                "{path} did not get onto the disk:\n{shown}"
            );
        }
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When debugfs does not do it.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        self.debugfs(&format!("symlink {path} {target}\n"))
            .map(drop)
    }

    /// What debugfs says to these commands. That something is there already is no failure.
    fn debugfs(&self, commands: &str) -> Result<String> {
        let mut place = OsString::from(&self.file);
        place.push(format!("?offset={}", ROOT * SECTOR));
        let mut child = Command::new("debugfs")
            .args(["-w", "-f", "-"])
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("debugfs can't be started; `cargo xtask boot` installs it")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(commands.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "debugfs ended with {}",
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The version of the newest kernel in a root.
fn kernel(root: &Path) -> Result<String> {
    let names = fs::read_dir(root.join("boot"))?.filter_map(Result::ok);
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let versions = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    versions
        .max()
        .with_context(|| format!("no kernel in {}/boot", root.display()))
}

fn grub_configuration(kernel: &str) -> String {
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_output serial\n\
         search --no-floppy --fs-uuid --set=root {UUID}\n\
         linux /boot/vmlinuz-{kernel} root=UUID={UUID} ro quiet net.ifnames=0 \
         console=tty0 console=ttyS0,115200\n\
         initrd /boot/initrd.img-{kernel}\n\
         boot\n"
    )
}

fn partition(file: &Path, sectors: u64) -> Result<()> {
    const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
    const LINUX_ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
    let size = sectors - ROOT - TAIL;
    let table = format!(
        "label: gpt\n\
         start={CORE}, size={CORE}, type={BIOS_BOOT}, name=bios\n\
         start={ROOT}, size={size}, type={LINUX_ROOT}, name=root\n"
    );
    let mut child = Command::new("sfdisk")
        .arg("--quiet")
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .context("sfdisk can't be started; `cargo xtask boot` installs it")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(table.as_bytes())?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "sfdisk ended with {status}");
    Ok(())
}

/// Does what grub-bios-setup does, which wants a device: boot code into the first sector, the core
/// image into its partition, and in each the number of the sector that comes next.
fn install_grub(disk: &Path) -> Result<()> {
    let folder = TempDir::with_prefix("cirrus-grub-")?;
    let core_file = folder.path().join("core.img");
    let mut mkimage = Command::new("grub-mkimage");
    mkimage.args(["-O", "i386-pc", "-p", "(hd0,gpt2)/boot/grub", "-o"]);
    mkimage.arg(&core_file).args(MODULES);
    checked(&mut mkimage)?;
    let boot = fs::read("/usr/lib/grub/i386-pc/boot.img").context("the package grub-pc-bin")?;
    let mut core = fs::read(&core_file)?;
    core.resize(core.len().next_multiple_of(512), 0);
    ensure!(
        core.len() as u64 <= (ROOT - CORE) * SECTOR,
        "GRUB's core image is too large"
    );
    let disk = OpenOptions::new().read(true).write(true).open(disk)?;
    let mut first = [0u8; 512];
    disk.read_exact_at(&mut first, 0)?;
    disk.write_all_at(&boot_sector(&first, &boot)?, 0)?;
    chain_core(&mut core)?;
    disk.write_all_at(&core, CORE * SECTOR)?;
    Ok(())
}

/// Boot code that loads the core image; the sector's partition table stays (the protective one of
/// GPT), and so do the bytes that some BIOS takes for parameters.
fn boot_sector(first: &[u8; 512], boot: &[u8]) -> Result<[u8; 512]> {
    let Some(boot) = boot.first_chunk::<512>() else {
        bail!("GRUB's boot.img is too short");
    };
    let mut sector = *boot;
    sector[0x03..0x5a].copy_from_slice(&first[0x03..0x5a]);
    sector[0x5c..0x64].copy_from_slice(&CORE.to_le_bytes());
    // The drive that the BIOS has booted from, and no check of its number.
    sector[0x64] = 0xff;
    sector[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    sector[0x1b8..].copy_from_slice(&first[0x1b8..]);
    Ok(sector)
}

/// The first sector of the core image loads the rest: its last 12 bytes are start, length and
/// segment of the one block that the rest is.
fn chain_core(core: &mut [u8]) -> Result<()> {
    let rest = u16::try_from(core.len() / 512 - 1).context("GRUB's core image is too large")?;
    let Some(list) = core.get_mut(0x1f4..0x200) else {
        bail!("GRUB's core image is too short");
    };
    list[..8].copy_from_slice(&(CORE + 1).to_le_bytes());
    list[8..10].copy_from_slice(&rest.to_le_bytes());
    if list[10..] == [0, 0] {
        list[10..].copy_from_slice(&0x0820u16.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_keeps_the_partition_table_and_names_the_core() {
        let mut first = [0u8; 512];
        first[0x1be] = 7;
        first[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
        let sector = boot_sector(&first, &[1u8; 512]).unwrap();
        assert_eq!(
            (sector[0], sector[0x10], sector[0x1be], sector[0x1ff]),
            (1, 0, 7, 0xaa)
        );
        assert_eq!(sector[0x5c..0x64], CORE.to_le_bytes());
        assert!(boot_sector(&first, &[1u8; 100]).is_err());
    }

    #[test]
    fn the_core_knows_how_long_it_is() {
        let mut core = vec![0u8; 512 * 5];
        chain_core(&mut core).unwrap();
        assert_eq!(core[0x1f4..0x1fc], (CORE + 1).to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [4, 0, 0x20, 0x08]);
    }
}
