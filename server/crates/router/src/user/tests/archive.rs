//! Queries of the archive (XEP-0313), ids (XEP-0359), preferences (XEP-0441), hints (XEP-0334).

use cirrus_schema::keys::{archive, cluster};

use super::*;

/// Juliet and Romeo online, without stream management.
fn world() -> World {
    world_with(|_| {})
}

fn world_with(set: impl FnOnce(&mut Limits)) -> World {
    let mut world = World::with(&[JULIET, ROMEO], set);
    world.online(1, JULIET, "balcony");
    world.online(2, ROMEO, "orchard");
    world.drain(1);
    world
}

pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The id that a message has in the archive of that account.
fn id(xml: &str, by: &str) -> Option<String> {
    let before = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='");
    assert!(xml.matches(&before).count() <= 1, "{xml}");
    between(xml, &before, "'").map(str::to_owned)
}

pub(super) fn query(fields: &str, set: &str) -> String {
    let form = format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
         <value>urn:xmpp:mam:2</value></field>{fields}</x>"
    );
    format!(
        "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='f'>{form}\
         <set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query></iq>"
    )
}

fn field(var: &str, value: &str) -> String {
    format!("<field var='{var}'><value>{value}</value></field>")
}

impl World {
    /// The answer to a query: the bodies and ids of its messages, and what ends it.
    pub(super) fn archive(
        &mut self,
        pipe: u64,
        fields: &str,
        set: &str,
    ) -> (Vec<(String, String)>, String) {
        self.say(pipe, &query(fields, set));
        let mut got = self.read_all(pipe);
        let end = got.pop().expect("an answer");
        assert!(end.contains("id='q'"), "{end}");
        let result = |xml: &String| {
            assert!(
                xml.contains("<result xmlns='urn:xmpp:mam:2' queryid='f' "),
                "{xml}"
            );
            let body = between(xml, "<body>", "</body>").unwrap().to_owned();
            (
                body,
                between(xml, "queryid='f' id='", "'").unwrap().to_owned(),
            )
        };
        (got.iter().map(result).collect(), end)
    }

    /// All that a pipe is sent while it says that it has written what it got.
    pub(super) fn read_all(&mut self, pipe: u64) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let n = self.sent(pipe);
            let got = self.got(pipe);
            if got.is_empty() {
                return all;
            }
            all.extend(got);
            self.pipe(pipe, PipeEvent::Written { n });
        }
    }

    fn prefs(&mut self, pipe: u64, prefs: &str) -> String {
        self.say(pipe, &format!("<iq type='set' id='p'>{prefs}</iq>"));
        self.read_all(pipe).remove(0)
    }
}

fn bodies(results: &[(String, String)]) -> Vec<&str> {
    results.iter().map(|(body, _)| body.as_str()).collect()
}

#[test]
fn live_copied_late_and_archived_messages_have_one_id() {
    let mut world = world();
    world.online(3, JULIET, "chamber");
    world.say(
        3,
        "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>",
    );
    world.drain(1);
    world.drain(3);
    world.say(2, &message("juliet@example.com/balcony", "a"));
    world.say(1, &message(ROMEO, "b"));
    let live = id(&world.got(1)[0], JULIET).unwrap();
    let copies = world.got(3);
    assert_eq!(id(&copies[0], JULIET).as_ref(), Some(&live));
    let sent = id(&copies[1], JULIET).unwrap();
    let got = world.got(2);
    assert!(
        id(&got[0], JULIET).is_none(),
        "ids of others' archives are nobody's business"
    );
    let theirs = id(&got[0], ROMEO).unwrap();

    for pipe in [1, 3] {
        world.pipe(pipe, PipeEvent::Closed { clean: true });
    }
    world.say(2, &message(JULIET, "c"));
    world = world.killed();
    world.bind(4, JULIET, "balcony");
    world.say(4, "<presence/>");
    let late = world.got(4);
    let late = late.iter().find(|xml| xml.contains("<body>c</body>"));
    let late = id(late.unwrap(), JULIET).unwrap();
    let (results, fin) = world.archive(4, "", "");
    let expected = [("a", &live), ("b", &sent), ("c", &late)];
    let expected: Vec<_> = expected
        .map(|(body, id)| (body.to_owned(), id.clone()))
        .into();
    assert_eq!(results, expected);
    assert!(
        fin.contains("complete='true'") && fin.contains("<count>3</count>"),
        "{fin}"
    );
    assert!(
        fin.contains(&format!("<first>{live}</first><last>{late}</last>")),
        "{fin}"
    );

    world.online(5, ROMEO, "orchard");
    let (results, _) = world.archive(5, "", "");
    assert_eq!(results[1], ("b".to_owned(), theirs));
}

#[test]
fn a_result_is_the_message_with_its_time_and_id() {
    let mut world = world();
    world.say(2, "<message to='juliet@example.com' type='chat' id='m' xml:lang='it'><body>a</body></message>");
    world.drain(1);
    world.say(1, &query("", ""));
    let got = world.got(1);
    let id = id(&got[0], JULIET).unwrap();
    let expected = format!(
        "<message to='juliet@example.com/balcony' from='juliet@example.com'>\
         <result xmlns='urn:xmpp:mam:2' queryid='f' id='{id}'>\
         <forwarded xmlns='urn:xmpp:forward:0'>\
         <delay xmlns='urn:xmpp:delay' from='example.com' stamp='1970-01-01T00:16:40.000Z'/>\
         <message xmlns='jabber:client' type='chat' id='m' to='juliet@example.com' \
         from='romeo@example.com/orchard' xml:lang='it'><body>a</body>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.com' id='{id}'/></message>\
         </forwarded></result></message>"
    );
    assert_eq!(got[0], expected);
    assert_eq!(
        got[1],
        format!(
            "<iq type='result' id='q' to='juliet@example.com/balcony' from='juliet@example.com'>\
             <fin xmlns='urn:xmpp:mam:2' complete='true'>\
             <set xmlns='http://jabber.org/protocol/rsm'><first>{id}</first><last>{id}</last>\
             <count>1</count></set></fin></iq>"
        )
    );
}

#[test]
fn forged_ids_are_taken_out_and_others_stay() {
    let mut world = world();
    let forged = |by: &str, prefix: &str| {
        format!(
            "<message to='juliet@example.com' type='chat' xmlns:s='urn:xmpp:sid:0'><body>a</body>\
             <{prefix}stanza-id {} by='{by}' id='forged'/><origin-id xmlns='urn:xmpp:sid:0' id='o'/>\
             </message>",
            if prefix.is_empty() {
                "xmlns='urn:xmpp:sid:0'"
            } else {
                ""
            }
        )
    };
    for (by, prefix) in [(JULIET, ""), (JULIET, "s:"), ("JULIET@example.com/x", "")] {
        world.say(2, &forged(by, prefix));
        let got = world.got(1).remove(0);
        assert!(!got.contains("forged") && got.contains("id='o'"), "{got}");
        assert!(id(&got, JULIET).is_some());
    }
    world.say(2, &forged("room@rooms.example.com", ""));
    assert!(world.got(1)[0].contains("forged"));
    // The sender's own archive has none either.
    world.say(2, &forged(ROMEO, ""));
    world.say(2, &query("", "<max>1</max><before/>"));
    let result = world.got(2).remove(0);
    assert!(!result.contains("forged"), "{result}");
}

#[test]
fn pages_fields_and_ids() {
    let mut world = world();
    for index in 0..10 {
        world.now += 1_000;
        let (pipe, to) = if index % 2 == 0 {
            (1, ROMEO)
        } else {
            (2, JULIET)
        };
        world.say(pipe, &message(to, &index.to_string()));
    }
    world.say(1, &message(JULIET, "own"));
    world.drain(1);
    world.drain(2);
    let (all, fin) = world.archive(1, "", "");
    assert_eq!(all.len(), 11);
    assert!(fin.contains("<count>11</count>"), "{fin}");
    let id = |at: usize| all[at].1.clone();
    for (fields, set, expected, complete) in [
        (String::new(), "<max>3</max>".to_owned(), "0 1 2", false),
        (
            String::new(),
            format!("<max>3</max><after>{}</after>", id(7)),
            "8 9 own",
            true,
        ),
        (
            String::new(),
            "<max>2</max><before/>".into(),
            "9 own",
            false,
        ),
        (
            String::new(),
            format!("<max>9</max><before>{}</before>", id(2)),
            "0 1",
            true,
        ),
        (field("before-id", &id(3)), String::new(), "0 1 2", true),
        (field("after-id", &id(7)), "<max>1</max>".into(), "8", false),
        (
            field("start", "1970-01-01T00:16:48Z"),
            String::new(),
            "7 8 9 own",
            true,
        ),
        (
            field("end", "1970-01-01T00:16:42.999Z"),
            String::new(),
            "0 1",
            true,
        ),
        (field("with", "nurse@example.com"), String::new(), "", true),
        (
            field("with", ROMEO),
            "<max>2</max><before/>".into(),
            "8 9",
            false,
        ),
        (
            field("with", "romeo@example.com/orchard"),
            String::new(),
            "1 3 5 7 9",
            true,
        ),
        (field("with", JULIET), String::new(), "own", true),
        (field("ids", &id(4)), String::new(), "4", true),
        (String::new(), "<max>0</max>".into(), "", false),
    ] {
        let (page, fin) = world.archive(1, &fields, &set);
        assert_eq!(bodies(&page).join(" "), expected, "{fields} {set}");
        assert_eq!(
            fin.contains("complete='true'"),
            complete,
            "{fields} {set} {fin}"
        );
        let counted = fields.is_empty() || fields.contains("-id");
        assert_eq!(
            fin.contains("<count>"),
            counted,
            "only where nothing is filtered: {fin}"
        );
    }
    let flipped = query("", "<max>3</max>").replace("</query>", "<flip-page/></query>");
    world.say(1, &flipped);
    assert_eq!(world.bodies(1), ["2", "1", "0"]);
    for (fields, set) in [
        (field("ids", "000000000000000000000000"), ""),
        (String::new(), "<after>x</after>"),
    ] {
        let (none, error) = world.archive(1, &fields, set);
        assert!(
            none.is_empty() && error.contains("<item-not-found"),
            "{error}"
        );
    }
    world.say(
        1,
        "<iq type='get' id='q'><metadata xmlns='urn:xmpp:mam:2'/></iq>",
    );
    let metadata = world.got(1).remove(0);
    let expected = format!(
        "<metadata xmlns='urn:xmpp:mam:2'>\
         <start id='{}' timestamp='1970-01-01T00:16:41.000Z'/>\
         <end id='{}' timestamp='1970-01-01T00:16:50.000Z'/></metadata>",
        id(0),
        id(10)
    );
    assert!(metadata.contains(&expected), "{metadata}");
    // Somebody else's ids are unknown here.
    let (theirs, _) = world.archive(2, "", "");
    let (_, error) = world.archive(1, &field("ids", &theirs[0].1), "");
    assert!(error.contains("<item-not-found"), "{error}");
}

#[test]
fn an_empty_archive_says_so() {
    let mut world = world();
    let (none, fin) = world.archive(1, "", "<before/>");
    assert!(none.is_empty() && fin.contains("complete='true'"), "{fin}");
    assert!(
        !fin.contains("<first>") && fin.contains("<count>0</count>"),
        "{fin}"
    );
    world.say(
        1,
        "<iq type='get' id='q'><metadata xmlns='urn:xmpp:mam:2'/></iq>",
    );
    assert!(world.got(1)[0].contains("<metadata xmlns='urn:xmpp:mam:2'/>"));
}

#[test]
fn a_slow_reader_gets_everything_and_never_more_than_it_may_hold() {
    let limit = 128 * 1_024;
    let mut world = world_with(|limits| limits.unacked_bytes = 2 * limit);
    let long = "x".repeat(20_000);
    for _ in 0..40 {
        world.say(2, &message(JULIET, &long));
        world.read_all(1);
    }
    world.say(1, &query("", ""));
    let (mut all, mut rounds) = (0, 0);
    loop {
        let n = world.sent(1);
        let got = world.got(1);
        let bytes: usize = got.iter().map(String::len).sum();
        assert!(bytes <= limit + 1_000, "{bytes} bytes at once");
        all += got.len();
        rounds += 1;
        if got.iter().any(|xml| xml.contains("<fin ")) {
            break;
        }
        assert!(!got.is_empty());
        world.pipe(1, PipeEvent::Written { n });
    }
    assert_eq!(all, 41);
    assert!(rounds > 5);
}

/// Of a query that waits nothing is kept but what its answer needs.
#[test]
fn queries_that_wait_take_no_room() {
    let mut world = world_with(|limits| limits.unacked_bytes = 64 * 1_024);
    for _ in 0..4 {
        world.say(2, &message(JULIET, &"x".repeat(20_000)));
    }
    let before = world.home.snapshot().len();
    let long = query("", "").replace(
        "</query>",
        &format!("<y>{}</y></query>", "y".repeat(200_000)),
    );
    for _ in 0..10 {
        world.say(1, &long);
    }
    assert!(
        !world.got(1).iter().any(|xml| xml.contains("<fin ")),
        "they wait"
    );
    let more = world.home.snapshot().len() - before;
    assert!(more < 100_000, "{more} bytes");
}

#[test]
fn a_query_goes_on_where_its_session_is_resumed_and_dies_with_it() {
    let mut world = World::with(&[JULIET, ROMEO], |limits| {
        limits.unacked_bytes = 256 * 1_024;
    });
    world.online(2, ROMEO, "orchard");
    world.bind(1, JULIET, "balcony");
    let max = Some(60);
    world.pipe(1, PipeEvent::EnableSm { resume: true, max });
    let sm = world.sm_id(1);
    world.say(1, "<presence/>");
    let long = "x".repeat(30_000);
    for h in 2..=10 {
        world.say(2, &message(JULIET, &long));
        // Its presence, and the messages as they come.
        world.pipe(1, PipeEvent::Ack { h });
    }
    world.drain(1);
    world.say(1, &query("", ""));
    let first = world.got(1).len();
    assert!((1..9).contains(&first), "{first} of 9 results");
    world.pipe(1, PipeEvent::Closed { clean: false });
    world.resume(3, JULIET, &sm, 10);
    assert_eq!(world.got(3).len(), first, "they come again");
    let h = 10 + u32::try_from(first).unwrap();
    world.pipe(3, PipeEvent::Ack { h });
    assert!(!world.got(3).is_empty(), "and then the others");
    world.pipe(3, PipeEvent::Closed { clean: true });
    assert!(world.home.is_quiet(), "nobody waits for the rest");
    world.online(4, JULIET, "chamber");
    assert!(world.bodies(4).is_empty(), "results are nobody else's");
}

#[test]
fn what_was_said_before_a_query_is_in_its_answer() {
    let mut world = world();
    world.held = true;
    world.say(1, &message(ROMEO, "a"));
    world.say(1, &query("", ""));
    world.held = false;
    world.answer();
    let results = world.got(1);
    assert!(results[0].contains("<body>a</body>"), "{results:?}");
}

#[test]
fn queries_wait_their_turn_up_to_a_bound() {
    let mut world = world();
    world.say(2, &message(JULIET, "a"));
    world.drain(1);
    world.held = true;
    let bound = Limits::default().archive_queries;
    for _ in 0..bound + 2 {
        world.say(1, &query("", ""));
    }
    let refused = world.got(1);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("<resource-constraint"), "{refused:?}");
    assert_eq!(world.waiting.len(), 1, "one at a time");
    world.held = false;
    world.answer();
    assert_eq!(world.bodies(1).len(), bound + 1);
}

#[test]
fn a_store_that_fails_is_an_error_and_not_an_empty_archive() {
    let mut world = world();
    world.say(2, &message(JULIET, "a"));
    world.drain(1);
    world.held = true;
    world.say(1, &query("", ""));
    world.fail_store();
    let got = world.got(1);
    assert!(
        got[0].contains("type='wait'") && got[0].contains("<internal-server-error"),
        "{got:?}"
    );
    world.held = false;
    assert_eq!(world.archive(1, "", "").0.len(), 1);
}

#[test]
fn others_do_not_get_at_an_archive() {
    let mut world = world();
    world.say(
        2,
        &query("", "").replace("id='q'", "id='q' to='juliet@example.com'"),
    );
    assert!(world.got(2)[0].contains("type='error'"));
}

const NEVER: &str = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/>\
                     <never><jid>romeo@example.com</jid></never></prefs>";

#[test]
fn preferences_decide_what_is_archived_and_not_what_is_delivered() {
    let mut world = world();
    world.say(
        1,
        "<iq type='get' id='p'><prefs xmlns='urn:xmpp:mam:2'/></iq>",
    );
    let initial = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>";
    assert!(world.got(1)[0].contains(initial));
    let set = world.prefs(1, NEVER);
    assert!(
        set.contains("type='result'") && set.contains(NEVER),
        "{set}"
    );
    world.say(2, &message(JULIET, "live"));
    let live = world.got(1).remove(0);
    assert!(
        live.contains("<body>live</body>") && id(&live, JULIET).is_none(),
        "{live}"
    );
    world.say(1, &message(ROMEO, "sent"));
    world.pipe(1, PipeEvent::Closed { clean: true });
    world.say(2, &message(JULIET, "late"));
    world = world.killed();
    world.bind(3, JULIET, "balcony");
    world.say(3, "<presence/>");
    let got = world.got(3);
    let late = got
        .iter()
        .find(|xml| xml.contains("<body>late</body>"))
        .unwrap();
    assert!(id(late, JULIET).is_none(), "{late}");
    assert!(world.archive(3, "", "").0.is_empty());
    // They outlive the server, and Romeo's are his own.
    world.say(
        3,
        "<iq type='get' id='p'><prefs xmlns='urn:xmpp:mam:2'/></iq>",
    );
    assert!(world.read_all(3)[0].contains(NEVER));
    world.online(4, ROMEO, "orchard");
    assert_eq!(
        bodies(&world.archive(4, "", "").0),
        ["live", "sent", "late"]
    );
    let refused = world.prefs(3, "<prefs xmlns='urn:xmpp:mam:2' default='perhaps'/>");
    assert!(refused.contains("<bad-request"), "{refused}");
}

#[test]
fn only_contacts_are_archived_where_that_is_wanted() {
    let mut world = world();
    world.prefs(1, "<prefs xmlns='urn:xmpp:mam:2' default='roster'/>");
    world.say(2, &message(JULIET, "a stranger"));
    world.say(1, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='romeo@example.com'/></query></iq>");
    world.say(2, &message(JULIET, "a friend"));
    world.drain(1);
    assert_eq!(bodies(&world.archive(1, "", "").0), ["a friend"]);
}

#[test]
fn a_change_that_another_node_got_ahead_of_is_made_on_top() {
    let mut world = world();
    let juliet = BareJid::parse(JULIET).unwrap();
    let key = accounts::key(&juliet.owner(), Row::Settings);
    let item = Item::new(key.clone(), Attrs::new().with("x", "another's")).versioned(1);
    let op = Op::Put {
        item,
        condition: Condition::Absent,
        nonce: 1,
    };
    finish(world.table.apply(op)).unwrap();
    assert!(world.prefs(1, NEVER).contains("type='result'"));
    let row = finish(world.table.apply(Op::Get { key: key.into() })).unwrap();
    let Outcome::Item(Some(row)) = row else {
        panic!("{row:?}");
    };
    assert_eq!((row.attrs.get_s("x"), row.version), (Some("another's"), 2));
    world.held = true;
    world.say(1, &format!("<iq type='set' id='p'>{NEVER}</iq>"));
    world.fail_store();
    assert!(world.got(1)[0].contains("type='wait'"));
}

#[test]
fn hints_are_heeded() {
    let mut world = world();
    let hinted = |body: &str, hint: &str| {
        format!(
            "<message to='juliet@example.com' type='chat'><body>{body}</body>\
             <{hint} xmlns='urn:xmpp:hints'/></message>"
        )
    };
    let said = [
        ("a", "no-permanent-store"),
        ("b", "no-store"),
        ("c", "store"),
    ];
    for (body, hint) in said {
        world.say(2, &hinted(body, hint));
    }
    let ids: Vec<_> = world
        .read_all(1)
        .iter()
        .map(|xml| id(xml, JULIET).is_some())
        .collect();
    assert_eq!(ids, [false, false, true]);
    world.pipe(1, PipeEvent::Closed { clean: true });
    for (body, hint) in said {
        world.say(2, &hinted(body, hint));
    }
    world.bind(3, JULIET, "balcony");
    world.say(3, "<presence/>");
    assert_eq!(
        world.bodies(3),
        ["a", "c"],
        "what is not to be stored is gone"
    );
    assert_eq!(bodies(&world.archive(3, "", "").0), ["c", "c"]);
}

/// The price that is promised: one put in each archive, and one unit each where at most 1,000
/// bytes are stored, the item's key and attributes included.
#[test]
fn a_message_costs_two_units() {
    let mut world = world();
    world.held = true;
    let mut largest = 0;
    for length in (0..2_000).step_by(25) {
        world.say(
            1,
            &message(ROMEO, "x").replace(">x<", &format!(">{}<", "x".repeat(length))),
        );
        let puts = std::mem::take(&mut world.waiting);
        assert_eq!(puts.len(), 2, "one put in each archive, and nothing else");
        let mut units = Vec::new();
        let mut bytes = 0;
        for (token, op) in puts {
            assert!(matches!(op, Op::Put { .. }), "{op:?}");
            let answer = world.table.apply_now(op);
            units.push(answer.usage.write_units);
            bytes = answer.usage.written.max(bytes);
            let result = answer.result;
            world.event(Event::Store { token, result });
        }
        let expected = u32::try_from(bytes.div_ceil(1_024)).unwrap();
        assert_eq!(units, [expected; 2], "{bytes} bytes");
        if bytes <= 1_000 {
            assert_eq!(units, [1, 1]);
            largest = length;
        }
        world.read_all(1);
        world.read_all(2);
    }
    assert!(largest >= 700, "a text of {largest} bytes has that price");
}

/// What came while nobody was there may wait for the next write, but not a client for that.
#[test]
fn a_query_does_not_wait_for_a_receipt() {
    let mut world = World::new(&[JULIET, ROMEO]);
    world.online(1, JULIET, "balcony");
    world.say(
        1,
        &format!(
            "<message to='{ROMEO}' type='chat' id='r'>\
             <received xmlns='urn:xmpp:receipts' id='x'/></message>"
        ),
    );
    world.bind(2, ROMEO, "orchard");
    world.drain(2);
    world.say(2, &query("", ""));
    let got = world.got(2);
    assert!(got.iter().any(|xml| xml.contains("<fin ")), "{got:?}");
}

/// A put of the former owner lands when the account is erased, and somebody else has the name.
#[test]
fn what_an_erased_account_left_is_not_in_the_archive_of_the_next() {
    let mut world = world();
    world.say(1, &message(ROMEO, "theirs"));
    let (theirs, _) = world.archive(1, "", "");
    let user = BareJid::parse(JULIET).unwrap();
    let owner = user.owner();
    let put = |world: &World, item: Item| {
        let op = Op::Put {
            item,
            condition: Condition::Any,
            nonce: 1,
        };
        finish(world.table.apply(op)).unwrap();
    };
    let get =
        |world: &World, key: cirrus_store::Key| match finish(world.table.apply(Op::Get { key })) {
            Ok(Outcome::Item(Some(item))) => item,
            other => panic!("{other:?}"),
        };
    let stray = get(&world, archive::hot(&owner, 1).into());
    let erased = user.clone();
    world.event(Event::Erase {
        user: erased,
        token: 1,
    });
    assert_eq!(world.done.pop(), Some(Ok(())));
    let floor = get(&world, cluster::erased(&owner).into());
    let floor = floor.attrs.get_n("p").unwrap();
    let last = Item {
        key: archive::hot(&owner, floor).into(),
        ..stray.clone()
    };
    put(&world, stray);
    put(&world, last);
    let key = accounts::key(&owner, Row::Credentials);
    put(
        &world,
        Item::new(key, Attrs::new().with("v", 1u64).with("f", floor)),
    );
    for _ in 0..2 {
        world = world.killed();
        world.online(2, ROMEO, "orchard");
        world.online(1, JULIET, "balcony");
        world.say(1, &message(ROMEO, "mine"));
        world.read_all(1);
    }
    let (all, fin) = world.archive(1, "", "");
    assert_eq!(bodies(&all), ["mine", "mine"], "{fin}");
    assert!(fin.contains("complete='true'"), "{fin}");
    let ask = "<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>";
    world.say(1, ask);
    let told = world.read_all(1).pop().unwrap();
    let (first, last) = (&all[0].1, &all[1].1);
    assert!(told.contains(&format!("<start id='{first}'")), "{told}");
    assert!(told.contains(&format!("<end id='{last}'")), "{told}");
    let old = format!("<after>{}</after>", theirs[0].1);
    world.say(1, &query("", &old));
    let told = world.read_all(1).pop().unwrap();
    assert!(told.contains("<item-not-found"), "{told}");
}
