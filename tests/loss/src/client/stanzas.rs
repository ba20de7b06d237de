//! What clients write, and how they read what comes. Pure.

use cirrus_client::xml::{CLIENT, Node, STREAM, escape};

use super::managed::SM;
use crate::ledger::{Account, By, Item, Refusal};
use crate::mark::{self, Mark};
use crate::names::{Names, RESOURCE};

const PING: &str = "urn:xmpp:ping";
const DELAY: &str = "urn:xmpp:delay";
const FORWARD: &str = "urn:xmpp:forward:0";
const ROSTER: &str = "jabber:iq:roster";
const DISCO: &str = "http://jabber.org/protocol/disco#info";
const PAGES: &str = "http://jabber.org/protocol/rsm";
/// Namespace of the archive.
pub(crate) const ARCHIVE: &str = "urn:xmpp:mam:2";
/// Messages of one page of the archive.
const PAGE: u32 = 100;

/// What came, as far as a client cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// `<r/>`.
    Request,
    /// `<a/>`, with its number.
    Acknowledgement(Option<u32>),
    /// A numbered message.
    Message(Mark, By),
    /// An error that answers something numbered.
    Refused(Item, Refusal),
    /// A contact is shown.
    Shown(Account, Option<u32>),
    /// Somebody asks to be shown our presence.
    Subscribe(Account),
    /// The answer to a numbered ping.
    Answered(u32),
    /// Contacts of the roster, and whether they are subscribed both ways.
    Roster(Vec<(Account, bool)>),
    /// A question to be answered like this.
    Question(String),
    /// A change of the roster, to be answered like this.
    RosterPush(Vec<(Account, bool)>, String),
    /// Whether there is an archive.
    Archive(bool),
    /// A page of the archive ends; where the next begins, if there is one.
    ArchivePage(Option<String>),
    /// The server ends the stream, and says where to go on.
    SeeOtherHost(String),
    /// The server ends the stream with an error.
    StreamError(String),
    /// Something else.
    Other,
}

/// Reads a first-level element of a session.
pub(crate) fn read(node: &Node, run: u32, names: &Names) -> Incoming {
    if node.is("r", SM) {
        return Incoming::Request;
    }
    if node.is("a", SM) {
        return Incoming::Acknowledgement(node.attr("h").and_then(|h| h.parse().ok()));
    }
    if node.is("error", STREAM) {
        let condition = node.nodes().next();
        if let Some(told) = condition.filter(|it| it.name == "see-other-host") {
            return Incoming::SeeOtherHost(told.text());
        }
        let condition = condition.map(|it| it.name.clone());
        return Incoming::StreamError(condition.unwrap_or_default());
    }
    let from = node.attr("from").and_then(|from| names.account(from));
    match node.name.as_str() {
        "message" => read_message(node, run),
        "presence" => from.map_or(Incoming::Other, |from| read_presence(node, from, run)),
        "iq" => read_iq(node, names),
        _ => Incoming::Other,
    }
}

fn read_message(node: &Node, run: u32) -> Incoming {
    if node.attr("type") == Some("error") {
        let item = node.attr("id").and_then(item);
        return item.map_or(Incoming::Other, |item| {
            Incoming::Refused(item, refusal(node))
        });
    }
    let archived = node.child("result", ARCHIVE);
    let (message, by) = match archived {
        Some(result) => {
            let forwarded = result.child("forwarded", FORWARD);
            let message = forwarded.and_then(|it| it.child("message", CLIENT));
            (message, By::Archive)
        }
        None if node.child("delay", DELAY).is_some() => (Some(node), By::Offline),
        None => (Some(node), By::Stream),
    };
    let body = message.and_then(|message| message.child("body", CLIENT));
    let mark = body.and_then(|body| Mark::parse(&body.text()));
    match mark.filter(|mark| mark.run == run) {
        Some(mark) => Incoming::Message(mark, by),
        None => Incoming::Other,
    }
}

fn read_presence(node: &Node, from: Account, run: u32) -> Incoming {
    match node.attr("type") {
        None => {
            let status = node.child("status", CLIENT).map(Node::text);
            let number = status.and_then(|text| mark::parse_status(run, &text));
            Incoming::Shown(from, Some(number.unwrap_or(0)))
        }
        Some("unavailable") => Incoming::Shown(from, None),
        Some("subscribe") => Incoming::Subscribe(from),
        Some(_) => Incoming::Other,
    }
}

fn read_iq(node: &Node, names: &Names) -> Incoming {
    let id = node.attr("id").unwrap_or_default();
    let kind = node.attr("type").unwrap_or_default();
    match kind {
        "get" | "set" => {
            let address = node
                .attr("from")
                .map_or(String::new(), |from| format!(" to='{}'", escape(from)));
            let head = format!("<iq{address} id='{}'", escape(id));
            let result = format!("{head} type='result'/>");
            match node.child("query", ROSTER) {
                Some(query) => Incoming::RosterPush(roster(query, names), result),
                None if node.child("ping", PING).is_some() => Incoming::Question(result),
                None => Incoming::Question(format!(
                    "{head} type='error'><error type='cancel'><service-unavailable \
                     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                )),
            }
        }
        _ => read_answer(node, id, kind == "error", names),
    }
}

fn read_answer(node: &Node, id: &str, failed: bool, names: &Names) -> Incoming {
    match id {
        "roster" => {
            let query = node.child("query", ROSTER);
            Incoming::Roster(query.map_or(Vec::new(), |query| roster(query, names)))
        }
        "disco" => {
            let mut features = node.child("query", DISCO).into_iter().flat_map(Node::nodes);
            let there = features.any(|it| it.name == "feature" && it.attr("var") == Some(ARCHIVE));
            Incoming::Archive(there && !failed)
        }
        "archive" => {
            let fin = node.child("fin", ARCHIVE);
            let fin = fin.filter(|fin| !matches!(fin.attr("complete"), Some("true" | "1")));
            let last = fin
                .and_then(|fin| fin.child("set", PAGES)?.child("last", PAGES))
                .map(Node::text);
            Incoming::ArchivePage(last.filter(|last| !last.is_empty()))
        }
        _ => match item(id) {
            Some(item) if failed => Incoming::Refused(item, refusal(node)),
            Some(Item::Ping(number)) => Incoming::Answered(number),
            _ => Incoming::Other,
        },
    }
}

fn roster(query: &Node, names: &Names) -> Vec<(Account, bool)> {
    let items = query.nodes().filter(|node| node.name == "item");
    let contact = |item: &Node| {
        let account = names.account(item.attr("jid")?)?;
        Some((account, item.attr("subscription") == Some("both")))
    };
    items.filter_map(contact).collect()
}

/// "Wait" says that it may yet have been done.
fn refusal(node: &Node) -> Refusal {
    let error = node.child("error", CLIENT);
    match error.and_then(|error| error.attr("type")) {
        Some("wait") => Refusal::Unknown,
        _ => Refusal::Definite,
    }
}

/// The item of an id that [`write`] has made.
fn item(id: &str) -> Option<Item> {
    let (kind, rest) = id.split_at_checked(1)?;
    let (first, second) = rest.split_once('-').unwrap_or((rest, ""));
    let first = first.parse().ok()?;
    match kind {
        "m" => Some(Item::Message(first, second.parse().ok()?)),
        "p" => Some(Item::Ping(first)),
        "s" => Some(Item::Presence(first)),
        _ => None,
    }
}

/// The stanza of a numbered item; a ping is for `to`.
pub(crate) fn write(item: Item, run: u32, from: Account, to: Account, names: &Names) -> String {
    let address = escape(&names.bare(to));
    match item {
        Item::Message(to, sequence) => {
            let mark = Mark {
                run,
                from,
                to,
                sequence,
            };
            let body = mark.body();
            format!(
                "<message to='{address}' type='chat' id='m{to}-{sequence}'><body>{body}</body>\
                 </message>"
            )
        }
        Item::Ping(number) => format!(
            "<iq to='{address}/{RESOURCE}' type='get' id='p{number}'><ping xmlns='{PING}'/></iq>"
        ),
        Item::Presence(number) => {
            let status = mark::status(run, number);
            format!("<presence id='s{number}'><status>{status}</status></presence>")
        }
    }
}

/// Asks for the roster, and to be told of its changes.
pub(crate) fn ask_roster() -> String {
    format!("<iq type='get' id='roster'><query xmlns='{ROSTER}'/></iq>")
}

/// Asks to be shown somebody's presence, or agrees to show ours.
pub(crate) fn subscription(kind: &str, to: Account, names: &Names) -> String {
    format!("<presence to='{}' type='{kind}'/>", escape(&names.bare(to)))
}

/// Asks what our account can do.
pub(crate) fn ask_features(account: Account, names: &Names) -> String {
    let address = escape(&names.bare(account));
    format!("<iq to='{address}' type='get' id='disco'><query xmlns='{DISCO}'/></iq>")
}

/// Asks for a page of our archive.
pub(crate) fn ask_archive(after: Option<&str>) -> String {
    let after = after.map_or(String::new(), |after| {
        format!("<after>{}</after>", escape(after))
    });
    format!(
        "<iq type='set' id='archive'><query xmlns='{ARCHIVE}'><set xmlns='{PAGES}'>\
         <max>{PAGE}</max>{after}</set></query></iq>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str, expected: Incoming) {
        let names = Names::new("u{}", "a.test").unwrap();
        let nodes = cirrus_client::xml::fragment(text, &[]).unwrap();
        assert_eq!(read(&nodes[0], 7, &names), expected, "{text}");
    }

    #[test]
    fn numbered_things_are_read_as_they_were_written() {
        let names = Names::new("u{}", "a.test").unwrap();
        let message = write(Item::Message(2, 9), 7, 1, 2, &names);
        let mark = Mark {
            run: 7,
            from: 1,
            to: 2,
            sequence: 9,
        };
        reads(&message, Incoming::Message(mark, By::Stream));
        let late = message.replace("</message>", "<delay xmlns='urn:xmpp:delay'/></message>");
        reads(&late, Incoming::Message(mark, By::Offline));
        let archived = format!(
            "<message><result xmlns='{ARCHIVE}' id='1'><forwarded xmlns='{FORWARD}'>{}\
             </forwarded></result></message>",
            message.replace("<message", "<message xmlns='jabber:client'")
        );
        reads(&archived, Incoming::Message(mark, By::Archive));
        let presence = write(Item::Presence(4), 7, 1, 0, &names);
        let presence = presence.replace("<presence", "<presence from='u1@a.test/loss'");
        reads(&presence, Incoming::Shown(1, Some(4)));
    }

    #[test]
    fn errors_are_told_apart() {
        let error = |kind: &str| {
            format!("<message type='error' id='m2-9'><error type='{kind}'><x/></error></message>")
        };
        let item = Item::Message(2, 9);
        reads(&error("wait"), Incoming::Refused(item, Refusal::Unknown));
        reads(&error("cancel"), Incoming::Refused(item, Refusal::Definite));
        let ping = "<iq type='error' id='p3'><error type='cancel'><x/></error></iq>";
        reads(ping, Incoming::Refused(Item::Ping(3), Refusal::Definite));
    }

    #[test]
    fn answers_and_questions() {
        reads("<iq type='result' id='p3'/>", Incoming::Answered(3));
        let ping = "<iq type='get' id='x' from='u2@a.test/loss'><ping xmlns='urn:xmpp:ping'/></iq>";
        let answer = "<iq to='u2@a.test/loss' id='x' type='result'/>";
        reads(ping, Incoming::Question(answer.to_owned()));
        let push = format!(
            "<iq type='set' id='y'><query xmlns='{ROSTER}'><item jid='u3@a.test' \
             subscription='both'/></query></iq>"
        );
        let answer = "<iq id='y' type='result'/>".to_owned();
        reads(&push, Incoming::RosterPush(vec![(3, true)], answer));
        let features = format!(
            "<iq type='result' id='disco'><query xmlns='{DISCO}'><feature var='{ARCHIVE}'/>\
             </query></iq>"
        );
        reads(&features, Incoming::Archive(true));
        let page = format!(
            "<iq type='result' id='archive'><fin xmlns='{ARCHIVE}'><set xmlns='{PAGES}'>\
             <last>l</last></set></fin></iq>"
        );
        reads(&page, Incoming::ArchivePage(Some("l".to_owned())));
        let end = page.replace("<fin", "<fin complete='true'");
        reads(&end, Incoming::ArchivePage(None));
    }
}
