//! The features a server offers: what each one is, what it announces and which IQs it answers.
//!
//! A feature is data plus functions over values. It is registered once, in the order of one
//! list; documentation, service discovery and dispatch are made from that list.

use std::collections::HashMap;

use cirrus_jid::BareJid;
use cirrus_stanza::{Stanza, StanzaError, Ty};

use crate::event::AccountRequest;

/// The document that defines a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An RFC by number.
    Rfc(u16),
    /// A XEP by number, with the version that is implemented.
    Xep(u16, &'static str),
}

/// Whom an IQ is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The server: a domain it serves.
    Server,
    /// A user's bare JID, or nobody, which is the sender's own account.
    Account,
}

/// One protocol feature.
pub struct Feature {
    /// Short name, as in the documentation.
    pub name: &'static str,
    /// What defines it.
    pub source: Source,
    /// One sentence for the documentation.
    pub summary: &'static str,
    /// What a domain's disco#info lists for it (XEP-0030).
    pub server: &'static [&'static str],
    /// What a bare JID's disco#info lists for it.
    pub account: &'static [&'static str],
    /// The IQs it answers.
    pub iqs: &'static [IqRoute],
}

/// One IQ that a feature answers.
pub struct IqRoute {
    /// At which address.
    pub scope: Scope,
    /// `get` or `set`.
    pub ty: Ty,
    /// The payload's local name.
    pub element: &'static str,
    /// The payload's namespace.
    pub namespace: &'static str,
    /// Answers it.
    pub handle: fn(&IqRequest<'_>) -> IqReply,
}

/// What a handler may know.
pub struct IqRequest<'a> {
    /// The request; `from` is verified.
    pub stanza: &'a Stanza,
    /// The domain that is asked, or the asked account's domain.
    pub host: &'a str,
    /// The asked account; `None` at the server.
    pub account: Option<AccountView<'a>>,
    /// The asker's own account is the asked one.
    pub own: bool,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// When this node started, Unix milliseconds.
    pub started_ms: u64,
    /// Every registered feature.
    pub registry: &'a Registry,
    /// What the server says about itself.
    pub about: &'a About,
}

/// What a handler may know of the asked account.
pub struct AccountView<'a> {
    /// The account.
    pub jid: &'a BareJid,
    /// The asker may see its presence (RFC 6121: subscription `from` or `both`, or itself).
    pub subscribed: bool,
    /// At least one resource is available.
    pub available: bool,
    /// When the last session ended (Unix milliseconds), and the status it left.
    pub last_seen: Option<(u64, &'a str)>,
    /// Full JIDs of the available resources.
    pub resources: Vec<String>,
}

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Software name (XEP-0092).
    pub name: String,
    /// Software version.
    pub version: String,
    /// The domains that are served.
    pub domains: Vec<String>,
    /// Users may register, change and remove accounts in band (XEP-0077).
    pub registration: bool,
}

/// A handler's answer.
pub enum IqReply {
    /// A result with this content, which may be empty.
    Result(Vec<u8>),
    /// An error.
    Error(StanzaError),
    /// A result as soon as the account was changed, or the refusal.
    Account(AccountRequest),
}

type RouteKey = (Scope, Ty, &'static str, &'static str);

/// All features of a server, in the order of registration.
pub struct Registry {
    features: Vec<&'static Feature>,
    routes: HashMap<RouteKey, fn(&IqRequest<'_>) -> IqReply>,
}

impl Registry {
    /// Registers the features in this order. An IQ that two features claim stays with the first.
    pub fn new(features: &[&'static Feature]) -> Self {
        let mut routes = HashMap::new();
        for route in features.iter().flat_map(|feature| feature.iqs) {
            let key = (route.scope, route.ty, route.element, route.namespace);
            routes.entry(key).or_insert(route.handle);
        }
        Self {
            features: features.to_vec(),
            routes,
        }
    }

    /// Every feature, in order.
    pub fn features(&self) -> &[&'static Feature] {
        &self.features
    }

    /// The handler for a request of that payload.
    pub fn route(&self, scope: Scope, stanza: &Stanza) -> Option<fn(&IqRequest<'_>) -> IqReply> {
        let (element, namespace) = stanza.payload.as_ref()?;
        // The map's keys are 'static and the probe's are not, so the few routes are compared.
        self.routes
            .iter()
            .find(|((s, ty, e, ns), _)| {
                *s == scope && *ty == stanza.ty && e == element && ns == namespace
            })
            .map(|(_, handle)| *handle)
    }

    /// Everything disco#info lists at that kind of address, sorted and without repeats.
    pub fn disco(&self, scope: Scope) -> Vec<&'static str> {
        let mut list: Vec<_> = self
            .features
            .iter()
            .flat_map(|feature| match scope {
                Scope::Server => feature.server,
                Scope::Account => feature.account,
            })
            .copied()
            .collect();
        list.sort_unstable();
        list.dedup();
        list
    }
}
