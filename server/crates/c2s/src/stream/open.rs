//! An open stream: stanzas in both directions.

use bytes::Bytes;
use cirrus_jid::Jid;
use cirrus_router::PipeEvent;
use cirrus_stanza::{Refused, Stanza, StreamError, ns};
use cirrus_xml::{Checked, check};

use super::{Effect, Phase, Step, Stream};

/// Stanzas written without stream management of which the home is told at once.
const AT_ONCE: u64 = 16;

impl Stream {
    /// One first-level element of a client with a resource.
    pub(super) fn element(&mut self, bytes: &Bytes, step: &mut Step<'_>) {
        let checked = match check(bytes, &self.scope, &self.settings.limits) {
            Ok(checked) => checked,
            Err(fault) => return self.fault(&fault, step),
        };
        match Stanza::from_checked(bytes, &checked, &self.scope) {
            Some(Ok(stanza)) => self.inbound(stanza, step),
            Some(Err(refused)) => self.refused(refused, bytes, &checked, step),
            None => match (checked.ns(), checked.name(bytes)) {
                (ns::SM, name) => self.sm_element(name, bytes, &checked, step),
                (ns::CSI, name) => self.client_state(name, step),
                (ns::STREAM, "error") => self.peer_failed(step),
                (namespace, "message" | "presence" | "iq") => {
                    self.foreign_stanza(namespace, step);
                }
                _ => self.fail(StreamError::UnsupportedStanzaType, None, step),
            },
        }
    }

    /// Whether somebody looks at the client (XEP-0352 section 4.2). It is no stanza, so it has no
    /// number.
    fn client_state(&mut self, name: &str, step: &mut Step<'_>) {
        let active = match name {
            "active" => true,
            "inactive" => false,
            _ => return self.fail(StreamError::UnsupportedStanzaType, None, step),
        };
        if !self.settings.features.client_state {
            let text = "this is not offered";
            return self.fail(StreamError::UnsupportedStanzaType, Some(text), step);
        }
        let event = PipeEvent::ClientState { active };
        step.out.effects.push(Effect::Home(event));
    }

    fn inbound(&mut self, mut stanza: Stanza, step: &mut Step<'_>) {
        let Some(jid) = &self.jid else { return };
        if stanza.from.as_ref().is_some_and(|from| !is_own(from, jid)) {
            return self.wrong_from(step);
        }
        stanza.from = Some(jid.clone());
        if stanza.lang.is_none() {
            stanza.lang.clone_from(&self.lang);
        }
        let k = self.sm.next(step.now + self.settings.timeouts.ack_ms);
        let stanza = Box::new(stanza);
        step.out
            .effects
            .push(Effect::Home(PipeEvent::Stanza { k, stanza }));
    }

    /// A stanza that is answered with an error instead of being routed (RFC 6120 section 8.3.1).
    /// The answer goes through the home, which alone numbers what a client gets.
    fn refused(&mut self, refused: Refused, bytes: &Bytes, checked: &Checked, step: &mut Step<'_>) {
        let Some(jid) = &self.jid else { return };
        if let Some(from) = checked.attr(bytes, "from")
            && !Jid::parse(&from).is_ok_and(|from| is_own(&from, jid))
        {
            return self.wrong_from(step);
        }
        tracing::debug!(%jid, error = refused.error.condition.as_str(), "stanza refused");
        let k = self.sm.next(step.now + self.settings.timeouts.ack_ms);
        let reply = refused.reply;
        step.out
            .effects
            .push(Effect::Home(PipeEvent::Refused { k, reply }));
    }

    /// RFC 6120 section 8.1.2.1: neither this connection's full JID nor its bare one.
    fn wrong_from(&mut self, step: &mut Step<'_>) {
        self.fail(
            StreamError::InvalidFrom,
            Some("'from' is another address than yours"),
            step,
        );
    }

    pub(super) fn outbound(&mut self, n: u64, stanza: &Stanza, step: &mut Step<'_>) {
        if !matches!(self.phase, Phase::Open | Phase::Draining) {
            return;
        }
        stanza.write(&mut step.out.bytes);
        self.clock.spoke(step.now);
        self.sm.wrote();
        self.written.wrote(n);
    }

    /// Without stream management, written to the socket is all that can be known.
    pub(super) fn flushed(&mut self, step: &mut Step<'_>) {
        if self.phase == Phase::Open && !self.sm.is_on() {
            self.written.flushed(step.now);
            if self.written.waiting() >= AT_ONCE {
                self.report_written(step);
            }
        }
    }

    /// Tells the home what was written and it does not know of.
    pub(super) fn report_written(&mut self, step: &mut Step<'_>) {
        if let Some(n) = self.written.report() {
            step.out
                .effects
                .push(Effect::Home(PipeEvent::Written { n }));
        }
    }
}

/// The full JID of the connection, or the bare JID that it belongs to.
fn is_own(from: &Jid, jid: &Jid) -> bool {
    from == jid || (from.is_bare() && from.bare() == jid.bare())
}

/// Which outbound numbers were written, and which of them the home knows of. It is told of several
/// at once: each time costs it, and its copy, as much as a stanza.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: u64,
    flushed: u64,
    reported: u64,
    /// Since when there is something to report.
    since: Option<u64>,
}

impl Written {
    fn wrote(&mut self, n: u64) {
        self.last = n;
    }

    fn flushed(&mut self, now: u64) {
        self.flushed = self.last;
        if self.waiting() > 0 {
            self.since.get_or_insert(now);
        }
    }

    fn waiting(&self) -> u64 {
        self.flushed.saturating_sub(self.reported)
    }

    fn report(&mut self) -> Option<u64> {
        self.since = None;
        (self.waiting() > 0).then(|| {
            self.reported = self.flushed;
            self.flushed
        })
    }

    /// Since when the home could have been told.
    pub(super) fn since(&self) -> Option<u64> {
        self.since
    }
}
