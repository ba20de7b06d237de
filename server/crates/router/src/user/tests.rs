//! Users, their sessions and messages, seen from the pipes: a home over a store that answers at
//! once, or only when it is told to.

mod archive;
mod carbons;
mod csi;
mod inline;
mod park;
mod seal;
mod sessions;
mod subscriptions;

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use cirrus_jid::BareJid;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_stanza::{Stanza, StreamError};
use cirrus_store::{
    Attrs, Condition, Item, MemoryBlob, MemoryTable, Op, Outcome, StoreError, Table,
};

use crate::codec::{FORMAT, Only};
use crate::registry::About;
use crate::{
    Effect, Effects, Entropy, Event, Home, HomeConfig, Limits, Login, PipeEvent, PipeId, PipeOut,
    Registry, Territory, Token,
};

struct Counter(u128);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(0x2d99_787a_926d_46d9).wrapping_add(1);
            *byte = (self.0 >> 64) as u8;
        }
    }
}

/// A home, its store, and what its pipes were told.
struct World {
    home: Home,
    table: Arc<MemoryTable>,
    rng: Counter,
    now: u64,
    pipes: BTreeMap<u64, VecDeque<PipeOut>>,
    numbers: BTreeMap<u64, u64>,
    /// Operations wait here while `held`.
    waiting: VecDeque<(Token, Op)>,
    held: bool,
    blobs: Arc<MemoryBlob>,
    config: Arc<HomeConfig>,
    /// What the store is asked next, and what of it fails.
    asked: u64,
    fails: Option<u64>,
    /// What was erased or sealed.
    done: Vec<Result<(), String>>,
}

fn config() -> HomeConfig {
    HomeConfig {
        limits: Limits::default(),
        about: About {
            name: "Cirrus".into(),
            version: "test".into(),
            domains: vec!["example.com".into()],
            registration: false,
        },
        registry: Registry::new(&[]),
        archive: true,
        archive_key: crate::archive::IdKey::new([7; 32]),
        started_ms: 0,
    }
}

/// The row that an account consists of.
fn account(table: &MemoryTable, user: &str) {
    let jid = BareJid::parse(user).unwrap();
    let key = accounts::key(&jid.owner(), Row::Credentials);
    let item = Item::new(key, Attrs::new().with("v", 1u64));
    let op = Op::Put {
        item,
        condition: Condition::Absent,
        nonce: 1,
    };
    finish(table.apply(op)).unwrap();
}

fn throttled(place: cirrus_store::Place) -> StoreError {
    StoreError::Throttled {
        place,
        source: None,
    }
}

fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the memory table answers at once"),
    }
}

impl World {
    fn new(users: &[&str]) -> Self {
        Self::with(users, |_| {})
    }

    fn with(users: &[&str], set: impl FnOnce(&mut Limits)) -> Self {
        let mut config = config();
        set(&mut config.limits);
        let table = Arc::new(MemoryTable::new(Arc::new(|| 1_000_000)));
        for user in users {
            account(&table, user);
        }
        Self::over(table, Arc::new(MemoryBlob::new()), Arc::new(config))
    }

    fn over(table: Arc<MemoryTable>, blobs: Arc<MemoryBlob>, config: Arc<HomeConfig>) -> Self {
        let mut world = Self {
            home: Home::new(Arc::clone(&config), Territory::Everything),
            table,
            rng: Counter(7),
            now: 1_000_000,
            pipes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            waiting: VecDeque::new(),
            held: false,
            blobs,
            config,
            asked: 0,
            fails: None,
            done: Vec::new(),
        };
        world.event(Event::Format(Only(FORMAT)));
        world
    }

    /// The process dies and another starts on the same store.
    fn killed(self) -> Self {
        let mut next = Self::over(self.table, self.blobs, self.config);
        next.now = self.now;
        next.rng = Counter(self.rng.0 + 1);
        next
    }

    fn event(&mut self, event: Event) {
        let mut out = Effects::default();
        self.home.handle(self.now, &mut self.rng, event, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Effects) {
        let mut later = Vec::new();
        for output in out.outputs {
            match output.effect {
                Effect::Pipe { pipe, out } => {
                    self.pipes.entry(pipe.pipe).or_default().push_back(out);
                }
                Effect::Store { token, op } => self.waiting.push_back((token, op)),
                Effect::Blob { token, op } => {
                    let result = match self.refuses() {
                        true => Err(throttled(op.place())),
                        false => self.blobs.apply_now(op),
                    };
                    later.push(Event::Blob { token, result });
                }
                Effect::Erased { result, .. } => self.done.push(result),
                Effect::Account { .. } | Effect::Frame { .. } | Effect::Unparked { .. } => {}
            }
        }
        if !self.held {
            self.answer();
        }
        for event in later {
            self.event(event);
        }
    }

    fn answer(&mut self) {
        while let Some((token, op)) = self.waiting.pop_front() {
            let result = match self.refuses() {
                true => Err(throttled(op.place())),
                false => finish(self.table.apply(op)),
            };
            self.event(Event::Store { token, result });
        }
    }

    /// Whether the store refuses this request.
    fn refuses(&mut self) -> bool {
        self.asked += 1;
        self.fails == Some(self.asked)
    }

    fn fail_store(&mut self) {
        while let Some((token, op)) = self.waiting.pop_front() {
            let result: Result<Outcome, _> = Err(StoreError::Throttled {
                place: op.place(),
                source: None,
            });
            self.event(Event::Store { token, result });
        }
    }

    fn pipe(&mut self, pipe: u64, event: PipeEvent) {
        let pipe = PipeId { node: 1, pipe };
        self.event(Event::Pipe { pipe, event });
    }

    fn bind(&mut self, pipe: u64, user: &str, resource: &str) {
        let user = BareJid::parse(user).unwrap();
        let resource = Some(resource.to_owned());
        self.pipe(
            pipe,
            PipeEvent::Bind {
                user,
                resource,
                login: Login::default(),
            },
        );
    }

    fn say(&mut self, pipe: u64, xml: &str) {
        let k = self.numbers.entry(pipe).or_default();
        *k += 1;
        let (k, stanza) = (*k, Box::new(stanza(xml)));
        self.pipe(pipe, PipeEvent::Stanza { k, stanza });
    }

    /// Binds and becomes available.
    fn online(&mut self, pipe: u64, user: &str, resource: &str) {
        self.bind(pipe, user, resource);
        self.say(pipe, "<presence/>");
        self.drain(pipe);
    }

    fn drain(&mut self, pipe: u64) -> Vec<PipeOut> {
        self.pipes.remove(&pipe).unwrap_or_default().into()
    }

    /// The stanzas a pipe got since it was last asked.
    fn got(&mut self, pipe: u64) -> Vec<String> {
        let outs = self.drain(pipe);
        outs.iter()
            .filter_map(|out| match out {
                PipeOut::Stanza { stanza, .. } => {
                    Some(String::from_utf8(stanza.to_bytes()).unwrap())
                }
                _ => None,
            })
            .collect()
    }

    /// The bodies of the messages a pipe got since it was last asked.
    fn bodies(&mut self, pipe: u64) -> Vec<String> {
        let got = self.got(pipe);
        let body = |xml: &String| {
            let (_, rest) = xml.split_once("<body>")?;
            Some(rest.split_once("</body>")?.0.to_owned())
        };
        got.iter().filter_map(body).collect()
    }
}

fn stanza(xml: &str) -> Stanza {
    Stanza::from_stored(&xml.to_owned().into()).unwrap_or_else(|| panic!("no stanza: {xml}"))
}

fn message(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

const JULIET: &str = "juliet@example.com";
const ROMEO: &str = "romeo@example.com";

#[test]
fn a_message_reaches_the_other_user_when_both_archives_have_it() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.pipe(
        1,
        PipeEvent::EnableSm {
            resume: true,
            max: None,
        },
    );
    world.drain(1);
    world.held = true;
    world.say(1, &message(ROMEO, "hi"));
    assert_eq!(world.waiting.len(), 2, "both puts start together");
    assert!(world.drain(1).is_empty() && world.got(2).is_empty());
    world.answer();
    assert_eq!(
        world.got(2),
        ["<message type='chat' id='hi' to='romeo@example.com' \
          from='juliet@example.com/balcony'><body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' \
          by='romeo@example.com' id='83bb326ca2ff51e5aaef6c78'/></message>"]
    );
    assert!(matches!(world.drain(1)[..], [PipeOut::Handled { k: 2 }]));
}

#[test]
fn messages_wait_for_who_is_offline_and_arrive_once_in_order() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    for body in ["a", "b", "c"] {
        world.say(1, &message(ROMEO, body));
    }
    world = world.killed();
    world.bind(2, ROMEO, "orchard");
    world.say(2, "<presence/>");
    let sent = world.sent(2);
    assert_eq!(world.bodies(2), ["a", "b", "c"]);
    world.pipe(2, PipeEvent::Written { n: sent });
    world.pipe(2, PipeEvent::Closed { clean: true });
    world = world.killed();
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert!(world.bodies(3).is_empty(), "the cursor has passed them");
}

#[test]
fn what_was_not_acknowledged_is_delivered_again_after_a_kill() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.say(1, &message(ROMEO, "a"));
    world.bind(2, ROMEO, "orchard");
    world.say(2, "<presence/>");
    assert_eq!(world.bodies(2), ["a"]);
    world = world.killed();
    world.bind(3, ROMEO, "orchard");
    world.say(3, "<presence/>");
    assert_eq!(world.bodies(3), ["a"]);
}

/// As a client does that was killed and begins with what it had saved before.
#[test]
fn a_failing_store_is_an_error_to_the_sender_only() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.held = true;
    world.say(1, &message(ROMEO, "a"));
    for _ in 0..200 {
        world.fail_store();
        world.now += 100;
        world.event(Event::Tick);
    }
    world.fail_store();
    assert!(world.got(2).is_empty());
    let errors = world.got(1);
    assert!(
        !errors.is_empty() && errors[0].contains("type='error'"),
        "{errors:?}"
    );
}

#[test]
fn subscription_and_presence() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.say(
        1,
        "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    );
    world.drain(1);
    world.say(1, &format!("<presence to='{ROMEO}' type='subscribe'/>"));
    let pushed = world.got(1);
    assert!(pushed[0].contains("ask='subscribe'"), "{pushed:?}");
    assert_eq!(
        world.got(2),
        ["<presence type='subscribe' to='romeo@example.com' from='juliet@example.com'/>"]
    );
    world.say(2, &format!("<presence to='{JULIET}' type='subscribed'/>"));
    let got = world.got(1);
    assert!(got[0].contains("subscription='to'"), "{got:?}");
    assert!(
        got.iter().any(|xml| xml.contains("type='subscribed'")),
        "{got:?}"
    );
    let there = "<presence to='juliet@example.com' from='romeo@example.com/orchard'/>";
    assert!(got.iter().any(|xml| xml == there), "{got:?}");
    world.pipe(2, PipeEvent::Closed { clean: true });
    let got = world.got(1);
    assert!(got[0].contains("type='unavailable'"), "{got:?}");
    world = world.killed();
    world.online(3, ROMEO, "orchard");
    world.bind(4, JULIET, "garden");
    world.say(4, "<presence/>");
    let got = world.got(4);
    let probed = |xml: &String| xml.contains("from='romeo@example.com/orchard'");
    assert!(
        got.iter().any(probed),
        "a probe shows who is there: {got:?}"
    );
}

#[test]
fn accounts_and_domains_that_are_not_there_answer_with_errors() {
    let mut world = World::new(&[JULIET]);
    world.online(1, JULIET, "balcony");
    world.say(1, &message("nobody@example.com", "a"));
    assert!(world.got(1)[0].contains("<service-unavailable"));
    world.say(1, &message("romeo@elsewhere.example", "a"));
    assert!(world.got(1)[0].contains("<remote-server-not-found"));
    world.say(
        1,
        "<iq type='get' id='1' to='example.com'><x xmlns='urn:unknown'/></iq>",
    );
    assert!(world.got(1)[0].contains("<service-unavailable"));
    world.say(
        1,
        "<iq type='get' id='1' to='juliet@example.com/none'><x xmlns='u:v'/></iq>",
    );
    assert!(world.got(1)[0].contains("<service-unavailable"));
}

#[test]
fn idle_entities_leave_memory_and_come_back() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.say(1, &message(ROMEO, "a"));
    world.pipe(1, PipeEvent::Closed { clean: true });
    assert_eq!(world.home.census().entities, 2);
    world.now += 400_000;
    world.event(Event::Tick);
    assert_eq!(world.home.census().entities, 0);
    world.bind(2, ROMEO, "orchard");
    world.say(2, "<presence/>");
    assert_eq!(world.bodies(2), ["a"]);
}

impl World {
    fn sent(&self, pipe: u64) -> u64 {
        let outs = self.pipes.get(&pipe);
        let numbers = outs.into_iter().flatten().filter_map(|out| match out {
            PipeOut::Stanza { n, .. } => Some(*n),
            _ => None,
        });
        numbers.max().unwrap_or(0)
    }

    fn sm_id(&mut self, pipe: u64) -> String {
        let enabled = self.drain(pipe).into_iter().find_map(|out| match out {
            PipeOut::SmEnabled { id, .. } => id,
            _ => None,
        });
        enabled.expect("stream management was enabled")
    }

    fn resume(&mut self, pipe: u64, user: &str, previd: &str, h: u32) {
        let user = BareJid::parse(user).unwrap();
        let previd = previd.to_owned();
        self.pipe(
            pipe,
            PipeEvent::Resume {
                user,
                previd,
                h,
                login: Login::default(),
            },
        );
    }
}

/// A login that read the account just before it was deleted finds it gone.
#[test]
fn a_login_does_not_outlive_its_account() {
    let mut world = World::new(&[JULIET]);
    let user = BareJid::parse(JULIET).unwrap();
    let key = accounts::key(&user.owner(), Row::Credentials);
    let account = vec![Item::new(key.clone(), Attrs::new().with("v", 1u64))];
    let login = || Login {
        account: account.clone(),
        ..Login::default()
    };
    let bind = |user: &BareJid| PipeEvent::Bind {
        user: user.clone(),
        resource: None,
        login: login(),
    };
    let (token, erased) = (1, user.clone());
    world.event(Event::Erase {
        user: erased,
        token,
    });
    let op = Op::Delete {
        key: key.into(),
        condition: Condition::Any,
    };
    finish(world.table.apply(op)).unwrap();
    world.pipe(1, bind(&user));
    assert!(matches!(
        world.drain(1)[..],
        [PipeOut::Close { error: Some(_) }]
    ));
    assert!(world.home.is_quiet());
}

#[test]
fn a_row_of_a_newer_version_is_left_as_it_is() {
    let mut world = World::new(&[ROMEO]);
    let key = accounts::key(&BareJid::parse(ROMEO).unwrap().owner(), Row::Last);
    let row = Item::new(key.clone(), Attrs::new().with("v", 2u64).with("new", 5u64));
    let op = Op::Put {
        item: row.clone(),
        condition: Condition::Absent,
        nonce: 1,
    };
    finish(world.table.apply(op)).unwrap();
    world.bind(1, ROMEO, "orchard");
    assert!(matches!(
        world.drain(1)[..],
        [PipeOut::Close { error: Some(_) }]
    ));
    world.event(Event::Shutdown { park: false });
    let read = finish(world.table.apply(Op::Get { key: key.into() }));
    assert!(matches!(read, Ok(Outcome::Item(Some(item))) if item == row));
}
