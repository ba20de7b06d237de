//! XEP-0313: what service discovery and the documentation say about it, the form of its queries,
//! and the refusal for other users; the work is in the user entity.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Condition, StanzaError, Ty, ns};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "message archive",
    source: Source::Xep(313, "1.1.3"),
    summary: "A user's messages by page, by time, by contact, by id; in either direction.",
    server: &[],
    account: &[ns::MAM, ns::MAM_EXTENDED, ns::MAM_GROUPCHAT_FIELD],
    iqs: &[
        route(Ty::Get, "query", form),
        route(Ty::Set, "query", refuse),
        route(Ty::Get, "metadata", refuse),
    ],
};

const fn route(ty: Ty, element: &'static str, handle: fn(&IqRequest<'_>) -> IqReply) -> IqRoute {
    IqRoute {
        scope: Scope::Account,
        ty,
        element,
        namespace: ns::MAM,
        handle,
    }
}

/// The fields of a query (section 4.1.5).
fn form(request: &IqRequest<'_>) -> IqReply {
    if !request.own {
        return refuse(request);
    }
    let mut w = Writer::new();
    w.start("query").attr("xmlns", ns::MAM);
    w.start("x")
        .attr("xmlns", ns::DATA_FORMS)
        .attr("type", "form");
    w.start("field")
        .attr("type", "hidden")
        .attr("var", "FORM_TYPE");
    w.start("value").text(ns::MAM).end().end();
    for (ty, var) in [
        ("jid-single", "with"),
        ("text-single", "start"),
        ("text-single", "end"),
        ("text-single", "before-id"),
        ("text-single", "after-id"),
        ("boolean", "include-groupchat"),
    ] {
        w.start("field").attr("type", ty).attr("var", var).end();
    }
    w.start("field")
        .attr("type", "list-multi")
        .attr("var", "ids");
    w.start("validate")
        .attr("xmlns", ns::FORM_VALIDATION)
        .attr("datatype", "xs:string");
    w.start("open").end();
    IqReply::Result(w.into_bytes())
}

/// The user entity answers its own sessions, so whoever comes here is somebody else (section 8.1).
pub(crate) fn refuse(_: &IqRequest<'_>) -> IqReply {
    let text = "an account's archive is open to its owner only";
    IqReply::Error(StanzaError::new(Condition::Forbidden, text))
}
