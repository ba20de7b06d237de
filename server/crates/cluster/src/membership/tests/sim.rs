//! Nodes with clocks of their own on a faulty store: never two that serve, and always one again.

use super::*;

/// Global milliseconds of trouble; then calm.
const TROUBLE: u64 = 90_000;
const END: u64 = TROUBLE + 30_000;

struct Dice(u64);

impl Dice {
    fn pick(&mut self, ways: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % ways
    }
}

enum Event {
    Apply {
        op: Op,
        answer: Option<(usize, u128, Token)>,
    },
    Answer {
        node: usize,
        boot: u128,
        token: Token,
        result: Result<Outcome, StoreError>,
    },
    Tick {
        node: usize,
        boot: u128,
    },
    Pause {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Cut {
        node: usize,
    },
    Leave {
        node: usize,
    },
    Start {
        node: usize,
    },
}

struct Node {
    machine: Option<Membership>,
    boot: u128,
    /// The local clock: offset, and speed in parts per million of the true one.
    offset: u64,
    ppm: u64,
    /// Until when it is suspended, or cut off from the store.
    paused: u64,
    cut: u64,
    /// It was told to serve and not to stop.
    serving: bool,
    /// The next tick, so that there is one.
    woken: u64,
}

impl Node {
    fn local(&self, global: u64) -> u64 {
        self.offset + global * self.ppm / 1_000_000
    }

    /// The first global time at which the local clock shows `local`.
    fn global(&self, local: u64) -> u64 {
        (local.saturating_sub(self.offset) * 1_000_000).div_ceil(self.ppm)
    }
}

struct Sim {
    dice: Dice,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    rows: Rows,
    nodes: Vec<Node>,
    last_epoch: u64,
    boots: u128,
    serves: usize,
    stops: usize,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut sim = Self {
            dice: Dice(seed),
            now: 0,
            events: BTreeMap::new(),
            count: 0,
            rows: Rows::default(),
            nodes: Vec::new(),
            last_epoch: 0,
            boots: 0,
            serves: 0,
            stops: 0,
        };
        for node in 0..2 + sim.dice.pick(2) as usize {
            let offset = sim.dice.pick(10_000_000);
            // Three per cent apart at most, which the margin of a tenth covers.
            let ppm = 985_000 + sim.dice.pick(30_000);
            let machine = None;
            let node_state = Node {
                machine,
                boot: 0,
                offset,
                ppm,
                paused: 0,
                cut: 0,
                serving: false,
                woken: 0,
            };
            sim.nodes.push(node_state);
            let at = sim.dice.pick(5_000);
            sim.schedule(at, Event::Start { node });
            for _ in 0..6 {
                let at = sim.dice.pick(TROUBLE);
                let event = match sim.dice.pick(5) {
                    0 => Event::Crash { node },
                    1 => Event::Leave { node },
                    2 => Event::Cut { node },
                    _ => Event::Pause { node },
                };
                sim.schedule(at, event);
            }
        }
        sim
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn run(&mut self) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > END {
                break;
            }
            self.now = at;
            self.event(event);
            self.check();
        }
        let serving = self.serving();
        assert_eq!(serving.len(), 1, "in calm, one serves");
    }

    fn event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Apply { op, answer } => {
                let result = self.rows.apply(op);
                if let Some((node, boot, token)) = answer {
                    let delay = self.delay();
                    self.schedule(
                        now + delay,
                        Event::Answer {
                            node,
                            boot,
                            token,
                            result,
                        },
                    );
                }
            }
            Event::Answer {
                node,
                boot,
                token,
                result,
            } => {
                if let Some(after) = self.asleep(node) {
                    return self.schedule(
                        after,
                        Event::Answer {
                            node,
                            boot,
                            token,
                            result,
                        },
                    );
                }
                self.drive(node, boot, |machine, local, out| {
                    machine.on_result(local, WALL, token, result, out);
                });
            }
            Event::Tick { node, boot } => match self.asleep(node) {
                Some(after) => self.schedule(after, Event::Tick { node, boot }),
                None => {
                    self.drive(node, boot, |machine, local, out| {
                        machine.tick(local, WALL, out);
                    });
                }
            },
            Event::Pause { node } => {
                self.nodes[node].paused = now + 100 + self.dice.pick(8_000);
            }
            Event::Cut { node } => self.nodes[node].cut = now + 100 + self.dice.pick(12_000),
            Event::Leave { node } => {
                let boot = self.nodes[node].boot;
                self.nodes[node].serving = false;
                self.drive(node, boot, |machine, local, out| {
                    machine.leave(local, WALL, out);
                });
            }
            Event::Crash { node } => {
                self.nodes[node].machine = None;
                self.nodes[node].serving = false;
                self.restart(node);
            }
            Event::Start { node } => {
                if self.nodes[node].machine.is_none() {
                    self.boots += 1;
                    let boot = self.boots;
                    let exclusive = self.dice.pick(2) == 0;
                    let options = Options {
                        exclusive,
                        ..options(&format!("i-{node}"), boot)
                    };
                    self.nodes[node].boot = boot;
                    self.nodes[node].woken = 0;
                    self.nodes[node].machine = Some(Membership::new(options));
                    self.schedule(now, Event::Tick { node, boot });
                }
            }
        }
    }

    /// A supervisor starts the process again.
    fn restart(&mut self, node: usize) {
        let at = self.now + 200 + self.dice.pick(4_000);
        self.schedule(at, Event::Start { node });
    }

    /// When what reaches a suspended node now is looked at: in any order.
    fn asleep(&mut self, node: usize) -> Option<u64> {
        let until = Some(self.nodes[node].paused).filter(|until| *until > self.now)?;
        Some(until + self.dice.pick(300))
    }

    /// How long something is on its way: mostly short, sometimes for nearly as long as is waited.
    fn delay(&mut self) -> u64 {
        let long = if self.now < TROUBLE && self.dice.pick(4) == 0 {
            RENEW / 2
        } else {
            40
        };
        1 + self.dice.pick(long)
    }

    fn drive(
        &mut self,
        n: usize,
        boot: u128,
        step: impl FnOnce(&mut Membership, u64, &mut Vec<Effect>),
    ) {
        let node = &mut self.nodes[n];
        let local = node.local(self.now);
        let Some(machine) = node.machine.as_mut().filter(|_| node.boot == boot) else {
            return;
        };
        let mut out = Vec::new();
        step(machine, local, &mut out);
        let wake = machine.wake_at();
        for effect in out {
            match effect {
                Effect::Store { token, op } => self.send(n, token, op),
                Effect::Serve { view } => {
                    assert!(view.epoch > self.last_epoch, "an epoch is served once");
                    self.last_epoch = view.epoch;
                    self.nodes[n].serving = true;
                    self.serves += 1;
                }
                Effect::Stop { .. } | Effect::Left => {
                    self.stops += usize::from(matches!(effect, Effect::Stop { .. }));
                    self.nodes[n].serving = false;
                    self.nodes[n].machine = None;
                    return self.restart(n);
                }
                Effect::StandBy { .. } => assert!(!self.nodes[n].serving),
                Effect::Degraded | Effect::Fault { .. } => panic!("{effect:?}"),
            }
        }
        if let Some(wake) = wake {
            let at = self.nodes[n].global(wake).max(self.now + 1);
            if self.nodes[n].woken <= self.now || at < self.nodes[n].woken {
                self.nodes[n].woken = at;
                self.schedule(at, Event::Tick { node: n, boot });
            }
        }
    }

    /// Sends an operation: it may be written and answered, written late, or lost.
    fn send(&mut self, n: usize, token: Token, op: Op) {
        let node = &self.nodes[n];
        let (boot, cut, calm) = (node.boot, node.cut > self.now, self.now > TROUBLE);
        let fate = if cut && !calm {
            7 + self.dice.pick(3)
        } else {
            self.dice.pick(9)
        };
        if calm || fate < 7 {
            let at = self.now + self.delay();
            let answer = Some((n, boot, token));
            return self.schedule(at, Event::Apply { op, answer });
        }
        if fate != 9 {
            // Its answer is lost, and it may hang on the way for long.
            let late = if fate == 7 {
                self.dice.pick(100)
            } else {
                self.dice.pick(10_000)
            };
            self.schedule(self.now + 1 + late, Event::Apply { op, answer: None });
        }
        let result = Err(timeout());
        self.schedule(
            self.now + RENEW,
            Event::Answer {
                node: n,
                boot,
                token,
                result,
            },
        );
    }

    /// Who could send a byte now.
    fn serving(&self) -> Vec<usize> {
        let serves = |n: &usize| {
            let node = &self.nodes[*n];
            let may = |machine: &Membership| machine.may_serve(node.local(self.now));
            let awake = node.paused <= self.now;
            awake && node.serving && node.machine.as_ref().is_some_and(may)
        };
        (0..self.nodes.len()).filter(serves).collect()
    }

    fn check(&self) {
        let serving = self.serving();
        assert!(
            serving.len() <= 1,
            "{serving:?} serve at once at {} ms",
            self.now
        );
    }
}

#[test]
fn never_two_serve_and_always_one_again() {
    const SEEDS: u64 = 400;
    let (mut serves, mut stops) = (0, 0);
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        let run = std::panic::AssertUnwindSafe(|| sim.run());
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
        serves += sim.serves;
        stops += sim.stops;
    }
    println!("{SEEDS} runs, {serves} times somebody began to serve, {stops} times one had to stop");
    assert!(serves > 2_000 && stops > 1_000, "{serves}, {stops}");
}
