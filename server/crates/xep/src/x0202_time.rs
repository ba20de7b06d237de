//! XEP-0202: the server's time.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Ty, ns, stamp};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "entity time",
    source: Source::Xep(202, "2.0"),
    summary: "The server's time, in UTC.",
    server: &[ns::TIME],
    account: &[],
    iqs: &[IqRoute {
        scope: Scope::Server,
        ty: Ty::Get,
        element: "time",
        namespace: ns::TIME,
        handle: time,
    }],
};

fn time(request: &IqRequest<'_>) -> IqReply {
    let mut w = Writer::new();
    w.start("time").attr("xmlns", ns::TIME);
    w.start("tzo").text("+00:00").end();
    w.start("utc").text(&stamp(request.now_ms)).end();
    w.end();
    IqReply::Result(w.into_bytes())
}
