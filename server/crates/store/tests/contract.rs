//! The contract suite against the backends that need nothing but this crate.

use std::{sync::Arc, time::Duration};

use cirrus_store::contract::{self, Report, Subject, TestClock};
use cirrus_store::fault::{Faults, Faulty};
use cirrus_store::{Deadline, MemoryBlob, MemoryTable};

/// Short, because faults must run into it; nothing else in these tests takes as long.
const DEADLINE: Duration = Duration::from_millis(300);

/// Long enough for the sync of a busy disk.
#[cfg(feature = "embedded")]
const DISK_DEADLINE: Duration = Duration::from_secs(3);

fn assert_green(report: &Report) {
    assert_eq!(
        report.executed(),
        include_str!("golden/contract.txt"),
        "the executed cases"
    );
    assert_eq!(report.red(), [""; 0]);
}

fn memory(clock: &TestClock, faults: &Faults) -> Subject {
    let table = MemoryTable::new(clock.as_clock());
    let blob = Faulty::new(MemoryBlob::new(), faults.clone());
    Subject {
        dump: Arc::new(table.clone()),
        table: Arc::new(Deadline::new(Faulty::new(table, faults.clone()), DEADLINE)),
        blob: Arc::new(Deadline::new(blob, DEADLINE)),
        clock: clock.clone(),
        faults: faults.clone(),
        attempts: 1,
        run: 1,
    }
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let subject = memory(&TestClock::default(), &Faults::none());
    let report = contract::run(&subject).await;
    println!("{report}");
    assert_green(&report);
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn embedded_keeps_the_contract() {
    use cirrus_store::{EmbeddedOptions, EmbeddedTable};

    let folder = tempfile::tempdir().unwrap();
    let (clock, faults) = (TestClock::default(), Faults::none());
    for (run, log_file) in [(1, 16 * 1_024 * 1_024), (2, 20_000)] {
        // With small log files, most of what is read has gone through to the database.
        let options = EmbeddedOptions {
            log_file,
            ..EmbeddedOptions::new(folder.path())
        };
        let table = Arc::new(EmbeddedTable::open(&options, clock.as_clock()).unwrap());
        let blob = Faulty::new(table.blobs(), faults.clone());
        let faulty = Faulty::new(Arc::clone(&table), faults.clone());
        let subject = Subject {
            dump: Arc::clone(&table) as _,
            table: Arc::new(Deadline::new(faulty, DISK_DEADLINE)),
            blob: Arc::new(Deadline::new(blob, DISK_DEADLINE)),
            clock: clock.clone(),
            faults: faults.clone(),
            attempts: 1,
            run,
        };
        let report = contract::run(&subject).await;
        println!("{report}");
        assert_green(&report);
        assert!(table.broken().borrow().is_none());
    }
}
