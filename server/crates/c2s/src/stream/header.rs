//! Stream headers, the client's and ours (RFC 6120 sections 4.7 and 4.8).

use std::fmt::Write as _;

use bytes::Bytes;
use cirrus_jid::Jid;
use cirrus_stanza::{LANG_BYTES, StreamError, ns};
use cirrus_xml::{Header, parse_header};

use super::{Phase, Step, Stream};

/// Why a header is refused, with a text for a person.
type Refusal = (StreamError, &'static str);

impl Stream {
    pub(super) fn open_stream(&mut self, bytes: &Bytes, step: &mut Step<'_>) {
        let header = match parse_header(bytes, &self.settings.limits_before) {
            Ok(header) => header,
            Err(fault) => return self.fault(&fault, step),
        };
        let lang = header.attr("xml:lang");
        self.lang = lang.filter(|lang| lang.len() <= LANG_BYTES).map(Into::into);
        match self.accept(&header) {
            Ok(from) => {
                self.scope = header.scope;
                self.write_header(from.as_ref(), step);
                self.write_features(step);
                self.phase = Phase::Negotiating;
            }
            Err((error, text)) => self.fail(error, Some(text), step),
        }
    }

    /// Checks the client's header; sets the host. The answer is the `from` it gave.
    fn accept(&mut self, header: &Header) -> Result<Option<Jid>, Refusal> {
        check_namespaces(header)?;
        check_version(header.attr("version"))?;
        let host = self.check_to(header.attr("to"))?;
        let from = match header.attr("from").map(Jid::parse) {
            None => None,
            Some(Ok(from)) => Some(from),
            Some(Err(_)) => return Err((StreamError::InvalidFrom, "'from' is not a JID")),
        };
        if let Some(login) = self.login.as_deref() {
            let other = |jid: &Jid| login.user.as_ref().is_some_and(|user| *user != jid.bare());
            if from.as_ref().is_some_and(other) {
                let text = "'from' is not the account that has logged in";
                return Err((StreamError::InvalidFrom, text));
            }
            if login.user.as_ref().is_some_and(|user| user.host() != host) {
                return Err((StreamError::NotAuthorized, "'to' is not the account's host"));
            }
            let secured = login
                .secured
                .as_ref()
                .and_then(|secured| secured.host.as_deref());
            if secured.is_some_and(|secured| secured != host) {
                // Certificate and session tickets are that host's.
                return Err((
                    StreamError::HostUnknown,
                    "TLS was negotiated for another host",
                ));
            }
        }
        if let Some(login) = self.login.as_deref_mut() {
            login.from = from.as_ref().map(Jid::bare);
        }
        self.host = Some(host.into());
        Ok(from)
    }

    fn check_to(&self, to: Option<&str>) -> Result<String, Refusal> {
        let Some(to) = to else {
            return Err((
                StreamError::ImproperAddressing,
                "the stream header needs a 'to'",
            ));
        };
        let Ok(host) = cirrus_jid::host(to) else {
            return Err((StreamError::ImproperAddressing, "'to' is not a host"));
        };
        if self.settings.serves(&host) {
            Ok(host)
        } else if self.settings.served_once(&host) {
            Err((StreamError::HostGone, "this host is no longer served here"))
        } else {
            Err((StreamError::HostUnknown, "this host is not served here"))
        }
    }

    /// Sends our header if the present stream has none yet.
    pub(super) fn announce(&mut self, step: &mut Step<'_>) {
        if !self.header_sent {
            self.write_header(None, step);
        }
    }

    fn write_header(&mut self, to: Option<&Jid>, step: &mut Step<'_>) {
        let mut id = String::with_capacity(32);
        // Writing into a String can't fail.
        let _ = write!(id, "{:032x}", step.entropy.u128());
        let host = self
            .host
            .as_deref()
            .unwrap_or_else(|| self.settings.default_host());
        let bytes = &mut step.out.bytes;
        bytes.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'");
        let mut attr = |name: &str, value: &str| {
            bytes.push(b' ');
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"='");
            cirrus_xml::escape_attr(value, bytes);
            bytes.push(b'\'');
        };
        attr("xmlns:stream", ns::STREAM);
        attr("id", &id);
        attr("from", host);
        if let Some(to) = to {
            attr("to", to.bare().as_str());
        }
        attr("version", "1.0");
        attr("xml:lang", "en");
        bytes.push(b'>');
        self.header_sent = true;
    }

    /// The stream starts anew, over TLS or as an account (RFC 6120 section 4.3.3).
    pub(super) fn restart(&mut self) {
        self.phase = Phase::Header;
        self.header_sent = false;
    }
}

fn check_namespaces(header: &Header) -> Result<(), Refusal> {
    if header.prefix.is_empty() && header.ns == ns::STREAM {
        return Err((
            StreamError::BadNamespacePrefix,
            "the stream element needs a prefix",
        ));
    }
    if header.ns != ns::STREAM {
        return Err((
            StreamError::InvalidNamespace,
            "not the namespace of XMPP streams",
        ));
    }
    if header.scope.default_ns() != ns::CLIENT {
        return Err((
            StreamError::InvalidNamespace,
            "the default namespace is jabber:client",
        ));
    }
    if header.name != "stream" {
        return Err((
            StreamError::BadFormat,
            "a stream starts with <stream:stream>",
        ));
    }
    Ok(())
}

/// Before 1.0 there were no features; later versions negotiate down (RFC 6120 section 4.7.5).
fn check_version(version: Option<&str>) -> Result<(), Refusal> {
    let major = version.and_then(|version| {
        let (major, minor) = version.split_once('.')?;
        minor.parse::<u32>().ok()?;
        major.parse::<u32>().ok()
    });
    match major {
        Some(1..) => Ok(()),
        _ => Err((
            StreamError::UnsupportedVersion,
            "this server speaks XMPP 1.0",
        )),
    }
}
