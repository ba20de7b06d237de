//! What a day of two users asks of the store, request by request: nobody pays for more than the
//! budget of each access pattern, and a path that grows is seen here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use cirrus_figures::measured::{BODY, STORED};
use cirrus_tests::client::sasl2::Token;
use cirrus_tests::client::{BIND2, Client, Identity};
use cirrus_tests::dialogue::play::Stage as _;
use cirrus_tests::emulated::cloud::{Cloud, Node};
use cirrus_tests::server::call;
use serde_json::json;

const GOLDEN: &str = "golden/requests.txt";

/// Looks at the meter before what is to come is taken for lost.
const MANY: usize = 100_000;

/// The most that a step may cost.
struct Budget {
    reads: u64,
    write_units: u64,
}

const FREE: Budget = budget(0, 0);

const fn budget(reads: u64, write_units: u64) -> Budget {
    Budget { reads, write_units }
}

/// Requests, write units and read units by table and kind of request.
type Asked = BTreeMap<String, [u64; 3]>;

/// A server on the emulated DynamoDB, and what its meter has said so far.
struct Day {
    node: Node,
    said: Asked,
    lines: String,
}

impl Day {
    /// Begins with what the node has asked until now.
    fn new(node: Node) -> Self {
        let mut day = Self {
            node,
            said: Asked::new(),
            lines: String::new(),
        };
        day.said = day.asked();
        day
    }

    fn asked(&self) -> Asked {
        let status = json!({ "v": 1, "call": "server.status" });
        let status = call(&self.node.control(), &status).unwrap();
        let row = |(target, row): (&String, &serde_json::Value)| {
            let count = |name: &str| row[name].as_u64().unwrap();
            let counts = ["requests", "write_units", "read_units"].map(count);
            (target.clone(), counts)
        };
        let mut asked: Asked = status["store"]
            .as_object()
            .unwrap()
            .iter()
            .map(row)
            .collect();
        // View and lease go by the clock, not by what users do.
        asked.retain(|target, _| !target.starts_with("cluster "));
        asked
    }

    /// Notes what was asked since the last step, and holds it against the budget.
    fn step(&mut self, what: &str, budget: &Budget) {
        let asked = self.asked();
        self.lines.push_str(what);
        self.lines.push('\n');
        let (mut reads, mut write_units) = (0, 0);
        for (target, now) in &asked {
            let before = self.said.get(target).copied().unwrap_or_default();
            let [requests, writes, read] = [0, 1, 2].map(|at| now[at] - before[at]);
            if requests == 0 {
                continue;
            }
            write_units += writes;
            reads += if read > 0 { requests } else { 0 };
            writeln!(
                self.lines,
                "  {target}: {requests} requests, {writes} WU, {read} RU"
            )
            .unwrap();
        }
        self.said = asked;
        assert!(
            reads <= budget.reads && write_units <= budget.write_units,
            "over its budget of {} reads and {} write units:\n{}",
            budget.reads,
            budget.write_units,
            self.lines
        );
    }

    /// As [`Day::step`], for what is written when nobody waits for it any more.
    fn late_step(&mut self, what: &str, budget: &Budget) {
        let units = |asked: &Asked| asked.values().map(|[_, writes, _]| writes).sum::<u64>();
        let until = units(&self.said) + budget.write_units;
        let written = (0..MANY).any(|_| units(&self.asked()) >= until);
        assert!(written, "{what}: it was not written");
        self.step(what, budget);
    }

    /// Logs in as clients do: stream management, roster, presence.
    fn login(&self, jid: &str) -> Person {
        let identity = Identity::new(jid, "wherefore").unwrap();
        let mut client = Client::connect(self.node.address(), identity).unwrap();
        client.acks.answering = true;
        client
            .send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
            .unwrap();
        let enabled = client.element().unwrap();
        let mut person = Person {
            resume: enabled.attr("id").unwrap().to_owned(),
            client,
            sent: 0,
        };
        person.say("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        person.say("<presence/>");
        person.is_handled();
        person
    }
}

/// A session.
struct Person {
    client: Client,
    resume: String,
    sent: u32,
}

impl Person {
    fn say(&mut self, stanza: &str) {
        self.sent += 1;
        self.client.send(stanza).unwrap();
    }

    /// Waits until the server has handled all that was said.
    fn is_handled(&mut self) {
        self.client.send("<r xmlns='urn:xmpp:sm:3'/>").unwrap();
        while self.client.acks.confirmed < self.sent {
            self.client.receive_acknowledgement().unwrap();
        }
    }

    /// Sends a request of that id and waits for its result.
    fn asks(&mut self, id: &str, request: &str) {
        self.say(request);
        loop {
            let element = self.client.element().unwrap();
            if element.name == "iq" && element.attr("id") == Some(id) {
                assert_eq!(element.attr("type"), Some("result"), "{element}");
                return;
            }
        }
    }

    /// Waits for a message with this body, and acknowledges what came.
    fn hears(&mut self, body: &str) {
        let is_it = |message: &cirrus_tests::xml::Node| {
            message
                .child("body", "jabber:client")
                .is_some_and(|node| node.text() == body)
        };
        while !is_it(&self.client.element().unwrap()) {}
        let h = self.client.acks.received;
        self.client
            .send(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"))
            .unwrap();
        self.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
        self.is_handled();
    }
}

const ROMEO: &str = "romeo@localhost/orchard";
const JULIET: &str = "juliet@localhost";

#[test]
fn a_day_costs_what_it_may() {
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, "i-0000000000000000a", "domain=localhost").unwrap();
    for jid in [ROMEO, JULIET] {
        node.add_account(&Identity::new(jid, "wherefore").unwrap())
            .unwrap();
    }
    let mut day = Day::new(node);

    let mut romeo = day.login(ROMEO);
    day.step("login, cold", &budget(4, 0));
    let mut phone = day.login("romeo@localhost/phone");
    day.step("login of a second resource", &budget(1, 0));

    befriend(&mut day, &mut romeo);
    let juliet = chat(&mut day, &mut romeo);
    leave(&mut day, &mut phone, juliet);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &day.lines).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        day.lines,
        "{} is not so any more; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

fn befriend(day: &mut Day, romeo: &mut Person) {
    romeo.say(
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
         <item jid='nurse@localhost' name='Nurse'/></query></iq>",
    );
    romeo.is_handled();
    day.step("roster item added, with its push", &budget(0, 1));
    romeo.say("<presence><show>away</show></presence>");
    romeo.is_handled();
    day.step("presence", &FREE);
}

fn chat(day: &mut Day, romeo: &mut Person) -> Person {
    let message = |body: &str| {
        format!(
            "<message to='{JULIET}' type='chat' id='{body}'><body>{body}</body>\
             <active xmlns='http://jabber.org/protocol/chatstates'/></message>"
        )
    };
    romeo.say(&message("wakes"));
    romeo.is_handled();
    day.step(
        "message to a user who is away and not in memory, the first in a week for both",
        &budget(4, 4),
    );
    romeo.say(&message("waits"));
    romeo.is_handled();
    day.step("message to a user who is away", &budget(0, 2));

    let mut juliet = day.login("juliet@localhost/balcony");
    juliet.hears("waits");
    day.late_step(
        "login that gets two messages, and their cursor",
        &budget(2, 1),
    );

    romeo.say(&message("live"));
    romeo.is_handled();
    juliet.hears("live");
    day.step("message to a user who is online", &budget(0, 2));
    for (kind, namespace) in [("received", "receipts"), ("displayed", "chat-markers:0")] {
        juliet.say(&format!(
            "<message to='{ROMEO}' type='chat' id='{kind}'>\
             <{kind} xmlns='urn:xmpp:{namespace}' id='live'/></message>"
        ));
    }
    juliet.is_handled();
    day.step("receipt and marker, which wait", &FREE);
    romeo.say(&message("takes"));
    romeo.is_handled();
    juliet.hears("takes");
    day.step(
        "message that takes a receipt and a marker along",
        &budget(0, 2),
    );
    romeo.say(&format!(
        "<message to='{JULIET}' type='chat'>\
         <composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    ));
    romeo.is_handled();
    day.step("chat state", &FREE);
    juliet.asks(
        "a",
        "<iq type='set' id='a'><query xmlns='urn:xmpp:mam:2'>\
         <set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set></query></iq>",
    );
    day.step("page of the archive, and the index", &budget(2, 0));
    juliet.asks(
        "m",
        "<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>",
    );
    day.step("first and last of the archive", &FREE);
    juliet.asks(
        "c",
        "<iq type='set' id='c'><query xmlns='urn:xmpp:mam:2'>\
         <set xmlns='http://jabber.org/protocol/rsm'><max>0</max></set></query></iq>",
    );
    day.step("number of messages in the archive", &FREE);
    juliet.asks(
        "prefs",
        "<iq type='set' id='prefs'><prefs xmlns='urn:xmpp:mam:2' default='always'>\
         <always/><never/></prefs></iq>",
    );
    day.step("archive preferences", &budget(0, 1));
    juliet
}

fn leave(day: &mut Day, phone: &mut Person, mut juliet: Person) {
    phone.client.break_off();
    let identity = phone.client.identity.clone();
    let mut client = Client::dial(day.node.address(), identity).unwrap();
    client.open_stream().unwrap();
    client.start_tls().unwrap();
    client.open_stream().unwrap();
    client.authenticate().unwrap();
    client.open_stream().unwrap();
    let (received, id) = (phone.client.acks.received, &phone.resume);
    client
        .send(format!(
            "<resume xmlns='urn:xmpp:sm:3' h='{received}' previd='{id}'/>"
        ))
        .unwrap();
    assert_eq!(client.element().unwrap().name, "resumed");
    day.step("resumption", &budget(1, 0));

    juliet.client.disconnect().unwrap();
    day.late_step("end of a session", &budget(0, 1));
}

/// Write units of messages, as DynamoDB counts them (the meter takes its word).
#[test]
fn a_message_costs_two_units_and_neither_bursts_nor_receipts_more() {
    /// With its key and attributes, about 1,000 bytes.
    const LONG: usize = 640;
    /// So many at once.
    const BURST: u64 = 60;
    /// Receipts that don't fill an item yet, which is written when it is full.
    const WAITING: usize = 15;
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, "i-0000000000000000a", "domain=localhost").unwrap();
    for jid in [ROMEO, JULIET] {
        let account = Identity::new(jid, "wherefore").unwrap();
        node.add_account(&account).unwrap();
    }
    let day = Day::new(node);
    let (mut romeo, mut juliet) = (day.login(ROMEO), day.login("juliet@localhost/balcony"));
    let units = || day.asked()["archive put"][1];
    let message = |body: &str| {
        format!(
            "<message to='{JULIET}' type='chat' id='{}'><body>{body}</body></message>",
            body.len()
        )
    };
    romeo.say(&message("first"));
    romeo.is_handled();
    juliet.hears("first");

    let before = units();
    let long = "x".repeat(LONG);
    romeo.say(&message(&long));
    romeo.is_handled();
    juliet.hears(&long);
    assert_eq!(units() - before, 2, "one message");

    let before = units();
    for n in 1..BURST {
        romeo.say(&message(&"y".repeat(usize::try_from(n).unwrap())));
    }
    romeo.say(&message("last"));
    romeo.is_handled();
    juliet.hears("last");
    let burst = units() - before;
    assert!(burst <= 2 * BURST, "{BURST} messages cost {burst} units");

    let before = units();
    let mut receipts = (0..BURST).map(|n| {
        format!(
            "<message to='{ROMEO}' type='chat' id='r{n}'>\
             <received xmlns='urn:xmpp:receipts' id='{n}'/></message>"
        )
    });
    for receipt in receipts.by_ref().take(WAITING) {
        juliet.say(&receipt);
    }
    juliet.is_handled();
    assert_eq!(units() - before, 0, "receipts wait");
    for receipt in receipts {
        juliet.say(&receipt);
    }
    juliet.is_handled();
    // A message of both takes them along.
    romeo.say(&message("more"));
    romeo.is_handled();
    juliet.hears("more");
    let receipts = units() - before;
    assert!(
        receipts <= 2 * (BURST + 1),
        "{BURST} receipts and a message cost {receipts} units"
    );
}

/// What was measured, beside the figure that documents reckon with.
#[derive(Default)]
struct Figures {
    all: String,
    off: String,
}

impl Figures {
    /// Within a tenth.
    fn are_about(&mut self, what: &str, measured: f64, figure: f64) {
        let line = format!("{what}: {measured}, {figure} in the figures\n");
        self.all.push_str(&line);
        if (measured - figure).abs() > figure / 10.0 {
            self.off.push_str(&line);
        }
    }
}

/// Base64 of bytes that nothing compresses, as of an encrypted message.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let bytes: Vec<u8> = (0..BODY).flat_map(|_| next()).collect();
    let mut text = base64::engine::general_purpose::STANDARD.encode(bytes);
    text.truncate(BODY);
    text
}

/// Two who write to each other, and what the server's meter says.
struct Pair {
    day: Day,
    romeo: Person,
    juliet: Person,
    messages: u64,
}

impl Pair {
    fn new(node: Node) -> Self {
        let day = Day::new(node);
        let (romeo, juliet) = (day.login(ROMEO), day.login("juliet@localhost/balcony"));
        Self {
            day,
            romeo,
            juliet,
            messages: 0,
        }
    }

    fn count(&self, target: &str, what: &str) -> f64 {
        let status = json!({ "v": 1, "call": "server.status" });
        let status = call(&self.day.node.control(), &status).unwrap();
        status["store"][target][what].as_u64().unwrap_or(0) as f64
    }

    /// One message, in both archives and delivered when this returns.
    fn say(&mut self) {
        self.messages += 1;
        let (id, body) = (self.messages, noise(self.messages));
        self.romeo.say(&format!(
            "<message to='{JULIET}' type='chat' id='{id:08}'><body>{body}</body></message>"
        ));
        self.romeo.is_handled();
        self.juliet.hears(&body);
    }

    /// Bytes that the next message takes in each archive.
    fn bytes(&mut self) -> f64 {
        let before = self.count("archive put", "written_bytes");
        self.say();
        (self.count("archive put", "written_bytes") - before) / 2.0
    }

    fn receipt_and_marker(&mut self) {
        for (kind, namespace) in [("received", "receipts"), ("displayed", "chat-markers:0")] {
            self.juliet.say(&format!(
                "<message to='{ROMEO}' type='chat' id='{kind}'>\
                 <{kind} xmlns='urn:xmpp:{namespace}' id='00000002'/></message>"
            ));
        }
        self.juliet.is_handled();
    }
}

/// The bytes and units that docs/COST.md reckons with.
#[test]
fn what_is_stored_is_what_the_figures_say() {
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, "i-0000000000000000a", "domain=localhost").unwrap();
    for jid in [ROMEO, JULIET] {
        let account = Identity::new(jid, "wherefore").unwrap();
        node.add_account(&account).unwrap();
    }
    let mut pair = Pair::new(node);
    let mut figures = Figures::default();
    // The first one has more to write, once a week.
    pair.say();
    let message = pair.bytes();
    figures.are_about("bytes of a message", message, STORED.message);
    pair.receipt_and_marker();
    let more = pair.bytes() - message;
    let figure = STORED.receipt_and_marker;
    figures.are_about("bytes of receipt and marker", more, figure);

    let (reads, writes) = (
        ("archive query", "read_units"),
        ("archive put", "write_units"),
    );
    let before = [reads, writes].map(|(target, what)| pair.count(target, what));
    // Three messages are there, a receipt and a marker.
    let rest = STORED.segment_records as u64 - 5;
    for _ in 0..rest {
        pair.say();
    }
    let messages = 2.0 * rest as f64;
    // The last that is written is the row of the index, in both archives.
    let rows = |pair: &Pair| pair.count(writes.0, writes.1) - before[1] - messages;
    assert!(
        (0..MANY).any(|_| rows(&pair) >= 2.0),
        "there is no row of the index"
    );
    let reads = (pair.count(reads.0, reads.1) - before[0]) / 2.0;
    figures.are_about("read units to seal", reads, STORED.seal_reads);
    let rows = rows(&pair) / 2.0;
    figures.are_about("write units to seal", rows, STORED.seal_writes);
    let objects = pair.count("data put_object", "requests") / 2.0;
    figures.are_about("objects to seal", objects, STORED.seal_objects);
    let bytes = pair.count("data put_object", "written_bytes") / 2.0 / STORED.segment_records;
    figures.are_about("bytes of a record", bytes, STORED.segment_record);
    println!("{}", figures.all);
    assert_eq!(figures.off, "", "the figures are others");
}

const FAST: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>\
    <fast xmlns='urn:xmpp:fast:0'/><bind xmlns='urn:xmpp:bind:0'><tag>phone</tag>\
    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";

/// Under TLS, with nothing said yet.
fn secured(node: &Node, identity: &Identity) -> Client {
    let mut client = Client::dial(node.address(), identity.clone()).unwrap();
    client.open_stream().unwrap();
    client.start_tls().unwrap();
    client
}

/// Logs in with the token, asks for the roster and becomes available, as clients do.
fn login_by_token(node: &Node, identity: &Identity, token: &Token, contacts: usize) -> Person {
    let mut client = secured(node, identity);
    let success = client.login_by_token(token, FAST).unwrap();
    let bound = success.child("bound", BIND2).expect("bound");
    let archive = bound.child("metadata", "urn:xmpp:mam:2");
    assert!(archive.is_some(), "{success}");
    assert!(Token::of(&success, &token.mechanism).is_none(), "{success}");
    let mut person = Person {
        client,
        resume: String::new(),
        sent: 0,
    };
    person.say("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let roster = person.client.element().unwrap();
    let query = roster.child("query", "jabber:iq:roster").unwrap();
    assert_eq!(query.nodes().count(), contacts);
    person.say("<presence/>");
    person.is_handled();
    person
}

#[test]
fn a_login_by_token_costs_the_same_for_any_number_of_contacts() {
    let cloud = Cloud::start().unwrap();
    let mut node = Node::start(&cloud, "i-0000000000000000a", "domain=localhost").unwrap();
    let mut users = Vec::new();
    for contacts in [10, 100, 1_000] {
        let identity = Identity::new(&format!("u{contacts}@localhost"), "wherefore").unwrap();
        node.add_account(&identity).unwrap();
        let mut client = secured(&node, &identity);
        client.open_stream().unwrap();
        let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
        let more = FAST.replace("<fast xmlns='urn:xmpp:fast:0'/>", request);
        let success = client.login_by_password(&more).unwrap();
        let token = Token::of(&success, "HT-SHA-256-EXPR").unwrap();
        client.acks.answering = true;
        let mut person = Person {
            client,
            resume: String::new(),
            sent: 0,
        };
        for n in 0..contacts {
            person.say(&format!(
                "<iq type='set' id='c{n}'><query xmlns='jabber:iq:roster'>\
                 <item jid='contact{n}@localhost' name='Contact {n}'/></query></iq>"
            ));
            if n % 50 == 49 {
                person.is_handled();
            }
        }
        person.is_handled();
        person.client.disconnect().unwrap();
        users.push((identity, token, contacts));
    }
    // An archive of more than is read of it at a login.
    let reader = Identity::new("reader@localhost", "wherefore").unwrap();
    node.add_account(&reader).unwrap();
    let (identity, token, contacts) = users.first().expect("three users");
    let mut writer = login_by_token(&node, identity, token, *contacts);
    for n in 0..40 {
        writer.say(&format!(
            "<message to='reader@localhost' type='chat'><body>{n}</body></message>"
        ));
        writer.is_handled();
    }
    writer.client.disconnect().unwrap();
    // Another process, which has nothing of them in memory.
    node.restart("TERM").unwrap();
    let mut day = Day::new(node);
    for (identity, token, contacts) in &users {
        let mut person = login_by_token(&day.node, identity, token, *contacts);
        day.step(
            &format!("login by token, cold, {contacts} contacts"),
            &budget(4, 0),
        );
        person.client.disconnect().unwrap();
        day.late_step("end of its session", &budget(0, 1));
        let mut person = login_by_token(&day.node, identity, token, *contacts);
        day.step("the same, in memory", &budget(1, 0));
        person.client.disconnect().unwrap();
        day.late_step("end of its session", &budget(0, 1));
    }
    println!("{}", day.lines);
}
