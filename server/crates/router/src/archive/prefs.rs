//! What a user wants archived (XEP-0441), and its attributes in the account's row `p`.
//!
//! Format 1: `v` = 1; `d` = default: 0 always, 1 never, 2 roster; `a`, `n` = the lists `always`
//! and `never`, JIDs in UTF-8 that each end with NUL. Other attributes of the row belong to others.

use bytes::Bytes;
use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::{Condition, StanzaError, ns};
use cirrus_store::Attrs;
use cirrus_xml::{Element, Writer};
use serde::{Deserialize, Serialize};

const FORMAT: u64 = 1;
/// Most bytes of both lists: the row has to stay well below what a table takes (400 KB).
const MAX_BYTES: usize = 256 * 1_024;

/// What happens to messages with who is on neither list (section 2.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    /// All are archived.
    #[default]
    Always,
    /// None is archived.
    Never,
    /// Those with contacts of the roster are archived.
    Roster,
}

const POLICIES: [(Policy, &str, u64); 3] = [
    (Policy::Always, "always", 0),
    (Policy::Never, "never", 1),
    (Policy::Roster, "roster", 2),
];

/// A user's preferences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prefs {
    pub default: Policy,
    pub always: Vec<Jid>,
    pub never: Vec<Jid>,
}

/// A row that this version does not understand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PrefsError;

impl Prefs {
    /// Nothing is archived.
    pub fn nothing() -> Self {
        Self {
            default: Policy::Never,
            ..Self::default()
        }
    }

    /// Whether messages with `target` are archived. A full address on a list counts before a
    /// bare one; of two lists that both have it, `never` counts: what is archived against
    /// somebody's will can't be taken back.
    pub fn allow(&self, target: &Jid, in_roster: impl FnOnce(&BareJid) -> bool) -> bool {
        let bare = target.bare();
        if !self.always.is_empty() || !self.never.is_empty() {
            let full = |list: &[Jid]| list.iter().any(|jid| !jid.is_bare() && jid == target);
            let any = |list: &[Jid]| list.iter().any(|jid| jid.is_bare() && jid.bare() == bare);
            let lists = [
                (full(&self.never), false),
                (full(&self.always), true),
                (any(&self.never), false),
                (any(&self.always), true),
            ];
            if let Some((_, allowed)) = lists.into_iter().find(|(listed, _)| *listed) {
                return allowed;
            }
        }
        match self.default {
            Policy::Always => true,
            Policy::Never => false,
            Policy::Roster => in_roster(&bare),
        }
    }

    /// The preferences in `<prefs/>`, with at most `limit` addresses.
    pub fn parse(prefs: &Element<'_>, limit: usize) -> Result<Self, StanzaError> {
        let bad = |text: &str| StanzaError::new(Condition::BadRequest, text);
        let default = prefs.attr("default");
        let known = POLICIES.iter().find(|it| Some(it.1) == default.as_deref());
        let text = "'default' must be always, never or roster (XEP-0441 section 2.1.1)";
        let (default, ..) = *known.ok_or_else(|| bad(text))?;
        let mut lists = [Vec::new(), Vec::new()];
        let mut bytes = 0;
        for (list, name) in lists.iter_mut().zip(["always", "never"]) {
            let Some(element) = prefs.child(name, ns::MAM) else {
                continue;
            };
            for entry in element.children().filter(|child| child.is("jid", ns::MAM)) {
                let jid = Jid::parse(entry.text().trim()).map_err(|cause| {
                    let text = format!("an address in <{name}/> is not a JID: {cause}");
                    StanzaError::new(Condition::JidMalformed, text)
                })?;
                if list.contains(&jid) {
                    continue;
                }
                bytes += jid.as_str().len() + 1;
                list.push(jid);
                if list.len() > limit || bytes > MAX_BYTES {
                    let text = format!(
                        "a list holds at most {limit} addresses, and both {MAX_BYTES} bytes"
                    );
                    return Err(StanzaError::new(Condition::ResourceConstraint, text));
                }
            }
        }
        let [always, never] = lists;
        Ok(Self {
            default,
            always,
            never,
        })
    }

    /// The preferences as `<prefs/>`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let name = POLICIES.iter().find(|it| it.0 == self.default);
        w.start("prefs")
            .attr("xmlns", ns::MAM)
            .attr_opt("default", name.map(|it| it.1));
        for (name, list) in [("always", &self.always), ("never", &self.never)] {
            w.start(name);
            for jid in list {
                w.start("jid").text(jid.as_str()).end();
            }
            w.end();
        }
        w.into_bytes()
    }

    /// Puts the preferences among a row's other attributes.
    pub fn write(&self, attrs: &mut Attrs) {
        let number = POLICIES.iter().find(|it| it.0 == self.default);
        attrs.set("v", FORMAT);
        attrs.set("d", number.map_or(0, |it| it.2));
        for (name, list) in [("a", &self.always), ("n", &self.never)] {
            let mut bytes = Vec::new();
            for jid in list {
                bytes.extend_from_slice(jid.as_str().as_bytes());
                bytes.push(0);
            }
            match bytes.is_empty() {
                true => drop(attrs.remove(name)),
                false => drop(attrs.set(name, bytes)),
            }
        }
    }

    /// The preferences among a row's attributes; a row without any has the default ones.
    pub fn read(attrs: &Attrs) -> Result<Self, PrefsError> {
        let Some(policy) = attrs.get_n("d") else {
            return Ok(Self::default());
        };
        let policy = POLICIES.iter().find(|it| it.2 == policy);
        let (Some(FORMAT), Some((default, ..))) = (attrs.get_n("v"), policy) else {
            return Err(PrefsError);
        };
        Ok(Self {
            default: *default,
            always: read_list(attrs.get_b("a"))?,
            never: read_list(attrs.get_b("n"))?,
        })
    }
}

fn read_list(bytes: Option<&Bytes>) -> Result<Vec<Jid>, PrefsError> {
    let Some(bytes) = bytes else {
        return Ok(Vec::new());
    };
    let text = std::str::from_utf8(bytes).map_err(|_| PrefsError)?;
    let text = text.strip_suffix('\0').ok_or(PrefsError)?;
    let parse = |jid| Jid::parse(jid).map_err(|_| PrefsError);
    text.split('\0').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Prefs, StanzaError> {
        Prefs::parse(&Element::parse(xml.as_bytes(), "").unwrap(), 2)
    }

    fn prefs(default: &str, always: &str, never: &str) -> Prefs {
        let list = |jids: &str| -> String {
            let jids = jids.split_whitespace();
            jids.map(|jid| format!("<jid>{jid}</jid>")).collect()
        };
        let (always, never) = (list(always), list(never));
        parse(&format!(
            "<prefs xmlns='urn:xmpp:mam:2' default='{default}'><always>{always}</always>\
             <never>{never}</never></prefs>"
        ))
        .unwrap()
    }

    #[test]
    fn they_are_written_as_they_were_read() {
        let prefs = prefs("roster", "romeo@a.example", "tybalt@b.example/x b.example");
        let xml = String::from_utf8(prefs.to_xml()).unwrap();
        assert_eq!(parse(&xml), Ok(prefs.clone()));
        let mut attrs = Attrs::new().with("x", "another's");
        prefs.write(&mut attrs);
        assert_eq!(attrs.get_s("x"), Some("another's"));
        assert_eq!(Prefs::read(&attrs), Ok(prefs));
        Prefs::default().write(&mut attrs);
        assert_eq!(Prefs::read(&attrs), Ok(Prefs::default()));
        assert_eq!(Prefs::read(&Attrs::new()), Ok(Prefs::default()));
        let empty = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>";
        assert_eq!(Prefs::default().to_xml(), empty.as_bytes());
    }

    #[test]
    fn the_bytes_of_format_1() {
        let mut attrs = Attrs::new();
        prefs("never", "a@b.example c.example/d", "").write(&mut attrs);
        let golden = Attrs::new()
            .with("v", 1u64)
            .with("d", 1u64)
            .with("a", b"a@b.example\0c.example/d\0".to_vec());
        assert_eq!(attrs, golden);
        for damaged in [
            golden.clone().with("v", 2u64),
            golden.clone().with("d", 3u64),
            golden.clone().with("a", b"a@b.example".to_vec()),
            golden.with("a", b"@\0".to_vec()),
        ] {
            assert_eq!(Prefs::read(&damaged), Err(PrefsError));
        }
    }

    #[test]
    fn what_is_asked_for_wrongly() {
        for (xml, condition) in [
            ("<prefs/>", Condition::BadRequest),
            ("<prefs default='maybe'/>", Condition::BadRequest),
            (
                "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>@</jid></never></prefs>",
                Condition::JidMalformed,
            ),
            (
                "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>a</jid><jid>b</jid>\
                 <jid>c</jid></never></prefs>",
                Condition::ResourceConstraint,
            ),
        ] {
            assert_eq!(parse(xml).unwrap_err().condition, condition, "{xml}");
        }
    }

    #[test]
    fn who_is_archived() {
        let allow = |prefs: &Prefs, jid: &str| {
            let friend = |bare: &BareJid| bare.as_str() == "friend@a.example";
            prefs.allow(&Jid::parse(jid).unwrap(), friend)
        };
        let roster = prefs("roster", "romeo@a.example", "friend@a.example/work");
        for (jid, archived) in [
            ("friend@a.example/home", true),
            ("friend@a.example/work", false),
            ("romeo@a.example/x", true),
            ("tybalt@a.example", false),
        ] {
            assert_eq!(allow(&roster, jid), archived, "{jid}");
        }
        let both = prefs("always", "a@b.example", "a@b.example");
        assert!(!allow(&both, "a@b.example"), "never counts");
        let but_one = prefs("always", "a@b.example/x", "a@b.example");
        assert!(allow(&but_one, "a@b.example/x") && !allow(&but_one, "a@b.example/y"));
        assert!(!allow(&prefs("never", "", ""), "friend@a.example"));
    }
}
