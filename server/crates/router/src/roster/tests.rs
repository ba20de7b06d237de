//! The roster against a store in memory: what is planned, written, loaded again.

mod steps;
mod subscriptions;

use std::collections::BTreeMap;

use cirrus_stanza::ns;
use cirrus_store::{Outcome, StoreError};
use cirrus_xml::Element;

use super::*;

const NOW: u64 = 1_795_488_480_000;

/// The rosters table, by the rules of the store's contract.
#[derive(Default)]
struct Rows {
    items: BTreeMap<Key, Item>,
    writes: usize,
}

impl Rows {
    fn apply(&mut self, op: Op) -> Result<Outcome, StoreError> {
        self.writes += 1;
        let (key, condition) = match &op {
            Op::Put {
                item, condition, ..
            } => (item.key.clone(), *condition),
            Op::Delete { key, condition } => (key.clone(), *condition),
            other => panic!("{other:?}"),
        };
        let existing = self.items.get(&key);
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => existing.is_none(),
            Condition::Version(version) => existing.is_some_and(|item| item.version == version),
        };
        if !holds {
            let existing = existing.cloned().map(Box::new);
            return Err(StoreError::Conflict { key, existing });
        }
        match op {
            Op::Put { item, .. } => {
                assert!(
                    existing.is_none_or(|old| old.version < item.version),
                    "{key}"
                );
                self.items.insert(key, item);
                Ok(Outcome::Put)
            }
            _ => {
                self.items.remove(&key);
                Ok(Outcome::Deleted)
            }
        }
    }

    fn load(&self) -> Loaded {
        let items: Vec<Item> = self.items.values().cloned().collect();
        Roster::load(&owner(), limits(), &items).unwrap()
    }
}

/// A roster and the table under it.
struct User {
    roster: Roster,
    rows: Rows,
    now: u64,
}

impl User {
    fn new() -> Self {
        Self {
            roster: Roster::new(&owner(), limits()),
            rows: Rows::default(),
            now: NOW,
        }
    }

    /// Writes and commits a plan; what the memory shows is what the table has.
    fn carry_out(&mut self, planned: Result<Planned, RosterError>) -> Done {
        let mut planned = planned.unwrap();
        let before = self.rows.writes;
        if let Some(op) = planned.write.take() {
            assert!(self.roster.is_busy());
            let result = self.rows.apply(op);
            assert!(planned.is_written(&result), "{result:?}");
        }
        let mut done = self.roster.commit(planned);
        if done.push.is_some() {
            assert_eq!(self.rows.writes - before, 1, "one write per push");
        }
        self.check_loaded();
        if let Some(op) = done.cleanup.take() {
            self.rows.apply(op).unwrap();
            self.check_loaded();
        }
        done
    }

    fn check_loaded(&self) {
        let loaded = self.rows.load().roster;
        assert_eq!(loaded.contacts, self.roster.contacts);
        assert_eq!(loaded.tombstones, self.roster.tombstones);
        assert_eq!(loaded.requests, self.roster.requests);
        assert_eq!(loaded.unsent(), self.roster.unsent());
    }

    fn set(&mut self, jid: &str, name: &str, groups: &[&str]) -> Done {
        let groups = groups.iter().map(|group| (*group).into()).collect();
        let set = Set::Update {
            jid: bare(jid),
            name: Some(name.into()),
            groups,
        };
        self.now += 1;
        let planned = self.roster.plan_set(self.now, 1, set);
        self.carry_out(planned)
    }

    fn remove(&mut self, jid: &str) -> Done {
        self.now += 1;
        let planned = self
            .roster
            .plan_set(self.now, 1, Set::Remove { jid: bare(jid) });
        self.carry_out(planned)
    }

    fn outbound(&mut self, jid: &str, kind: Kind) -> Done {
        self.now += 1;
        let planned = self.roster.plan_outbound(self.now, 1, &bare(jid), kind);
        self.carry_out(planned)
    }

    fn inbound(&mut self, jid: &str, kind: Kind) -> Done {
        self.now += 1;
        let planned = self
            .roster
            .plan_inbound(self.now, 1, &bare(jid), kind, b"<presence/>", None);
        self.carry_out(planned)
    }

    /// A stanza of a home that numbers them.
    fn numbered(&mut self, jid: &str, kind: Kind, number: u64) -> Done {
        self.now += 1;
        let number = Some(number);
        let planned =
            self.roster
                .plan_inbound(self.now, 1, &bare(jid), kind, b"<presence/>", number);
        self.carry_out(planned)
    }

    fn confirm(&mut self, jid: &str, kind: Kind) -> bool {
        let number = self.roster.number(&bare(jid), kind);
        match self
            .roster
            .plan_confirmed(1, &bare(jid), kind, number)
            .unwrap()
        {
            None => false,
            Some(planned) => {
                let done = self.carry_out(Ok(planned));
                assert!(done.push.is_none() && !done.pass && done.sends.is_empty());
                assert_eq!(done.before, done.after);
                true
            }
        }
    }

    fn state(&self, jid: &str) -> State {
        self.roster.state(&bare(jid))
    }

    fn unsent(&self) -> Vec<Kind> {
        self.roster
            .unsent()
            .into_iter()
            .map(|(_, kind)| kind)
            .collect()
    }
}

fn owner() -> BareJid {
    bare("juliet@example.com")
}

fn bare(jid: &str) -> BareJid {
    BareJid::parse(jid).unwrap()
}

fn limits() -> Limits {
    Limits {
        items: 4,
        requests: 3,
        request_bytes: 32,
        ..Limits::default()
    }
}

fn item_of(push: &Push) -> (String, String) {
    let query = Element::parse(&push.query, ns::CLIENT).unwrap();
    assert_eq!(query.attr("ver").unwrap(), push.version.to_string());
    let item = query.child("item", ns::ROSTER).unwrap();
    let attr = |name| item.attr(name).unwrap_or_default().into_owned();
    (attr("jid"), attr("subscription"))
}

#[test]
fn a_contact_is_added_changed_and_removed() {
    let mut user = User::new();
    let done = user.set("romeo@example.net", "Romeo", &["Friends"]);
    let added = done.push.unwrap();
    assert_eq!(item_of(&added), ("romeo@example.net".into(), "none".into()));
    assert_eq!(added.version, NOW + 1);
    let renamed = user.set("romeo@example.net", "R", &[]).push.unwrap();
    assert!(renamed.version > added.version);
    assert_eq!(
        user.roster
            .contact(&bare("romeo@example.net"))
            .unwrap()
            .name,
        Some("R".into())
    );
    let gone = user.remove("romeo@example.net");
    assert_eq!(
        item_of(&gone.push.unwrap()),
        ("romeo@example.net".into(), "remove".into())
    );
    assert!(gone.sends.is_empty(), "there was no subscription to end");
    assert_eq!(user.roster.contacts().count(), 0);
    let unknown = user.roster.plan_set(
        user.now,
        1,
        Set::Remove {
            jid: bare("romeo@example.net"),
        },
    );
    assert_eq!(
        unknown.unwrap_err(),
        RosterError::Unknown("romeo@example.net".into())
    );
    // The tombstone's row is written over.
    user.set("romeo@example.net", "again", &[]);
    assert_eq!(
        (user.rows.items.len(), user.roster.tombstones.len()),
        (1, 0)
    );
}

#[test]
fn clients_get_changes_the_roster_or_nothing() {
    let mut user = User::new();
    assert!(matches!(user.roster.fetch(NOW, None), Fetched::Full(_)));
    for name in ["a@b", "c@d", "e@f", "g@h"] {
        user.set(name, "x", &[]);
    }
    let known = user.roster.version();
    let ver = known.to_string();
    let fetch = |user: &User, ver: &str| user.roster.fetch(user.now, Some(ver));
    assert_eq!(fetch(&user, &ver), Fetched::Changes(vec![]));
    user.set("c@d", "y", &[]);
    user.remove("a@b");
    let Fetched::Changes(pushes) = fetch(&user, &ver) else {
        panic!("not changes")
    };
    let items: Vec<_> = pushes.iter().map(item_of).collect();
    let expected = [
        ("c@d".into(), "none".into()),
        ("a@b".into(), "remove".into()),
    ];
    assert_eq!(items, expected, "in the order of versions");
    assert!(pushes[0].version < pushes[1].version);
    for odd in [
        "",
        "ver14",
        "-1",
        "99999999999999999999",
        &(user.now * 2).to_string(),
        "1",
    ] {
        assert!(matches!(fetch(&user, odd), Fetched::Full(_)), "{odd:?}");
    }
    // Many changes are sent as what they amount to.
    user.set("e@f", "z", &[]);
    user.set("g@h", "z", &[]);
    assert!(matches!(fetch(&user, &ver), Fetched::Full(_)));
    // What a client knows for 90 days is forgotten.
    let late = user.roster.version() + TOMBSTONE_MS;
    let current = user.roster.version().to_string();
    assert_eq!(
        user.roster.fetch(late - 1, Some(&current)),
        Fetched::Changes(vec![])
    );
    assert!(matches!(
        user.roster.fetch(late, Some(&current)),
        Fetched::Full(_)
    ));
}

#[test]
fn versions_rise_when_the_clock_does_not() {
    let mut user = User::new();
    let mut last = 0;
    for now in [NOW, NOW, NOW - 5_000, NOW - 5_000, NOW + 5] {
        let set = Set::Update {
            jid: bare("a@b"),
            name: None,
            groups: Box::default(),
        };
        let planned = user.roster.plan_set(now, 1, set);
        let version = user.carry_out(planned).push.unwrap().version;
        assert!(version > last);
        assert_eq!(user.roster.version(), version);
        last = version;
    }
    assert_eq!(last, NOW + 5);
}

#[test]
fn one_change_at_a_time_and_none_on_a_stale_roster() {
    let mut user = User::new();
    let set = || Set::Update {
        jid: bare("a@b"),
        name: None,
        groups: Box::default(),
    };
    let planned = user.roster.plan_set(NOW, 1, set()).unwrap();
    assert_eq!(
        user.roster.plan_set(NOW, 1, set()).unwrap_err(),
        RosterError::Busy
    );
    let place = || cirrus_store::Place::Table(TableId::Rosters);
    user.roster.abort(
        planned,
        &StoreError::Throttled {
            place: place(),
            source: None,
        },
    );
    assert_eq!(user.roster.contacts().count(), 0, "nothing changed");
    let planned = user.roster.plan_set(NOW, 1, set()).unwrap();
    user.roster.abort(
        planned,
        &StoreError::Timeout {
            place: place(),
            source: None,
        },
    );
    assert!(user.roster.is_stale());
    assert_eq!(
        user.roster.plan_set(NOW, 1, set()).unwrap_err(),
        RosterError::Stale
    );
}

#[test]
fn another_writer_is_noticed() {
    let mut user = User::new();
    user.set("a@b", "x", &[]);
    let mut other = User {
        roster: user.rows.load().roster,
        rows: Rows::default(),
        now: NOW + 9,
    };
    let mut planned = other
        .roster
        .plan_outbound(NOW + 9, 1, &bare("a@b"), Kind::Subscribe)
        .unwrap();
    user.rows.apply(planned.write.take().unwrap()).unwrap();
    let set = Set::Update {
        jid: bare("a@b"),
        name: None,
        groups: Box::default(),
    };
    let mut planned = user.roster.plan_set(NOW + 99, 1, set).unwrap();
    let result = user.rows.apply(planned.write.take().unwrap());
    assert!(!planned.is_written(&result));
    user.roster.abort(planned, &result.unwrap_err());
    assert!(user.roster.is_stale());
    assert_eq!(user.rows.load().roster.state(&bare("a@b")), State::NONE_OUT);
}

#[test]
fn a_deleted_request_may_be_gone_already() {
    let mut user = User::new();
    user.inbound("a@b", Kind::Subscribe);
    let planned = user
        .roster
        .plan_inbound(NOW + 9, 1, &bare("a@b"), Kind::Unsubscribe, b"", None);
    let mut planned = planned.unwrap();
    let op = planned.write.take().unwrap();
    user.rows.apply(op.clone()).unwrap();
    // The first try had succeeded unseen.
    assert!(planned.is_written(&user.rows.apply(op)));
    let done = user.roster.commit(planned);
    assert_eq!(
        (done.after, done.sends),
        (State::NONE, vec![Kind::Unsubscribed])
    );
    user.check_loaded();
}

#[test]
fn everything_is_bounded() {
    let mut user = User::new();
    for n in 0..4 {
        user.set(&format!("c{n}@b"), "x", &[]);
    }
    let full = RosterError::Full { limit: 4 };
    let set = |n: usize| Set::Update {
        jid: bare(&format!("c{n}@b")),
        name: None,
        groups: Box::default(),
    };
    assert_eq!(user.roster.plan_set(NOW, 1, set(4)).unwrap_err(), full);
    let asked = user
        .roster
        .plan_outbound(NOW, 1, &bare("x@y"), Kind::Subscribe);
    assert_eq!(asked.unwrap_err(), full);
    // Adding and removing is bounded too, until the tombstones expire.
    let mut n = 4;
    let refused = loop {
        user.remove(&format!("c{}@b", n - 4));
        let planned = user.roster.plan_set(user.now + 1, 1, set(n));
        match planned {
            Ok(planned) => user.carry_out(Ok(planned)),
            Err(error) => break error,
        };
        n += 1;
    };
    assert_eq!((refused, n), (full, 8));
    assert!(
        user.roster
            .plan_set(user.now + 2 * TOMBSTONE_MS, 1, set(8))
            .is_ok()
    );

    let mut user = User::new();
    user.inbound("a@b", Kind::Subscribe);
    user.inbound("c@d", Kind::Subscribe);
    user.inbound("e@f", Kind::Subscribe);
    let more = user
        .roster
        .plan_inbound(NOW, 1, &bare("g@h"), Kind::Subscribe, b"", None);
    assert_eq!(more.unwrap_err(), RosterError::RequestsFull { limit: 3 });
    let mut user = User::new();
    let large = user
        .roster
        .plan_inbound(NOW, 1, &bare("e@f"), Kind::Subscribe, &[b' '; 33], None);
    assert_eq!(
        large.unwrap_err(),
        RosterError::RequestTooLong {
            given: 33,
            limit: 32
        }
    );
}

#[test]
fn the_query_reads_the_whole_partition() {
    let Op::Query {
        table,
        pk,
        range,
        limit,
        ..
    } = Roster::query(&owner(), None)
    else {
        panic!("not a query")
    };
    assert_eq!(
        (table, range, limit),
        (TableId::Rosters, SkRange::All, None)
    );
    assert_eq!(pk, rosters::partition(b"example.com\0juliet"));
}
