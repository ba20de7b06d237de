//! Each feature's answers, and the generated document.

use cirrus_jid::{BareJid, Jid};
use cirrus_router::registry::{About, AccountView};
use cirrus_router::{IqReply, IqRequest, Scope};
use cirrus_stanza::{Condition, Kind, Stanza, Ty};

use super::*;

const ALL: Offered = Offered {
    registration: true,
    archive: true,
    tombstones: true,
};
const NOW: u64 = 1_795_488_480_000;

fn about() -> About {
    About {
        name: "Cirrus".into(),
        version: "0.1.0".into(),
        domains: vec!["example.com".into()],
        registration: true,
    }
}

fn request(ty: Ty, content: &str) -> Stanza {
    Stanza::new(Kind::Iq, ty)
        .id("1")
        .from(Jid::parse("juliet@example.com/balcony").unwrap())
        .content(content.as_bytes().to_vec())
}

/// The server's answer: the content, or the error's condition.
fn at_server(ty: Ty, content: &str) -> Result<String, Condition> {
    ask(Scope::Server, None, &request(ty, content))
}

fn at_account(view: AccountView<'_>, ty: Ty, content: &str) -> Result<String, Condition> {
    ask(Scope::Account, Some(view), &request(ty, content))
}

fn ask(
    scope: Scope,
    account: Option<AccountView<'_>>,
    stanza: &Stanza,
) -> Result<String, Condition> {
    let registry = registry(ALL);
    let about = about();
    let handle = registry
        .route(scope, stanza)
        .ok_or(Condition::ServiceUnavailable)?;
    let request = IqRequest {
        stanza,
        host: "example.com",
        account,
        own: false,
        now_ms: NOW,
        started_ms: NOW - 90_000,
        registry: &registry,
        about: &about,
    };
    match handle(&request) {
        IqReply::Result(content) => Ok(String::from_utf8(content).unwrap()),
        IqReply::Error(error) => Err(error.condition),
        IqReply::Account(change) => Ok(format!("{change:?}")),
    }
}

fn view(jid: &BareJid, subscribed: bool, available: bool) -> AccountView<'_> {
    let resources = available
        .then(|| format!("{jid}/orchard"))
        .into_iter()
        .collect();
    let last_seen = Some((NOW - 5_000, "gone & away"));
    AccountView {
        jid,
        subscribed,
        available,
        last_seen,
        resources,
    }
}

#[test]
fn the_server_answers() {
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    assert_eq!(at_server(Ty::Get, ping).unwrap(), "");
    let time = at_server(Ty::Get, "<time xmlns='urn:xmpp:time'/>").unwrap();
    assert!(
        time.contains("<utc>2026-11-24T02:48:00.000Z</utc>"),
        "{time}"
    );
    let version = at_server(Ty::Get, "<query xmlns='jabber:iq:version'/>").unwrap();
    assert!(version.contains("<name>Cirrus</name>"), "{version}");
    let uptime = at_server(Ty::Get, "<query xmlns='jabber:iq:last'/>").unwrap();
    assert!(uptime.contains("seconds='90'"), "{uptime}");
    let unknown = at_server(Ty::Get, "<query xmlns='urn:unknown'/>");
    assert_eq!(unknown, Err(Condition::ServiceUnavailable));
    assert_eq!(at_server(Ty::Set, ping), Err(Condition::ServiceUnavailable));
}

#[test]
fn capabilities_stand_for_what_discovery_says() {
    let info = "http://jabber.org/protocol/disco#info";
    let plain = at_server(Ty::Get, &format!("<query xmlns='{info}'/>")).unwrap();
    assert!(plain.contains("<feature var='urn:xmpp:ping'/>"), "{plain}");
    let node = caps(&registry(ALL), &about()).node_ver();
    let asked = at_server(Ty::Get, &format!("<query xmlns='{info}' node='{node}'/>")).unwrap();
    assert_eq!(asked.replace(&format!(" node='{node}'"), ""), plain);
    let other = at_server(Ty::Get, &format!("<query xmlns='{info}' node='other'/>"));
    assert_eq!(other, Err(Condition::ItemNotFound));
}

#[test]
fn strangers_learn_nothing_of_an_account() {
    let jid = BareJid::parse("romeo@example.com").unwrap();
    let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let last = "<query xmlns='jabber:iq:last'/>";
    let stranger = at_account(view(&jid, false, true), Ty::Get, items);
    assert_eq!(stranger, Err(Condition::ServiceUnavailable));
    let friend = at_account(view(&jid, true, true), Ty::Get, items).unwrap();
    assert!(friend.contains("romeo@example.com/orchard"), "{friend}");
    let stranger = at_account(view(&jid, false, false), Ty::Get, last);
    assert_eq!(stranger, Err(Condition::Forbidden));
    let friend = at_account(view(&jid, true, false), Ty::Get, last).unwrap();
    assert_eq!(
        friend,
        "<query xmlns='jabber:iq:last' seconds='5'>gone &amp; away</query>"
    );
}

#[test]
fn registration_changes_only_the_own_account() {
    let set = |fields: &str| {
        at_server(
            Ty::Set,
            &format!("<query xmlns='jabber:iq:register'>{fields}</query>"),
        )
    };
    let changed = set("<username>juliet</username><password>secret</password>").unwrap();
    assert!(
        changed.contains("SetPassword") && !changed.contains("secret"),
        "{changed}"
    );
    assert!(set("<remove/>").unwrap().contains("Remove"));
    assert_eq!(set("<remove/><x xmlns='y'/>"), Err(Condition::BadRequest));
    let other = set("<username>romeo</username><password>secret</password>");
    assert_eq!(other, Err(Condition::NotAllowed));
    assert_eq!(
        set("<username>juliet</username>"),
        Err(Condition::BadRequest)
    );
}

#[test]
fn the_document_tells_what_is_registered() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/FEATURES.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, document()).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        kept == document(),
        "docs/FEATURES.md is stale; run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn an_archive_says_what_can_be_asked_for() {
    let ask = |own: bool, ty: Ty, content: &str| {
        let jid = BareJid::parse("juliet@example.com").unwrap();
        let (stanza, registry, about) = (request(ty, content), registry(ALL), about());
        let handle = registry.route(Scope::Account, &stanza).unwrap();
        let reply = handle(&IqRequest {
            stanza: &stanza,
            host: "example.com",
            account: Some(view(&jid, true, true)),
            own,
            now_ms: NOW,
            started_ms: NOW,
            registry: &registry,
            about: &about,
        });
        match reply {
            IqReply::Result(content) => Ok(String::from_utf8(content).unwrap()),
            IqReply::Error(error) => Err(error.condition),
            IqReply::Account(_) => panic!("no account is changed"),
        }
    };
    let query = "<query xmlns='urn:xmpp:mam:2'/>";
    let form = ask(true, Ty::Get, query).unwrap();
    for field in [
        "with",
        "start",
        "end",
        "before-id",
        "after-id",
        "ids",
        "include-groupchat",
    ] {
        assert!(form.contains(&format!("var='{field}'")), "{field}: {form}");
    }
    assert!(!form.contains("required"), "{form}");
    let (prefs, metadata) = (
        "<prefs xmlns='urn:xmpp:mam:2'/>",
        "<metadata xmlns='urn:xmpp:mam:2'/>",
    );
    for (ty, content) in [
        (Ty::Get, query),
        (Ty::Set, query),
        (Ty::Get, prefs),
        (Ty::Set, prefs),
        (Ty::Get, metadata),
    ] {
        assert_eq!(
            ask(false, ty, content),
            Err(Condition::Forbidden),
            "{content}"
        );
    }
}

#[test]
fn what_is_off_is_not_offered() {
    let offered = |registration, archive, tombstones| {
        let registry = registry(Offered {
            registration,
            archive,
            tombstones,
        });
        [Scope::Server, Scope::Account].map(|scope| registry.disco(scope))
    };
    let [server, account] = offered(false, false, true);
    assert!(!server.contains(&"jabber:iq:register"));
    assert!(
        !account
            .iter()
            .any(|it| it.starts_with("urn:xmpp:m") || *it == "urn:xmpp:sid:0")
    );
    let [_, account] = offered(true, true, false);
    assert!(!account.iter().any(|it| it.contains("retract")));
    let [server, account] = offered(true, true, true);
    assert!(server.contains(&"jabber:iq:register"));
    for feature in [
        "urn:xmpp:mam:2",
        "urn:xmpp:mam:2#extended",
        "urn:xmpp:sid:0",
        "urn:xmpp:message-retract:1",
        "urn:xmpp:message-retract:1#tombstone",
    ] {
        assert!(account.contains(&feature), "{feature}");
    }
}
