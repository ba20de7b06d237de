//! Login with the extensible profile (XEP-0388): the same exchange in other elements, no new stream
//! behind it, and with it a resumption (XEP-0198) or a resource (XEP-0386), so that the client is
//! told everything in one `<success/>`.

use bytes::Bytes;
use cirrus_accounts::IssuedToken;
use cirrus_jid::Jid;
use cirrus_router::{Enabled, Inline, PipeEvent};
use cirrus_sasl::{SaslError, TokenMechanism, carrier};
use cirrus_stanza::{Condition, StanzaError, StreamError, ns};
use cirrus_xml::{Element, Writer};

use super::features::{BIND2, FAST, SASL2};
use super::token::{self, Wishes};
use super::{Awaited, Effect, Step, Stream, sm};

/// Longest name that a client may give itself, in bytes; XEP-0388 has a UUID of 36 in mind.
const MAX_CLIENT_BYTES: usize = 64;

/// What a client asks for together with its login.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// What the client calls itself, the same at each of its logins.
    pub(super) client: Option<Box<str>>,
    /// What it says about tokens.
    pub(super) tokens: Wishes,
    /// The session to resume, and what the client has handled of it.
    resume: Option<(String, u32)>,
    bind: Option<Inline>,
}

/// A login that has succeeded, until the client is told.
#[derive(Debug)]
pub(super) struct Success {
    /// What the mechanism says to the client.
    data: Vec<u8>,
    request: Request,
    /// The token for the client's next login.
    issued: Option<IssuedToken>,
    /// Why the session can't be resumed.
    failed: Vec<u8>,
}

impl Request {
    /// # Errors
    /// What makes the request unusable, as a text for a person.
    fn parse(element: &Element<'_>) -> Result<Self, &'static str> {
        let mut request = Self::default();
        for child in element.children() {
            match (child.name(), child.ns()) {
                ("user-agent", SASL2) => request.client = client(&child)?,
                ("resume", ns::SM) => {
                    let h = child.attr("h").and_then(|h| h.parse().ok());
                    let resume = child.attr("previd").zip(h);
                    let (previd, h) = resume.ok_or("<resume/> needs 'previd' and 'h'")?;
                    request.resume = Some((previd.into_owned(), h));
                }
                ("fast" | "request-token", FAST) => request.tokens.take(&child)?,
                ("bind", BIND2) => request.bind = Some(inline(&child)),
                // What is not known is not negotiated.
                _ => {}
            }
        }
        if request.tokens.request.is_some() && request.client.is_none() {
            return Err("a token is for a client that names itself: <user-agent id='…'/>");
        }
        Ok(request)
    }
}

fn client(agent: &Element<'_>) -> Result<Option<Box<str>>, &'static str> {
    match agent.attr("id") {
        Some(id) if id.is_empty() || id.len() > MAX_CLIENT_BYTES => {
            Err("the id of a user agent has 1 to 64 bytes")
        }
        id => Ok(id.map(Into::into)),
    }
}

/// XEP-0386 section 3.2.
fn inline(bind: &Element<'_>) -> Inline {
    let mut inline = Inline::default();
    for child in bind.children() {
        match (child.name(), child.ns()) {
            ("tag", BIND2) => inline.tag = Some(child.text().into()),
            ("enable", ns::SM) => inline.sm = Some(sm::enable(|name| child.attr(name))),
            ("enable", ns::CARBONS) => inline.carbons = true,
            ("active", ns::CSI) => inline.inactive = false,
            ("inactive", ns::CSI) => inline.inactive = true,
            _ => {}
        }
    }
    inline.tag = inline.tag.filter(|tag| !tag.is_empty());
    inline
}

impl Stream {
    pub(super) fn sasl2(&mut self, name: &str, bytes: &Bytes, step: &mut Step<'_>) {
        if !self.settings.features.sasl2 {
            let text = "this is not offered";
            return self.fail(StreamError::UnsupportedFeature, Some(text), step);
        }
        if self.user().is_some() {
            let text = "this stream has logged in already";
            return self.fail(StreamError::PolicyViolation, Some(text), step);
        }
        let running = self.is_logging_in2();
        if running && !matches!(name, "response" | "abort") {
            let text = "in the middle of a login there is only its answer";
            return self.fail(StreamError::PolicyViolation, Some(text), step);
        }
        if let Some(login) = self.login.as_deref_mut() {
            login.sasl2 = true;
        }
        if !self.secure {
            return self.refuse(&SaslError::EncryptionRequired, step);
        }
        let element = match Element::parse(bytes, ns::CLIENT) {
            Ok(element) => element,
            Err(fault) => return self.fault(&fault, step),
        };
        match name {
            "authenticate" => self.authenticate2(&element, step),
            "response" if !running => self.refuse(&SaslError::OutOfTurn, step),
            "response" => self.respond(decode(&element.text()), step),
            "abort" => self.refuse(&SaslError::Aborted, step),
            _ => {
                let error = SaslError::Malformed("not an element of the SASL profile");
                self.refuse(&error, step);
            }
        }
    }

    fn authenticate2(&mut self, element: &Element<'_>, step: &mut Step<'_>) {
        let mechanism = element.attr("mechanism").unwrap_or_default();
        if element.attr("upgrade").is_some() {
            // None is offered (section 2.3).
            return self.refuse(&SaslError::InvalidMechanism, step);
        }
        let initial = element.child("initial-response", SASL2);
        let initial = initial.map(|initial| decode(&initial.text())).transpose();
        match (initial, Request::parse(element)) {
            (Ok(initial), Ok(request)) => {
                if let Some(mechanism) = TokenMechanism::parse(&mechanism) {
                    return self.show_token(mechanism, initial.as_deref(), request, step);
                }
                let request = Some(Box::new(request));
                self.authenticate(&mechanism, initial.as_deref(), request, step);
            }
            (Err(error), _) => self.refuse(&error, step),
            (_, Err(text)) => self.refuse(&SaslError::Malformed(text), step),
        }
    }

    /// The client is who it says. It is told when everything it asked for is there.
    pub(super) fn logged_in(
        &mut self,
        request: Request,
        data: &[u8],
        issued: Option<IssuedToken>,
        step: &mut Step<'_>,
    ) {
        step.out.effects.push(Effect::Authenticated);
        let asked = issued.is_none() && self.ask_for_token(&request, step);
        if let Some(login) = self.login.as_deref_mut() {
            login.client.clone_from(&request.client);
            login.success = Some(Box::new(Success {
                data: data.to_vec(),
                request,
                issued: None,
                failed: Vec::new(),
            }));
        }
        if !asked {
            self.complete(issued, step);
        }
    }

    /// Goes on when the client's token is there, if it gets one.
    pub(super) fn complete(&mut self, issued: Option<IssuedToken>, step: &mut Step<'_>) {
        if let Some(success) = self.success() {
            success.issued = issued;
        }
        self.begin_session(step);
    }

    /// A resumption comes before a resource, and makes it unnecessary (XEP-0386 section 3.2).
    fn begin_session(&mut self, step: &mut Step<'_>) {
        let Some(user) = self.user().cloned() else {
            return;
        };
        let Some(success) = self.success() else {
            return;
        };
        if let Some((previd, h)) = success.request.resume.take() {
            if !self.settings.features.stream_management {
                let condition = Condition::FeatureNotImplemented.as_str();
                return self.resume_failed_inline(sm::failed(None, condition), step);
            }
            let login = self.about_login();
            let resume = PipeEvent::Resume {
                user: user.clone(),
                previd,
                h,
                login,
            };
            self.ask_home(&user, resume, step);
            return self.await_answer(Awaited::InlineResume(h));
        }
        let Some(mut inline) = success.request.bind.take() else {
            return self.tell_success(None, &[], step);
        };
        inline.sm = inline
            .sm
            .filter(|_| self.settings.features.stream_management);
        inline.inactive &= self.settings.features.client_state;
        let mut login = self.about_login();
        login.inline = inline;
        login.inline.archive = true;
        let bind = PipeEvent::Bind {
            user: user.clone(),
            resource: None,
            login,
        };
        self.ask_home(&user, bind, step);
        self.await_answer(Awaited::InlineBind);
    }

    fn success(&mut self) -> Option<&mut Success> {
        self.login.as_deref_mut()?.success.as_deref_mut()
    }

    pub(super) fn resume_failed_inline(&mut self, failed: Vec<u8>, step: &mut Step<'_>) {
        if let Some(success) = self.success() {
            success.failed = failed;
        }
        self.begin_session(step);
    }

    pub(super) fn bound_inline(
        &mut self,
        jid: Jid,
        sm: Option<Enabled>,
        archive: Option<&[u8]>,
        step: &mut Step<'_>,
    ) {
        let mut w = Writer::new();
        w.start("bound").attr("xmlns", BIND2);
        w.raw(archive.unwrap_or_default());
        if let Some(enabled) = &sm {
            w.raw(&self.start_sm(enabled));
        }
        w.end();
        self.tell_success(Some(&jid), &w.into_bytes(), step);
        self.opened(jid, step);
    }

    /// The login has succeeded and its resource is not there. XEP-0386 has no word for that, and
    /// what it leaves out of `<success/>` says no reason, so a stream error says it. The client has
    /// its token, if it asked for one, and comes again with that.
    pub(super) fn bind_refused_inline(&mut self, error: &StanzaError, step: &mut Step<'_>) {
        self.tell_success(None, &[], step);
        let condition = match error.condition {
            Condition::ResourceConstraint => StreamError::ResourceConstraint,
            _ => StreamError::PolicyViolation,
        };
        self.fail(condition, error.text.as_deref(), step);
    }

    /// `<success/>`, and right behind it the features of the stream, which goes on (section 2.6.1).
    pub(super) fn tell_success(&mut self, jid: Option<&Jid>, more: &[u8], step: &mut Step<'_>) {
        let login = self.login.as_deref_mut();
        let Some((success, user)) =
            login.and_then(|login| login.success.take().zip(login.user.as_ref()))
        else {
            return;
        };
        let mut w = Writer::new();
        w.start("success").attr("xmlns", SASL2);
        if let Some(data) = carrier::encode_success(&success.data) {
            w.start("additional-data").text(&data).end();
        }
        let identifier = jid.map_or(user.as_str(), Jid::as_str);
        w.start("authorization-identifier").text(identifier).end();
        w.raw(&success.failed).raw(more);
        if let Some(issued) = &success.issued {
            token::write(issued, &mut w);
        }
        w.end();
        w.start("stream:features");
        self.session_features(jid.is_some(), &mut w);
        w.end();
        step.out.bytes.extend_from_slice(&w.into_bytes());
    }
}

/// Base64 without the special cases of RFC 6120: no data is no element (section 2.2).
fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    match text {
        "=" => Err(SaslError::IncorrectEncoding),
        text => carrier::decode(text),
    }
}
