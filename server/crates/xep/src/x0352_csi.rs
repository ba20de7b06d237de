//! XEP-0352: what the documentation says about it; it is announced as a stream feature, and the
//! work is in the user entity.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "client state indication",
    source: Source::Xep(352, "1.0.0"),
    summary: "For a client that nobody looks at, the latest presence and chat state of each sender \
              wait until somebody does, or until something more important comes.",
    server: &[],
    account: &[],
    iqs: &[],
};
