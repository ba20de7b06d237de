//! Measures pages of a long archive.
//!
//!     cargo run --release -p cirrus-router --example archive_pages -- [messages]
//!
//! One account with so many messages (100,000 by default), one an item, all but ten with the same
//! contact. A session asks for pages at several depths, in both directions, by time and by contact.
//! Prints for each: messages given, requests to the store and its read units, and the least and the
//! median time of 20 tries in microseconds. The store is in memory, so the time is what the server
//! itself takes; on DynamoDB each request adds its latency, some 5 to 10 ms.
#![expect(clippy::print_stdout, reason = "a program that prints its result")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use cirrus_jid::BareJid;
use cirrus_router::archive::IdKey;
use cirrus_router::log::{Direction, Flags, Limits as LogLimits, Log, LogEffect, Record};
use cirrus_router::registry::About;
use cirrus_router::{
    Effect, Effects, Entropy, Event, Home, HomeConfig, Limits, Login, PipeEvent, PipeId, PipeOut,
    Registry, Territory,
};
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_stanza::{Stanza, stamp};
use cirrus_store::{Attrs, Condition, Item, MemoryBlob, MemoryTable, Op};

type Failure = Box<dyn std::error::Error>;

const OWNER: &str = "juliet@example.com";
const TRIES: usize = 20;
/// Looks at the log; each joins a few segments.
const LOOKS: u64 = 10;
/// Time of the first message, and between two, Unix milliseconds.
const FIRST_MS: u64 = 1_700_000_000_000;
const STEP_MS: u64 = 60_000;

struct Counter(u128);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(0x2d99_787a_926d_46d9).wrapping_add(1);
            *byte = (self.0 >> 64) as u8;
        }
    }
}

/// What an answer took.
#[derive(Default)]
struct Took {
    messages: usize,
    requests: u32,
    read_units: u32,
    last: Option<String>,
    complete: bool,
}

struct World {
    home: Home,
    table: MemoryTable,
    blobs: MemoryBlob,
    rng: Counter,
    now: u64,
    k: u64,
}

const PIPE: PipeId = PipeId { node: 1, pipe: 1 };

fn main() -> Result<(), Failure> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let mut world = World::new(count)?;
    println!("{count} messages of 200 bytes");
    println!(
        "{:<34} {:>8} {:>8} {:>6} {:>9} {:>9}",
        "page", "messages", "requests", "units", "least us", "median us"
    );
    for size in [50, 256] {
        for depth in [count / 20, count * 99 / 100] {
            let before = field("end", &stamp(FIRST_MS + (count - depth) * STEP_MS));
            let start = world.ask(&query(&before, "<max>1</max><before/>"))?;
            let id = start.last.ok_or("no message at that depth")?;
            let page = query("", &format!("<max>{size}</max><before>{id}</before>"));
            world.measure(&format!("{size} before an id, {depth} deep"), &page)?;
            let page = query("", &format!("<max>{size}</max><after>{id}</after>"));
            world.measure(&format!("{size} after an id, {depth} deep"), &page)?;
        }
    }
    world.measure("50, the last", &query("", "<max>50</max><before/>"))?;
    let middle = stamp(FIRST_MS + count / 2 * STEP_MS);
    world.measure(
        "50 from a time",
        &query(&field("start", &middle), "<max>50</max>"),
    )?;
    let rare = field("with", "nurse@example.com");
    world.measure("50 with a rare contact", &query(&rare, "<max>50</max>"))?;
    let took = world.all(&rare)?;
    println!(
        "all {} with a rare contact: {} requests, {} units",
        took.messages, took.requests, took.read_units
    );
    Ok(())
}

fn field(var: &str, value: &str) -> String {
    format!("<field var='{var}'><value>{value}</value></field>")
}

fn query(fields: &str, set: &str) -> String {
    format!(
        "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'>\
         <x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>\
         <set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query></iq>"
    )
}

impl World {
    fn new(count: u64) -> Result<Self, Failure> {
        let table = MemoryTable::new(Arc::new(|| FIRST_MS));
        let jid = BareJid::parse(OWNER)?;
        let key = accounts::key(&jid.owner(), Row::Credentials);
        let item = Item::new(key, Attrs::new().with("v", 1u64));
        let condition = Condition::Absent;
        let op = Op::Put {
            item,
            condition,
            nonce: 1,
        };
        table.apply_now(op).result?;
        fill(&table, &jid, count)?;
        let config = HomeConfig {
            limits: Limits {
                unacked_bytes: 16 << 20,
                ..Limits::default()
            },
            about: About {
                name: "Cirrus".into(),
                version: "bench".into(),
                domains: vec!["example.com".into()],
                registration: false,
            },
            registry: Registry::new(&[]),
            archive: true,
            archive_key: IdKey::new([7; 32]),
            started_ms: 0,
        };
        let mut world = Self {
            home: Home::new(Arc::new(config), Territory::Everything),
            table,
            blobs: MemoryBlob::new(),
            rng: Counter(7),
            now: FIRST_MS + count * STEP_MS,
            k: 0,
        };
        let bind = PipeEvent::Bind {
            user: jid,
            resource: Some("balcony".into()),
            login: Login::default(),
        };
        world.event(bind)?;
        // All of it but the newest messages is sealed, as by and by it would have been.
        let mut requests = 0;
        for token in 1..=LOOKS {
            let user = BareJid::parse(OWNER)?;
            requests += world.any_event(Event::Seal { user, token })?.requests;
        }
        println!("sealed with {requests} requests");
        Ok(world)
    }

    fn event(&mut self, event: PipeEvent) -> Result<Took, Failure> {
        self.any_event(Event::Pipe { pipe: PIPE, event })
    }

    /// Takes an event, with all that the stores answer to it.
    fn any_event(&mut self, event: Event) -> Result<Took, Failure> {
        let mut took = Took::default();
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let mut out = Effects::default();
            self.home.handle(self.now, &mut self.rng, event, &mut out);
            for output in out.outputs {
                match output.effect {
                    Effect::Store { token, op } => {
                        let answer = self.table.apply_now(op);
                        took.requests += answer.usage.requests;
                        took.read_units += answer.usage.read_units;
                        let result = answer.result;
                        queue.push_back(Event::Store { token, result });
                    }
                    Effect::Blob { token, op } => {
                        took.requests += 1;
                        let result = self.blobs.apply_now(op);
                        queue.push_back(Event::Blob { token, result });
                    }
                    Effect::Pipe {
                        out: PipeOut::Stanza { n, stanza },
                        ..
                    } => {
                        took.see(&stanza);
                        let event = PipeEvent::Written { n };
                        queue.push_back(Event::Pipe { pipe: PIPE, event });
                    }
                    _ => {}
                }
            }
        }
        Ok(took)
    }

    fn ask(&mut self, xml: &str) -> Result<Took, Failure> {
        self.k += 1;
        let stanza = Stanza::from_stored(&xml.to_owned().into()).ok_or("no stanza")?;
        let (k, stanza) = (self.k, Box::new(stanza));
        self.event(PipeEvent::Stanza { k, stanza })
    }

    fn measure(&mut self, name: &str, xml: &str) -> Result<(), Failure> {
        let mut times = Vec::new();
        let mut took = Took::default();
        for _ in 0..TRIES {
            let start = Instant::now();
            took = self.ask(xml)?;
            times.push(start.elapsed().as_micros());
        }
        times.sort_unstable();
        let (least, median) = (times[0], times[TRIES / 2]);
        let Took {
            messages,
            requests,
            read_units,
            ..
        } = took;
        println!("{name:<34} {messages:>8} {requests:>8} {read_units:>6} {least:>9} {median:>9}");
        Ok(())
    }

    /// Pages through everything that matches.
    fn all(&mut self, fields: &str) -> Result<Took, Failure> {
        let mut all = Took::default();
        let mut set = "<max>50</max>".to_owned();
        while !all.complete {
            let took = self.ask(&query(fields, &set))?;
            all.messages += took.messages;
            all.requests += took.requests;
            all.read_units += took.read_units;
            all.complete = took.complete;
            let last = took.last.unwrap_or_default();
            set = format!("<max>50</max><after>{last}</after>");
        }
        Ok(all)
    }
}

impl Took {
    fn see(&mut self, stanza: &Stanza) {
        if let Some(fin) = stanza.child("fin", "urn:xmpp:mam:2") {
            self.complete = fin.attr("complete").is_some();
            let set = fin.child("set", "http://jabber.org/protocol/rsm");
            let last = set.and_then(|set| set.child("last", "http://jabber.org/protocol/rsm"));
            self.last = last.map(|last| last.text().into_owned());
        } else if stanza.is_payload("result", "urn:xmpp:mam:2") {
            self.messages += 1;
        }
    }
}

/// Writes the log, as a home would.
fn fill(table: &MemoryTable, jid: &BareJid, count: u64) -> Result<(), Failure> {
    let mut log = Log::new(jid, LogLimits::default(), 1, 0, 1);
    let (common, rare) = (
        BareJid::parse("romeo@example.com")?,
        BareJid::parse("nurse@example.com")?,
    );
    let flags = Flags {
        archive: true,
        ..Flags::default()
    };
    for index in 0..count {
        let peer = if index % (count / 10).max(1) == 0 {
            &rare
        } else {
            &common
        };
        let body = "but, soft! what light through yonder window breaks? ".repeat(2);
        let xml = format!(
            "<message type='chat' to='{OWNER}' from='{peer}/x' id='{index}'>\
             <body>{body}</body></message>"
        );
        let t = FIRST_MS + index * STEP_MS;
        let record = Record::message(t, Direction::In, peer.clone(), None, xml).with_flags(flags);
        let mut out = Vec::new();
        log.append(t, record, &mut out)?;
        while let Some(effect) = out.pop() {
            if let LogEffect::Store { token, op } = effect {
                let result = table.apply_now(op).result;
                log.on_result(t, token, result, &mut out);
            }
        }
    }
    Ok(())
}
