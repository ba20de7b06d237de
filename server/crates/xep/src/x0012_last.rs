//! XEP-0012: how long a user is away, or the server up.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Condition, Ty, ns};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "last activity",
    source: Source::Xep(12, "2.0"),
    summary: "Seconds since a contact was last online, with its last status; the server's uptime.",
    server: &[ns::LAST],
    account: &[ns::LAST],
    iqs: &[
        IqRoute {
            scope: Scope::Server,
            ty: Ty::Get,
            element: "query",
            namespace: ns::LAST,
            handle: uptime,
        },
        IqRoute {
            scope: Scope::Account,
            ty: Ty::Get,
            element: "query",
            namespace: ns::LAST,
            handle: last,
        },
    ],
};

fn uptime(request: &IqRequest<'_>) -> IqReply {
    IqReply::Result(query(request.now_ms.saturating_sub(request.started_ms), ""))
}

fn last(request: &IqRequest<'_>) -> IqReply {
    let Some(account) = &request.account else {
        return IqReply::Error(Condition::ServiceUnavailable.into());
    };
    if !account.subscribed {
        return IqReply::Error(Condition::Forbidden.into());
    }
    if account.available {
        return IqReply::Result(query(0, ""));
    }
    match account.last_seen {
        Some((at, status)) => IqReply::Result(query(request.now_ms.saturating_sub(at), status)),
        None => IqReply::Error(Condition::ItemNotFound.into()),
    }
}

fn query(ms: u64, status: &str) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("query")
        .attr("xmlns", ns::LAST)
        .attr("seconds", &(ms / 1000).to_string());
    w.text(status).end();
    w.into_bytes()
}
