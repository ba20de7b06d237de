//! Requests of XEP-0313 with the pages of XEP-0059, and what ends their answers.

use std::ops::RangeInclusive;

use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::{Condition, Stanza, StanzaError, ns, parse_stamp, stamp};
use cirrus_xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::filter::{Filter, With};
use super::id::Ids;
use crate::log::Hit;

/// Most ids that one request may name in `ids`: each is a read.
const MAX_IDS: usize = 64;
/// Longest `queryid`, bytes: it is repeated with every message.
const MAX_QUERY_ID: usize = 256;

/// A query that can be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub query_id: Option<Box<str>>,
    pub filter: Filter,
    pub page: Page,
}

/// Which part of the matching messages is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Only positions above this one.
    pub after: u64,
    /// Only positions below this one.
    pub before: u64,
    /// Only these positions, ascending.
    pub ids: Option<Vec<u64>>,
    /// Most messages.
    pub max: usize,
    /// The last ones of those that match, instead of the first.
    pub backward: bool,
    /// They are given in reverse order.
    pub flip: bool,
}

impl Page {
    /// The first message, or the last, of everything.
    pub fn end(backward: bool) -> Self {
        Self {
            after: 0,
            before: u64::MAX,
            ids: None,
            max: 1,
            backward,
            flip: false,
        }
    }

    /// It is asked for by an id that is one of these positions.
    pub fn is_asked_by(&self, positions: RangeInclusive<u64>) -> bool {
        let named = [self.after, self.before];
        let ids = self.ids.iter().flatten();
        named.iter().chain(ids).any(|id| positions.contains(id))
    }
}

impl Request {
    /// The query in `stanza`, to the archive of `owner` with these ids, for at most `limit`
    /// messages.
    ///
    /// # Errors
    /// The refusal: `item-not-found` for an id that is none of this archive (section 4.1.3,
    /// XEP-0059 section 2.3), `feature-not-implemented` for an unknown field (section 4.1.5).
    pub fn parse(
        stanza: &Stanza,
        owner: &BareJid,
        ids: &Ids<'_>,
        limit: usize,
    ) -> Result<Self, StanzaError> {
        let query = stanza.child("query", ns::MAM);
        let query = query.ok_or_else(|| bad("a query has one child, <query/>"))?;
        let query_id = query.attr("queryid").map(Box::<str>::from);
        if query_id.as_ref().is_some_and(|id| id.len() > MAX_QUERY_ID) {
            return Err(bad("'queryid' is longer than 256 bytes"));
        }
        if query.attr("node").is_some() {
            let text = "an account's archive has no nodes";
            return Err(StanzaError::new(Condition::ItemNotFound, text));
        }
        let (mut filter, mut page) = (Filter::default(), Page::end(false));
        page.max = limit;
        page.flip = query.child("flip-page", ns::MAM).is_some();
        if let Some(form) = query.child("x", ns::DATA_FORMS) {
            read_form(&form, owner, ids, &mut filter, &mut page)?;
        }
        if let Some(set) = query.child("set", ns::RSM) {
            read_set(&set, ids, &mut page)?;
        }
        Ok(Self {
            query_id,
            filter,
            page,
        })
    }
}

/// The fields of section 4.1.
fn read_form(
    form: &Element<'_>,
    owner: &BareJid,
    ids: &Ids<'_>,
    filter: &mut Filter,
    page: &mut Page,
) -> Result<(), StanzaError> {
    if form.attr("type").as_deref() != Some("submit") {
        return Err(bad("the form of a query has the type submit"));
    }
    let mut named = false;
    for field in form.children().filter(|it| it.is("field", ns::DATA_FORMS)) {
        let values = field
            .children()
            .filter(|it| it.is("value", ns::DATA_FORMS))
            .map(|value| value.text().trim().to_owned())
            .filter(|value| !value.is_empty());
        let values: Vec<_> = values.collect();
        let value = values.first().map(String::as_str);
        let name = field.attr("var").unwrap_or_default();
        match (&*name, value) {
            ("FORM_TYPE", Some(ns::MAM)) => named = true,
            ("FORM_TYPE", _) => return Err(bad("the FORM_TYPE of a query is urn:xmpp:mam:2")),
            // A field without a value asks for nothing.
            ("with" | "start" | "end" | "before-id" | "after-id" | "ids", None) => {}
            ("include-groupchat", value) => {
                // There is nothing of that type in an account's archive.
                if !matches!(value, None | Some("true" | "false" | "1" | "0")) {
                    return Err(bad("'include-groupchat' is true or false"));
                }
            }
            ("with", Some(value)) => {
                let jid = Jid::parse(value).map_err(|cause| {
                    let text = format!("'with' is not a JID: {cause}");
                    StanzaError::new(Condition::JidMalformed, text)
                })?;
                filter.with = Some(With::new(&jid, owner));
            }
            ("start", Some(value)) => filter.start = time("start", value)?,
            ("end", Some(value)) => filter.end = time("end", value)?,
            ("after-id", Some(value)) => page.after = page.after.max(known(ids, value)?),
            ("before-id", Some(value)) => page.before = page.before.min(known(ids, value)?),
            ("ids", Some(_)) if values.len() > MAX_IDS => {
                let text = format!("a query names at most {MAX_IDS} ids");
                return Err(StanzaError::new(Condition::PolicyViolation, text));
            }
            ("ids", Some(_)) => {
                let found = values.iter().map(|value| known(ids, value));
                let mut found = found.collect::<Result<Vec<_>, _>>()?;
                found.sort_unstable();
                found.dedup();
                page.ids = Some(found);
            }
            (other, _) => {
                let text = format!("a query has no field `{other}`");
                return Err(StanzaError::new(Condition::FeatureNotImplemented, text));
            }
        }
    }
    match named {
        true => Ok(()),
        false => Err(bad("the form of a query has the FORM_TYPE urn:xmpp:mam:2")),
    }
}

/// The page that XEP-0059 asks for.
fn read_set(set: &Element<'_>, ids: &Ids<'_>, page: &mut Page) -> Result<(), StanzaError> {
    let text = |name| {
        let child = set.child(name, ns::RSM);
        child.map(|child| child.text().trim().to_owned())
    };
    if set.child("index", ns::RSM).is_some() {
        let text = "pages are asked for by id, not by index";
        return Err(StanzaError::new(Condition::FeatureNotImplemented, text));
    }
    if let Some(max) = text("max") {
        let number = !max.is_empty() && max.bytes().all(|b| b.is_ascii_digit());
        if !number {
            return Err(bad("<max/> is a number"));
        }
        // What does not fit a number is more than any page.
        page.max = page.max.min(max.parse().unwrap_or(usize::MAX));
    }
    if let Some(after) = text("after").filter(|after| !after.is_empty()) {
        page.after = page.after.max(known(ids, &after)?);
    }
    if let Some(before) = text("before") {
        page.backward = true;
        if !before.is_empty() {
            page.before = page.before.min(known(ids, &before)?);
        }
    }
    Ok(())
}

fn time(name: &str, value: &str) -> Result<u64, StanzaError> {
    parse_stamp(value).ok_or_else(|| {
        bad(&format!(
            "'{name}' is not a DateTime of XEP-0082 such as 2026-11-24T02:48:00Z"
        ))
    })
}

fn known(ids: &Ids<'_>, id: &str) -> Result<u64, StanzaError> {
    ids.decode(id).ok_or_else(not_found)
}

/// The refusal of an id that the archive does not have.
pub(crate) fn not_found() -> StanzaError {
    let text = "this archive has no message of that id";
    StanzaError::new(Condition::ItemNotFound, text)
}

fn bad(text: &str) -> StanzaError {
    StanzaError::new(Condition::BadRequest, text)
}

/// What ends the answer to a query: the first and the last message of the page in the order of
/// the archive, and how many there are in all where that is known (section 4.2).
pub(crate) fn fin(
    ids: &Ids<'_>,
    ends: Option<(u64, u64)>,
    complete: bool,
    count: Option<u64>,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("fin").attr("xmlns", ns::MAM);
    w.attr_opt("complete", complete.then_some("true"));
    w.start("set").attr("xmlns", ns::RSM);
    if let Some((first, last)) = ends {
        w.start("first").text(&ids.encode(first)).end();
        w.start("last").text(&ids.encode(last)).end();
    }
    if let Some(count) = count {
        w.start("count").text(&count.to_string()).end();
    }
    w.into_bytes()
}

/// The first and the last message of an archive (section 5); nothing about an empty one.
pub(crate) fn metadata(ids: &Ids<'_>, ends: [Option<Hit>; 2]) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("metadata").attr("xmlns", ns::MAM);
    for (name, hit) in ["start", "end"].into_iter().zip(ends) {
        if let Some(hit) = hit {
            w.start(name)
                .attr("id", &ids.encode(hit.position))
                .attr("timestamp", &stamp(hit.t))
                .end();
        }
    }
    w.into_bytes()
}

#[cfg(test)]
mod tests {
    use cirrus_stanza::ErrorType;

    use super::super::IdKey;
    use super::*;

    const OWNER: &str = "juliet@example.com";

    fn key() -> IdKey {
        IdKey::new([7; 32])
    }

    fn parse(content: &str) -> Result<Request, StanzaError> {
        let (owner, key) = (BareJid::parse(OWNER).unwrap(), key());
        let bytes = owner.owner();
        let ids = Ids::new(&key, &bytes);
        let id = |n| ids.encode(n);
        let content = content
            .replace("ID3", &id(3))
            .replace("ID5", &id(5))
            .replace("ID9", &id(9));
        let xml = format!(
            "<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2' queryid='q'>{content}</query></iq>"
        );
        let stanza = Stanza::from_stored(&xml.into()).unwrap();
        Request::parse(&stanza, &owner, &ids, 256)
    }

    fn form(fields: &[(&str, &[&str])]) -> String {
        let mut text = String::from(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
             <value>urn:xmpp:mam:2</value></field>",
        );
        for (var, values) in fields {
            let values = values.iter().map(|value| format!("<value>{value}</value>"));
            text.push_str(&format!(
                "<field var='{var}'>{}</field>",
                values.collect::<String>()
            ));
        }
        text + "</x>"
    }

    fn set(content: &str) -> String {
        format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>")
    }

    #[test]
    fn what_is_asked_for() {
        let page = |content: &str| parse(content).unwrap().page;
        let all = Page {
            max: 256,
            ..Page::end(false)
        };
        assert_eq!(page(""), all);
        assert_eq!(parse("").unwrap().query_id.as_deref(), Some("q"));
        assert_eq!(
            page(&set("<max>10</max>")),
            Page {
                max: 10,
                ..all.clone()
            }
        );
        assert_eq!(page(&set("<max>99999999999999999999999</max>")), all);
        let last = Page {
            backward: true,
            ..all.clone()
        };
        assert_eq!(page(&set("<before/>")), last);
        let between = form(&[("after-id", &["ID3"]), ("before-id", &["ID9"])]);
        let between = between + &set("<after>ID5</after>") + "<flip-page/>";
        let expected = Page {
            after: 5,
            before: 9,
            flip: true,
            ..all.clone()
        };
        assert_eq!(page(&between), expected);
        let ids = Some(vec![3, 9]);
        assert_eq!(
            page(&form(&[("ids", &["ID9", "ID3", "ID9"])])),
            Page { ids, ..all.clone() }
        );
        // Fields without a value, as clients send them that fill in a form.
        assert_eq!(
            page(&form(&[
                ("with", &[]),
                ("ids", &[""]),
                ("include-groupchat", &["0"])
            ])),
            all
        );
        let filter = parse(&form(&[
            ("with", &["romeo@example.com"]),
            ("start", &["1970-01-01T00:00:01Z"]),
            ("end", &["1970-01-01T00:00:02.5Z"]),
        ]));
        let filter = filter.unwrap().filter;
        assert_eq!((filter.start, filter.end), (1_000, 2_500));
        let romeo = BareJid::parse("romeo@example.com").unwrap();
        assert_eq!(filter.with, Some(With::Bare(romeo)));
    }

    #[test]
    fn what_is_asked_for_wrongly() {
        use Condition as C;
        let other = "0123456789abcdef01234567";
        let many: Vec<_> = (0..=MAX_IDS).map(|_| "ID3").collect();
        for (content, condition) in [
            (form(&[("with", &["@"])]), C::JidMalformed),
            (form(&[("start", &["yesterday"])]), C::BadRequest),
            (form(&[("end", &["2026-02-30T00:00:00Z"])]), C::BadRequest),
            (form(&[("before-id", &[other])]), C::ItemNotFound),
            (form(&[("after-id", &["ID"])]), C::ItemNotFound),
            (form(&[("ids", &["ID3", other])]), C::ItemNotFound),
            (form(&[("ids", &many)]), C::PolicyViolation),
            (
                form(&[("{urn:x}text", &["love"])]),
                C::FeatureNotImplemented,
            ),
            (form(&[("include-groupchat", &["maybe"])]), C::BadRequest),
            (form(&[]).replace("mam:2", "mam:1"), C::BadRequest),
            (form(&[]).replace("submit", "form"), C::BadRequest),
            (
                "<x xmlns='jabber:x:data' type='submit'/>".into(),
                C::BadRequest,
            ),
            (set("<max>-1</max>"), C::BadRequest),
            (set("<max/>"), C::BadRequest),
            (set("<index>3</index>"), C::FeatureNotImplemented),
            (set(&format!("<after>{other}</after>")), C::ItemNotFound),
            (set("<before>x</before>"), C::ItemNotFound),
        ] {
            let error = parse(&content).unwrap_err();
            assert_eq!(error.condition, condition, "{content}");
            assert_ne!(error.ty, ErrorType::Wait, "{content}");
        }
    }
}
