//! Which messages a query wants.

use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::Stanza;
use serde::{Deserialize, Serialize};

use crate::codec::Since;
use crate::log::{Content, Direction, Message, Record};
use crate::segment::{self, Retraction};

/// Which messages are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub with: Option<With>,
    /// Not before this time, Unix milliseconds.
    pub start: u64,
    /// Not after this time.
    pub end: u64,
    /// What is older is not kept, Unix milliseconds; 0 = all is.
    pub kept: u64,
    /// Only what this is about.
    pub retracted: Since<10, Option<Box<Retraction>>>,
}

/// With whom (XEP-0313 section 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum With {
    /// With oneself.
    Own,
    /// With somebody, whatever the resource.
    Bare(BareJid),
    /// With that very address.
    Full(Jid),
}

impl With {
    /// With `jid`, in the archive of `owner`.
    pub fn new(jid: &Jid, owner: &BareJid) -> Self {
        match jid.bare() {
            bare if bare == *owner => Self::Own,
            bare if jid.is_bare() => Self::Bare(bare),
            _ => Self::Full(jid.clone()),
        }
    }

    pub(super) fn matches(&self, message: &Message) -> bool {
        let own = message.direction == Direction::Own;
        match self {
            Self::Own => own,
            Self::Bare(bare) => !own && message.peer == *bare,
            Self::Full(jid) => {
                !own && message.peer == jid.bare() && {
                    let stanza = Stanza::from_stored(&message.stanza);
                    stanza.is_some_and(|stanza| {
                        let peer = match message.direction {
                            Direction::Out => stanza.to,
                            _ => stanza.from,
                        };
                        peer.as_ref() == Some(jid)
                    })
                }
            }
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            with: None,
            start: 0,
            end: u64::MAX,
            kept: 0,
            retracted: Since(None),
        }
    }
}

impl Filter {
    /// What a retraction is about, as far as it is kept.
    pub fn retracted(retraction: &Retraction, kept: u64) -> Self {
        let with = match retraction.direction {
            Direction::Own => With::Own,
            _ => With::Bare(retraction.peer.clone()),
        };
        Self {
            with: Some(with),
            kept,
            retracted: Since(Some(Box::new(retraction.clone()))),
            ..Self::default()
        }
    }

    /// Whether it lets every message through that is kept.
    pub fn is_open(&self) -> bool {
        self.with.is_none() && self.start == 0 && self.end == u64::MAX
    }

    /// Not before this time, Unix milliseconds.
    pub fn from(&self) -> u64 {
        self.start.max(self.kept)
    }

    /// What the index knows the wanted peer by.
    pub(super) fn hash(&self) -> Option<u32> {
        self.with.as_ref().map(|with| match with {
            With::Own => segment::OWN,
            With::Bare(bare) => segment::peer_hash(bare),
            With::Full(jid) => segment::peer_hash(&jid.bare()),
        })
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let Content::Message(message) = &record.content else {
            return false;
        };
        message.flags.archive
            && (self.from()..=self.end).contains(&record.t)
            && self.with.as_ref().is_none_or(|with| with.matches(message))
            && self
                .retracted
                .0
                .as_ref()
                .is_none_or(|it| it.is_about(message))
    }
}
