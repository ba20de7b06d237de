//! The contract suite against the backends that need nothing but this crate.

use std::{sync::Arc, time::Duration};

use cirrus_store::contract::{self, Report, Subject, TestClock};
use cirrus_store::fault::{Faults, Faulty};
use cirrus_store::{Deadline, MemoryBlob, MemoryTable};

/// Short, because faults must run into it; nothing else in these tests takes as long.
const DEADLINE: Duration = Duration::from_millis(300);

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
