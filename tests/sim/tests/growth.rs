//! A cluster that grows and shrinks under load.

#![allow(clippy::print_stdout, reason = "what moved is worth reading")]

use cirrus_sim::grow;

/// Nodes of an ordinary run; the program `cirrus-sim` grows larger ones.
const NODES: usize = 10;

#[test]
fn a_cluster_grows_and_shrinks_and_moves_no_more_than_it_must() {
    let growth = grow(1, NODES);
    println!("{growth}");
    assert_eq!(growth.changes.len(), 2 * (NODES - 1));
    for change in &growth.changes {
        assert!(change.moved > 0, "{change:?}");
        assert!(change.moved <= change.most_moved(), "{change:?}");
    }
    assert_eq!(growth.report.violations, []);
    assert!(growth.report.accepted > 1_000, "{growth}");
}
