//! Stanza errors (RFC 6120 section 8.3) and stream errors (section 4.9) as values.

use cirrus_xml::Writer;
use serde::{Deserialize, Serialize};

use crate::name::ns;

/// What the sender of a refused stanza may do about it (RFC 6120 section 8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// Proceed: the condition was only a warning.
    Continue,
    /// Retry after changing the data sent.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    /// The value of the `type` attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Continue => "continue",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }
}

macro_rules! conditions {
    ($(#[$outer:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )+
        }

        impl $name {
            /// Every condition the RFC defines, in its order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The element name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The condition of that element name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|condition| condition.as_str() == name)
            }
        }
    };
}

conditions! {
    /// Stanza error conditions (RFC 6120 section 8.3.3).
    Condition {
        BadRequest = "bad-request",
        Conflict = "conflict",
        FeatureNotImplemented = "feature-not-implemented",
        Forbidden = "forbidden",
        Gone = "gone",
        InternalServerError = "internal-server-error",
        ItemNotFound = "item-not-found",
        JidMalformed = "jid-malformed",
        NotAcceptable = "not-acceptable",
        NotAllowed = "not-allowed",
        NotAuthorized = "not-authorized",
        PolicyViolation = "policy-violation",
        RecipientUnavailable = "recipient-unavailable",
        Redirect = "redirect",
        RegistrationRequired = "registration-required",
        RemoteServerNotFound = "remote-server-not-found",
        RemoteServerTimeout = "remote-server-timeout",
        ResourceConstraint = "resource-constraint",
        ServiceUnavailable = "service-unavailable",
        SubscriptionRequired = "subscription-required",
        UndefinedCondition = "undefined-condition",
        UnexpectedRequest = "unexpected-request",
    }
}

impl Condition {
    /// The error type the RFC associates with the condition.
    pub fn default_type(self) -> ErrorType {
        use Condition as C;
        match self {
            C::BadRequest | C::JidMalformed | C::NotAcceptable | C::PolicyViolation => {
                ErrorType::Modify
            }
            C::Forbidden | C::NotAuthorized | C::RegistrationRequired | C::SubscriptionRequired => {
                ErrorType::Auth
            }
            C::RecipientUnavailable
            | C::RemoteServerTimeout
            | C::ResourceConstraint
            | C::UnexpectedRequest => ErrorType::Wait,
            C::Redirect => ErrorType::Modify,
            _ => ErrorType::Cancel,
        }
    }
}

/// One stanza error: condition, type and an optional text for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StanzaError {
    /// What the sender may do.
    pub ty: ErrorType,
    /// What went wrong.
    pub condition: Condition,
    /// English text that names the input and the remedy.
    pub text: Option<String>,
}

impl From<Condition> for StanzaError {
    fn from(condition: Condition) -> Self {
        Self {
            ty: condition.default_type(),
            condition,
            text: None,
        }
    }
}

impl StanzaError {
    /// The condition with its usual type and a text.
    pub fn new(condition: Condition, text: impl Into<String>) -> Self {
        Self {
            ty: condition.default_type(),
            condition,
            text: Some(text.into()),
        }
    }

    /// The same error with another type.
    #[must_use]
    pub fn with_type(mut self, ty: ErrorType) -> Self {
        self.ty = ty;
        self
    }

    /// The `<error/>` child (RFC 6120 section 8.3.1).
    pub fn to_xml(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.start("error").attr("type", self.ty.as_str());
        w.start(self.condition.as_str())
            .attr("xmlns", ns::STANZAS)
            .end();
        if let Some(text) = &self.text {
            w.start("text")
                .attr("xmlns", ns::STANZAS)
                .attr("xml:lang", "en");
            w.text(text).end();
        }
        w.end();
        w.into_bytes()
    }
}

conditions! {
    /// Stream error conditions (RFC 6120 section 4.9.3). Each ends the stream.
    StreamError {
        BadFormat = "bad-format",
        BadNamespacePrefix = "bad-namespace-prefix",
        Conflict = "conflict",
        ConnectionTimeout = "connection-timeout",
        HostGone = "host-gone",
        HostUnknown = "host-unknown",
        ImproperAddressing = "improper-addressing",
        InternalServerError = "internal-server-error",
        InvalidFrom = "invalid-from",
        InvalidNamespace = "invalid-namespace",
        InvalidXml = "invalid-xml",
        NotAuthorized = "not-authorized",
        NotWellFormed = "not-well-formed",
        PolicyViolation = "policy-violation",
        RemoteConnectionFailed = "remote-connection-failed",
        Reset = "reset",
        ResourceConstraint = "resource-constraint",
        RestrictedXml = "restricted-xml",
        SeeOtherHost = "see-other-host",
        SystemShutdown = "system-shutdown",
        UndefinedCondition = "undefined-condition",
        UnsupportedEncoding = "unsupported-encoding",
        UnsupportedFeature = "unsupported-feature",
        UnsupportedStanzaType = "unsupported-stanza-type",
        UnsupportedVersion = "unsupported-version",
    }
}

impl StreamError {
    /// The `<stream:error/>` element, with a text for a person if there is one.
    pub fn to_xml(self, text: Option<&str>) -> Vec<u8> {
        let mut w = Writer::new();
        w.start("stream:error");
        w.start(self.as_str()).attr("xmlns", ns::STREAMS).end();
        if let Some(text) = text {
            w.start("text")
                .attr("xmlns", ns::STREAMS)
                .attr("xml:lang", "en");
            w.text(text).end();
        }
        w.end();
        w.into_bytes()
    }
}
