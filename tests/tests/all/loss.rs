//! The loss test on one node, small: what was acknowledged outlives a kill.

use cirrus_loss::{Arguments, run};
use cirrus_tests::process::binary;
use clap::Parser as _;
use tempfile::TempDir;

/// Sessions don't outlive a kill of the only node, so the clients log in again; but nothing that was
/// acknowledged is lost, and nothing comes twice or out of order.
#[test]
fn nothing_acknowledged_is_lost_when_the_only_node_is_killed() {
    let folder = TempDir::with_prefix("cirrus-loss-").unwrap();
    let script = folder.path().join("faults.txt");
    let faults = "wait 1s\nfault kill\nserver: kill\nserver: start\nend\n";
    std::fs::write(&script, faults).unwrap();
    let server = binary("cirrus-server").unwrap();
    let (script, server) = (script.to_str().unwrap(), server.to_str().unwrap());
    // Clients leave in good order and come back, but don't drop their connections.
    let options = "--start cirrus --accounts 20 --rate 100 --messages 500 --time 3s \
                   --leaves 2 --away 2s --breaks 0";
    let arguments = ["cirrus-loss", "--cirrus", server, "--faults", script];
    let arguments = arguments.into_iter().chain(options.split_whitespace());
    let reports = run(&Arguments::parse_from(arguments), &|_| {}).unwrap();
    let [report] = reports.as_slice() else {
        panic!("{} reports", reports.len())
    };
    let it = &report.judgement;
    let text = cirrus_loss::report::table(&reports);
    assert_eq!((it.lost, it.doubled, it.reordered), (0, 0, 0), "{text}");
    assert_eq!((it.stray, it.violations), (0, 0), "{text}");
    assert_eq!((it.ghosts, it.flaps), (0, 0), "{text}");
    assert!(it.messages >= 500 && it.by_offline > 0, "{text}");
    // The kill was noticed, and sessions were lost: it was no run without a fault.
    assert!(
        report.sessions.broke > 0 && report.sessions.lost > 0,
        "{text}"
    );
}
