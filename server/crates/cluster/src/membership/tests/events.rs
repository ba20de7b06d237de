//! One or two nodes on a store that answers at once, or not at all.

use super::*;

/// Nodes with one clock, on one table.
struct Bench {
    rows: Rows,
    now: u64,
    nodes: Vec<Membership>,
    /// Nodes that don't reach the store.
    cut: Vec<usize>,
    said: Vec<String>,
}

impl Bench {
    fn new(nodes: Vec<Options>) -> Self {
        Self {
            rows: Rows::default(),
            now: 1_000_000,
            nodes: nodes.into_iter().map(Membership::new).collect(),
            cut: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Lets time pass in steps of 50 ms; answers come with the step.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now += 50;
            for n in 0..self.nodes.len() {
                let mut out = Vec::new();
                if self.nodes[n].wake_at().is_some_and(|at| at <= self.now) {
                    self.nodes[n].tick(self.now, WALL, &mut out);
                }
                self.effects(n, out);
            }
        }
    }

    fn leave(&mut self, n: usize) {
        let mut out = Vec::new();
        self.nodes[n].leave(self.now, WALL, &mut out);
        self.effects(n, out);
    }

    fn effects(&mut self, n: usize, effects: Vec<Effect>) {
        let mut queue: std::collections::VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let text = match effect {
                Effect::Store { token, op } => {
                    let result = match self.cut.contains(&n) {
                        true => Err(timeout()),
                        false => self.rows.apply(op),
                    };
                    let mut out = Vec::new();
                    self.nodes[n].on_result(self.now, WALL, token, result, &mut out);
                    queue.extend(out);
                    continue;
                }
                Effect::Serve { view } => format!("{n} serves at {}", view.epoch),
                Effect::StandBy { holder, epoch } => {
                    format!("{n} stands by for {} at {epoch}", holder.instance)
                }
                Effect::Degraded => format!("{n} serves on"),
                Effect::Stop { reason } => format!("{n} stops: {reason:?}"),
                Effect::Left => format!("{n} left"),
                Effect::Fault { error } => format!("{n}: {error}"),
            };
            self.said.push(text);
        }
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn serving(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|n| self.nodes[*n].may_serve(self.now))
            .collect()
    }
}

#[test]
fn the_first_serves_and_the_second_stands_by() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2)]);
    bench.pass(50);
    assert_eq!(bench.said(), ["0 serves at 1", "1 stands by for a at 1"]);
    bench.pass(20_000);
    assert!(bench.said().is_empty());
    assert_eq!(bench.serving(), [0]);
    let view = bench.rows.view().unwrap();
    assert_eq!(
        (view.epoch, view.slot_key, view.members.len()),
        (2, [7; 16], 2)
    );
    assert_eq!(
        bench.nodes[0].view(),
        Some(&view),
        "the holder knows of the standby"
    );
}

#[test]
fn a_standby_takes_over_after_a_full_lease() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2)]);
    bench.pass(10_000);
    bench.said();
    // The holder dies.
    bench.nodes[0] = Membership::new(options("z", 9));
    bench.cut.push(0);
    let died = bench.now;
    while bench.serving() != [1] {
        bench.pass(50);
        assert!(bench.now < died + LEASE + lease::margin(LEASE) + 2 * RENEW);
    }
    assert!(
        bench.now - died >= LEASE - RENEW,
        "not before its lease had lapsed"
    );
    assert_eq!(bench.said(), ["1 serves at 3"]);
    let view = bench.rows.view().unwrap();
    assert_eq!(view.members.len(), 1, "the dead holder is removed");
    assert_eq!(view.slot_key, [7; 16]);
}

#[test]
fn a_node_that_is_cut_off_stops_before_another_serves() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2)]);
    bench.pass(5_000);
    bench.said();
    bench.cut.push(0);
    let cut = bench.now;
    while bench.serving() == [0] {
        bench.pass(50);
    }
    assert!(bench.now - cut <= LEASE);
    assert_eq!(bench.serving(), [] as [usize; 0]);
    bench.pass(3_000);
    assert_eq!(bench.said(), ["0 stops: LeaseLost", "1 serves at 3"]);
    assert_eq!(
        bench.nodes[0].wake_at(),
        None,
        "it is over for that process"
    );
}

#[test]
fn a_process_that_was_suspended_finds_out_before_it_sends() {
    let mut bench = Bench::new(vec![options("a", 1)]);
    bench.pass(5_000);
    let mut out = Vec::new();
    let asleep = bench.now + LEASE;
    bench.nodes[0].tick(bench.now + RENEW, WALL, &mut out);
    let Some(Effect::Store { token, op }) = out.into_iter().next() else {
        panic!("no renewal")
    };
    assert!(!bench.nodes[0].may_serve(asleep), "without any event");
    // Even an answer that had arrived meanwhile does not help.
    let mut out = Vec::new();
    let result = bench.rows.apply(op);
    bench.nodes[0].on_result(asleep, WALL, token, result, &mut out);
    assert!(matches!(
        out[..],
        [Effect::Stop {
            reason: Stopped::LeaseLost
        }]
    ));
}

/// A lone node that serves on without the store is not to be taken in by its own sleep.
#[test]
fn a_lone_node_that_was_suspended_asks_before_it_sends() {
    let serve_on = |instance, boot| Options {
        cut_off: CutOff::ServeOn,
        ..options(instance, boot)
    };
    for replaced in [false, true] {
        let mut bench = Bench::new(vec![serve_on("a", 1)]);
        bench.pass(5_000);
        bench.said();
        // Another comes up while it sleeps, and goes again.
        let sleeper = bench.nodes.remove(0);
        if replaced {
            bench.nodes.push(Membership::new(serve_on("b", 2)));
        }
        bench.pass(20_000);
        bench.nodes.insert(0, sleeper);
        bench.said();
        assert!(!bench.nodes[0].may_serve(bench.now), "without any event");
        let mut out = Vec::new();
        bench.nodes[0].tick(bench.now, WALL, &mut out);
        assert!(!bench.nodes[0].may_serve(bench.now), "it has not asked yet");
        bench.effects(0, out);
        bench.pass(100);
        let (said, serves) = match replaced {
            false => ("0 serves at 2", vec![0]),
            true => ("0 stops: Removed", vec![1]),
        };
        assert_eq!(
            (bench.said(), bench.serving()),
            (vec![said.to_owned()], serves)
        );
    }
    // The store does not answer either: what it did when it fell asleep goes on.
    let mut bench = Bench::new(vec![serve_on("a", 1)]);
    bench.pass(5_000);
    bench.said();
    bench.now += 20_000;
    bench.cut.push(0);
    bench.pass(100);
    assert_eq!(
        (bench.said(), bench.serving()),
        (vec!["0 serves on".to_owned()], vec![0])
    );
}

#[test]
fn a_holder_that_was_replaced_stops() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2)]);
    bench.pass(5_000);
    bench.said();
    let mut view = bench.rows.view().unwrap();
    view.epoch += 1;
    view.members.retain(|member| member.instance == "b");
    bench
        .rows
        .0
        .insert(cluster::view().into(), (view.to_item().unwrap(), 0));
    bench.pass(1_000);
    assert_eq!(bench.said(), ["0 stops: Removed", "1 serves at 4"]);
}

#[test]
fn leaving_hands_over_at_once() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2)]);
    bench.pass(5_000);
    bench.said();
    bench.leave(0);
    bench.pass(RENEW);
    assert_eq!(bench.said(), ["0 left", "1 serves at 4"]);
    assert_eq!(bench.serving(), [1]);
    bench.leave(1);
    assert_eq!(bench.said(), ["1 left"]);
    assert_eq!(bench.rows.view().unwrap().members, []);
    // Leaving ends even if the store is away.
    let mut bench = Bench::new(vec![options("a", 1)]);
    bench.pass(5_000);
    bench.said();
    bench.cut.push(0);
    bench.leave(0);
    bench.pass(LEASE);
    assert_eq!(bench.said(), ["0 left"]);
}

#[test]
fn a_restarted_process_need_not_wait_for_itself() {
    for (exclusive, least, most) in [(true, 0, 100), (false, LEASE, LEASE + 2 * RENEW)] {
        let mut bench = Bench::new(vec![options("a", 1)]);
        bench.pass(5_000);
        bench.said();
        bench.nodes[0] = Membership::new(Options {
            exclusive,
            ..options("a", 2)
        });
        let started = bench.now;
        while bench.serving().is_empty() {
            bench.pass(50);
        }
        let waited = bench.now - started;
        assert!((least..=most).contains(&waited), "{waited} ms");
        assert_eq!(bench.rows.view().unwrap().members.len(), 1);
    }
}

#[test]
fn a_lone_node_can_serve_on_without_the_store() {
    let serve_on = |instance, boot| Options {
        cut_off: CutOff::ServeOn,
        ..options(instance, boot)
    };
    let mut bench = Bench::new(vec![serve_on("a", 1)]);
    bench.pass(5_000);
    bench.said();
    bench.cut.push(0);
    bench.pass(60_000);
    assert_eq!(
        (bench.said(), bench.serving()),
        (vec!["0 serves on".to_owned()], vec![0])
    );
    bench.cut.clear();
    bench.pass(2_000);
    assert_eq!(bench.said(), ["0 serves at 2"], "it has claimed anew");

    // With a standby it must not.
    let mut bench = Bench::new(vec![serve_on("a", 1), serve_on("b", 2)]);
    bench.pass(5_000);
    bench.said();
    bench.cut.push(0);
    bench.pass(10_000);
    assert_eq!(bench.said(), ["0 stops: LeaseLost", "1 serves at 3"]);

    // If another has come up meanwhile, the view decides.
    let mut bench = Bench::new(vec![serve_on("a", 1), serve_on("b", 2)]);
    bench.cut.push(1);
    bench.pass(5_000);
    bench.cut = vec![0];
    bench.pass(10_000);
    assert_eq!(bench.serving(), [0, 1], "the price of serving on");
    bench.cut.clear();
    bench.pass(2_000);
    assert_eq!(bench.serving(), [1]);
}

#[test]
fn standbys_that_are_gone_are_removed() {
    let mut bench = Bench::new(vec![options("a", 1), options("b", 2), options("c", 3)]);
    bench.pass(5_000);
    bench.cut.push(2);
    bench.pass(90_000);
    let view = bench.rows.view().unwrap();
    let names: Vec<&str> = view.members.iter().map(|m| m.instance.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(bench.serving(), [0]);
}

#[test]
fn an_idle_node_writes_its_lease_and_reads_the_view_each_second() {
    let mut node = Membership::new(options("a", 1));
    let (mut rows, mut now) = (Rows::default(), 1_000_000);
    let (mut puts, mut gets) = (0, 0);
    for _ in 0..60 * 20 {
        let mut out = Vec::new();
        node.tick(now, WALL, &mut out);
        while let Some(effect) = out.pop() {
            if let Effect::Store { token, op } = effect {
                match &op {
                    Op::Put { .. } => puts += 1,
                    _ => gets += 1,
                }
                let result = rows.apply(op);
                node.on_result(now, WALL, token, result, &mut out);
            }
        }
        now += 50;
    }
    // One view to begin with, and what the start asks more than once.
    assert!(
        (60..=62).contains(&puts) && (60..=62).contains(&gets),
        "{puts} puts, {gets} gets"
    );
}

#[test]
fn what_can_not_be_understood_is_told_and_tried_again() {
    let mut bench = Bench::new(vec![options("a", 1)]);
    let view = View {
        epoch: 1,
        slot_key: [0; 16],
        members: Vec::new(),
    };
    let mut item = view.to_item().unwrap();
    item.attrs.set("v", 99);
    bench.rows.0.insert(cluster::view().into(), (item, 0));
    bench.pass(1_000);
    assert_eq!(bench.said()[0], r"0: cluster[v][\x00]: unknown format");
    bench.rows.0.clear();
    bench.pass(2_000);
    assert_eq!(bench.serving(), [0]);
}

#[test]
fn an_unknown_token_changes_nothing() {
    let mut node = Membership::new(options("a", 1));
    let mut out = Vec::new();
    node.tick(0, WALL, &mut out);
    out.clear();
    node.on_result(0, WALL, 99, Ok(Outcome::Put), &mut out);
    assert!(out.is_empty());
}

/// Between the claim and its answer the lease lapsed and was renewed: meanwhile another could have
/// seen the lapse and made a claim that follows ours, so ours must be made anew.
#[test]
fn a_claim_does_not_count_across_a_lapse() {
    let mut node = Membership::new(options("a", 1));
    let mut rows = Rows::default();
    let mut out = Vec::new();
    node.tick(0, WALL, &mut out);
    let mut claim = None;
    while claim.is_none() {
        let Some(Effect::Store { token, op }) = out.pop() else {
            panic!("no claim")
        };
        if matches!(&op, Op::Put { item, .. } if item.key == cluster::view().into()) {
            claim = Some((token, op));
        } else {
            let result = rows.apply(op);
            node.on_result(0, WALL, token, result, &mut out);
        }
    }
    let (token, op) = claim.unwrap();
    let claimed = rows.apply(op);
    // Asleep until after the lease; the renewal is answered first.
    node.tick(LEASE + 100, WALL, &mut out);
    let Some(Effect::Store { token: renewal, op }) = out.pop() else {
        panic!("no renewal")
    };
    let result = rows.apply(op);
    node.on_result(LEASE + 150, WALL, renewal, result, &mut out);
    node.on_result(LEASE + 200, WALL, token, claimed, &mut out);
    assert!(!node.may_serve(LEASE + 200));
    let mut served = None;
    while let Some(effect) = out.pop() {
        match effect {
            Effect::Store { token, op } => {
                let result = rows.apply(op);
                node.on_result(LEASE + 250, WALL, token, result, &mut out);
            }
            Effect::Serve { view } => served = Some(view.epoch),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        served,
        Some(2),
        "a second claim, which fails if another came between"
    );
}
