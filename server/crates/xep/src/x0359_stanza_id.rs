//! XEP-0359: what service discovery and the documentation say about it; the work is in the user
//! entity.

use cirrus_router::{Feature, Source};
use cirrus_stanza::ns;

pub(crate) static FEATURE: Feature = Feature {
    name: "stanza ids",
    source: Source::Xep(359, "0.7.0"),
    summary: "Messages carry their id in the archive, live and later; forged ones do not.",
    server: &[],
    account: &[ns::SID],
    iqs: &[],
};
