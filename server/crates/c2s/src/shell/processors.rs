//! How much time the machine has to spare.

/// At least this part of the time, in percent, has to be left for there to be more to do.
const SPARE: u64 = 25;

/// What the processors had done when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Processors {
    /// Units of time in all, and those in which nothing ran.
    last: Option<(u64, u64)>,
}

impl Processors {
    /// Whether they had time to spare since the last look; `stat` is what `/proc/stat` says now.
    /// Where it says nothing, and at the first look, they had.
    pub(super) fn have_time(&mut self, stat: Option<String>) -> bool {
        let now = stat.as_deref().and_then(read);
        let before = std::mem::replace(&mut self.last, now);
        match (before, now) {
            (Some((all_before, spare_before)), Some((all, spare))) => {
                let all = all.saturating_sub(all_before);
                100 * spare.saturating_sub(spare_before) >= SPARE * all
            }
            _ => true,
        }
    }
}

/// What `/proc/stat` says (proc_stat(5)).
pub(super) fn proc_stat() -> Option<String> {
    std::fs::read_to_string("/proc/stat").ok()
}

/// The sums of the first line, that of all processors together. What waits for a disk runs nothing.
fn read(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Option<Vec<u64>> = line.split_whitespace().map(|it| it.parse().ok()).collect();
    let times = times?;
    // Time of guests, behind these eight, is in the first two.
    let all = times.iter().take(8).sum();
    let &[_, _, _, idle, iowait, ..] = times.as_slice() else {
        return None;
    };
    Some((all, idle + iowait))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(user: u64, iowait: u64, idle: u64) -> Option<String> {
        Some(format!(
            "cpu  {user} 0 0 {idle} {iowait} 0 0 0 0 0\ncpu0 1 2 3\nctxt 7\n"
        ))
    }

    #[test]
    fn a_quarter_has_to_be_left() {
        let mut processors = Processors::default();
        assert!(
            processors.have_time(stat(1_000, 0, 1_000)),
            "nothing is known"
        );
        assert!(processors.have_time(stat(1_060, 20, 1_020)));
        assert!(!processors.have_time(stat(1_140, 30, 1_030)));
        assert!(!processors.have_time(stat(1_240, 30, 1_030)));
        assert!(processors.have_time(stat(1_240, 30, 1_130)));
        assert!(processors.have_time(None), "where there is no such file");
        assert!(processors.have_time(Some("cpu x".into())));
    }
}
