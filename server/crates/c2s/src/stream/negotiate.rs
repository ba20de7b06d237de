//! Between the features and a bound resource: TLS, login, registration, binding, resumption.

use bytes::Bytes;
use cirrus_jid::{BareJid, Jid};
use cirrus_router::{Enabled, Inline, PipeEvent};
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, StreamError, Ty, ns};
use cirrus_xml::{Checked, Writer, check};

use super::features::{SASL, SASL2, TLS};
use super::{Awaited, Effect, Phase, Secured, Step, Stream};

impl Stream {
    pub(super) fn negotiate(&mut self, bytes: &Bytes, step: &mut Step<'_>) {
        let limits = if self.user().is_some() {
            &self.settings.limits
        } else {
            &self.settings.limits_before
        };
        let checked = match check(bytes, &self.scope, limits) {
            Ok(checked) => checked,
            Err(fault) => return self.fault(&fault, step),
        };
        match (checked.ns(), checked.name(bytes)) {
            (SASL2, name) => self.sasl2(name, bytes, step),
            _ if self.is_logging_in2() => {
                let text = "in the middle of a login there is only its answer";
                self.fail(StreamError::PolicyViolation, Some(text), step);
            }
            (TLS, "starttls") => self.start_tls(step),
            (SASL, name) => self.sasl(name, bytes, step),
            (ns::SM, name) => self.sm_before_bind(name, bytes, &checked, step),
            (ns::STREAM, "error") => self.peer_failed(step),
            (ns::CLIENT, "iq") => self.request(bytes, &checked, step),
            (ns::CLIENT, "message" | "presence") => {
                self.fail(
                    StreamError::NotAuthorized,
                    Some("bind a resource first"),
                    step,
                );
            }
            (namespace, "message" | "presence" | "iq") => self.foreign_stanza(namespace, step),
            (ns::CLIENT, _) => self.fail(StreamError::UnsupportedStanzaType, None, step),
            _ => self.fail(
                StreamError::UnsupportedFeature,
                Some("this is not offered"),
                step,
            ),
        }
    }

    /// The account that has logged in, until a resource is bound.
    pub(super) fn user(&self) -> Option<&BareJid> {
        self.login.as_deref()?.user.as_ref()
    }

    /// RFC 6120 section 5.4.2.
    fn start_tls(&mut self, step: &mut Step<'_>) {
        if self.secure {
            // Section 5.4.2.2: a failure ends the stream.
            step.out.bytes.extend_from_slice(b"<failure xmlns='");
            step.out.bytes.extend_from_slice(TLS.as_bytes());
            step.out.bytes.extend_from_slice(b"'/></stream:stream>");
            return self.end(false, step);
        }
        step.out.bytes.extend_from_slice(b"<proceed xmlns='");
        step.out.bytes.extend_from_slice(TLS.as_bytes());
        step.out.bytes.extend_from_slice(b"'/>");
        let host = self.host.clone().unwrap_or_default();
        step.out.effects.push(Effect::StartTls { host });
        self.phase = Phase::Securing;
    }

    pub(super) fn secured(&mut self, secured: Secured, step: &mut Step<'_>) {
        if self.phase != Phase::Securing {
            return;
        }
        self.secure = true;
        if let Some(login) = &mut self.login {
            login.secured = Some(secured);
        }
        // Nothing that was said without TLS counts (RFC 6120 section 5.4.3.3).
        self.host = None;
        self.lang = None;
        self.restart();
        step.out.effects.push(Effect::Restart {
            authenticated: false,
        });
    }

    /// An `<iq/>` before a resource is bound: binding, or registration before a login.
    fn request(&mut self, bytes: &Bytes, checked: &Checked, step: &mut Step<'_>) {
        let stanza = match Stanza::from_checked(bytes, checked, &self.scope) {
            Some(Ok(stanza)) => stanza,
            Some(Err(refused)) => {
                let text = refused.error.text.as_deref();
                return self.fail(StreamError::NotAuthorized, text, step);
            }
            None => return self.fail(StreamError::UnsupportedStanzaType, None, step),
        };
        let logged_in = self.user().is_some();
        if logged_in && stanza.ty == Ty::Set && stanza.is_payload("bind", ns::BIND) {
            return self.bind(&stanza, step);
        }
        let register = stanza
            .payload
            .as_ref()
            .is_some_and(|(_, ns)| ns == ns::REGISTER);
        if !logged_in && self.secure && register && self.settings.features.register {
            return self.register(&stanza, step);
        }
        let text = if logged_in {
            "bind a resource first"
        } else {
            "log in first"
        };
        self.fail(StreamError::NotAuthorized, Some(text), step);
    }

    /// RFC 6120 section 7.
    fn bind(&mut self, stanza: &Stanza, step: &mut Step<'_>) {
        let id = stanza.id.clone().unwrap_or_default();
        let resource = stanza
            .child("bind", ns::BIND)
            .and_then(|bind| bind.child("resource", ns::BIND))
            .map(|resource| resource.text().into_owned())
            .filter(|resource| !resource.is_empty());
        let Some(user) = self.user().cloned() else {
            return;
        };
        if let Some(resource) = &resource
            && let Err(cause) = Jid::with_resource(&user, resource)
        {
            // Section 7.7.2.1.
            let error = StanzaError::new(Condition::BadRequest, cause.to_string());
            return write_error(&id, &error, step);
        }
        let login = self.about_login();
        self.ask_home(
            &user,
            PipeEvent::Bind {
                user: user.clone(),
                resource,
                login,
            },
            step,
        );
        self.await_answer(Awaited::Bind(id));
    }

    /// What the home is told about the login. The account's rows stay here too: a refused bind
    /// or resumption may be followed by another.
    pub(super) fn about_login(&self) -> cirrus_router::Login {
        let login = self.login.as_deref();
        cirrus_router::Login {
            mechanism: login
                .map(|login| login.mechanism.to_owned())
                .unwrap_or_default(),
            address: self.address.to_string(),
            lang: self.lang.clone(),
            account: login.map(|login| login.rows.clone()).unwrap_or_default(),
            client: login.and_then(|login| login.client.clone()),
            inline: Inline::default(),
        }
    }

    /// Sends the home its first event, connecting to it before.
    pub(super) fn ask_home(&mut self, user: &BareJid, event: PipeEvent, step: &mut Step<'_>) {
        if !std::mem::replace(&mut self.attached, true) {
            step.out.effects.push(Effect::Attach { user: user.clone() });
        }
        step.out.effects.push(Effect::Home(event));
    }

    pub(super) fn await_answer(&mut self, awaited: Awaited) {
        self.phase = Phase::Waiting;
        if let Some(login) = &mut self.login {
            login.awaited = Some(awaited);
        }
    }

    /// The answer to what was awaited has come; more may be negotiated.
    pub(super) fn take_awaited(&mut self) -> Option<Awaited> {
        let awaited = self.login.as_mut()?.awaited.take()?;
        self.phase = Phase::Negotiating;
        Some(awaited)
    }

    pub(super) fn bound(
        &mut self,
        jid: Jid,
        sm: Option<Enabled>,
        archive: Option<&[u8]>,
        step: &mut Step<'_>,
    ) {
        let id = match self.take_awaited() {
            Some(Awaited::Bind(id)) => id,
            Some(Awaited::InlineBind) => return self.bound_inline(jid, sm, archive, step),
            _ => return,
        };
        let mut w = Writer::new();
        w.start("iq").attr("type", "result").attr("id", &id);
        w.start("bind")
            .attr("xmlns", ns::BIND)
            .start("jid")
            .text(jid.as_str())
            .end();
        w.end();
        w.end();
        step.out.bytes.extend_from_slice(&w.into_bytes());
        self.opened(jid, step);
    }

    /// From here on stanzas flow; what only the login needed is given back.
    pub(super) fn opened(&mut self, jid: Jid, step: &mut Step<'_>) {
        tracing::debug!(%jid, peer = %self.address, "session");
        self.jid = Some(jid);
        self.phase = Phase::Open;
        self.login = None;
        self.clock.heard(step.now);
    }

    pub(super) fn bind_refused(&mut self, error: &StanzaError, step: &mut Step<'_>) {
        match self.take_awaited() {
            Some(Awaited::Bind(id)) => write_error(&id, error, step),
            Some(Awaited::InlineBind) => self.bind_refused_inline(error, step),
            _ => {}
        }
    }

    /// The client reports an error of its own and closes.
    pub(super) fn peer_failed(&mut self, step: &mut Step<'_>) {
        tracing::debug!(peer = %self.address, "the client sent a stream error");
        if self.header_sent {
            step.out.bytes.extend_from_slice(b"</stream:stream>");
        }
        self.end(false, step);
    }

    /// A stanza's name in a namespace that is not the stream's content.
    pub(super) fn foreign_stanza(&mut self, namespace: &str, step: &mut Step<'_>) {
        let text = format!("stanzas are in jabber:client here, not in '{namespace}'");
        self.fail(StreamError::InvalidNamespace, Some(&text), step);
    }
}

/// The error that answers an `<iq/>` before a resource is bound.
pub(super) fn write_error(id: &str, error: &StanzaError, step: &mut Step<'_>) {
    let reply = Stanza::new(Kind::Iq, Ty::Error)
        .id(id)
        .content(error.to_xml());
    reply.write(&mut step.out.bytes);
}
