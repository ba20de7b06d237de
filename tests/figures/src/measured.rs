//! What was measured elsewhere, and by what.

use std::collections::BTreeMap;

/// The requests of a scripted day, step by step: the end-to-end test
/// `budgets::a_day_costs_what_it_may` writes them and holds them, unit by unit.
const REQUESTS: &str = include_str!("../../golden/requests.txt");

/// Characters of the body of the messages whose bytes were measured, such that nothing shortens
/// them: 75 random bytes in base64.
pub const BODY: usize = 100;

/// What DynamoDB's and S3's meters say of messages with a body of [`BODY`] characters, between
/// users `romeo` and `juliet` of `localhost`. The end-to-end test
/// `budgets::what_is_stored_is_what_the_figures_say` holds them, within a tenth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stored {
    /// Bytes of a message in each of the two archives, key and attributes included.
    pub message: f64,
    /// Bytes that a receipt and a marker add to the item that takes them along.
    pub receipt_and_marker: f64,
    /// Records of an archive that make a segment.
    pub segment_records: f64,
    /// Bytes of a segment for each of its records.
    pub segment_record: f64,
    /// Read units to seal a segment.
    pub seal_reads: f64,
    /// Write units to seal a segment.
    pub seal_writes: f64,
    /// Objects put to seal a segment.
    pub seal_objects: f64,
}

/// The measured values.
pub const STORED: Stored = Stored {
    message: 333.0,
    receipt_and_marker: 391.0,
    segment_records: 256.0,
    segment_record: 91.0,
    seal_reads: 22.0,
    seal_writes: 1.0,
    seal_objects: 1.0,
};

/// KiB that an idle session over TLS takes in a server with the embedded store:
/// `docs/PERFORMANCE.md`.
pub const SESSION_KIB: f64 = 22.7;
/// The same of a node with DynamoDB (emulated), and of two nodes together, so with its copy:
/// `cirrus-bench nodes --nodes 1,2 --runs 1 --memory`, release programs, 2 cores with other work.
pub const ALONE_KIB: f64 = 43.4;
/// As [`ALONE_KIB`], of two nodes.
pub const COPIED_KIB: f64 = 45.3;
/// CPU of a message that is archived, microseconds: the same document, `1:1, archive, CPU`.
pub const MESSAGE_US: f64 = 46.7;
/// CPU of a login, microseconds: the same document.
pub const LOGIN_US: f64 = 398.0;
/// KiB of a connection in the kernel: what 9,000 idle connections over loopback, 200 bytes said in
/// both directions of each, added to the slabs of Linux 6.18 for one of their two ends, and one
/// entry of epoll.
pub const SOCKET_KIB: f64 = 3.9;
/// Bytes of a member in the view, of `tests/sim/README.md`: 2,462 with 50.
pub const VIEW_MEMBER: f64 = 49.0;
/// Bytes of a beat on a link, from what the nodes of the same table say: 10 nodes of 9 links
/// 25,943 a second each and 50 of 49 links 7,818, with the same clients and 4 beats a second.
pub const BEAT: f64 = 14.0;
/// The largest simulated cluster, and the largest of real processes.
pub const SIMULATED: f64 = 50.0;
/// As [`SIMULATED`], of real processes.
pub const RUN: f64 = 5.0;

/// Units of a step of the scripted day.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Units {
    /// Write units.
    pub write: f64,
    /// Read units.
    pub read: f64,
}

/// The steps of the scripted day by name.
///
/// # Errors
/// The line that can't be read.
pub fn steps() -> Result<BTreeMap<&'static str, Units>, String> {
    let mut steps: BTreeMap<&str, Units> = BTreeMap::new();
    let mut step = None;
    for line in REQUESTS.lines() {
        if !line.starts_with(' ') {
            steps.insert(line, Units::default());
            step = Some(line);
            continue;
        }
        let units = step.and_then(|step| steps.get_mut(step));
        let (units, (write, read)) = units.zip(units_of(line)).ok_or(line)?;
        units.write += write;
        units.read += read;
    }
    Ok(steps)
}

/// Write and read units of a line as `archive put: 2 requests, 2 WU, 0 RU`.
fn units_of(line: &str) -> Option<(f64, f64)> {
    let (_, counts) = line.split_once(": ")?;
    let mut counts = counts.split(", ");
    counts.next()?;
    let write = counts.next()?.strip_suffix(" WU")?.parse().ok()?;
    let read = counts.next()?.strip_suffix(" RU")?.parse().ok()?;
    Some((write, read))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First number of the table's line that begins so.
    fn figure(document: &str, line: &str, column: usize) -> f64 {
        let path = xtask::root().join(document);
        let text = std::fs::read_to_string(path).unwrap();
        let row = text.lines().find(|row| row.starts_with(line)).unwrap();
        let cell = row.split('|').nth(column).unwrap().trim();
        let number = cell.split(' ').next().unwrap().replace(',', "");
        number.parse().unwrap()
    }

    /// What is measured anew may differ a little; by more, the documents have to be made anew.
    #[test]
    fn the_constants_are_about_what_the_documents_say() {
        let (performance, sim) = ("docs/PERFORMANCE.md", "tests/sim/README.md");
        for (constant, document, line, column) in [
            (SESSION_KIB, performance, "| idle TLS session, PSS", 2),
            (MESSAGE_US, performance, "| 1:1, archive, CPU", 2),
            (LOGIN_US, performance, "| login, CPU", 2),
            (VIEW_MEMBER * 50.0, sim, "| 50 | 49", 3),
        ] {
            let there = figure(document, line, column);
            let off = (constant / there - 1.0).abs();
            assert!(off < 0.25, "{line} in {document}: {there}, not {constant}");
        }
    }

    #[test]
    fn a_step_is_the_sum_of_its_lines() {
        let steps = steps().unwrap();
        let login = steps["login, cold"];
        assert_eq!((login.write, login.read), (0.0, 4.0));
        assert_eq!(steps["presence"], Units::default());
        assert_eq!(
            units_of("  accounts put: 1 requests, 3 WU, 0 RU"),
            Some((3.0, 0.0))
        );
        assert_eq!(units_of("  accounts put: 1 requests"), None);
    }
}
