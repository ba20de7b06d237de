//! XEP-0441: what the documentation says about it, and the refusal for other users; the work is in
//! the user entity.

use cirrus_router::{Feature, IqRoute, Scope, Source};
use cirrus_stanza::{Ty, ns};

use crate::x0313_mam::refuse;

pub(crate) static FEATURE: Feature = Feature {
    name: "archive preferences",
    source: Source::Xep(441, "0.2.0"),
    summary: "A user says with whom messages are archived; what waits for delivery waits anyway.",
    server: &[],
    account: &[],
    iqs: &[route(Ty::Get), route(Ty::Set)],
};

const fn route(ty: Ty) -> IqRoute {
    IqRoute {
        scope: Scope::Account,
        ty,
        element: "prefs",
        namespace: ns::MAM,
        handle: refuse,
    }
}
