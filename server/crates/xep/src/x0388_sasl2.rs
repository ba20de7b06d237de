//! XEP-0388: what the documentation says about it; the work is in the stream.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "extensible SASL profile",
    source: Source::Xep(388, "1.0.4"),
    summary: "Login without a new stream; a resource or a resumed session comes with it.",
    server: &[],
    account: &[],
    iqs: &[],
};
