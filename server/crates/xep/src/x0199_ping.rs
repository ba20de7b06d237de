//! XEP-0199: is the server, or the account's server, there?

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Ty, ns};

pub(crate) static FEATURE: Feature = Feature {
    name: "ping",
    source: Source::Xep(199, "2.0.1"),
    summary: "Answers pings to the server and to the own account.",
    server: &[ns::PING],
    account: &[ns::PING],
    iqs: &[route(Scope::Server), route(Scope::Account)],
};

const fn route(scope: Scope) -> IqRoute {
    IqRoute {
        scope,
        ty: Ty::Get,
        element: "ping",
        namespace: ns::PING,
        handle: pong,
    }
}

fn pong(_: &IqRequest<'_>) -> IqReply {
    IqReply::Result(Vec::new())
}
