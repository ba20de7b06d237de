//! XEP-0030: what the server and its accounts are and can do.

use cirrus_router::{Feature, IqReply, IqRequest, IqRoute, Registry, Scope, Source};
use cirrus_stanza::{Condition, Ty, ns};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "service discovery",
    source: Source::Xep(30, "2.5.0"),
    summary: "Identity, features and items of the server and of accounts.",
    server: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    account: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    iqs: &[
        route(Scope::Server, ns::DISCO_INFO, server_info),
        route(Scope::Server, ns::DISCO_ITEMS, server_items),
        route(Scope::Account, ns::DISCO_INFO, account_info),
        route(Scope::Account, ns::DISCO_ITEMS, account_items),
    ],
};

const fn route(
    scope: Scope,
    namespace: &'static str,
    handle: fn(&IqRequest<'_>) -> IqReply,
) -> IqRoute {
    IqRoute {
        scope,
        ty: Ty::Get,
        element: "query",
        namespace,
        handle,
    }
}

/// Category, type and name of the server's identity.
pub(crate) const SERVER: (&str, &str) = ("server", "im");

fn server_info(request: &IqRequest<'_>) -> IqReply {
    let node = node(request);
    let caps = crate::caps(request.registry, request.about);
    if node.as_deref().is_some_and(|node| node != caps.node_ver()) {
        return IqReply::Error(Condition::ItemNotFound.into());
    }
    let name = &request.about.name;
    IqReply::Result(info(
        node.as_deref(),
        SERVER,
        Some(name),
        request.registry,
        Scope::Server,
    ))
}

fn account_info(request: &IqRequest<'_>) -> IqReply {
    if !visible(request) {
        return IqReply::Error(Condition::ServiceUnavailable.into());
    }
    if node(request).is_some() {
        return IqReply::Error(Condition::ItemNotFound.into());
    }
    let identity = ("account", "registered");
    IqReply::Result(info(None, identity, None, request.registry, Scope::Account))
}

fn server_items(request: &IqRequest<'_>) -> IqReply {
    if node(request).is_some() {
        return IqReply::Error(Condition::ItemNotFound.into());
    }
    IqReply::Result(items(&[]))
}

/// A user's resources, for those who may see its presence (XEP-0030 section 4.1).
fn account_items(request: &IqRequest<'_>) -> IqReply {
    let Some(account) = request.account.as_ref().filter(|_| visible(request)) else {
        return IqReply::Error(Condition::ServiceUnavailable.into());
    };
    if node(request).is_some() {
        return IqReply::Error(Condition::ItemNotFound.into());
    }
    IqReply::Result(items(&account.resources))
}

fn visible(request: &IqRequest<'_>) -> bool {
    request
        .account
        .as_ref()
        .is_some_and(|account| account.subscribed)
}

fn node(request: &IqRequest<'_>) -> Option<String> {
    let query = request.stanza.children().next()?;
    query
        .attr("node")
        .map(std::borrow::Cow::into_owned)
        .filter(|node| !node.is_empty())
}

fn info(
    node: Option<&str>,
    (category, ty): (&str, &str),
    name: Option<&str>,
    registry: &Registry,
    scope: Scope,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("query")
        .attr("xmlns", ns::DISCO_INFO)
        .attr_opt("node", node);
    w.start("identity")
        .attr("category", category)
        .attr("type", ty)
        .attr_opt("name", name)
        .end();
    for feature in registry.disco(scope) {
        w.start("feature").attr("var", feature).end();
    }
    w.end();
    w.into_bytes()
}

fn items(jids: &[String]) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("query").attr("xmlns", ns::DISCO_ITEMS);
    for jid in jids {
        w.start("item").attr("jid", jid).end();
    }
    w.end();
    w.into_bytes()
}
