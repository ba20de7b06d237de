//! What can go wrong.

use std::io;
use std::ops::RangeInclusive;

use crate::frame::TooBig;
use crate::hello::Refusal;

/// Links that cannot start at all.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The certificate for links could not be made.
    #[error("cannot make the certificate for links between nodes: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refuses the settings.
    #[error("TLS settings of links between nodes: {0}")]
    Settings(#[from] rustls::Error),
    /// The system gives no random bytes.
    #[error("the system has no randomness, so no link between nodes can be authenticated")]
    Randomness,
    /// An option that no link could work with.
    #[error("{0}")]
    Option(&'static str),
}

/// Why a connection ends, or never becomes a link. For a log line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("connecting took longer than {0} ms")]
    Connect(u128),
    #[error("the handshake took longer than {0} ms")]
    Handshake(u128),
    #[error("it speaks no cirrus-link; is the address a node's?")]
    Protocol,
    #[error("{0}")]
    Refused(Refusal),
    #[error("the other node says: {0}")]
    RefusedThere(Refusal),
    #[error("the other node has closed it")]
    Ended,
    #[error("nothing came from the other node for {0} ms")]
    Silent(u128),
    #[error(
        "no link version is understood by both: the other node understands {}, this one {}; \
         update the older one through each version in turn",
        range(theirs.as_ref()), range(Some(ours))
    )]
    Versions {
        /// What the other node understands, if it has said so.
        theirs: Option<RangeInclusive<u16>>,
        ours: RangeInclusive<u16>,
    },
    #[error("{0}")]
    Closed(&'static str),
    #[error(transparent)]
    TooBig(#[from] TooBig),
    #[error("the system has no randomness")]
    Randomness,
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl Lost {
    /// Trying again soon would change nothing.
    pub(crate) fn is_stubborn(&self) -> bool {
        match self {
            Lost::Protocol | Lost::Versions { .. } => true,
            Lost::Refused(refusal) | Lost::RefusedThere(refusal) => *refusal != Refusal::Crossed,
            _ => false,
        }
    }

    /// Nothing is wrong: a link with the node exists.
    pub(crate) fn is_crossed(&self) -> bool {
        matches!(
            self,
            Lost::Refused(Refusal::Crossed) | Lost::RefusedThere(Refusal::Crossed)
        )
    }
}

fn range(versions: Option<&RangeInclusive<u16>>) -> String {
    match versions {
        Some(versions) => format!("{} to {}", versions.start(), versions.end()),
        None => "others".into(),
    }
}
