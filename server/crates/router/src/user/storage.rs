//! Which messages are kept, and how soon (RFC 6121 section 8.5.2, XEP-0160, XEP-0334, XEP-0424).

use cirrus_stanza::{Stanza, Ty, ns};

use super::retract::RETRACTIONS;
use crate::codec::Known;

/// How a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Durable before it is acknowledged.
    Archive,
    /// Durable while its recipient is away, and not kept in an archive (XEP-0334 section 4.1).
    Offline,
    /// Durable with the owner's next write: receipts and displayed markers.
    Deferred,
    /// Not at all: chat states, errors, room traffic, and what its sender asked not to keep.
    Never,
}

impl Storage {
    /// It must not get lost on its way.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Archive | Self::Offline)
    }
}

/// How this message is kept.
pub(crate) fn storage(stanza: &Stanza, format: Known) -> Storage {
    if matches!(stanza.ty, Ty::Error | Ty::Groupchat | Ty::Headline) {
        return Storage::Never;
    }
    let mut kept = Storage::Never;
    let (mut passing, mut unkept) = (false, false);
    for child in stanza.children() {
        match (child.name(), child.ns()) {
            // Whoever was away has to learn of it (XEP-0424 section 6).
            ("retract", ns::RETRACT) if format.has(RETRACTIONS) => return Storage::Archive,
            ("no-store", ns::HINTS) => unkept = true,
            ("no-permanent-store", ns::HINTS) => passing = true,
            ("store", ns::HINTS) => kept = Storage::Archive,
            (_, ns::CHAT_STATES) | ("thread", ns::CLIENT) | (_, ns::HINTS) => {}
            (_, ns::MARKERS) | ("received", ns::RECEIPTS) => {
                if kept == Storage::Never {
                    kept = Storage::Deferred;
                }
            }
            _ => kept = Storage::Archive,
        }
    }
    match kept {
        _ if unkept => Storage::Never,
        Storage::Archive if passing => Storage::Offline,
        Storage::Deferred if passing => Storage::Never,
        kept => kept,
    }
}

#[cfg(test)]
mod tests {
    use cirrus_stanza::Kind;

    use super::*;

    fn in_format(format: u8, ty: Ty, content: &str) -> Storage {
        let stanza = Stanza::new(Kind::Message, ty).content(content.as_bytes().to_vec());
        let mut known = Known::default();
        known.learn(format);
        storage(&stanza, known)
    }

    fn of(ty: Ty, content: &str) -> Storage {
        in_format(RETRACTIONS, ty, content)
    }

    #[test]
    fn what_is_kept() {
        const STATE: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        const HINT: &str = "<no-store xmlns='urn:xmpp:hints'/>";
        const RECEIPT: &str = "<received xmlns='urn:xmpp:receipts' id='1'/>";
        assert_eq!(of(Ty::Chat, "<body>a</body>"), Storage::Archive);
        assert_eq!(
            of(Ty::Normal, "<x xmlns='jabber:x:oob'/>"),
            Storage::Archive
        );
        assert_eq!(of(Ty::Chat, STATE), Storage::Never);
        assert_eq!(
            of(Ty::Chat, &format!("{STATE}<thread>t</thread>")),
            Storage::Never
        );
        assert_eq!(
            of(Ty::Chat, &format!("<body>a</body>{STATE}")),
            Storage::Archive
        );
        assert_eq!(
            of(Ty::Chat, &format!("<body>a</body>{HINT}")),
            Storage::Never
        );
        const PASSING: &str = "<no-permanent-store xmlns='urn:xmpp:hints'/>";
        const STORE: &str = "<store xmlns='urn:xmpp:hints'/>";
        assert_eq!(
            of(Ty::Chat, &format!("{PASSING}<body>a</body>")),
            Storage::Offline
        );
        assert_eq!(of(Ty::Chat, &format!("{RECEIPT}{PASSING}")), Storage::Never);
        assert_eq!(of(Ty::Chat, &format!("{STATE}{STORE}")), Storage::Archive);
        assert_eq!(
            of(Ty::Chat, &format!("{STORE}<body>a</body>{HINT}")),
            Storage::Never
        );
        const RETRACT: &str = "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>";
        for hint in [HINT, PASSING] {
            let retraction = format!("{hint}{RETRACT}");
            assert_eq!(of(Ty::Chat, &retraction), Storage::Archive);
            assert_eq!(of(Ty::Groupchat, &retraction), Storage::Never);
            let before = in_format(RETRACTIONS - 1, Ty::Chat, &retraction);
            assert_ne!(before, Storage::Archive);
        }
        assert_eq!(of(Ty::Chat, RECEIPT), Storage::Deferred);
        assert_eq!(
            of(Ty::Chat, &format!("<body>a</body>{RECEIPT}")),
            Storage::Archive
        );
        assert_eq!(of(Ty::Headline, "<body>a</body>"), Storage::Never);
        assert_eq!(of(Ty::Error, "<body>a</body>"), Storage::Never);
        assert_eq!(of(Ty::Chat, ""), Storage::Never);
    }
}
