//! `<stream:features/>` (RFC 6120 section 4.3.2).

use cirrus_sasl::{ChannelBinding, Mechanism, offer};
use cirrus_stanza::ns;
use cirrus_xml::Writer;

use super::{Secured, Step, Stream};

/// Namespace of TLS negotiation (RFC 6120 section 5).
pub(super) const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// Namespace of SASL negotiation (RFC 6120 section 6).
pub(super) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Namespace of the extensible SASL profile (XEP-0388).
pub(super) const SASL2: &str = "urn:xmpp:sasl:2";
/// Namespace of binding together with the login (XEP-0386).
pub(super) const BIND2: &str = "urn:xmpp:bind:0";
/// Namespace of login with a token (XEP-0484).
pub(super) const FAST: &str = "urn:xmpp:fast:0";
/// Namespace of the list of channel binding types (XEP-0440).
pub const CHANNEL_BINDING: &str = "urn:xmpp:sasl-cb:0";
const REGISTER: &str = "http://jabber.org/features/iq-register";
const ROSTER_VERSION: &str = "urn:xmpp:features:rosterver";
const PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";

/// What a server announces beyond what every stream needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Accounts can be registered in band (XEP-0077).
    pub register: bool,
    /// Roster versioning (RFC 6121 section 2.6).
    pub roster_versions: bool,
    /// Subscription pre-approval (RFC 6121 section 3.4).
    pub pre_approval: bool,
    /// Stream management (XEP-0198).
    pub stream_management: bool,
    /// Client state indication (XEP-0352).
    pub client_state: bool,
    /// The extensible SASL profile (XEP-0388), and binding with it (XEP-0386).
    pub sasl2: bool,
    /// Login with a token (XEP-0484), which needs that profile.
    pub fast: bool,
    /// Further features of a stream that has logged in, as XML: entity capabilities (XEP-0115
    /// section 6.3).
    pub extra: Vec<u8>,
}

impl Stream {
    /// What may be negotiated now: TLS, then a login, then a resource.
    pub(super) fn write_features(&self, step: &mut Step<'_>) {
        let mut w = Writer::new();
        w.start("stream:features");
        let login = self.login.as_deref();
        if login.is_some_and(|login| login.user.is_some()) {
            self.session_features(false, &mut w);
        } else if let Some(secured) = login.and_then(|login| login.secured.as_ref()) {
            self.login_features(secured, &mut w);
        } else {
            w.start("starttls")
                .attr("xmlns", TLS)
                .start("required")
                .end();
            w.end();
        }
        w.end();
        step.out.bytes.extend_from_slice(&w.into_bytes());
    }

    fn login_features(&self, secured: &Secured, w: &mut Writer) {
        w.start("mechanisms").attr("xmlns", SASL);
        for mechanism in offered(&self.settings.mechanisms, &secured.bindings) {
            w.start("mechanism").text(mechanism.name()).end();
        }
        w.end();
        if self.settings.features.sasl2 {
            self.login2_features(secured, w);
        }
        if !secured.bindings.is_empty() {
            w.start("sasl-channel-binding")
                .attr("xmlns", CHANNEL_BINDING);
            for binding in &secured.bindings {
                w.start("channel-binding")
                    .attr("type", binding.kind.name())
                    .end();
            }
            w.end();
        }
        if self.settings.features.register {
            w.start("register").attr("xmlns", REGISTER).end();
        }
        w.raw(&self.settings.features.extra);
    }

    /// XEP-0388 section 2.1, with what may be asked for together with the login.
    fn login2_features(&self, secured: &Secured, w: &mut Writer) {
        let features = &self.settings.features;
        w.start("authentication").attr("xmlns", SASL2);
        for mechanism in offered(&self.settings.mechanisms, &secured.bindings) {
            w.start("mechanism").text(mechanism.name()).end();
        }
        w.start("inline");
        w.start("bind").attr("xmlns", BIND2).start("inline");
        let offered = [
            (true, ns::CARBONS),
            (features.client_state, ns::CSI),
            (features.stream_management, ns::SM),
        ];
        for (_, namespace) in offered.iter().filter(|(on, _)| *on) {
            w.start("feature").attr("var", namespace).end();
        }
        w.end().end();
        if features.stream_management {
            w.start("sm").attr("xmlns", ns::SM).end();
        }
        self.token_features(w);
        w.end().end();
    }

    /// What a stream that has logged in can do, with a resource or before it has one.
    pub(super) fn session_features(&self, bound: bool, w: &mut Writer) {
        let features = &self.settings.features;
        if !bound {
            w.start("bind").attr("xmlns", ns::BIND).end();
            w.start("session")
                .attr("xmlns", ns::SESSION)
                .start("optional")
                .end();
            w.end();
        }
        if features.stream_management {
            w.start("sm").attr("xmlns", ns::SM).end();
        }
        if features.client_state {
            w.start("csi").attr("xmlns", ns::CSI).end();
        }
        if features.roster_versions {
            w.start("ver").attr("xmlns", ROSTER_VERSION).end();
        }
        if features.pre_approval {
            w.start("sub").attr("xmlns", PRE_APPROVAL).end();
        }
        w.raw(&features.extra);
    }
}

/// The mechanisms of `configured` that a connection under TLS with these bindings can do.
pub(super) fn offered(configured: &[Mechanism], bindings: &[ChannelBinding]) -> Vec<Mechanism> {
    offer(configured, true, bindings)
}
