//! Planted bugs: each breaks one rule so that a test can show that the simulation finds it.
//! Without the feature `planted` every switch is constantly off and costs nothing.

/// The bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// No bug.
    None = 0,
    /// A stanza counts as handled before what it implies is durable.
    AckBeforeDurable,
    /// A stanza that a client repeats after a resume is taken twice.
    SkipDedupe,
    /// The archive writes at a position again instead of at the next one.
    ReusePosition,
    /// Offline delivery drops a page.
    DropPage,
    /// The offline cursor moves before the client has acknowledged.
    CursorBeforeAck,
    /// Whoever takes a home over believes that a refused write was not written.
    TrustRefusal,
    /// A snapshot leaves out which stanzas of other sessions were taken.
    ForgetOrigins,
    /// What waits until the client is looked at (XEP-0352) is counted before it is sent.
    NumberBeforeHold,
    /// A segment's row is inserted though its object may not be there.
    RowBeforeObject,
    /// A segment leaves out a message.
    SealTooFar,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Bug> = const { Cell::new(Bug::None) };
    }

    /// Plants a bug in the machines that run on this thread.
    pub fn plant(bug: Bug) {
        PLANTED.with(|planted| planted.set(bug));
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.with(|planted| planted.get() == bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::plant;

#[cfg(feature = "planted")]
use switch::is;

#[cfg(not(feature = "planted"))]
const fn is(_: Bug) -> bool {
    false
}

pub(crate) fn ack_before_durable() -> bool {
    is(Bug::AckBeforeDurable)
}

pub(crate) fn skip_dedupe() -> bool {
    is(Bug::SkipDedupe)
}

pub(crate) fn reuse_position() -> bool {
    is(Bug::ReusePosition)
}

pub(crate) fn drop_page() -> bool {
    is(Bug::DropPage)
}

pub(crate) fn cursor_before_ack() -> bool {
    is(Bug::CursorBeforeAck)
}

pub(crate) fn trust_refusal() -> bool {
    is(Bug::TrustRefusal)
}

pub(crate) fn forget_origins() -> bool {
    is(Bug::ForgetOrigins)
}

pub(crate) fn number_before_hold() -> bool {
    is(Bug::NumberBeforeHold)
}

pub(crate) fn row_before_object() -> bool {
    is(Bug::RowBeforeObject)
}

pub(crate) fn seal_too_far() -> bool {
    is(Bug::SealTooFar)
}
