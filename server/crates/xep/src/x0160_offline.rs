//! XEP-0160: what service discovery and the documentation say about it; the work is in the user
//! entity and, for streams, in the pipe.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "offline messages",
    source: Source::Xep(160, "1.0.1"),
    summary: "Messages for users who are away wait in their archive and arrive in order, once.",
    server: &["msgoffline"],
    account: &[],
    iqs: &[],
};
