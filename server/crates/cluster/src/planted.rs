//! Planted bugs of clusters: each breaks one rule, here or in what is built on this crate, so that
//! a test can show that the simulation finds it. Without the feature `planted` every switch is off
//! and costs nothing.

/// The bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// No bug.
    None = 0,
    /// What an entry made due leaves before the copy has the entry.
    OutputBeforeCopy,
    /// What was said in another view counts.
    StaleEpoch,
    /// Who listens does not notice that something is missing.
    SkipPrev,
    /// Who listens takes what is repeated as new.
    TakeTwice,
    /// A copy that is not needed any more is given up without asking.
    RetireUnasked,
    /// A state does not say what was taken from whom.
    ForgetHeard,
    /// A new home does not ask again for what was not answered.
    ForgetPending,
    /// A node is removed as soon as it is not heard, whatever its lease says.
    LeaseNotAwaited,
    /// A drain is over before the copies are made.
    DrainEndsEarly,
    /// A view that was read counts, though a newer one has come from another node meanwhile.
    ViewBackwards,
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

    /// Whether that bug is planted.
    pub fn is(bug: Bug) -> bool {
        PLANTED.with(|planted| planted.get() == bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{is, plant};

/// Whether that bug is planted: it never is.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Bug) -> bool {
    false
}
