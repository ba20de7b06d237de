//! XEP-0424: what service discovery and the documentation say about it; the work is in the user
//! entity.

use cirrus_router::{Feature, Source};
use cirrus_stanza::ns;

pub(crate) static FEATURE: Feature = Feature {
    name: "message retraction",
    source: Source::Xep(424, "0.4.2"),
    summary: "Retractions are archived always; in both archives the message is replaced by a note \
              that it was retracted, if it is found within four requests.",
    server: &[],
    account: &[ns::RETRACT, ns::RETRACT_TOMBSTONE],
    iqs: &[],
};
