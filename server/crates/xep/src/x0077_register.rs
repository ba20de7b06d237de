//! XEP-0077: a logged-in user changes its password or removes its account. Making an account
//! happens before there is a session, so it is the stream's business.

use cirrus_router::event::Secret;
use cirrus_router::{AccountRequest, Feature, IqReply, IqRequest, IqRoute, Scope, Source};
use cirrus_stanza::{Condition, StanzaError, Ty, ns};
use cirrus_xml::Writer;

pub(crate) static FEATURE: Feature = Feature {
    name: "in-band registration",
    source: Source::Xep(77, "2.4"),
    summary: "Where the operator allows it: make an account, change its password, remove it.",
    server: &[ns::REGISTER],
    account: &[],
    iqs: &[
        route(Scope::Server, Ty::Get, get),
        route(Scope::Server, Ty::Set, set),
        route(Scope::Account, Ty::Get, get),
        route(Scope::Account, Ty::Set, set),
    ],
};

const fn route(scope: Scope, ty: Ty, handle: fn(&IqRequest<'_>) -> IqReply) -> IqRoute {
    IqRoute {
        scope,
        ty,
        element: "query",
        namespace: ns::REGISTER,
        handle,
    }
}

/// Only users of the domain itself, at the domain or at their own account.
fn is_local(request: &IqRequest<'_>) -> bool {
    let from = request.stanza.from.as_ref();
    let same_host = from.is_some_and(|from| from.host() == request.host);
    same_host && (request.own || request.account.is_none())
}

fn get(request: &IqRequest<'_>) -> IqReply {
    let local = request.stanza.from.as_ref().and_then(|from| from.local());
    let Some(local) = local.filter(|_| is_local(request)) else {
        return IqReply::Error(Condition::NotAllowed.into());
    };
    let mut w = Writer::new();
    w.start("query").attr("xmlns", ns::REGISTER);
    w.start("registered").end();
    w.start("username").text(local).end();
    w.start("password").end();
    w.end();
    IqReply::Result(w.into_bytes())
}

fn set(request: &IqRequest<'_>) -> IqReply {
    let Some(from) = request.stanza.from.as_ref().filter(|_| is_local(request)) else {
        return IqReply::Error(Condition::NotAllowed.into());
    };
    let Some(query) = request.stanza.child("query", ns::REGISTER) else {
        return IqReply::Error(Condition::BadRequest.into());
    };
    let user = from.bare();
    let field = |name: &str| {
        query
            .child(name, ns::REGISTER)
            .map(|f| f.text().into_owned())
    };
    if query.child("remove", ns::REGISTER).is_some() {
        return if query.children().count() == 1 {
            IqReply::Account(AccountRequest::Remove { user })
        } else {
            let text = "a removal has no other fields";
            IqReply::Error(StanzaError::new(Condition::BadRequest, text))
        };
    }
    let (Some(name), Some(password)) = (field("username"), field("password")) else {
        let text = "a change of password needs username and password";
        return IqReply::Error(StanzaError::new(Condition::BadRequest, text));
    };
    if Some(name.to_lowercase().as_str()) != user.local() {
        let text = "you can change the password of your own account only";
        return IqReply::Error(StanzaError::new(Condition::NotAllowed, text));
    }
    IqReply::Account(AccountRequest::SetPassword {
        user,
        password: Secret(password),
    })
}
