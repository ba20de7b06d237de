//! Who is removed from the view, by whom, and when.

use super::*;

/// Silence, and steps of the clock: here all beats come at one time.
const FAST: u64 = SILENCE + 100;

#[test]
fn a_majority_removes_at_once_what_it_does_not_hear() {
    for dead in 0..3 {
        let mut bench = Bench::cluster(3);
        bench.still.insert(dead);
        let took = bench.until(10_000, |bench| bench.members().len() == 2);
        assert!((SILENCE - 250..=FAST).contains(&took), "{took} ms");
        bench.pass(1_000);
        let lowest = usize::from(dead == 0);
        let view = bench.rows.view().unwrap();
        assert_eq!(
            (view.epoch, view.member(&bench.nodes[dead].options.me)),
            (4, None)
        );
        let by = format!("{lowest} adopts 4");
        assert_eq!(bench.said()[0], by, "the lowest that is left writes");
    }
}

#[test]
fn several_that_die_at_once_go_in_one_put() {
    let mut bench = Bench::cluster(5);
    bench.still.extend([1, 3]);
    let took = bench.until(10_000, |bench| bench.members() == [1, 3, 5]);
    assert!(took <= FAST, "{took} ms");
    assert_eq!(bench.rows.view().unwrap().epoch, 6);

    // No majority is left: the store decides.
    let mut bench = Bench::cluster(3);
    bench.still.extend([0, 2]);
    let took = bench.until(10_000, |bench| bench.members() == [2]);
    assert!(
        (LAPSE - RENEW..=LAPSE + 2 * RENEW).contains(&took),
        "{took} ms"
    );
    assert_eq!(bench.rows.view().unwrap().epoch, 4);
    assert_eq!(bench.serving(), [1]);
}

#[test]
fn between_two_only_the_store_decides() {
    for dead in 0..2 {
        let mut bench = Bench::cluster(2);
        bench.still.insert(dead);
        let took = bench.until(10_000, |bench| bench.members().len() == 1);
        assert!((LAPSE - RENEW..=LAPSE + 200).contains(&took), "{took} ms");
        assert_eq!(bench.members(), [2 - dead as u64]);
        assert!(
            !bench.nodes[dead].may_serve(bench.now),
            "it has stopped before"
        );
    }
}

#[test]
fn when_the_cluster_is_parted_the_side_with_the_majority_stays() {
    for (some, others, stays) in [
        (vec![0, 1], vec![2], vec![1, 2]),
        (vec![1, 2], vec![0], vec![2, 3]),
        (vec![0, 4], vec![1, 2, 3], vec![2, 3, 4]),
        // Half with the lowest.
        (vec![1, 2], vec![0, 3], vec![1, 4]),
    ] {
        let count = some.len() + others.len();
        let mut bench = Bench::cluster(count);
        bench.part(&some, &others);
        let took = bench.until(10_000, |bench| bench.members() == stays);
        assert!(took <= FAST, "{took} ms");
        bench.pass(1_500);
        let serving: Vec<u64> = bench.serving().iter().map(|n| *n as u64 + 1).collect();
        assert_eq!(serving, stays, "the others have read that they are removed");
        let stopped = |said: &&String| said.ends_with("stops: Removed");
        assert_eq!(
            bench.said().iter().filter(stopped).count(),
            count - stays.len()
        );
    }
}

#[test]
fn one_that_does_not_hear_another_removes_nobody() {
    let mut bench = Bench::cluster(3);
    bench.part(&[0], &[1]);
    bench.pass(30_000);
    assert_eq!(bench.members(), [1, 2, 3]);
    assert_eq!(bench.serving(), [0, 1, 2]);
    assert_eq!(bench.rows.view().unwrap().epoch, 3);
}

#[test]
fn a_node_that_nobody_hears_is_removed_and_learns_it_from_the_others() {
    let mut bench = Bench::cluster(3);
    bench.deaf.extend([(2, 0), (2, 1)]);
    bench.cut.insert(2);
    let took = bench.until(10_000, |bench| bench.serving() == [0, 1]);
    assert!(took <= FAST, "{took} ms");
    assert!(
        bench.said().contains(&"2 stops: Removed".to_owned()),
        "by what they push"
    );
}

#[test]
fn when_the_first_in_rank_does_not_reach_the_store_the_next_removes() {
    let mut bench = Bench::cluster(4);
    bench.cut.insert(0);
    bench.still.insert(3);
    let took = bench.until(10_000, |bench| bench.members() == [1, 2, 3]);
    assert!((SILENCE..=FAST + STAGGER_MS).contains(&took), "{took} ms");
    bench.pass(500);
    let said = bench.said();
    assert!(
        said.contains(&"0 adopts 5".to_owned()),
        "it is told: {said:?}"
    );
    assert_eq!(
        bench.rows.view().unwrap().epoch,
        5,
        "one of the two others wrote"
    );
}

#[test]
fn a_member_that_is_heard_stays_without_a_lease() {
    let mut bench = Bench::cluster(3);
    bench.cut.insert(2);
    bench.pass(20_000);
    assert_eq!(bench.members(), [1, 2, 3]);
    assert_eq!(bench.serving(), [0, 1, 2]);
    assert_eq!(bench.said(), ["2 degraded"]);
    bench.cut.clear();
    bench.pass(2_000);
    let said = bench.said();
    assert!(said.contains(&"2 restored".to_owned()), "{said:?}");
    assert_eq!(
        bench.rows.view().unwrap().epoch,
        4,
        "it proved that it still is a member"
    );
    assert_eq!(bench.serving(), [0, 1, 2]);
}

#[test]
fn who_wakes_from_a_pause_does_not_take_the_others_for_dead() {
    for pause in [SILENCE, LEASE - 100, 2 * LEASE] {
        let mut bench = Bench::cluster(3);
        // The others have no time to remove it, as if all were paused.
        bench.still.extend([0, 1, 2]);
        bench.pass(pause);
        bench.still.clear();
        bench.pass(10_000);
        assert_eq!(bench.members(), [1, 2, 3], "after {pause} ms");
        assert_eq!(bench.serving(), [0, 1, 2]);
    }
}

#[test]
fn draining_is_a_state_in_the_view_and_counts_for_majorities() {
    let mut bench = Bench::cluster(3);
    bench.on(1, |node, now, out| node.drain(now, WALL, out));
    let state = |bench: &Bench| {
        let view = bench.rows.view().unwrap();
        let member = view.member(&bench.nodes[1].options.me).cloned();
        (view.epoch, member.unwrap().state)
    };
    assert_eq!(state(&bench), (4, MemberState::Draining), "at once");
    bench.pass(1_000);
    assert_eq!(bench.serving(), [0, 1, 2], "it still is a pipe");
    bench.still.insert(0);
    bench.until(FAST + 50, |bench| bench.members() == [2, 3]);
    bench.on(1, |node, now, out| node.undrain(now, WALL, out));
    assert_eq!(state(&bench), (6, MemberState::Serving));
    bench.pass(10_000);
    assert_eq!(state(&bench), (6, MemberState::Serving));
}

#[test]
fn who_leaves_is_out_of_the_view_and_the_last_leaves_an_empty_one() {
    let mut bench = Bench::cluster(2);
    bench.on(0, |node, now, out| node.leave(now, WALL, out));
    assert_eq!((bench.members(), bench.serving()), (vec![2], vec![1]));
    assert!(bench.said().contains(&"0 left".to_owned()));
    assert_eq!(bench.nodes[0].wake_at(), None);
    bench.on(1, |node, now, out| node.leave(now, WALL, out));
    assert_eq!(bench.members(), [] as [u64; 0]);
    bench.add(options("c", 3));
    let took = bench.until(1_000, |bench| bench.serving() == [2]);
    assert!(took <= 100, "nobody to wait for: {took} ms");
    assert_eq!(bench.rows.view().unwrap().epoch, 5);
}

#[test]
fn who_leaves_tells_the_others_which_need_no_store_to_go_on() {
    let mut bench = Bench::cluster(2);
    bench.cut.insert(1);
    bench.on(0, |node, now, out| node.leave(now, WALL, out));
    assert!(bench.said().contains(&"0 left".to_owned()));
    bench.still.insert(0);
    bench.pass(2 * CUT_OFF);
    assert_eq!(bench.serving(), [1]);
}

#[test]
fn leaving_ends_without_the_store_too() {
    let mut bench = Bench::cluster(1);
    bench.cut.insert(0);
    bench.on(0, |node, now, out| node.leave(now, WALL, out));
    assert!(!bench.nodes[0].may_serve(bench.now));
    let took = bench.until(10_000, |bench| bench.said.contains(&"0 left".to_owned()));
    assert!(took <= LEASE, "{took} ms");

    let mut bench = Bench::new(1);
    bench.cut.insert(0);
    bench.pass(500);
    bench.said();
    bench.on(0, |node, now, out| node.leave(now, WALL, out));
    assert_eq!(bench.said(), ["0 left"], "one that never was a member");
}

#[test]
fn an_old_view_that_is_pushed_changes_nothing() {
    let mut bench = Bench::cluster(2);
    let view = bench.rows.view().unwrap();
    let old = View {
        members: Vec::new(),
        ..view.clone()
    };
    bench.on(0, |node, now, out| node.view_pushed(now, old, out));
    assert_eq!(bench.nodes[0].view(), Some(&view));
    let newer = View {
        members: Vec::new(),
        epoch: 3,
        ..view
    };
    bench.on(0, |node, now, out| node.view_pushed(now, newer, out));
    assert_eq!(bench.said(), ["0 stops: Removed"]);
}

/// All three are alone. What one said before that must not make another a majority.
#[test]
fn what_somebody_said_long_ago_does_not_count() {
    let mut bench = Bench::cluster(3);
    bench.part(&[1], &[2]);
    bench.pass(2 * SILENCE);
    bench.part(&[0], &[1, 2]);
    bench.pass(CUT_OFF - SILENCE);
    assert_eq!(bench.members(), [1, 2, 3]);
    // Their leases are good, so the store does not decide: the higher ones give way.
    bench.until(CUT_OFF + LAPSE + 2 * RENEW, |bench| bench.members() == [1]);
    assert_eq!(bench.serving(), [0]);
}

#[test]
fn a_beat_of_a_newer_epoch_makes_a_node_read_at_once() {
    let mut bench = Bench::cluster(3);
    let get_at = |bench: &mut Bench, epoch| {
        let (now, mut out) = (bench.now, Vec::new());
        let beat = Beat {
            epoch,
            sent: now,
            ..Beat::default()
        };
        bench.nodes[0].heard(now, 2, &beat, &mut out);
        let read = |effect: &Effect| {
            matches!(
                effect,
                Effect::Store {
                    op: Op::Get { .. },
                    ..
                }
            )
        };
        out.iter().any(read)
    };
    bench.pass(100);
    assert!(!get_at(&mut bench, 3));
    assert!(get_at(&mut bench, 4));
    // It fails, and all the others say the same.
    let token = bench.nodes[0].tokens;
    bench.on(0, |node, now, out| {
        node.on_result(now, WALL, token, Err(timeout()), out);
    });
    assert!(!get_at(&mut bench, 4));
    bench.now += RENEW / 4;
    assert!(get_at(&mut bench, 4), "in its time");
}

#[test]
fn beats_count_in_the_order_in_which_they_were_sent() {
    let mut bench = Bench::cluster(2);
    let now = bench.now;
    for sent in [now + 20, now + 10] {
        let beat = Beat {
            sent,
            ..Beat::default()
        };
        bench.on(0, |node, now, out| node.heard(now, 2, &beat, out));
    }
    assert_eq!(bench.nodes[0].beat(now, 2).echo, now + 20);
}
