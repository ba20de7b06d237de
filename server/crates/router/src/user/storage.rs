//! Which messages are kept, and how soon (RFC 6121 section 8.5.2, XEP-0160, XEP-0334).

use cirrus_stanza::{Stanza, Ty, ns};

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
pub(crate) fn storage(stanza: &Stanza) -> Storage {
    if matches!(stanza.ty, Ty::Error | Ty::Groupchat | Ty::Headline) {
        return Storage::Never;
    }
    let mut kept = Storage::Never;
    let mut passing = false;
    for child in stanza.children() {
        match (child.name(), child.ns()) {
            ("no-store", ns::HINTS) => return Storage::Never,
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
        Storage::Archive if passing => Storage::Offline,
        Storage::Deferred if passing => Storage::Never,
        kept => kept,
    }
}

#[cfg(test)]
mod tests {
    use cirrus_stanza::Kind;

    use super::*;

    fn of(ty: Ty, content: &str) -> Storage {
        storage(&Stanza::new(Kind::Message, ty).content(content.as_bytes().to_vec()))
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
