//! What a node does that reaches neither the store nor the others, or was suspended.

use super::*;
use crate::lease;

#[test]
fn an_outage_of_the_store_stops_nobody() {
    for count in 1..=5 {
        let mut bench = Bench::cluster(count);
        bench.cut.extend(0..count);
        for _ in 0..1_200 {
            bench.pass(50);
            assert_eq!(bench.serving().len(), count);
        }
        let mut said = bench.said();
        said.sort();
        let degraded = |n| format!("{n} degraded");
        assert_eq!(said, (0..count).map(degraded).collect::<Vec<_>>());
        bench.cut.clear();
        bench.pass(3_000);
        let said = bench.said();
        let restored = |n| said.contains(&format!("{n} restored"));
        assert!((0..count).all(restored), "{said:?}");
        let epoch = bench.rows.view().unwrap().epoch;
        let proofs = epoch as usize - count;
        assert!(
            (1..=count).contains(&proofs),
            "{proofs} views to prove themselves by"
        );
        assert_eq!(bench.members().len(), count);
    }
}

#[test]
fn without_the_store_and_a_majority_a_node_is_silent_after_its_lease_and_then_stops() {
    let mut bench = Bench::cluster(3);
    bench.part(&[2], &[0, 1]);
    bench.cut.insert(2);
    let start = bench.now;
    bench.until(10_000, |bench| !bench.nodes[2].may_serve(bench.now));
    assert!(bench.now - start <= LEASE);
    bench.until(10_000, |bench| bench.nodes[2].wake_at().is_none());
    let took = bench.now - start;
    assert!(
        (CUT_OFF - RENEW..=CUT_OFF + 50).contains(&took),
        "{took} ms"
    );
    assert_eq!(bench.said().last().unwrap(), "2 stops: CutOff");
    assert_eq!(bench.serving(), [0, 1]);
}

/// Of two, neither is a majority: without the store and each other both stop.
#[test]
fn of_two_that_lose_all_none_serves_on() {
    let mut bench = Bench::cluster(2);
    bench.part(&[0], &[1]);
    bench.cut.extend([0, 1]);
    bench.pass(LEASE);
    assert_eq!(bench.serving(), [] as [usize; 0]);
    bench.pass(CUT_OFF);
    let mut said = bench.said();
    said.sort();
    assert_eq!(said, ["0 stops: CutOff", "1 stops: CutOff"]);
}

/// One that wakes from a pause may have been removed for it: to give way to it would lose both.
#[test]
fn who_is_heard_again_has_time_to_answer_before_another_gives_way() {
    for early in (300..=900).step_by(50) {
        let mut bench = Bench::cluster(2);
        // Nobody can tell that the lease of the first has lapsed.
        bench.blind.insert(1);
        bench.still.insert(0);
        bench.pass(CUT_OFF - early);
        bench.still.clear();
        bench.pass(CUT_OFF);
        assert_eq!(bench.serving(), [0, 1], "{early} ms before the end");
    }
}

/// Both renew their leases, so the store alone would keep both for ever.
#[test]
fn when_only_the_link_between_two_is_broken_the_higher_gives_way() {
    for ways in [vec![(0, 1), (1, 0)], vec![(0, 1)], vec![(1, 0)]] {
        let mut bench = Bench::cluster(2);
        bench.deaf.extend(ways);
        let took = bench.until(20_000, |bench| bench.members() == [1]);
        assert!(
            (CUT_OFF..=CUT_OFF + LAPSE + 2 * RENEW).contains(&took),
            "{took} ms"
        );
        assert!(bench.said().contains(&"1 stops: CutOff".to_owned()));
        assert_eq!(bench.serving(), [0]);
    }
}

#[test]
fn nobody_gives_way_to_one_that_is_dead() {
    // It would long have given way when their leases have lapsed.
    let mut bench = Bench::cluster(3);
    bench.nodes[2].options.cut_off_ms = 2_000;
    bench.still.extend([0, 1]);
    bench.pass(20_000);
    assert_eq!((bench.members(), bench.serving()), (vec![3], vec![2]));
}

#[test]
fn a_lone_node_that_was_suspended_asks_before_it_sends() {
    for replaced in [false, true] {
        let mut bench = Bench::cluster(1);
        bench.still.insert(0);
        if replaced {
            bench.add(options("b", 2));
        }
        bench.pass(20_000);
        bench.still.clear();
        bench.said();
        assert!(!bench.nodes[0].may_serve(bench.now), "without any event");
        let (now, mut out) = (bench.now, Vec::new());
        bench.nodes[0].tick(now, WALL, &mut out);
        assert!(!bench.nodes[0].may_serve(now), "it has not asked yet");
        bench.effects(0, out);
        bench.pass(100);
        let (said, serves) = match replaced {
            false => ("0 adopts 2", vec![0]),
            true => ("0 stops: Removed", vec![1]),
        };
        assert_eq!(
            (bench.said(), bench.serving()),
            (vec![said.to_owned()], serves)
        );
    }
    // The store does not answer either: what it did when it fell asleep goes on.
    for degraded in [false, true] {
        let mut bench = Bench::cluster(1);
        if degraded {
            bench.cut.insert(0);
            bench.pass(2 * LEASE);
        }
        bench.said();
        bench.now += 20_000;
        bench.cut.insert(0);
        bench.pass(100);
        assert_eq!(
            (bench.said(), bench.serving()),
            (vec!["0 degraded".to_owned()], vec![0])
        );
    }
}

/// Beats that were sent before it slept are in the sockets when it wakes. They show nothing.
#[test]
fn a_process_that_was_suspended_is_not_taken_in_by_old_beats() {
    let mut bench = Bench::cluster(3);
    // The store does not answer, so it serves on by the word of the others.
    bench.cut.extend([0, 1, 2]);
    bench.pass(2 * LEASE);
    assert_eq!(bench.serving(), [0, 1, 2]);
    let old: Vec<(u64, Beat)> = [0, 1]
        .map(|n| (bench.nodes[n].me, bench.nodes[n].beat(bench.now, 3)))
        .into();
    bench.still.insert(2);
    bench.now += LEASE;
    let now = bench.now;
    assert!(!bench.nodes[2].may_serve(now), "without any event");
    for (from, beat) in old {
        bench.on(2, |node, now, out| node.heard(now, from, &beat, out));
    }
    assert!(!bench.nodes[2].may_serve(now), "nobody has answered since");
    bench.still.clear();
    let took = bench.until(2_000, |bench| bench.serving() == [0, 1, 2]);
    assert!(took <= 600, "beats that answer its own: {took} ms");
}

/// Its sleep was shorter than its lease, which then has run out; another has seen that.
#[test]
fn a_renewal_that_comes_late_does_not_revive_a_lease() {
    let mut bench = Bench::cluster(2);
    bench.part(&[0], &[1]);
    // The other has seen the lease lapse, and its put is on the way.
    bench.cut.insert(1);
    let (mut ops, mut out) = (Vec::new(), Vec::new());
    let start = bench.now;
    while ops.is_empty() {
        bench.now += 50;
        assert!(bench.now < start + 10_000);
        bench.nodes[0].tick(bench.now, WALL, &mut out);
        while let Some(effect) = out.pop() {
            let Effect::Store { token, op } = effect else {
                continue;
            };
            if bench.nodes[0].removes() == [2] {
                ops.push(op);
            } else {
                let result = bench.rows.apply(op);
                bench.nodes[0].on_result(bench.now, WALL, token, result, &mut out);
            }
        }
        if bench.nodes[1].wake_at().is_some_and(|at| at <= bench.now) {
            bench.on(1, |node, now, out| node.tick(now, WALL, out));
        }
    }
    assert!(!bench.nodes[1].may_serve(bench.now));
    // Now its renewal gets through, and what it reads after that.
    bench.cut.clear();
    bench.still.insert(0);
    bench.until(2_000, |bench| bench.nodes[1].may_serve(bench.now));
    let late = bench.rows.apply(ops.remove(0));
    assert!(
        matches!(late, Err(StoreError::Conflict { .. })),
        "the view is a newer one"
    );
    assert_eq!(bench.members(), [1, 2]);
}

/// A node whose lease has lapsed, with its next operations in hand: the renewal, and a look at the
/// view. The others may have put a removal on the way meanwhile.
fn lapsed() -> (Bench, (Token, Op), (Token, Op)) {
    let mut bench = Bench::cluster(2);
    // The other is too slow to have removed it.
    bench.still.insert(0);
    bench.cut.insert(1);
    bench.pass(LEASE);
    bench.now += RENEW;
    let renewed = Op::Put {
        item: lease::item(&bench.nodes[0].options.me.node(), 1_000, WALL),
        condition: Condition::Any,
        nonce: 78,
    };
    bench.rows.apply(renewed).unwrap();
    let mut out = Vec::new();
    bench.nodes[1].tick(bench.now, WALL, &mut out);
    let mut ops = ops(out);
    let renewal = ops.remove(0);
    assert!(matches!(renewal.1, Op::Put { .. }));
    let read = skip_looks(&mut bench, ops.pop());
    assert!(matches!(read.1, Op::Get { .. }));
    (bench, renewal, read)
}

fn ops(effects: Vec<Effect>) -> Vec<(Token, Op)> {
    let op = |effect| match effect {
        Effect::Store { token, op } => Some((token, op)),
        _ => None,
    };
    effects.into_iter().filter_map(op).collect()
}

/// The node gets an answer. What does it ask for then?
fn answer(
    bench: &mut Bench,
    token: Token,
    result: Result<Outcome, StoreError>,
) -> Option<(Token, Op)> {
    let mut out = Vec::new();
    bench.nodes[1].on_result(bench.now, WALL, token, result, &mut out);
    ops(out).pop()
}

/// Its looks at the other's lease are answered.
fn skip_looks(bench: &mut Bench, mut op: Option<(Token, Op)>) -> (Token, Op) {
    loop {
        match op.expect("it asks for something") {
            (token, look @ Op::BatchGet { .. }) => {
                let result = bench.rows.apply(look);
                op = answer(bench, token, result);
            }
            other => return other,
        }
    }
}

/// Another's put, of which the node hears: it may have been made before the renewal.
fn newer_view(bench: &mut Bench) {
    let mut view = bench.rows.view().unwrap();
    view.epoch += 1;
    let put = Op::Put {
        item: view.to_item().unwrap(),
        condition: Condition::Version(view.epoch - 1),
        nonce: 77,
    };
    bench.rows.apply(put).unwrap();
    bench.on(1, |node, now, out| node.view_pushed(now, view, out));
}

#[test]
fn a_view_proves_membership_only_if_it_follows_one_that_was_read_with_a_lease() {
    // Renewed, and not read since.
    let (mut bench, renewal, _) = lapsed();
    let renewed = bench.rows.apply(renewal.1);
    answer(&mut bench, renewal.0, renewed);
    newer_view(&mut bench);
    assert!(!bench.nodes[1].may_serve(bench.now));

    // Read before it was renewed.
    let (mut bench, renewal, look) = lapsed();
    let read = bench.rows.apply(look.1);
    let renewed = bench.rows.apply(renewal.1);
    answer(&mut bench, renewal.0, renewed);
    let again = answer(&mut bench, look.0, read);
    newer_view(&mut bench);
    assert!(!bench.nodes[1].may_serve(bench.now));

    // And read with a lease.
    let again = skip_looks(&mut bench, again);
    let read = bench.rows.apply(again.1);
    answer(&mut bench, again.0, read);
    newer_view(&mut bench);
    assert!(bench.nodes[1].may_serve(bench.now));
}

#[test]
fn what_was_read_in_an_earlier_lease_proves_nothing() {
    for answered in [true, false] {
        let (mut bench, renewal, look) = lapsed();
        let renewed = bench.rows.apply(renewal.1);
        answer(&mut bench, renewal.0, renewed);
        let read = bench.rows.apply(look.1);
        let again = answer(&mut bench, look.0, read);
        let again = skip_looks(&mut bench, again);
        assert!(matches!(again.1, Op::Get { .. }), "now with a lease");
        let read = bench.rows.apply(again.1);
        let mut late = Some((again.0, read));
        if answered && let Some((token, read)) = late.take() {
            answer(&mut bench, token, read);
        }
        // That lease lapses as well, before the next renewal is answered.
        let mut renewals = Vec::new();
        for _ in 0..LEASE / 50 {
            let mut out = Vec::new();
            bench.now += 50;
            bench.nodes[1].tick(bench.now, WALL, &mut out);
            renewals.extend(ops(out));
        }
        let renewal = renewals.remove(0);
        let renewed = bench.rows.apply(renewal.1);
        answer(&mut bench, renewal.0, renewed);
        if let Some((token, read)) = late {
            answer(&mut bench, token, read);
        }
        newer_view(&mut bench);
        assert!(bench.now < bench.nodes[1].lease.until(), "it has a lease");
        assert!(
            !bench.nodes[1].may_serve(bench.now),
            "read and answered: {answered}"
        );
    }
}

#[test]
fn only_those_at_the_same_epoch_let_a_node_serve_on() {
    for (epoch, serves) in [(3, true), (2, false), (4, false)] {
        let mut bench = Bench::cluster(3);
        bench.part(&[2], &[0, 1]);
        bench.cut.insert(2);
        bench.pass(LEASE);
        assert!(!bench.nodes[2].may_serve(bench.now));
        for node in [1, 2] {
            let beat = Beat {
                epoch,
                sent: bench.now,
                echo: bench.now,
                ..Beat::default()
            };
            bench.on(2, |machine, now, out| machine.heard(now, node, &beat, out));
        }
        assert_eq!(bench.nodes[2].may_serve(bench.now), serves, "epoch {epoch}");
    }
}

#[test]
fn of_a_link_that_broke_nothing_counts() {
    let mut bench = Bench::cluster(3);
    bench.cut.extend([0, 1, 2]);
    bench.pass(2 * LEASE);
    for (gone, serves) in [(1, true), (2, false)] {
        bench.on(2, |node, now, out| node.link_down(now, gone, out));
        assert_eq!(bench.nodes[2].may_serve(bench.now), serves);
    }
    bench.pass(SILENCE);
    assert_eq!(bench.serving(), [0, 1, 2]);
}

#[test]
fn an_idle_member_writes_its_lease_and_reads_the_view_each_second() {
    let mut bench = Bench::cluster(3);
    let mut ops = (0, 0);
    for _ in 0..100 {
        bench.now += 100;
        let mut out = Vec::new();
        bench.nodes[0].tick(bench.now, WALL, &mut out);
        bench.beats();
        for effect in out {
            let Effect::Store { token, op } = effect else {
                panic!("{effect:?}")
            };
            match op {
                Op::Put { .. } => ops.0 += 1,
                _ => ops.1 += 1,
            }
            let result = bench.rows.apply(op);
            bench.on(0, |node, now, out| {
                node.on_result(now, WALL, token, result, out);
            });
        }
    }
    assert_eq!(ops, (10, 10));
}

#[test]
fn what_can_not_be_understood_is_told_and_tried_again() {
    let mut bench = Bench::cluster(1);
    let mut item = bench.rows.view().unwrap().to_item().unwrap();
    item.attrs.set("v", cirrus_store::Value::N(9));
    let (condition, nonce) = (Condition::Any, 5);
    bench
        .rows
        .apply(Op::Put {
            item,
            condition,
            nonce,
        })
        .unwrap();
    bench.pass(1_000);
    assert_eq!(bench.said(), ["0: cluster[v][\\x00]: unknown format"]);
    assert_eq!(bench.serving(), [0], "it knows nothing better");
    let token = 99_999;
    bench.on(0, |node, now, out| {
        node.on_result(now, WALL, token, Err(timeout()), out);
    });
    assert_eq!(bench.said(), [] as [&str; 0], "an answer to nothing");
}
