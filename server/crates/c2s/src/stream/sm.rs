//! Stream management (XEP-0198) as far as it is the pipe's: counting what comes in, asking and
//! answering. What goes out is numbered, kept and repeated by the home.

use std::borrow::Cow;

use bytes::Bytes;
use cirrus_jid::Jid;
use cirrus_router::{Enable, Enabled, PipeEvent};
use cirrus_stanza::{Condition, StreamError, ns};
use cirrus_xml::{Checked, Writer};

use super::{Awaited, Effect, Phase, Step, Stream};

/// Where counting stands.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// The last inbound stanza's number.
    received: u64,
    /// The home has handled every inbound stanza up to this one. After a resumption that may be
    /// more than was received: what was under way when the old connection broke is done before the
    /// client repeats it, and the home says so once.
    handled: u64,
    mode: Mode,
    /// The session can be resumed on another connection.
    resumable: bool,
    /// Where that is done best.
    location: Option<Box<str>>,
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    Off,
    /// `<enable/>` came, the home has not answered.
    Enabling,
    On(Managed),
}

#[derive(Debug)]
struct Managed {
    /// `h` counts from here.
    base: u64,
    /// What the last `<a/>` said.
    told: u64,
    /// What had come in when the client last asked.
    asked: u64,
    /// When an unrequested `<a/>` goes out.
    ack_due: Option<u64>,
    /// When the `<r/>` was sent that is not answered yet.
    asked_at: Option<u64>,
    /// A stanza was written after the last `<r/>`.
    written: bool,
    /// Stanzas written since stream management began, modulo 2^32.
    sent: u32,
    /// How many of them the client has acknowledged.
    acknowledged: u32,
}

impl Counters {
    /// The number of the next inbound stanza. Where it is handled already, that is told at `due`.
    pub(super) fn next(&mut self, due: u64) -> u64 {
        self.received += 1;
        self.tell_by(due);
        self.received
    }

    /// What the client may be told: it counts what it has sent on this connection.
    fn handled(&self) -> u64 {
        self.handled.min(self.received)
    }

    /// An `<a/>` goes out at `due` if it would say something new and none is to go out before.
    fn tell_by(&mut self, due: u64) {
        let handled = self.handled();
        if let Mode::On(managed) = &mut self.mode
            && managed.told < handled
        {
            managed.ack_due.get_or_insert(due);
        }
    }

    /// Whether another stanza may be read.
    pub(super) fn accepts(&self, max_unhandled: u64) -> bool {
        match &self.mode {
            Mode::Enabling => false,
            Mode::Off | Mode::On(_) => self.received.saturating_sub(self.handled) < max_unhandled,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.mode, Mode::On(_))
    }

    pub(super) fn is_resumable(&self) -> bool {
        self.resumable
    }

    pub(super) fn all_handled(&self) -> bool {
        self.handled >= self.received
    }

    pub(super) fn ack_due(&self) -> Option<u64> {
        self.managed()?.ack_due
    }

    pub(super) fn asked_at(&self) -> Option<u64> {
        self.managed()?.asked_at
    }

    /// Where the client had best resume its session.
    pub(super) fn locate(&mut self, host: String) {
        self.location = Some(host.into());
    }

    /// A stanza is being written.
    pub(super) fn wrote(&mut self) {
        if let Mode::On(managed) = &mut self.mode {
            managed.written = true;
            managed.sent = managed.sent.wrapping_add(1);
        }
    }

    /// Writes `<r/>` unless one is unanswered. `false` without stream management.
    pub(super) fn ask(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        let Mode::On(managed) = &mut self.mode else {
            return false;
        };
        if managed.asked_at.is_none() {
            managed.asked_at = Some(now);
            managed.written = false;
            out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
        true
    }

    /// Writes `<a/>` with what is handled.
    pub(super) fn write_ack(&mut self, out: &mut Vec<u8>) {
        let (h, handled) = (self.h(), self.handled());
        if let Mode::On(managed) = &mut self.mode {
            managed.told = handled;
            managed.ack_due = None;
            out.extend_from_slice(b"<a xmlns='urn:xmpp:sm:3' h='");
            out.extend_from_slice(h.to_string().as_bytes());
            out.extend_from_slice(b"'/>");
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "XEP-0198 counts modulo 2^32"
    )]
    fn h(&self) -> u32 {
        self.managed().map_or(0, |managed| {
            self.handled().saturating_sub(managed.base) as u32
        })
    }

    fn managed(&self) -> Option<&Managed> {
        match &self.mode {
            Mode::On(managed) => Some(managed),
            _ => None,
        }
    }

    /// Starts counting; `sent` is how much of what went out the client knows of.
    fn start(&mut self, base: u64, handled: u64, sent: u32) {
        self.handled = handled;
        self.mode = Mode::On(Managed {
            base,
            told: handled,
            asked: 0,
            ack_due: None,
            asked_at: None,
            written: false,
            sent,
            acknowledged: sent,
        });
    }
}

impl Stream {
    /// `<enable/>` and its kin before a resource is bound (XEP-0198 sections 3 and 5).
    pub(super) fn sm_before_bind(
        &mut self,
        name: &str,
        bytes: &Bytes,
        checked: &Checked,
        step: &mut Step<'_>,
    ) {
        let Some(user) = self.user().cloned() else {
            return write_failed(None, Condition::NotAuthorized.as_str(), step);
        };
        if name != "resume" {
            return write_failed(None, Condition::UnexpectedRequest.as_str(), step);
        }
        if !self.settings.features.stream_management {
            return write_failed(None, Condition::FeatureNotImplemented.as_str(), step);
        }
        let previd = checked.attr(bytes, "previd").map(Cow::into_owned);
        let h = checked.attr(bytes, "h").and_then(|h| h.parse().ok());
        let (Some(previd), Some(h)) = (previd, h) else {
            let text = "<resume/> needs 'previd' and 'h'";
            return self.fail(StreamError::InvalidXml, Some(text), step);
        };
        let login = self.about_login();
        self.ask_home(
            &user,
            PipeEvent::Resume {
                user: user.clone(),
                previd,
                h,
                login,
            },
            step,
        );
        self.await_answer(Awaited::Resume(h));
    }

    /// Stream management on an open stream.
    pub(super) fn sm_element(
        &mut self,
        name: &str,
        bytes: &Bytes,
        checked: &Checked,
        step: &mut Step<'_>,
    ) {
        match (name, &mut self.sm.mode) {
            ("r", Mode::On(managed)) => {
                managed.asked = self.sm.received;
                self.sm.write_ack(&mut step.out.bytes);
            }
            ("a", Mode::On(_)) => match checked.attr(bytes, "h").and_then(|h| h.parse().ok()) {
                Some(h) => self.acknowledged(h, step),
                None => {
                    let text = "<a/> needs an 'h' that is a number below 2^32";
                    self.fail(StreamError::InvalidXml, Some(text), step);
                }
            },
            ("enable", Mode::Off) if self.settings.features.stream_management => {
                let Enable { resume, max } = enable(|name| checked.attr(bytes, name));
                self.sm.mode = Mode::Enabling;
                step.out
                    .effects
                    .push(Effect::Home(PipeEvent::EnableSm { resume, max }));
            }
            ("enable" | "resume" | "r" | "a", _) => {
                write_failed(None, Condition::UnexpectedRequest.as_str(), step);
            }
            _ => self.fail(StreamError::UnsupportedStanzaType, None, step),
        }
    }

    fn acknowledged(&mut self, h: u32, step: &mut Step<'_>) {
        let Mode::On(managed) = &mut self.sm.mode else {
            return;
        };
        let sent = managed.sent;
        if h.wrapping_sub(managed.acknowledged) > sent.wrapping_sub(managed.acknowledged) {
            return self.over_acknowledged(h, sent, step);
        }
        managed.acknowledged = h;
        managed.asked_at = None;
        let more = managed.written;
        step.out.effects.push(Effect::Home(PipeEvent::Ack { h }));
        // What was written since is asked for at once: no later batch may come to do it.
        if more {
            self.sm.ask(step.now, &mut step.out.bytes);
        }
    }

    /// The client has handled more than it got (XEP-0198 section 4): one of the two has lost
    /// count.
    fn over_acknowledged(&mut self, h: u32, sent: u32, step: &mut Step<'_>) {
        let mut w = Writer::new();
        w.start("handled-count-too-high").attr("xmlns", ns::SM);
        w.attr("h", &h.to_string())
            .attr("send-count", &sent.to_string())
            .end();
        self.fail_with(StreamError::UndefinedCondition, &w.into_bytes(), step);
    }

    pub(super) fn sm_enabled(&mut self, enabled: &Enabled, step: &mut Step<'_>) {
        self.sm.resumable = enabled.id.is_some();
        if matches!(self.sm.mode, Mode::Enabling) {
            let xml = self.start_sm(enabled);
            step.out.bytes.extend_from_slice(&xml);
        }
    }

    /// Starts counting; what the client is to be told.
    pub(super) fn start_sm(&mut self, Enabled { id, max, base }: &Enabled) -> Vec<u8> {
        self.sm.resumable = id.is_some();
        self.sm.start(*base, *base, 0);
        let mut w = Writer::new();
        w.start("enabled").attr("xmlns", ns::SM);
        if let Some(id) = id {
            w.attr("id", id)
                .attr("resume", "true")
                .attr("max", &max.to_string())
                .attr_opt("location", self.sm.location.take().as_deref());
        }
        w.end();
        w.into_bytes()
    }

    pub(super) fn sm_refused(&mut self, condition: &str, step: &mut Step<'_>) {
        if matches!(self.sm.mode, Mode::Enabling) {
            self.sm.mode = Mode::Off;
            write_failed(None, condition, step);
        }
    }

    pub(super) fn resumed(
        &mut self,
        id: &str,
        jid: Jid,
        (k, base): (u64, u64),
        step: &mut Step<'_>,
    ) {
        self.sm.resumable = true;
        let (h, inline) = match self.take_awaited() {
            Some(Awaited::Resume(h)) => (h, false),
            Some(Awaited::InlineResume(h)) => (h, true),
            _ => return,
        };
        self.sm.received = k;
        self.sm.start(base, k, h);
        let mut w = Writer::new();
        w.start("resumed").attr("xmlns", ns::SM).attr("previd", id);
        w.attr("h", &self.sm.h().to_string()).end();
        let xml = w.into_bytes();
        if inline {
            self.tell_success(Some(&jid), &xml, step);
        } else {
            step.out.bytes.extend_from_slice(&xml);
        }
        self.opened(jid, step);
    }

    pub(super) fn resume_failed(&mut self, h: Option<u32>, condition: &str, step: &mut Step<'_>) {
        match self.take_awaited() {
            Some(Awaited::Resume(_)) => write_failed(h, condition, step),
            Some(Awaited::InlineResume(_)) => self.resume_failed_inline(failed(h, condition), step),
            _ => {}
        }
    }

    /// What is handled is told after a short while, together with what follows; at once when the
    /// client has asked for all of it.
    pub(super) fn handled(&mut self, k: u64, step: &mut Step<'_>) {
        let listened = self.wants_frames();
        self.sm.handled = self.sm.handled.max(k);
        if !listened && self.wants_frames() {
            self.clock.heard(step.now);
        }
        let Some(managed) = self.sm.managed() else {
            return;
        };
        if self.phase == Phase::Draining {
            if self.sm.all_handled() {
                self.close_cleanly(step);
            }
        } else if managed.told < managed.asked && managed.asked <= self.sm.handled() {
            self.sm.write_ack(&mut step.out.bytes);
        } else {
            self.sm.tell_by(step.now + self.settings.timeouts.ack_ms);
        }
    }

    /// Asks for an acknowledgement of the batch that is about to be written.
    pub(super) fn batch_end(&mut self, step: &mut Step<'_>) {
        if self.phase == Phase::Open && self.sm.managed().is_some_and(|managed| managed.written) {
            self.sm.ask(step.now, &mut step.out.bytes);
        }
    }
}

/// What the attributes of `<enable/>` ask for.
pub(super) fn enable<'a>(attr: impl Fn(&str) -> Option<Cow<'a, str>>) -> Enable {
    let resume = attr("resume").is_some_and(|resume| matches!(&*resume, "true" | "1"));
    let max = attr("max").and_then(|max| max.parse().ok());
    Enable { resume, max }
}

/// `<failed/>` leaves the stream as it was (XEP-0198 section 6).
fn write_failed(h: Option<u32>, condition: &str, step: &mut Step<'_>) {
    step.out.bytes.extend_from_slice(&failed(h, condition));
}

pub(super) fn failed(h: Option<u32>, condition: &str) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("failed").attr("xmlns", ns::SM);
    w.attr_opt("h", h.map(|h| h.to_string()).as_deref());
    w.start(condition).attr("xmlns", ns::STANZAS).end();
    w.end();
    w.into_bytes()
}
