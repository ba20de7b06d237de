//! Homes that share the accounts of a cluster, and homes as bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cirrus_jid::BareJid;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_stanza::{Condition as Fault, Stanza, StanzaError};
use cirrus_store::{Attrs, Condition, Item, MemoryTable, Op, StoreError};

use super::{Frame, Home, HomeConfig, Limits, Territory};
use crate::codec::Only;
use crate::registry::{About, Registry};
use crate::{
    CodecError, Effect, Effects, Entropy, Event, Login, PipeEvent, PipeId, PipeOut, Recorder,
    Replay, Token,
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

fn config() -> Arc<HomeConfig> {
    Arc::new(HomeConfig {
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
    })
}

/// Where an account lives: those whose name begins with `a` at the first home.
fn home_of(jid: &BareJid) -> usize {
    usize::from(!jid.as_str().starts_with('a'))
}

/// Two homes, each with half of the accounts, over one store that answers at once unless held.
struct Pair {
    homes: [Home; 2],
    table: MemoryTable,
    rng: Counter,
    now: u64,
    told: BTreeMap<PipeId, VecDeque<PipeOut>>,
    held: bool,
    waiting: Vec<(usize, Token, Op)>,
    /// Frames that went from one home to the other.
    frames: usize,
}

const ALICE: PipeId = PipeId { node: 1, pipe: 1 };
const BOB: PipeId = PipeId { node: 2, pipe: 1 };

fn bind(user: &str, resource: &str) -> PipeEvent {
    PipeEvent::Bind {
        user: BareJid::parse(user).unwrap(),
        resource: Some(resource.into()),
        login: Login::default(),
    }
}

fn said(k: u64, xml: &str) -> PipeEvent {
    let stanza = Stanza::from_stored(&xml.to_owned().into()).unwrap();
    PipeEvent::Stanza {
        k,
        stanza: Box::new(stanza),
    }
}

const ENABLE: PipeEvent = PipeEvent::EnableSm {
    resume: true,
    max: None,
};

impl Pair {
    fn new() -> Self {
        let table = MemoryTable::new(Arc::new(|| 1_000_000));
        for user in ["alice@example.com", "bob@example.com"] {
            let jid = BareJid::parse(user).unwrap();
            let key = accounts::key(&jid.owner(), Row::Credentials);
            let item = Item::new(key, Attrs::new().with("v", 1u64));
            let op = Op::Put {
                item,
                condition: Condition::Absent,
                nonce: 1,
            };
            table.apply_now(op).result.unwrap();
        }
        let home = |index| Home::new(config(), Self::territory(index));
        Self {
            homes: [home(0), home(1)],
            table,
            rng: Counter(7),
            now: 1_000_000,
            told: BTreeMap::new(),
            held: false,
            waiting: Vec::new(),
            frames: 0,
        }
    }

    fn territory(index: usize) -> Territory {
        Territory::Part(Arc::new(move |jid| home_of(jid) == index))
    }

    /// With Alice and Bob logged in and available.
    fn online() -> Self {
        let mut pair = Self::new();
        for (pipe, user) in [(ALICE, "alice@example.com"), (BOB, "bob@example.com")] {
            for event in [bind(user, "r"), ENABLE, said(1, "<presence/>")] {
                pair.pipe(pipe, event);
            }
            pair.told.remove(&pipe);
        }
        pair
    }

    fn pipe(&mut self, pipe: PipeId, event: PipeEvent) {
        let home = if pipe == ALICE { 0 } else { 1 };
        self.event(home, Event::Pipe { pipe, event });
    }

    fn event(&mut self, home: usize, event: Event) {
        let mut queue = VecDeque::from([(home, event)]);
        while let Some((home, event)) = queue.pop_front() {
            let mut out = Effects::default();
            self.homes[home].handle(self.now, &mut self.rng, event, &mut out);
            for output in out.outputs {
                match output.effect {
                    Effect::Pipe { pipe, out } => self.told.entry(pipe).or_default().push_back(out),
                    Effect::Store { token, op } if self.held => {
                        self.waiting.push((home, token, op));
                    }
                    Effect::Store { token, op } => {
                        let result = self.table.apply_now(op).result;
                        queue.push_back((home, Event::Store { token, result }));
                    }
                    Effect::Frame { to, frame } => {
                        let frame = Frame::decode(&frame.encode()).unwrap();
                        assert_eq!(frame.to(), &to);
                        assert_ne!(home, home_of(&to), "what lives here is not sent away");
                        self.frames += 1;
                        queue.push_back((home_of(&to), Event::Frame(frame)));
                    }
                    Effect::Account { .. }
                    | Effect::Blob { .. }
                    | Effect::Unparked { .. }
                    | Effect::Erased { .. } => {}
                }
            }
        }
    }

    /// The stanzas that a pipe got since it was last asked, as text.
    fn got(&mut self, pipe: PipeId) -> Vec<String> {
        let told = self.told.remove(&pipe).unwrap_or_default();
        let stanzas = told.into_iter().filter_map(|out| match out {
            PipeOut::Stanza { stanza, .. } => Some(stanza.to_bytes()),
            _ => None,
        });
        stanzas.map(|xml| String::from_utf8(xml).unwrap()).collect()
    }

    fn move_home(&mut self, index: usize) {
        let bytes = self.homes[index].snapshot();
        let home = Home::restore(config(), Self::territory(index), &bytes).unwrap();
        assert_eq!(home.snapshot(), bytes);
        self.homes[index] = home;
    }
}

const TO_BOB: &str = "<message to='bob@example.com' type='chat' id='m'><body>hi</body></message>";
const RETRACTED: &str = "<message to='bob@example.com' type='chat' id='r'>\
     <retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>";

#[test]
fn homes_that_share_the_accounts_speak_by_frames() {
    let mut pair = Pair::online();
    pair.pipe(ALICE, said(2, TO_BOB));
    let got = pair.got(BOB);
    assert!(
        matches!(&got[..], [xml] if xml.contains("<body>hi</body>")),
        "{got:?}"
    );
    let told = pair.told.remove(&ALICE).unwrap_or_default();
    let handled = |out: &PipeOut| matches!(out, PipeOut::Handled { k: 2 });
    assert!(told.iter().any(handled), "{told:?}");
    assert_eq!(pair.frames, 2, "the message and its confirmation");

    let nobody = TO_BOB.replace("bob", "nobody");
    pair.pipe(ALICE, said(3, &nobody));
    let got = pair.got(ALICE);
    assert!(got[0].contains("service-unavailable"), "{got:?}");

    pair.frames = 0;
    let ping = "<iq to='example.com' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    pair.pipe(ALICE, said(4, ping));
    let got = pair.got(ALICE);
    assert!(got[0].contains("id='p'"), "{got:?}");
    assert_eq!(pair.frames, 0, "the server answers where it is asked");
}

#[test]
fn subscriptions_and_presence_reach_other_homes() {
    let mut pair = Pair::online();
    pair.pipe(
        ALICE,
        said(2, "<presence to='bob@example.com' type='subscribe'/>"),
    );
    let got = pair.got(BOB);
    assert!(got[0].contains("type='subscribe'"), "{got:?}");
    let granted = "<presence to='alice@example.com' type='subscribed'/>";
    pair.pipe(BOB, said(2, granted));
    let got = pair.got(ALICE);
    let from =
        |xml: &String| xml.starts_with("<presence") && xml.contains("from='bob@example.com/r'");
    assert!(got.iter().any(from), "{got:?}");
}

#[test]
fn a_node_that_is_gone_takes_its_pipes_with_it() {
    let mut pair = Pair::online();
    let second = PipeId { node: 2, pipe: 2 };
    let elsewhere = PipeId { node: 3, pipe: 1 };
    for (pipe, resource) in [(second, "plain"), (elsewhere, "other")] {
        pair.pipe(pipe, bind("bob@example.com", resource));
        pair.pipe(pipe, said(1, "<presence/>"));
    }
    pair.got(elsewhere);
    pair.event(1, Event::PipesGone { node: 2 });
    let got = pair.got(elsewhere);
    assert!(
        matches!(&got[..], [xml] if xml.contains("unavailable") && xml.contains("/plain")),
        "who can resume is still there: {got:?}"
    );
    let census = pair.homes[1].census();
    assert_eq!((census.attached, census.detached), (1, 1));
}

#[test]
fn binds_that_wait_for_the_store_end_with_their_node() {
    let mut pair = Pair::new();
    pair.held = true;
    pair.pipe(BOB, bind("bob@example.com", "r"));
    pair.event(1, Event::PipesGone { node: BOB.node });
    pair.held = false;
    for (home, token, op) in std::mem::take(&mut pair.waiting) {
        let result = pair.table.apply_now(op).result;
        pair.event(home, Event::Store { token, result });
    }
    assert_eq!(pair.homes[1].census().attached, 0);
    assert!(!pair.told.contains_key(&BOB));
}

#[test]
fn who_takes_over_gives_clients_their_full_time() {
    let mut pair = Pair::online();
    pair.pipe(BOB, PipeEvent::Closed { clean: false });
    let full = u64::from(Limits::default().resume_seconds) * 1_000;
    pair.now += full - 1;
    pair.move_home(1);
    pair.event(1, Event::Takeover);
    pair.now += full - 1;
    pair.event(1, Event::Tick);
    assert_eq!(pair.homes[1].census().detached, 1);
    pair.now += 1;
    pair.event(1, Event::Tick);
    assert_eq!(pair.homes[1].census().detached, 0);
}

#[test]
fn what_was_asked_for_twice_may_be_written_however_often_it_is_refused() {
    let mut pair = Pair::online();
    pair.held = true;
    let subscribe = "<presence to='bob@example.com' type='subscribe'/>";
    pair.pipe(ALICE, said(2, subscribe));
    let waiting = std::mem::take(&mut pair.waiting);
    let [(0, token, op @ Op::Put { .. })] = &waiting[..] else {
        panic!("{waiting:?}");
    };
    // The write of the node that is gone is carried out; that of the next one is refused.
    pair.table.apply_now(op.clone()).result.unwrap();
    pair.move_home(0);
    pair.event(0, Event::Takeover);
    pair.held = false;
    let refused = StoreError::Throttled {
        place: op.place(),
        source: None,
    };
    let (token, result) = (*token, Err(refused));
    pair.event(0, Event::Store { token, result });
    let got = pair.got(BOB);
    assert!(
        got.iter().any(|xml| xml.contains("type='subscribe'")),
        "the roster is read again, and what it says is sent: {got:?}"
    );
}

#[test]
fn time_stands_where_a_clock_is_behind() {
    let mut pair = Pair::online();
    pair.pipe(BOB, PipeEvent::Closed { clean: false });
    let began = pair.now;
    let due = pair.homes[1].next_deadline();
    pair.now = began - 500_000;
    pair.move_home(1);
    pair.event(1, Event::Takeover);
    assert_eq!(pair.homes[1].clock(), began);
    assert_eq!(pair.homes[1].next_deadline(), due);
}

/// A home in the middle of things.
fn busy() -> Pair {
    let mut pair = Pair::online();
    pair.pipe(
        ALICE,
        said(2, "<presence to='bob@example.com' type='subscribe'/>"),
    );
    pair.pipe(BOB, PipeEvent::Closed { clean: false });
    pair.held = true;
    pair.pipe(ALICE, said(3, TO_BOB));
    pair.pipe(ALICE, said(4, TO_BOB));
    pair.pipe(BOB, bind("carol@example.com", "r"));
    pair
}

/// The same where every node has format 10, and somebody retracts what was said (XEP-0424).
fn retracting() -> Pair {
    let mut pair = busy();
    for home in 0..2 {
        pair.event(home, Event::Format(Only(10)));
    }
    pair.pipe(ALICE, said(5, RETRACTED));
    pair
}

/// Whatever is cut off or changed is refused or read; nothing panics.
fn hostile(bytes: &[u8], read: impl Fn(&[u8]) -> Result<(), CodecError>) {
    assert_eq!(read(bytes), Ok(()));
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut off at {length}");
    }
    let longer = [bytes, &[0]].concat();
    assert!(matches!(read(&longer), Err(CodecError::Damaged { .. })));
    let mut other = bytes.to_vec();
    other[0] = crate::codec::FORMAT + 1;
    assert!(matches!(
        read(&other),
        Err(CodecError::Format { given, .. }) if given == crate::codec::FORMAT + 1
    ));
    for at in 1..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = bytes.to_vec();
            changed[at] ^= change;
            let _ = read(&changed);
        }
    }
    for at in 1..bytes.len() {
        // The longest length there is.
        let mut changed = bytes[..at].to_vec();
        changed.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let _ = read(&changed);
    }
}

#[test]
fn a_state_is_read_whole_or_not_at_all() {
    let pair = retracting();
    for (index, home) in pair.homes.iter().enumerate() {
        hostile(&home.snapshot(), |bytes| {
            Home::restore(config(), Pair::territory(index), bytes).map(drop)
        });
    }
}

fn events() -> Vec<Event> {
    let jid = || BareJid::parse("bob@example.com").unwrap();
    let op = Op::Get {
        key: accounts::key(&jid().owner(), Row::Last).into(),
    };
    let item = Item::new(
        accounts::key(&jid().owner(), Row::Last),
        Attrs::new().with("a", "text").with("b", 7u64),
    );
    let mut pair = busy();
    let (token, pipe) = (9, BOB);
    let mut events = vec![
        Event::Store {
            token,
            result: Err(StoreError::Unavailable {
                place: op.place(),
                outcome_unknown: true,
                source: Some("reset".into()),
            }),
        },
        Event::Store {
            token,
            result: Err(StoreError::Conflict {
                key: item.key.clone(),
                existing: Some(Box::new(item)),
            }),
        },
        Event::Account {
            token,
            result: Err(StanzaError::new(Fault::NotAllowed, "no")),
        },
        Event::Erase { user: jid(), token },
        Event::PipesGone { node: 3 },
        Event::Takeover,
        Event::Tick,
        Event::Shutdown { park: true },
        Event::Park,
    ];
    let prefixed = "<message xmlns:p='urn:p' to='bob@example.com/r' xml:lang='de'><p:x/></message>";
    let said = [bind("bob@example.com", "r"), ENABLE, said(3, prefixed)];
    events.extend(said.map(|event| Event::Pipe { pipe, event }));
    events.push(Event::Pipe {
        pipe,
        event: PipeEvent::Resume {
            user: jid(),
            previd: "x".into(),
            h: 4,
            login: Login::default(),
        },
    });
    for (_, token, op) in std::mem::take(&mut pair.waiting) {
        let result = pair.table.apply_now(op).result;
        events.push(Event::Store { token, result });
    }
    events
}

#[test]
fn events_are_read_whole_or_not_at_all() {
    for event in events() {
        let bytes = event.encode();
        let again = Event::decode(&bytes).unwrap();
        assert_eq!(again.encode(), bytes, "{event:?}");
        hostile(&bytes, |bytes| Event::decode(bytes).map(drop));
    }
}

#[test]
fn effects_and_frames_are_read_whole_or_not_at_all() {
    let mut pair = busy();
    for (_, token, op) in std::mem::take(&mut pair.waiting) {
        let bytes = Effect::Store { token, op }.encode();
        hostile(&bytes, |bytes| Effect::decode(bytes).map(drop));
    }
    let told = std::mem::take(&mut pair.told).into_iter();
    for (pipe, out) in told.flat_map(|(pipe, outs)| outs.into_iter().map(move |out| (pipe, out))) {
        let bytes = Effect::Pipe { pipe, out }.encode();
        hostile(&bytes, |bytes| Effect::decode(bytes).map(drop));
    }
    let stanza = Stanza::from_stored(&TO_BOB.to_owned().into()).unwrap();
    let frame = Frame::stanza(BareJid::parse("bob@example.com").unwrap(), stanza, None);
    hostile(&frame.encode(), |bytes| Frame::decode(bytes).map(drop));
}

#[test]
fn a_copy_that_is_told_the_same_asks_for_the_same() {
    let mut pair = busy();
    let bytes = pair.homes[0].snapshot();
    let mut copy = Home::restore(config(), Pair::territory(0), &bytes).unwrap();
    for event in events() {
        let logged = event.encode();
        let (mut own, mut same) = (Effects::default(), Effects::default());
        let mut drawn = Vec::new();
        let mut rng = Recorder::new(&mut pair.rng, &mut drawn);
        pair.homes[0].handle(pair.now, &mut rng, event, &mut own);
        let event = Event::decode(&logged).unwrap();
        let mut rng = Replay::new(&drawn);
        copy.handle(pair.now, &mut rng, event, &mut same);
        assert!(rng.is_used_up());
        let bytes = |effects: Effects| -> Vec<_> {
            let outputs = effects.outputs.into_iter();
            outputs.map(|it| (it.after, it.effect.encode())).collect()
        };
        assert_eq!(bytes(same), bytes(own));
        assert_eq!(copy.snapshot(), pair.homes[0].snapshot());
    }
}

mod formats;
