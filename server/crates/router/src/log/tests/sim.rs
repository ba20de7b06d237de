//! Several writers of one log on a faulty store.
//!
//! Each run is decided by dice: a seed, or a script that enumerates every combination of the first
//! choices. Writers come and go without knowing of each other, as an old and a new home would; a
//! stanza that was not acknowledged may be given to another writer too. After the faults the
//! history is checked: see [`Sim::check`].

use std::collections::{BTreeMap, BTreeSet};

use cirrus_schema::TableId;
use cirrus_store::{Condition, Direction as Order, Item, Op, Outcome, Place, StoreError};

use super::*;

/// Time after which the store makes no more faults.
const CALM: u64 = NOW + 60_000;
/// Time after which a run has taken too long.
const END: u64 = NOW + 2_000_000;

/// Where choices come from.
struct Dice {
    script: Vec<usize>,
    at: usize,
    /// How many ways every scripted choice had.
    ways: Vec<usize>,
    seed: Option<u64>,
}

impl Dice {
    fn seeded(seed: u64) -> Self {
        Self {
            script: Vec::new(),
            at: 0,
            ways: Vec::new(),
            seed: Some(seed),
        }
    }

    fn scripted(script: Vec<usize>) -> Self {
        Self {
            script,
            at: 0,
            ways: Vec::new(),
            seed: None,
        }
    }

    /// A number below `ways`. Behind the end of a script it is 0: no fault.
    fn pick(&mut self, ways: usize) -> usize {
        if let Some(seed) = &mut self.seed {
            *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            return ((z ^ (z >> 31)) % ways as u64) as usize;
        }
        let choice = self.script.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.ways.push(ways);
        choice
    }

    fn is_scripted(&self) -> bool {
        self.seed.is_none()
    }
}

/// What is going to happen.
enum Event {
    /// The store carries out an operation, whoever waits for it.
    Apply {
        op: Op,
        answer: Option<Address>,
    },
    Answer {
        to: Address,
        result: Result<Outcome, StoreError>,
    },
    Append,
    Kill,
    Tick {
        writer: usize,
    },
}

#[derive(Clone, Copy)]
struct Address {
    writer: usize,
    token: Token,
}

/// A record's life.
#[derive(Default)]
struct Fate {
    failed: Option<bool>,
    durable: Option<u64>,
    late: Option<u64>,
}

struct Writer {
    log: Log,
    alive: bool,
    /// The first position after its load.
    first: u64,
    /// The positions it was told about, in order.
    told: Vec<u64>,
    tickets: BTreeMap<Ticket, u64>,
    woken: Option<u64>,
}

struct Sim {
    dice: Dice,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    rows: BTreeMap<Bytes, (Item, u128)>,
    /// The position of every record in the rows, by number.
    places: BTreeMap<u64, u64>,
    /// From when to when the store fails at everything.
    outage: std::ops::Range<u64>,
    writers: Vec<Writer>,
    /// What became of every (writer, ticket).
    fates: BTreeMap<(usize, Ticket), Fate>,
    /// The number of the last record that was made.
    made: u64,
    /// What a client waits for still, by number: it may send it again to another writer.
    open: BTreeSet<u64>,
    faults: usize,
}

impl Sim {
    fn new(dice: Dice, appends: u64) -> Self {
        let mut sim = Self {
            dice,
            now: NOW,
            events: BTreeMap::new(),
            count: 0,
            rows: BTreeMap::new(),
            places: BTreeMap::new(),
            outage: 0..0,
            writers: Vec::new(),
            fates: BTreeMap::new(),
            made: 0,
            open: BTreeSet::new(),
            faults: 0,
        };
        sim.start_writer();
        sim.start_writer();
        if !sim.dice.is_scripted() {
            let start = NOW + sim.dice.pick(40_000) as u64;
            sim.outage = start..start + sim.dice.pick(15_000) as u64;
        }
        for n in 0..appends {
            let scripted = sim.dice.is_scripted();
            let at = if scripted {
                15 * n
            } else {
                sim.dice.pick(50_000) as u64
            };
            sim.schedule(NOW + at, Event::Append);
        }
        for _ in 0..if sim.dice.is_scripted() { 0 } else { 3 } {
            let at = sim.dice.pick(55_000) as u64;
            sim.schedule(NOW + at, Event::Kill);
        }
        sim
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    /// A node that becomes home: it reads the tail and knows what was taken before.
    fn start_writer(&mut self) {
        let mut reader = TailReader::new(&owner(), 0);
        let tail = loop {
            let (items, next) = self.query(reader.op());
            if let Some(tail) = reader.on_page(&items, next).unwrap() {
                break tail;
            }
        };
        assert_eq!(
            tail.next,
            self.rows
                .values()
                .map(|(item, _)| end(item))
                .max()
                .unwrap_or(1)
        );
        let seed = (self.writers.len() as u128 + 1) << 64;
        // In scripted runs, one fault is enough for a put to be given up.
        let deadline_ms = if self.dice.is_scripted() { 40 } else { 5_000 };
        let limits = Limits {
            deadline_ms,
            defer_ms: 7_000,
            ..Limits::default()
        };
        let log = Log::new(&owner(), limits, tail.next, tail.last_t, seed).covered(1 << 20);
        self.writers.push(Writer {
            log,
            alive: true,
            first: tail.next,
            told: Vec::new(),
            tickets: BTreeMap::new(),
            woken: None,
        });
    }

    fn run(&mut self) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            assert!(at < END, "the run doesn't come to rest");
            self.now = at;
            match event {
                Event::Apply { op, answer } => {
                    let result = self.apply(op);
                    if let Some(to) = answer {
                        self.schedule(at + 2, Event::Answer { to, result });
                    }
                }
                Event::Answer { to, result } => {
                    let mut out = Vec::new();
                    let writer = &mut self.writers[to.writer];
                    if writer.alive {
                        writer.log.on_result(at, to.token, result, &mut out);
                        self.effects(to.writer, out);
                    }
                }
                Event::Tick { writer } => {
                    let mut out = Vec::new();
                    if self.writers[writer].alive {
                        self.writers[writer].woken = None;
                        self.writers[writer].log.tick(at, &mut out);
                        self.effects(writer, out);
                    }
                }
                Event::Append => self.append(),
                Event::Kill => {
                    let writer = self.dice.pick(self.writers.len());
                    self.writers[writer].alive = false;
                    self.start_writer();
                }
            }
        }
    }

    /// A client gives a record to one of the writers that live: a new one, or one that it has got
    /// no answer for from another writer.
    fn append(&mut self) {
        let alive: Vec<usize> = (0..self.writers.len())
            .filter(|n| self.writers[*n].alive)
            .collect();
        let writer = alive[self.dice.pick(alive.len())];
        let again = self.open.iter().find(|k| {
            let known = self.writers[writer]
                .tickets
                .values()
                .any(|known| known == *k);
            !known && !self.is_told(writer, **k)
        });
        let ways = if self.dice.is_scripted() { 2 } else { 4 };
        let again = again.copied().filter(|_| self.dice.pick(ways) == 1);
        let k = again.unwrap_or(self.made + 1);
        self.made = self.made.max(k);
        self.open.insert(k);
        let record = match if self.dice.is_scripted() {
            0
        } else {
            self.dice.pick(5)
        } {
            1 => marker(self.now, 1, k),
            2 => spooled(self.now, 1, k),
            _ => message(self.now, 1, k),
        };
        let mut out = Vec::new();
        let ticket = self.writers[writer]
            .log
            .append(self.now, record, &mut out)
            .unwrap();
        self.writers[writer].tickets.insert(ticket, k);
        self.fates.insert((writer, ticket), Fate::default());
        self.effects(writer, out);
    }

    /// Whether the writer has loaded, learned or written record `k`, so that it would not take it
    /// a second time.
    fn is_told(&self, writer: usize, k: u64) -> bool {
        let next = self.writers[writer].log.next();
        self.places.get(&k).is_some_and(|position| *position < next)
    }

    fn effects(&mut self, writer: usize, effects: Vec<LogEffect>) {
        for effect in effects {
            let fate = |sim: &mut Self, ticket| {
                sim.open.remove(&sim.writers[writer].tickets[&ticket]);
                sim.fates.remove(&(writer, ticket)).unwrap()
            };
            match effect {
                LogEffect::Store { token, op } => self.ask(Address { writer, token }, op),
                LogEffect::Durable {
                    ticket, position, ..
                } => {
                    let mut fate = fate(self, ticket);
                    assert!(fate.durable.is_none() && fate.failed.is_none());
                    fate.durable = Some(position);
                    self.fates.insert((writer, ticket), fate);
                    self.tell(writer, position);
                }
                LogEffect::Failed { ticket, unknown } => {
                    let mut fate = fate(self, ticket);
                    assert!(fate.durable.is_none() && fate.failed.is_none());
                    fate.failed = Some(unknown);
                    self.fates.insert((writer, ticket), fate);
                }
                LogEffect::LandedLate {
                    ticket, position, ..
                } => {
                    let mut fate = fate(self, ticket);
                    assert!(fate.failed == Some(true) && fate.late.is_none());
                    fate.late = Some(position);
                    self.fates.insert((writer, ticket), fate);
                    self.tell(writer, position);
                }
                LogEffect::Learned { position, record } => {
                    assert_eq!(number(&record).map(|k| self.places[&k]), Some(position));
                    self.tell(writer, position);
                }
                LogEffect::Broken { error } => panic!("{error}"),
            }
        }
        let wake = self.writers[writer].log.wake_at();
        if let Some(at) = wake.filter(|at| self.writers[writer].woken.is_none_or(|w| *at < w)) {
            let at = at.max(self.now + 1);
            self.writers[writer].woken = Some(at);
            self.schedule(at, Event::Tick { writer });
        }
    }

    fn tell(&mut self, writer: usize, position: u64) {
        let told = &mut self.writers[writer].told;
        // Several tickets may be durable by one record.
        if told.last() != Some(&position) {
            told.push(position);
        }
    }

    /// Sends an operation to the store, which may do it, refuse it, or leave it unknown.
    fn ask(&mut self, to: Address, op: Op) {
        let calm = self.now >= CALM;
        let delay = if self.dice.is_scripted() || calm {
            2
        } else {
            1 + self.dice.pick(40) as u64
        };
        let place = Place::Table(TableId::Archive);
        let timeout = || StoreError::Timeout {
            place: place.clone(),
            source: None,
        };
        let fate = if calm {
            0
        } else if self.dice.is_scripted() {
            self.dice.pick(5)
        } else if self.outage.contains(&self.now) {
            1 + self.dice.pick(4)
        } else {
            [0, 0, 0, 0, 0, 0, 1, 2, 3, 4][self.dice.pick(10)]
        };
        self.faults += usize::from(fate != 0);
        let answer_at = self.now + delay;
        let refusal = match fate {
            0 => {
                let answer = Some(to);
                return self.schedule(self.now + delay, Event::Apply { op, answer });
            }
            1 => StoreError::Throttled {
                place: place.clone(),
                source: None,
            },
            // Written, but the answer is lost.
            2 => {
                self.schedule(self.now + 1, Event::Apply { op, answer: None });
                timeout()
            }
            // It hangs on the way and is written much later.
            3 => {
                let late = if self.dice.is_scripted() {
                    80
                } else {
                    self.dice.pick(15_000)
                };
                let at = self.now + delay + late as u64;
                self.schedule(at, Event::Apply { op, answer: None });
                timeout()
            }
            // It is lost.
            _ => StoreError::Unavailable {
                place: place.clone(),
                outcome_unknown: true,
                source: None,
            },
        };
        self.schedule(
            answer_at,
            Event::Answer {
                to,
                result: Err(refusal),
            },
        );
    }

    /// The store, by its contract: conditions, nonces, pages.
    fn apply(&mut self, op: Op) -> Result<Outcome, StoreError> {
        match op {
            Op::Put {
                item,
                condition,
                nonce,
            } => {
                if condition == Condition::Absent
                    && let Some((existing, by)) = self.rows.get(&item.key.sk)
                {
                    if *by == nonce {
                        return Ok(Outcome::Put);
                    }
                    let existing = Some(Box::new(existing.clone()));
                    return Err(StoreError::Conflict {
                        key: item.key,
                        existing,
                    });
                }
                let (seq, records) = decode(&item).unwrap();
                for (position, record) in (seq..).zip(&records) {
                    let before = self.places.insert(number(record).unwrap(), position);
                    assert_eq!(before, None, "{record:?} is in the log twice");
                }
                self.rows.insert(item.key.sk.clone(), (item, nonce));
                Ok(Outcome::Put)
            }
            query => {
                let (items, next) = self.query(query);
                Ok(Outcome::Page { items, next })
            }
        }
    }

    fn query(&mut self, op: Op) -> (Vec<Item>, Option<Bytes>) {
        let Op::Query {
            range,
            direction,
            after,
            ..
        } = op
        else {
            panic!("{op:?}")
        };
        let mut keys: Vec<Bytes> = self
            .rows
            .keys()
            .filter(|sk| range.contains(sk))
            .cloned()
            .collect();
        if direction == Order::Backward {
            keys.reverse();
        }
        keys.retain(|sk| match (&after, direction) {
            (None, _) => true,
            (Some(after), Order::Forward) => sk > after,
            (Some(after), Order::Backward) => sk < after,
        });
        let page = if self.dice.is_scripted() {
            2
        } else {
            1 + self.dice.pick(4)
        };
        let next = keys.get(page - 1).filter(|_| keys.len() > page).cloned();
        keys.truncate(page);
        let items = keys.iter().map(|sk| self.rows[sk].0.clone()).collect();
        (items, next)
    }

    /// The log as it stands; panics where it is not dense.
    fn records(&self) -> BTreeMap<u64, Record> {
        let mut records = BTreeMap::new();
        let mut next = 1;
        for (item, _) in self.rows.values() {
            let (seq, read) = decode(item).unwrap();
            assert_eq!(seq, next, "the log has a gap or an overlap");
            next += read.len() as u64;
            records.extend((seq..).zip(read));
        }
        records
    }

    fn check(&self) {
        let records = self.records();
        let mut seen = BTreeMap::new();
        let mut last_t = 0;
        for (position, record) in &records {
            let before = seen.insert(number(record), *position);
            assert_eq!(before, None, "{record:?} is in the log twice");
            assert!(record.t >= last_t, "time goes backwards");
            last_t = record.t;
        }
        let last = records.len() as u64;
        for (n, writer) in self.writers.iter().enumerate() {
            let told: Vec<u64> = (writer.first..writer.first + writer.told.len() as u64).collect();
            assert_eq!(
                writer.told, told,
                "writer {n} is told of every position once, in order"
            );
            let ghosts_settled = writer.told.len() as u64 + writer.first == writer.log.next();
            assert!(ghosts_settled);
            assert!(
                !writer.alive || writer.log.is_idle(),
                "writer {n} has come to rest"
            );
            let own = self.fates.range((n, 0)..=(n, u64::MAX));
            let mut order = Vec::new();
            for ((_, ticket), fate) in own {
                let k = Some(writer.tickets[ticket]);
                let position = fate.durable.or(fate.late);
                if let Some(position) = position {
                    assert_eq!(
                        number(&records[&position]),
                        k,
                        "an acknowledged record is lost"
                    );
                    if self.rows.values().any(|(item, nonce)| {
                        nonce >> 64 == n as u128 + 1
                            && start(item) <= position
                            && position < end(item)
                    }) {
                        order.push(position);
                    }
                }
                if fate.failed == Some(false) && self.tried_by(k) == 1 {
                    assert!(!seen.contains_key(&k), "a failed record is in the log");
                }
                let settled = fate.durable.is_some() || fate.failed.is_some();
                assert!(
                    settled || !writer.alive,
                    "ticket {ticket} of writer {n} hangs"
                );
            }
            assert!(order.is_sorted(), "the order of writer {n} is kept");
        }
        assert!(last <= self.made);
    }

    /// How many writers were given this record.
    fn tried_by(&self, k: Option<u64>) -> usize {
        let tries = |writer: &Writer| writer.tickets.values().filter(|n| Some(**n) == k).count();
        self.writers.iter().map(tries).sum()
    }

    /// After the faults, everybody can write.
    fn append_calmly(&mut self) {
        for writer in 0..self.writers.len() {
            if !self.writers[writer].alive {
                continue;
            }
            self.now = self.now.max(CALM);
            self.made += 1;
            let (k, mut out) = (self.made, Vec::new());
            let log = &mut self.writers[writer].log;
            let ticket = log
                .append(self.now, message(self.now, 1, k), &mut out)
                .unwrap();
            self.writers[writer].tickets.insert(ticket, k);
            self.fates.insert((writer, ticket), Fate::default());
            self.effects(writer, out);
            self.run();
            assert!(self.fates[&(writer, ticket)].durable.is_some());
        }
    }
}

fn start(item: &Item) -> u64 {
    decode(item).unwrap().0
}

fn end(item: &Item) -> u64 {
    let (seq, records) = decode(item).unwrap();
    seq + records.len() as u64
}

fn number(record: &Record) -> Option<u64> {
    record
        .as_message()
        .and_then(|message| message.origin)
        .map(|origin| origin.k)
}

/// The totals of all runs, so that a test that tests nothing fails.
#[derive(Default, Debug)]
struct Totals {
    faults: usize,
    unknown: usize,
    late: usize,
    failed: usize,
    durable: usize,
    learned_elsewhere: usize,
}

fn simulate(dice: Dice, appends: u64, totals: &mut Totals) -> Sim {
    let mut sim = Sim::new(dice, appends);
    sim.run();
    sim.append_calmly();
    sim.check();
    totals.faults += sim.faults;
    for fate in sim.fates.values() {
        totals.unknown += usize::from(fate.failed == Some(true));
        totals.failed += usize::from(fate.failed == Some(false));
        totals.late += usize::from(fate.late.is_some());
        totals.durable += usize::from(fate.durable.is_some());
    }
    let tickets: usize = sim.writers.iter().map(|writer| writer.tickets.len()).sum();
    totals.learned_elsewhere += tickets - sim.made as usize;
    sim
}

#[test]
fn seeded_runs() {
    const SEEDS: u64 = 300;
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let run = || simulate(Dice::seeded(seed), 60, &mut totals);
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{totals:?}");
    let Totals {
        faults,
        unknown,
        late,
        durable,
        learned_elsewhere,
        ..
    } = totals;
    assert!(faults > 10_000 && durable > 15_000, "{totals:?}");
    assert!(
        unknown > 100 && late > 20 && learned_elsewhere > 500,
        "{totals:?}"
    );
}

/// Every combination of faults, writers and repetitions in the first choices of a short run.
#[test]
fn exhaustive_runs() {
    const CHOICES: usize = 9;
    let mut totals = Totals::default();
    let mut script: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let sim = simulate(Dice::scripted(script.clone()), 4, &mut totals);
        runs += 1;
        // The next script in lexical order, over the ways that this run's choices had.
        let ways: Vec<usize> = sim.dice.ways.into_iter().take(CHOICES).collect();
        script.resize(ways.len(), 0);
        while script
            .last()
            .is_some_and(|last| *last + 1 == ways[script.len() - 1])
        {
            script.pop();
        }
        match script.last_mut() {
            Some(last) => *last += 1,
            None => break,
        }
    }
    println!("{runs} runs, {totals:?}");
    assert!(
        runs > 10_000 && totals.late > 1_000 && totals.unknown > 10_000,
        "{totals:?}"
    );
}
