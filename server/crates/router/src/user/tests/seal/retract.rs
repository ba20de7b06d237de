//! Messages are retracted (XEP-0424), wherever they are by then.

use super::super::archive::{between, query};
use super::*;
use crate::codec::OLDEST;

/// A retraction of the message with that id, with an id of its own.
fn retraction(to: &str, target: &str, id: &str) -> String {
    format!(
        "<message to='{to}' type='chat' id='{id}'><retract id='{target}' \
         xmlns='urn:xmpp:message-retract:1'/><body>{id}</body></message>"
    )
}

impl Sealed {
    fn retract(&mut self, pipe: u64, to: &str, target: &str, id: &str) {
        self.world.say(pipe, &retraction(to, target, id));
        self.world.read_all(1);
        self.world.read_all(2);
    }

    /// What is shown of an archive, page by page: bodies, and of what was retracted a dash and the
    /// retraction's id.
    fn shown_to(&mut self, pipe: u64, fields: &str) -> Vec<String> {
        let (mut all, mut set) = (Vec::new(), String::new());
        loop {
            self.world
                .say(pipe, &query(fields, &format!("<max>7</max>{set}")));
            let mut got = self.world.read_all(pipe);
            let end = got.pop().unwrap();
            assert!(end.contains("<fin"), "{end}");
            for xml in &got {
                let left = between(xml, "message-retract:1' id='", "' stamp=");
                let body = between(xml, "<body>", "</body>").map(str::to_owned);
                let left = left.map(|id| format!("-{id}"));
                assert!(left.is_none() || body.is_none(), "{xml}");
                all.push(left.or(body).unwrap());
            }
            if end.contains("complete='true'") {
                return all;
            }
            let last = between(got.last().unwrap(), "queryid='f' id='", "'").unwrap();
            set = format!("<after>{last}</after>");
        }
    }

    fn shown(&mut self) -> Vec<String> {
        self.shown_to(1, "")
    }

    fn tombstones(&self) -> usize {
        self.rows(archive::tombstone_sk(0), archive::tombstone_sk(u64::MAX))
    }

    /// Everything that the objects of Juliet say whose names have that.
    fn stored(&self, part: &str) -> String {
        let mut text = String::new();
        let names = self.segments().into_iter();
        for name in names.filter(|name| name.contains(part)) {
            let at = cirrus_store::BlobKey::new(BucketId::Data, name);
            let op = BlobOp::Get { at, range: None };
            let Ok(BlobOutcome::Body(Some(object))) = self.world.blobs.apply_now(op) else {
                panic!("no object");
            };
            let records: Vec<_> = match crate::segment::Segment::open(object.clone()) {
                Ok(segment) => segment.records(&(0..u64::MAX)).unwrap(),
                Err(_) => crate::segment::read_digest(&object, None)
                    .unwrap()
                    .into_values()
                    .flatten()
                    .collect(),
            };
            for (_, record) in records {
                if let Some(message) = record.as_message() {
                    text.push_str(std::str::from_utf8(&message.stanza).unwrap());
                }
            }
        }
        text
    }

    fn stores(&self, n: u64) -> bool {
        self.stored("").contains(&format!("<body>{n}</body>"))
    }

    /// Whether a digest says it.
    fn copies(&self, n: u64) -> bool {
        self.stored("/d-").contains(&format!("<body>{n}</body>"))
    }
}

/// The numbers, with what was retracted in the place of some.
fn numbers(upto: u64, left: &[(u64, &str)]) -> Vec<String> {
    (1..=upto)
        .map(|n| {
            let left = left.iter().find(|(retracted, _)| *retracted == n);
            left.map_or(n.to_string(), |(_, id)| format!("-{id}"))
        })
        .collect()
}

#[test]
fn both_archives_show_that_a_message_was_retracted() {
    let mut it = Sealed::new(1_000);
    it.say(1, 5);
    it.retract(1, ROMEO, "3", "r");
    let mut expected = numbers(5, &[(3, "r")]);
    expected.push("r".into());
    assert_eq!(it.shown(), expected);
    assert_eq!(it.shown_to(2, ""), expected);
    it.world.say(2, &query("", "<max>3</max>"));
    let got = it.world.read_all(2);
    let stamp = cirrus_stanza::stamp(it.world.now);
    let message = format!(
        "<message xmlns='jabber:client' type='chat' id='3' to='{ROMEO}' from='{JULIET}/balcony'>\
         <retracted xmlns='urn:xmpp:message-retract:1' id='r' stamp='{stamp}'/>"
    );
    assert!(got[2].contains(&message), "{}", got[2]);
}

/// Only its author retracts a message, in the conversation that it belongs to, and a retraction is
/// never replaced itself.
#[test]
fn nobody_retracts_what_others_say() {
    let mut it = Sealed::new(1_000);
    it.say(1, 3);
    it.retract(2, JULIET, "2", "a");
    it.retract(1, NURSE, "2", "b");
    it.world.say(2, &message(JULIET, "4"));
    it.retract(1, ROMEO, "4", "c");
    it.retract(1, ROMEO, "c", "d");
    let room = "<x xmlns='http://jabber.org/protocol/muc#user'/></message>";
    let said = retraction(ROMEO, "1", "e").replace("</message>", room);
    it.world.say(1, &said);
    it.world.read_all(1);
    it.world.read_all(2);
    let expected = ["1", "2", "3", "a", "b", "4", "c", "d", "e"];
    assert_eq!(it.shown(), expected);
    let expected = ["1", "2", "3", "a", "4", "c", "d", "e"];
    assert_eq!(it.shown_to(2, ""), expected);
    assert_eq!(it.tombstones(), 0);
}

/// The newest message with an id is meant, and the first retraction of a message counts; whether
/// they are found in the log or in one segment makes no difference.
#[test]
fn an_id_that_was_used_twice_means_the_newest() {
    for size in [1_000, 16] {
        let mut it = Sealed::new(size);
        it.say(1, 2);
        it.say(1, 1);
        it.retract(1, ROMEO, "1", "a");
        it.retract(1, ROMEO, "1", "b");
        it.say(1, 1);
        let expected = ["1", "2", "-a", "a", "b", "1"];
        assert_eq!(it.shown(), expected);
        it.due().unwrap();
        assert_eq!(it.shown(), expected);
        assert_eq!(it.shown_to(2, ""), expected);
        assert_eq!(it.tombstones(), 0);
    }
}

#[test]
fn what_is_sealed_later_is_sealed_without_it() {
    let mut it = Sealed::new(16);
    it.say(1, 15);
    it.retract(1, ROMEO, "5", "r");
    assert!(!it.stores(5) && it.stores(6));
    assert_eq!((it.index(), it.tombstones()), (1, 0));
    it.say(16, 20);
    it.due().unwrap();
    it.retract(1, ROMEO, "18", "s");
    assert_eq!(it.tombstones(), 1);
    let mut expected = numbers(20, &[(5, "r"), (18, "s")]);
    expected.insert(15, "r".into());
    expected.push("s".into());
    assert_eq!(it.shown(), expected);
    assert!(it.stores(18), "it is sealed, and the index says so");
    // The segment is taken into the next one.
    it.due().unwrap();
    assert!(!it.stores(18));
    assert_eq!((it.index(), it.tombstones()), (2, 0));
    it.pass(100 * DAY_MS);
    it.world = it.world.killed();
    it.online();
    assert_eq!(it.shown(), expected);
    assert_eq!(it.world.home.census().tally.unreadable, 0);
}

#[test]
fn joined_segments_are_written_without_it() {
    let mut it = Sealed::new(4);
    it.say(1, 40);
    it.retract(1, ROMEO, "30", "r");
    assert!(it.tombstones() == 1 && it.stores(30));
    it.say(41, 68);
    assert_eq!(it.index(), 2, "sixteen are joined");
    assert!(!it.stores(30) && it.stores(6));
    assert_eq!(it.tombstones(), 0, "Romeo is in no digest");
    let mut expected = numbers(68, &[(30, "r")]);
    expected.insert(40, "r".into());
    assert_eq!(it.shown(), expected);
    // What is joined already stays, and the index says so.
    it.retract(1, ROMEO, "6", "s");
    assert!(it.tombstones() == 1 && it.stores(6));
    expected[5] = "-s".into();
    expected.push("s".into());
    assert_eq!(it.shown(), expected);
    it.world = it.world.killed();
    it.online();
    assert_eq!(it.shown(), expected);
}

/// What is in a digest, and what only comes into the next one. The row stays as long as a digest
/// may have a copy.
#[test]
fn digests_do_not_show_it() {
    for (target, other) in [(34, 68), (68, 34)] {
        let mut it = Sealed::new(4);
        it.say_some_to_nurse(1, 80);
        assert!(it.digests() == 1 && it.copies(34) && !it.copies(68));
        it.retract(1, NURSE, &target.to_string(), "r");
        let with = format!("<field var='with'><value>{NURSE}</value></field>");
        let mut expected = vec!["34", "68", "r"];
        expected[usize::from(target == 68)] = "-r";
        assert_eq!(it.shown_to(1, &with), expected);
        it.say_some_to_nurse(81, 200);
        assert!(!it.copies(target) && it.copies(other));
        assert_eq!(it.tombstones(), 1);
        expected.extend(["102", "136", "170"]);
        assert_eq!(it.shown_to(1, &with), expected);
        it.world = it.world.killed();
        it.online();
        assert_eq!(it.shown_to(1, &with), expected);
    }
}

/// A retraction costs its put, a read and a row in each archive, and where nothing is found four
/// reads.
#[test]
fn what_a_retraction_costs() {
    let mut it = Sealed::new(4);
    it.say(1, 41);
    it.shown();
    it.shown_to(2, "");
    let cost = |it: &mut Sealed, target: &str, id: &str| {
        let (before, rows) = (it.world.asked, it.tombstones());
        it.retract(1, ROMEO, target, id);
        (it.world.asked - before, it.tombstones() - rows)
    };
    assert_eq!(cost(&mut it, "41", "a"), (2 * 3, 1), "a moment ago");
    let (asked, rows) = cost(&mut it, "39", "b");
    assert!(asked <= 2 * 4 + 8 && rows == 1, "{asked}: sealed before");
    it.say(42, 44);
    let (asked, rows) = cost(&mut it, "1", "c");
    assert!(asked <= 2 * 5 + 8 && rows == 0, "{asked}: long ago");
}

/// The store fails at every step, one after the other; and so dies the home.
#[test]
fn every_step_of_a_retraction_can_fail() {
    for (step, dies) in (1..24).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(16);
        it.say(1, 24);
        it.world.fails = Some(it.world.asked + step);
        it.retract(1, ROMEO, "20", "r");
        it.retract(1, ROMEO, "3", "s");
        it.world.fails = None;
        if dies {
            it.world = it.world.killed();
            it.online();
        }
        for _ in 0..4 {
            it.pass(1_000);
        }
        let shown = it.shown();
        let has = |shown: &[String], id: &str| shown.iter().any(|it| it == id);
        if !dies {
            let left = [(20, "r"), (3, "s")];
            assert_eq!(shown[..24], numbers(24, &left), "step {step}");
            assert!(has(&shown, "r") && has(&shown, "s"), "step {step}");
        }
        // Nothing is hidden without a retraction that says so.
        for id in ["r", "s"] {
            let gone = has(&shown, &format!("-{id}"));
            assert!(!gone || has(&shown, id), "step {step}: {shown:?}");
        }
        let found_here = has(&shown, "r");
        drop(it.due());
        it.pass(2 * DAY_MS);
        it.due().unwrap();
        it.no_row_is_without_its_object();
        let sealed = it.shown();
        assert_eq!(sealed.len(), shown.len(), "step {step}");
        assert!(!found_here || has(&sealed, "-r"), "step {step}: {sealed:?}");
        assert!(!found_here || !it.stores(20), "step {step}");
        assert!(has(&sealed, "-s") || !has(&shown, "-s"), "step {step}");
    }
}

/// The same of segments that are joined: it is shown as retracted all the time, and in the end it
/// is stored nowhere.
#[test]
fn every_step_of_a_joining_with_it_can_fail() {
    for (step, dies) in (1..90).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(4);
        it.say(1, 40);
        it.retract(1, ROMEO, "30", "r");
        it.say(41, 66);
        let mut expected = numbers(66, &[(30, "r")]);
        expected.insert(40, "r".into());
        assert!(it.shown() == expected && it.tombstones() == 1 && it.stores(30));
        it = it.say_interrupted((67, 71), step, dies);
        assert_eq!(it.shown()[..67], expected, "step {step}");
        it.say(72, 76);
        drop(it.due());
        it.pass(2 * DAY_MS);
        it.due().unwrap();
        assert_eq!(it.shown()[..67], expected, "step {step}");
        assert!(!it.stores(30) && it.stores(29), "step {step}");
        assert!(dies || it.tombstones() == 0, "step {step}");
        assert_eq!(it.world.home.census().tally.unreadable, 0, "step {step}");
    }
}

/// The same of a segment that is taken into the next one, and of the row that is then removed.
#[test]
fn every_step_of_sealing_without_it_can_fail() {
    let mut unspent = 0;
    for (step, dies) in (1..24).flat_map(|step| [(step, false), (step, true)]) {
        let mut it = Sealed::new(16);
        it.say(1, 20);
        it.due().unwrap();
        it.retract(1, ROMEO, "18", "r");
        let mut expected = numbers(20, &[(18, "r")]);
        expected.push("r".into());
        assert!(it.tombstones() == 1 && it.stores(18));
        it.world.fails = Some(it.world.asked + step);
        drop(it.due());
        it.world.fails = None;
        it.no_row_is_without_its_object();
        unspent += usize::from(!it.stores(18) && it.tombstones() == 1);
        if dies {
            it.world = it.world.killed();
            it.online();
        }
        assert_eq!(it.shown(), expected, "step {step}");
        it.pass(1_000);
        it.say(21, 22);
        it.due().unwrap();
        it.pass(2 * DAY_MS);
        it.due().unwrap();
        expected.truncate(21);
        expected.extend(["21", "22"].map(str::to_owned));
        assert_eq!(it.shown(), expected, "step {step}");
        assert!(!it.stores(18), "step {step}");
        assert_eq!((it.index(), it.tombstones()), (2, 0), "step {step}");
    }
    assert!(unspent > 0, "removing its row has failed");
}

/// What only an archive says is not taken from clients: neither that something was retracted, nor
/// in a way that keeps it from being so.
#[test]
fn nobody_says_in_the_archives_place_that_it_was_retracted() {
    let mut it = Sealed::new(1_000);
    let forged = "<retracted xmlns='urn:xmpp:message-retract:1' id='x' \
                  stamp='2026-01-01T00:00:00Z'><body>never said</body></retracted>";
    for content in ["<body>1</body>", ""] {
        it.world.say(
            1,
            &format!("<message to='{ROMEO}' type='chat' id='1'>{forged}{content}</message>"),
        );
        let got = it.world.read_all(2);
        assert!(got.len() == 1 && !got[0].contains("retracted"), "{got:?}");
    }
    it.world.read_all(1);
    assert_eq!(it.shown(), ["1"], "nothing is left of the other one");
    assert_eq!(it.shown_to(2, ""), ["1"]);
    it.retract(1, ROMEO, "1", "r");
    assert_eq!(it.shown(), ["-r", "r"]);
    // What a room shows is its own affair.
    let of_room =
        format!("<message to='{ROMEO}/orchard' type='groupchat' id='2'>{forged}</message>");
    it.world.say(1, &of_room);
    assert!(it.world.read_all(2)[0].contains("<retracted"));
}

/// While a node of the cluster is of the version before, a retraction is a message like others, and
/// nothing is kept that the older one does not know.
#[test]
fn a_cluster_of_an_older_format_only_archives_retractions() {
    let mut it = Sealed::new(4);
    it.world.home = Home::new(Arc::clone(&it.world.config), Territory::Everything);
    it.online();
    it.say(1, 3);
    it.retract(1, ROMEO, "2", "r");
    assert!(it.index() == 1 && it.stores(2));
    let kept = retraction(ROMEO, "1", "s");
    let passing = "<no-store xmlns='urn:xmpp:hints'/></message>";
    it.world.say(1, &kept.replace("</message>", passing));
    assert!(it.world.read_all(2)[0].contains("<no-store"));
    it.retract(1, ROMEO, "1", "t");
    it.due().unwrap();
    assert_eq!(it.shown(), ["1", "2", "3", "r", "t"]);
    assert_eq!(it.tombstones(), 0);
    let before = it.world.home.snapshot_in(OLDEST).unwrap();
    assert!(Home::restore(Arc::clone(&it.world.config), Territory::Everything, &before).is_ok());

    it.world.event(Event::Format(Only(FORMAT)));
    it.retract(1, ROMEO, "2", "u");
    assert_eq!(it.shown(), ["1", "-u", "3", "r", "t", "u"]);
    assert_eq!(it.tombstones(), 1);
}

#[test]
fn as_many_as_allowed_are_replaced() {
    let mut it = Sealed::new(4);
    let mut config = config();
    config.limits.seal_records = 4;
    config.limits.tombstones = 2;
    it.world.config = Arc::new(config);
    it.world = it.world.killed();
    it.online();
    it.say(1, 20);
    for n in 17..=19 {
        it.retract(1, ROMEO, &n.to_string(), &format!("r{n}"));
    }
    assert_eq!(it.tombstones(), 2);
    let mut expected = numbers(20, &[(17, "r17"), (18, "r18")]);
    expected.extend(["r17", "r18", "r19"].map(str::to_owned));
    assert_eq!(it.shown(), expected);
}

#[test]
fn tombstones_go_with_what_is_too_old_and_with_the_account() {
    let mut it = Sealed::keeping(4, 30);
    it.say(1, 8);
    it.retract(1, ROMEO, "2", "r");
    it.pass(10 * DAY_MS);
    it.say(9, 16);
    it.retract(1, ROMEO, "10", "s");
    it.due().unwrap();
    assert_eq!(it.tombstones(), 2);
    it.pass(21 * DAY_MS);
    it.due().unwrap();
    assert_eq!(it.tombstones(), 1);
    let expected = ["9", "-s", "11", "12", "13", "14", "15", "16", "s"];
    assert_eq!(it.shown(), expected);
    it.erase();
    assert_eq!(it.tombstones(), 0);
}

/// Who comes back gets no body of what was retracted meanwhile, if that is known.
#[test]
fn who_was_away_does_not_read_it() {
    let mut it = Sealed::new(1_000);
    it.world.pipe(2, PipeEvent::Closed { clean: true });
    it.say(1, 3);
    it.retract(1, ROMEO, "2", "r");
    it.world.bind(2, ROMEO, "orchard");
    it.world.say(2, "<presence/>");
    let got = it.world.read_all(2);
    let bodies = got
        .iter()
        .filter_map(|xml| between(xml, "<body>", "</body>"));
    assert_eq!(bodies.collect::<Vec<_>>(), ["1", "3", "r"]);
    let left = got.iter().find(|xml| xml.contains("<retracted")).unwrap();
    assert!(left.contains("id='2'") && left.contains("<delay"), "{left}");
}
