//! XEP-0198: what service discovery and the documentation say about it; the work is in the user
//! entity and, for streams, in the pipe.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "stream management",
    source: Source::Xep(198, "1.6.3"),
    summary: "Acknowledgements in both directions and resumption of broken streams, with a \
                  location where nodes have addresses of their own.",
    server: &[],
    account: &[],
    iqs: &[],
};
