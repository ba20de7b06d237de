//! XEP-0092: the server's name and version.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Ty, ns};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "software version",
    source: Source::Xep(92, "1.1"),
    summary: "Name and version of the server; the operating system is nobody's business.",
    server: &[ns::VERSION],
    account: &[],
    iqs: &[IqRoute {
        scope: Scope::Server,
        ty: Ty::Get,
        element: "query",
        namespace: ns::VERSION,
        handle: version,
    }],
};

fn version(request: &IqRequest<'_>) -> IqReply {
    let mut w = Writer::new();
    w.start("query").attr("xmlns", ns::VERSION);
    w.start("name").text(&request.about.name).end();
    w.start("version").text(&request.about.version).end();
    w.end();
    IqReply::Result(w.into_bytes())
}
