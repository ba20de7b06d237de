//! XEP-0203: what service discovery and the documentation say about it; the work is in the user
//! entity and, for streams, in the pipe.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "delayed delivery",
    source: Source::Xep(203, "2.0"),
    summary: "Messages that waited say since when.",
    server: &[],
    account: &[],
    iqs: &[],
};
