//! XEP-0280: what service discovery and the documentation say about it, and the refusal for other
//! users; the work is in the user entity.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Condition, StanzaError, Ty, ns};

pub(crate) static FEATURE: Feature = Feature {
    name: "message carbons",
    source: Source::Xep(280, "1.0.1"),
    summary: "Sessions that ask for it see what the user's other sessions send and are sent.",
    server: &[ns::CARBONS],
    account: &[ns::CARBONS],
    iqs: &[route("enable"), route("disable")],
};

const fn route(element: &'static str) -> IqRoute {
    IqRoute {
        scope: Scope::Account,
        ty: Ty::Set,
        element,
        namespace: ns::CARBONS,
        handle: refuse,
    }
}

/// The user entity answers its own sessions, so whoever comes here is somebody else.
fn refuse(_: &IqRequest<'_>) -> IqReply {
    let text = "copies are switched on and off at the own account only";
    IqReply::Error(StanzaError::new(Condition::NotAllowed, text))
}
