//! Who becomes a member, and when.

use super::*;

#[test]
fn two_first_nodes_at_the_same_moment_become_one_cluster() {
    let mut bench = Bench::new(0);
    for n in [1, 2] {
        let slot_key = [n; 16];
        let name = format!("i-{n}");
        bench.add(Options {
            slot_key,
            ..options(&name, n.into())
        });
    }
    bench.pass(600);
    assert_eq!(bench.members(), [1, 2]);
    assert_eq!(bench.serving(), [0, 1]);
    let view = bench.rows.view().unwrap();
    assert_eq!(
        (view.epoch, view.slot_key),
        (2, [1; 16]),
        "the key of the one that won"
    );
    assert_eq!(bench.said(), ["0 adopts 1", "1 adopts 2", "0 adopts 2"]);
    bench.pass(30_000);
    assert_eq!(bench.said(), [] as [&str; 0], "and that is all");
    assert_eq!(bench.nodes[1].view(), Some(&view));
}

#[test]
fn many_that_come_at_once_all_join() {
    let mut bench = Bench::new(7);
    let took = bench.until(5_000, |bench| bench.serving().len() == 7);
    assert!(took <= 2_000, "{took} ms");
    assert_eq!(bench.members(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.rows.view().unwrap().epoch, 7);
}

#[test]
fn a_joiner_needs_a_link_both_ways_to_every_member_and_says_what_it_waits_for() {
    for ways in [vec![(1, 2), (2, 1)], vec![(1, 2)], vec![(2, 1)]] {
        let mut bench = Bench::cluster(2);
        bench.add(options("c", 3));
        bench.deaf.extend(ways);
        bench.pass(20_000);
        assert_eq!(bench.members(), [1, 2]);
        let text = "2 waits: no link to b at 10.0.0.2:7250 yet: does the security group allow \
                    port 7250 from itself?";
        assert_eq!(bench.said(), [text], "once");
        assert_eq!(bench.serving(), [0, 1]);
        bench.deaf.clear();
        let took = bench.until(2_000, |bench| bench.serving() == [0, 1, 2]);
        assert!(took <= 600, "{took} ms");
        assert_eq!(bench.members(), [1, 2, 3]);
    }
}

#[test]
fn nobody_joins_without_a_lease() {
    let mut bench = Bench::new(1);
    let mut out = Vec::new();
    bench.nodes[0].tick(1_000, WALL, &mut out);
    let mut ops = out.drain(..).map(|effect| match effect {
        Effect::Store { token, op } => (token, op),
        other => panic!("{other:?}"),
    });
    let (Some((renewal, Op::Put { .. })), Some((read, get))) = (ops.next(), ops.next()) else {
        panic!("a renewal and a look at the view")
    };
    drop(ops);
    let node = &mut bench.nodes[0];
    node.on_result(1_010, WALL, read, bench.rows.apply(get), &mut out);
    node.on_result(1_020, WALL, renewal, Err(timeout()), &mut out);
    for now in (1_050..5_000).step_by(50) {
        node.tick(now, WALL, &mut out);
    }
    let puts_view = |effect: &Effect| match effect {
        Effect::Store {
            op: Op::Put { item, .. },
            ..
        } => item.key == cluster::view().into(),
        _ => false,
    };
    assert!(!out.iter().any(puts_view), "{out:?}");
    let text = "the store does not answer yet";
    assert!(
        out.iter()
            .any(|effect| matches!(effect, Effect::JoinWaits { text: t } if t == text))
    );
}

#[test]
fn whoever_comes_after_all_were_killed_waits_out_their_leases_and_replaces_them() {
    let mut bench = Bench::cluster(3);
    let key = bench.rows.view().unwrap().slot_key;
    bench.still.extend([0, 1, 2]);
    bench.add(Options {
        slot_key: [9; 16],
        ..options("d", 4)
    });
    let took = bench.until(10_000, |bench| bench.serving() == [3]);
    assert!((LAPSE..=LAPSE + 200).contains(&took), "{took} ms");
    let view = bench.rows.view().unwrap();
    assert_eq!((bench.members(), view.epoch), (vec![4], 4), "in one put");
    assert_eq!(view.slot_key, key, "owners keep their slots");
}

#[test]
fn a_dead_member_is_dropped_in_the_put_that_joins() {
    let mut bench = Bench::cluster(2);
    // The survivor hears it, as far as it says, so it does not remove it.
    bench.cut.insert(1);
    bench.add(options("c", 3));
    bench.deaf.extend([(1, 2), (2, 1)]);
    bench.until(10_000, |bench| bench.members() == [1, 3]);
    assert_eq!(bench.rows.view().unwrap().epoch, 3);
}

#[test]
fn an_earlier_process_of_the_instance_is_waited_for_as_long_as_its_lease() {
    let mut bench = Bench::cluster(1);
    bench.still.insert(0);
    bench.add(options("a", 9));
    let took = bench.until(10_000, |bench| bench.serving() == [1]);
    assert!((LAPSE..=LAPSE + RENEW).contains(&took), "{took} ms");
    assert_eq!(bench.members(), [9]);
    let said = bench.said();
    assert!(
        said[0].starts_with("1 waits: an earlier process of a is a member until"),
        "{said:?}"
    );
    assert_eq!(said.len(), 2, "{said:?}");

    // One that lives is never dropped, and a link to it helps nothing.
    let mut bench = Bench::cluster(1);
    bench.add(options("a", 9));
    for _ in 0..300 {
        bench.pass(100);
        let beat = Beat {
            sent: bench.now,
            echo: bench.now,
            ..Beat::default()
        };
        bench.on(1, |node, now, out| node.heard(now, 1, &beat, out));
    }
    assert_eq!((bench.members(), bench.serving()), (vec![1], vec![0]));
}

#[test]
fn who_does_not_understand_the_cluster_does_not_join_and_says_why() {
    let bench = |(oldest, newest): (u16, u16)| {
        let mut bench = Bench::cluster(2);
        let mut stranger = options("c", 3);
        (stranger.oldest, stranger.me.wire, stranger.me.storage) = (oldest, newest, newest);
        bench.add(stranger);
        bench.pass(10_000);
        bench
    };
    for reads in [(11, 12), (12, 13)] {
        assert_eq!(bench(reads).members(), [1, 2, 3], "{reads:?}");
    }
    for (reads, said) in [
        (
            (10, 11),
            "writes format 12, and this one reads 10 to 11: start a newer version here",
        ),
        (
            (13, 14),
            "a reads nothing newer than format 12, and this node reads 13 to 14: update",
        ),
    ] {
        let mut bench = bench(reads);
        assert_eq!(bench.members(), [1, 2], "{reads:?}");
        let all = bench.said();
        let waits = |text: &String| text.starts_with("2 waits: ") && text.contains(said);
        assert!(all.iter().any(waits), "{all:?}");
    }
}

#[test]
fn the_format_of_a_cluster_rises_when_the_last_old_node_is_gone_and_stays() {
    let with = |name: &str, boot: u128, newest: u16| {
        let mut options = options(name, boot);
        (options.oldest, options.me.wire, options.me.storage) = (newest - 1, newest, newest);
        options
    };
    let mut bench = Bench::cluster(1);
    bench.add(with("b", 2, 13));
    bench.pass(2_000);
    assert_eq!(bench.rows.view().unwrap().common(), Some(12));
    bench.on(0, |node, now, out| node.leave(now, WALL, out));
    bench.pass(5_000);
    assert_eq!(bench.members(), [2]);
    assert_eq!(bench.rows.view().unwrap().common(), Some(13));
    bench.add(with("c", 3, 12));
    bench.add(with("d", 4, 14));
    bench.pass(10_000);
    assert_eq!(
        bench.members(),
        [2, 4],
        "who reads only what was before does not come back"
    );
    assert_eq!(bench.rows.view().unwrap().common(), Some(13));
    for node in [1, 3] {
        bench.on(node, |node, now, out| node.leave(now, WALL, out));
        bench.pass(5_000);
    }
    assert_eq!(bench.members(), []);
    bench.add(with("e", 5, 12));
    bench.pass(10_000);
    assert_eq!(bench.members(), [], "nor when nobody is left");
}

#[test]
fn a_node_that_drains_joins_as_one() {
    let mut bench = Bench::cluster(1);
    let mut draining = options("b", 2);
    draining.me.state = MemberState::Draining;
    bench.add(draining);
    bench.pass(1_000);
    let view = bench.rows.view().unwrap();
    assert_eq!(view.members[1].state, MemberState::Draining);
    assert_eq!((view.epoch, bench.serving()), (2, vec![0, 1]));
}

#[test]
fn a_member_by_a_put_whose_answer_was_lost_finds_out() {
    let mut bench = Bench::cluster(1);
    bench.add(options("b", 2));
    // It is put into the view behind its back, as by its own put that hung on the way.
    bench.pass(150);
    assert_eq!(bench.members(), [1]);
    let mut view = bench.rows.view().unwrap();
    view.epoch += 1;
    view.members.push(options("b", 2).me);
    let put = Op::Put {
        item: view.to_item().unwrap(),
        condition: Condition::Version(1),
        nonce: 77,
    };
    bench.rows.apply(put).unwrap();
    bench.pass(1_500);
    assert_eq!((bench.members(), bench.serving()), (vec![1, 2], vec![0, 1]));
    assert_eq!(bench.rows.view().unwrap().epoch, 2);
}

#[test]
fn many_that_came_and_went_take_nobodys_place() {
    let mut bench = Bench::cluster(2);
    for stranger in 1_000..1_600 {
        let beat = Beat {
            joining: true,
            sent: bench.now,
            ..Beat::default()
        };
        for n in 0..2 {
            bench.on(n, |node, now, out| node.heard(now, stranger, &beat, out));
            bench.on(n, |node, now, out| node.link_down(now, stranger, out));
        }
    }
    bench.add(options("c", 3));
    bench.until(5_000, |bench| bench.serving() == [0, 1, 2]);
    assert_eq!(bench.members(), [1, 2, 3]);
}
