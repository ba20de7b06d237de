//! XEP-0334: what service discovery and the documentation say about it; the work is in the user
//! entity.

use cirrus_router::{Feature, Source};
use cirrus_stanza::ns;

pub(crate) static FEATURE: Feature = Feature {
    name: "processing hints",
    source: Source::Xep(334, "1.0.0"),
    summary: "Senders say what is kept, kept until it is delivered, not kept, not copied.",
    server: &[],
    account: &[ns::HINTS],
    iqs: &[],
};
