//! The machine: the clock, CPU time and memory of process trees, pinning, and the line that
//! describes it all.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

/// Nanoseconds since the first call.
#[expect(
    clippy::disallowed_methods,
    reason = "a bench measures time: this is where it reads it"
)]
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// CPU seconds that a process, its live descendants, and the children it has waited for used so
/// far, in user mode and in the kernel.
///
/// The kernel counts in ticks of 10 ms.
pub(crate) fn cpu_seconds(root: u32) -> Result<(f64, f64)> {
    let (mut user, mut kernel) = (0, 0);
    for pid in tree(root) {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => {
                let ticks = stat_ticks(&stat).with_context(|| format!("/proc/{pid}/stat"))?;
                (user, kernel) = (user + ticks.0, kernel + ticks.1);
            }
            Err(error) if pid == root => {
                return Err(error).with_context(|| format!("process {pid} is gone"));
            }
            Err(_) => {}
        }
    }
    let second = rustix::param::clock_ticks_per_second() as f64;
    Ok((user as f64 / second, kernel as f64 / second))
}

/// CPU seconds that all processes of the machine used so far, on all its CPUs.
pub(crate) fn machine_cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = machine_ticks(&stat).context("/proc/stat has no cpu line")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// user, nice, system, irq, softirq and steal of the first line; idle and iowait left out.
fn machine_ticks(stat: &str) -> Option<u64> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let busy = fields
        .take(8)
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4));
    busy.map(|(_, field)| field.parse::<u64>().ok()).sum()
}

/// CPU seconds of this process alone.
pub(crate) fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// utime + cutime and stime + cstime: fields 14 to 17, counted after the parenthesised name.
fn stat_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (user, kernel) = (next()?, next()?);
    Some((user + next()?, kernel + next()?))
}

/// A process and its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let tasks = format!("/proc/{}/task", found[next]);
        next += 1;
        let Ok(tasks) = fs::read_dir(tasks) else {
            continue;
        };
        for task in tasks.flatten() {
            let Ok(children) = fs::read_to_string(task.path().join("children")) else {
                continue;
            };
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Memory of a process tree, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident set.
    pub(crate) rss: f64,
    /// Resident set with shared pages counted in proportion.
    pub(crate) pss: f64,
}

/// Reads smaps_rollup of a process tree.
pub(crate) fn memory(root: u32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in tree(root) {
        let path = format!("/proc/{pid}/smaps_rollup");
        let Ok(rollup) = fs::read_to_string(&path) else {
            continue;
        };
        let field = |name: &str| -> Option<f64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        sum.rss += field("Rss:").with_context(|| format!("{path} has no Rss"))?;
        sum.pss += field("Pss:").with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(sum)
}

/// Bytes in use below a folder, as the file system counts them.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Runs this process on one CPU only and lets its timers fire without slack.
pub(crate) fn pin_self(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
        .with_context(|| format!("can't pin the generator to CPU {cpu}"))?;
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
        .context("can't set the timer slack")?;
    Ok(())
}

/// Raises the limit of open files to `files` where the hard limit allows it.
pub(crate) fn raise_file_limit(files: u64) -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, wanted)
        .with_context(|| format!("can't raise the limit of open files to {files}"))
}

/// CPU model, cores, kernel, and what a durable write of 4 KiB costs in `folder`.
pub(crate) fn machine(folder: &Path) -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name"))
        .filter_map(|rest| rest.split_once(':'))
        .map(|(_, model)| model.trim())
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (median, worst) = sync_cost(folder)?;
    Ok(format!(
        "{} x {}, Linux {}, fdatasync of 4 KiB where the data lies: median {median:.2} ms, \
         worst of {SYNC_PROBES} {worst:.2} ms",
        models.len(),
        models.first().unwrap_or(&"unknown CPU"),
        kernel.trim(),
    ))
}

const SYNC_PROBES: usize = 100;

fn sync_cost(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join("sync-probe");
    let mut file = fs::File::create(&path)?;
    let mut times = Vec::with_capacity(SYNC_PROBES);
    for _ in 0..SYNC_PROBES {
        let start = now();
        file.seek(SeekFrom::End(0))?;
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        times.push((now() - start) as f64 / 1e6);
    }
    fs::remove_file(&path)?;
    times.sort_by(f64::total_cmp);
    Ok((times[SYNC_PROBES / 2], times[SYNC_PROBES - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_hostile_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 1 20 0 1";
        assert_eq!(stat_ticks(stat), Some((103, 21)));
    }

    #[test]
    fn the_machine_is_busy_with_all_but_idling() {
        let stat = "cpu  1 2 4 8000 16000 32 64 128 256 512\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_ticks(stat), Some(1 + 2 + 4 + 32 + 64 + 128));
    }

    #[test]
    fn this_process_has_used_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss >= memory.pss && memory.pss > 0.0);
        assert!(cpu_seconds(std::process::id()).unwrap().0 >= 0.0);
    }
}
