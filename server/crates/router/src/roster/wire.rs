//! The roster on the stream: `<query xmlns='jabber:iq:roster'/>` (RFC 6121 section 2.1).

use bytes::Bytes;
use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::ns;
use cirrus_xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::{Contact, Limits, RosterError};

/// What a client asks to change (RFC 6121 sections 2.3 to 2.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Set {
    /// Add a contact, or give it this name and these groups.
    Update {
        /// The contact.
        jid: BareJid,
        /// Its new name.
        name: Option<Box<str>>,
        /// Its new groups.
        groups: Box<[Box<str>]>,
    },
    /// Remove a contact and end both subscriptions.
    Remove {
        /// The contact.
        jid: BareJid,
    },
}

/// Reads the `<query/>` of a roster set by `owner`. What only a server may say (`subscription`
/// other than `remove`, `ask`, `approved`) is ignored, as RFC 6121 section 2.1.2 demands.
///
/// # Errors
/// The cases of RFC 6121 section 2.3.3, and an address that is missing, malformed or the own one.
pub fn parse_set(
    owner: &BareJid,
    query: &Element<'_>,
    limits: &Limits,
) -> Result<Set, RosterError> {
    let mut items = query
        .children()
        .filter(|e| e.name() == "item" && e.ns() == ns::ROSTER);
    let (Some(item), 0) = (items.next(), items.count()) else {
        return Err(RosterError::Items(count_items(query)));
    };
    let jid = item.attr("jid").ok_or(RosterError::NoContact)?;
    let jid = Jid::parse(&jid).map_err(RosterError::Malformed)?;
    if !jid.is_bare() {
        return Err(RosterError::NoContact);
    }
    let jid = jid.bare();
    if jid == *owner {
        return Err(RosterError::Own);
    }
    if item.attr("subscription").as_deref() == Some("remove") {
        return Ok(Set::Remove { jid });
    }
    let name = item.attr("name").filter(|name| !name.is_empty());
    bounded(
        "the name's bytes",
        name.as_ref().map_or(0, |n| n.len()),
        limits.name_bytes,
    )?;
    let groups = parse_groups(&item, limits)?;
    Ok(Set::Update {
        jid,
        name: name.map(Into::into),
        groups,
    })
}

fn count_items(query: &Element<'_>) -> usize {
    query
        .children()
        .filter(|e| e.name() == "item" && e.ns() == ns::ROSTER)
        .count()
}

fn parse_groups(item: &Element<'_>, limits: &Limits) -> Result<Box<[Box<str>]>, RosterError> {
    let mut groups: Vec<Box<str>> = Vec::new();
    for element in item
        .children()
        .filter(|e| e.name() == "group" && e.ns() == ns::ROSTER)
    {
        let group = element.text();
        if group.is_empty() {
            return Err(RosterError::EmptyGroup);
        }
        bounded(
            "a group name's bytes",
            group.len(),
            usize::from(limits.group_bytes),
        )?;
        bounded("groups of a contact", groups.len() + 1, limits.groups)?;
        if groups.iter().any(|known| **known == *group) {
            return Err(RosterError::DuplicateGroup(group.into()));
        }
        groups.push(group.into());
    }
    Ok(groups.into())
}

fn bounded(what: &'static str, given: usize, limit: usize) -> Result<(), RosterError> {
    if given > limit {
        Err(RosterError::TooLong { what, given, limit })
    } else {
        Ok(())
    }
}

/// The whole roster as the `<query/>` of a result.
pub(super) fn full<'a>(version: u64, contacts: impl Iterator<Item = &'a Contact>) -> Bytes {
    let mut w = Writer::new();
    w.start("query")
        .attr("xmlns", ns::ROSTER)
        .attr("ver", &version.to_string());
    for contact in contacts {
        write_item(&mut w, contact);
    }
    w.end();
    w.into_bytes().into()
}

/// One contact as the `<query/>` of a push.
pub(super) fn changed(version: u64, contact: &Contact) -> Bytes {
    full(version, std::iter::once(contact))
}

/// A removal as the `<query/>` of a push.
pub(super) fn removed(version: u64, jid: &BareJid) -> Bytes {
    let mut w = Writer::new();
    w.start("query")
        .attr("xmlns", ns::ROSTER)
        .attr("ver", &version.to_string());
    w.start("item")
        .attr("jid", jid.as_str())
        .attr("subscription", "remove")
        .end();
    w.end();
    w.into_bytes().into()
}

fn write_item(w: &mut Writer, contact: &Contact) {
    w.start("item").attr("jid", contact.jid.as_str());
    w.attr_opt("name", contact.name.as_deref());
    w.attr("subscription", contact.subscription.as_str());
    w.attr_opt("ask", contact.ask.then_some("subscribe"));
    w.attr_opt("approved", contact.approved.then_some("true"));
    for group in &contact.groups {
        w.start("group").text(group).end();
    }
    w.end();
}

#[cfg(test)]
mod tests {
    use cirrus_stanza::Condition;

    use super::*;
    use crate::roster::Subscription;

    fn owner() -> BareJid {
        BareJid::parse("juliet@example.com").unwrap()
    }

    fn limits() -> Limits {
        Limits {
            name_bytes: 10,
            groups: 2,
            group_bytes: 5,
            ..Limits::default()
        }
    }

    fn parse(items: &str) -> Result<Set, RosterError> {
        let xml = format!("<query xmlns='jabber:iq:roster'>{items}</query>");
        let query = Element::parse(xml.as_bytes(), ns::CLIENT).unwrap();
        parse_set(&owner(), &query, &limits())
    }

    fn condition(items: &str) -> Condition {
        parse(items).unwrap_err().stanza_error().condition
    }

    #[test]
    fn sets_are_read() {
        let jid = BareJid::parse("romeo@example.net").unwrap();
        assert_eq!(
            parse(
                "<item jid='ROMEO@example.net' name='R &amp; J'>\
                 <group>A&lt;</group><group>b</group></item>"
            ),
            Ok(Set::Update {
                jid: jid.clone(),
                name: Some("R & J".into()),
                groups: ["A<".into(), "b".into()].into(),
            })
        );
        let plain = Set::Update {
            jid: jid.clone(),
            name: None,
            groups: Box::default(),
        };
        for item in [
            "<item jid='romeo@example.net'/>",
            "<item jid='romeo@example.net' name=''/>",
            "<item jid='romeo@example.net' subscription='both' ask='subscribe' approved='true'/>",
            "<other xmlns='x'/><item jid='romeo@example.net'><x xmlns='y'><group/></x></item>",
        ] {
            assert_eq!(parse(item), Ok(plain.clone()), "{item}");
        }
        let removal = "<item jid='romeo@example.net' subscription='remove' name='01234567890'/>";
        assert_eq!(parse(removal), Ok(Set::Remove { jid }));
    }

    #[test]
    fn the_error_cases_of_section_2_3_3() {
        let cases = [
            ("", Condition::BadRequest),
            ("<item jid='a@b'/><item jid='c@d'/>", Condition::BadRequest),
            ("<item/>", Condition::BadRequest),
            ("<item jid='a@b/c'/>", Condition::BadRequest),
            (
                "<item jid='a@b'><group>x</group><group>x</group></item>",
                Condition::BadRequest,
            ),
            ("<item jid='@'/>", Condition::JidMalformed),
            ("<item jid=''/>", Condition::JidMalformed),
            ("<item jid='juliet@example.com'/>", Condition::NotAllowed),
            (
                "<item jid='a@b' name='01234567890'/>",
                Condition::NotAcceptable,
            ),
            ("<item jid='a@b'><group/></item>", Condition::NotAcceptable),
            (
                "<item jid='a@b'><group>012345</group></item>",
                Condition::NotAcceptable,
            ),
            (
                "<item jid='a@b'><group>a</group><group>b</group><group>c</group></item>",
                Condition::NotAcceptable,
            ),
        ];
        for (items, expected) in cases {
            assert_eq!(condition(items), expected, "{items}");
        }
    }

    #[test]
    fn items_are_written_and_escaped() {
        let mut contact = Contact::new(&BareJid::parse("romeo@example.net").unwrap());
        assert_eq!(
            changed(7, &contact),
            "<query xmlns='jabber:iq:roster' ver='7'>\
             <item jid='romeo@example.net' subscription='none'/></query>"
        );
        contact.name = Some("R'<&".into());
        contact.subscription = Subscription::From;
        contact.ask = true;
        contact.approved = true;
        contact.groups = ["a&b".into(), "c".into()].into();
        let xml = changed(8, &contact);
        let query = Element::parse(&xml, ns::CLIENT).unwrap();
        let item = query.child("item", ns::ROSTER).unwrap();
        let attr = |name| item.attr(name).unwrap_or_default().into_owned();
        assert_eq!(attr("name"), "R'<&");
        assert_eq!(
            (attr("subscription"), attr("ask"), attr("approved")),
            ("from".into(), "subscribe".into(), "true".into())
        );
        let groups: Vec<_> = item.children().map(|g| g.text().into_owned()).collect();
        assert_eq!(groups, ["a&b", "c"]);
        assert_eq!(
            removed(9, &contact.jid),
            "<query xmlns='jabber:iq:roster' ver='9'>\
             <item jid='romeo@example.net' subscription='remove'/></query>"
        );
    }
}
