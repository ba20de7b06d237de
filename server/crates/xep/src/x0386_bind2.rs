//! XEP-0386: what the documentation says about it; the work is in the stream and in the user
//! entity.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "bind 2",
    source: Source::Xep(386, "1.1.0"),
    summary: "A resource together with the login, and with it stream management, message carbons, \
              client state, and where the archive begins and ends. Offline messages are sent as \
              ever.",
    server: &[],
    account: &[],
    iqs: &[],
};
