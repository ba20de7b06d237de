//! Rosters and presence when everything has come to rest: what clients believe against what is.

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_router::roster::{Contact, Limits, Roster};
use cirrus_schema::TableId;
use cirrus_schema::keys::rosters;

use super::{History, Violation};
use crate::client::{Client, Entry, Phase};
use crate::store::Store;

/// The rosters in the store, by account. Checks that both sides of every pair agree (RFC 6121
/// Appendix A): one is subscribed exactly if the other lets it, and a request that one side
/// waits for is one that the other side was asked.
pub fn check_rosters(store: &Store, users: &[BareJid], history: &mut History) -> Vec<Roster> {
    let mut all = Vec::new();
    for user in users {
        let rows = store.rows(TableId::Rosters, &rosters::partition(&user.owner()));
        match Roster::load(user, Limits::default(), &rows) {
            Ok(loaded) => all.push(loaded.roster),
            Err(error) => {
                history.wrong(Violation::Corrupt(error.to_string()));
                all.push(Roster::new(user, Limits::default()));
            }
        }
    }
    for (a, own) in all.iter().enumerate() {
        for (b, other) in all.iter().enumerate().filter(|(b, _)| *b != a) {
            let (mine, theirs) = (own.state(&users[b]), other.state(&users[a]));
            let to = mine.subscription().is_to();
            let from = theirs.subscription().is_from();
            // Whoever asks an account that is not there is not told so (RFC 6121 section 8.5.1).
            let unheard = history.erased.contains_key(&b) && !theirs.pending_in();
            let asked = mine.ask() == theirs.pending_in() || unheard;
            if history.strays.contains(&a) || history.strays.contains(&b) {
                continue;
            }
            if to != from || !asked {
                let (x, y) = (&users[a], &users[b]);
                let text = format!("{x} has {mine:?} with {y}, which has {theirs:?}");
                history.wrong(Violation::Roster(text));
            }
        }
        if history.strays.contains(&a) {
            continue;
        }
        for (jid, kind) in own.unsent() {
            let text = format!("{} has {kind:?} for {jid} unconfirmed", users[a]);
            history.wrong(Violation::Roster(text));
        }
    }
    all
}

/// Whether somebody's home has yet to confirm what another was told of a subscription: it is told
/// again after pauses that grow.
pub fn is_any_unconfirmed(store: &Store, users: &[BareJid], history: &History) -> bool {
    let owes = |user: &BareJid| {
        let rows = store.rows(TableId::Rosters, &rosters::partition(&user.owner()));
        let loaded = Roster::load(user, Limits::default(), &rows);
        loaded.is_ok_and(|it| !it.roster.unsent().is_empty())
    };
    let mut users = users.iter().enumerate();
    users.any(|(number, user)| !history.strays.contains(&number) && owes(user))
}

/// Every client that is there: its roster is the stored one, and it sees exactly who is there and
/// shows itself to it.
pub fn check_clients(clients: &[Client], rosters: &[Roster], history: &mut History) {
    for client in clients.iter().filter(|client| client.phase == Phase::On) {
        if history.strays.contains(&client.account) {
            continue;
        }
        if client.roster.live {
            check_roster(client, &rosters[client.account], history);
        }
        if client.presence.is_some() {
            check_presence(client, clients, rosters, history);
        }
    }
}

fn check_roster(client: &Client, roster: &Roster, history: &mut History) {
    let stored = roster.contacts().map(|c| (c.jid.to_string(), entry(c)));
    let stored: BTreeMap<_, _> = stored.collect();
    if stored != client.roster.entries {
        let (jid, known) = (client.jid(), &client.roster.entries);
        let text = format!("{jid} was told {known:?}, and {stored:?} is stored");
        history.wrong(Violation::Roster(text));
    }
}

fn entry(contact: &Contact) -> Entry {
    let mut groups: Vec<_> = contact.groups.iter().map(ToString::to_string).collect();
    groups.sort();
    Entry {
        subscription: contact.subscription.as_str().into(),
        ask: contact.ask,
        approved: contact.approved,
        name: contact.name.as_ref().map(ToString::to_string),
        groups,
    }
}

fn check_presence(client: &Client, clients: &[Client], rosters: &[Roster], history: &mut History) {
    let mut seen = client.seen.clone();
    for other in clients.iter().filter(|other| other.phase == Phase::On) {
        if history.strays.contains(&other.account) {
            seen.remove(&other.jid());
            continue;
        }
        let subscribed = other.account == client.account
            || rosters[other.account]
                .contact(&client.user)
                .is_some_and(|contact| contact.subscription.is_from());
        let shown = other.presence.clone().filter(|_| subscribed);
        let directed = other.directed.get(&client.account).cloned();
        let sees = seen.remove(&other.jid());
        // Of a broadcast and directed presence the later one counts, and either may be it. Directed
        // presence that came while nobody was available was shown to nobody.
        let right = sees == shown
            || directed.is_some_and(|says| sees == says)
            || shown.is_none() && is_left_behind(client, other, sees.as_deref(), history);
        if !right {
            let (who, whom) = (client.jid(), other.jid());
            let text = format!("{who} sees {whom} as {sees:?}, which is {shown:?}");
            history.wrong(Violation::Presence(text));
        }
    }
    for ghost in seen.keys() {
        let text = format!("{} sees {ghost}, which is not there", client.jid());
        history.wrong(Violation::Presence(text));
    }
}

/// What a session said that was lost with its home and every copy, nobody takes back.
fn is_left_behind(client: &Client, other: &Client, sees: Option<&str>, history: &History) -> bool {
    let mut said = other.said.iter();
    said.any(|(at, to, says)| {
        to.is_none_or(|to| to == client.account)
            && Some(says.as_str()) == sees
            && history.forgot_between(other.account, *at, u64::MAX)
    })
}
