//! RFC 3921 section 3: the session that clients of that time ask for after binding. Binding does
//! it all since RFC 6121; the request is granted and changes nothing.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Ty, ns};

pub(crate) static FEATURE: Feature = Feature {
    name: "session",
    source: Source::Rfc(3921),
    summary: "Grants the session request of old clients.",
    server: &[],
    account: &[],
    iqs: &[route(Scope::Server), route(Scope::Account)],
};

const fn route(scope: Scope) -> IqRoute {
    IqRoute {
        scope,
        ty: Ty::Set,
        element: "session",
        namespace: ns::SESSION,
        handle: grant,
    }
}

fn grant(_: &IqRequest<'_>) -> IqReply {
    IqReply::Result(Vec::new())
}
