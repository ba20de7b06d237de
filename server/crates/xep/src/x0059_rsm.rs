//! XEP-0059: what the documentation says about it; each protocol that has pages reads them itself.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "result sets",
    source: Source::Xep(59, "1.0"),
    summary: "Pages of the archive, forwards and backwards by id, or just the number of messages.",
    server: &[],
    account: &[],
    iqs: &[],
};
