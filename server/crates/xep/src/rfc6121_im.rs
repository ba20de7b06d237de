//! RFC 6121: roster, subscriptions, presence and message routing live in the user entity itself;
//! this is what service discovery says about it.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "im",
    source: Source::Rfc(6121),
    summary: "Rosters with versioning, subscriptions with pre-approval, presence, routing.",
    server: &[],
    account: &[],
    iqs: &[],
};
