//! Deadlines of a stream: everything it waits for, as one next point in time.

use cirrus_stanza::StreamError;

use super::{Phase, Step, Stream};

/// When things happened, in the milliseconds of the shell's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    opened: u64,
    /// When the client was heard, or could not be as it was not listened to.
    heard: u64,
    spoke: u64,
    /// When a closing stream ends at the latest.
    end_by: Option<u64>,
}

impl Clock {
    pub(super) fn new(now: u64) -> Self {
        Self {
            opened: now,
            heard: now,
            spoke: now,
            end_by: None,
        }
    }

    pub(super) fn heard(&mut self, now: u64) {
        self.heard = self.heard.max(now);
    }

    pub(super) fn spoke(&mut self, now: u64) {
        self.spoke = now;
    }

    pub(super) fn end_by(&mut self, at: u64) {
        self.end_by = Some(at);
    }
}

impl Stream {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let t = &self.settings.timeouts;
        let after = |since: u64, ms: u64| (ms > 0).then(|| since.saturating_add(ms));
        match self.phase {
            Phase::Ended => None,
            Phase::Draining => self.clock.end_by,
            Phase::Open => [
                self.sm.ack_due(),
                self.report_due(),
                self.mute_at(),
                after(self.clock.heard.max(self.clock.spoke), t.keepalive_ms),
                after(self.clock.heard, t.idle_ms),
            ]
            .into_iter()
            .flatten()
            .min(),
            _ => after(self.clock.opened, t.login_ms),
        }
    }

    /// When a client that has been asked counts as dead. As long as it is heard it lives: its
    /// answer may wait behind much else. While nothing is read, as too much is unhandled, it is not
    /// its silence.
    fn mute_at(&self) -> Option<u64> {
        let asked = self.sm.asked_at().filter(|_| self.wants_frames())?;
        let ms = self.settings.timeouts.answer_ms;
        (ms > 0).then(|| asked.max(self.clock.heard).saturating_add(ms))
    }

    /// When the home is told at the latest what was written. There is always such a time: a
    /// session without stream management keeps everything until then.
    fn report_due(&self) -> Option<u64> {
        let since = self.written.since()?;
        Some(since.saturating_add(self.settings.timeouts.ack_ms))
    }

    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        let due = |at: Option<u64>| at.is_some_and(|at| at <= step.now);
        let t = self.settings.timeouts;
        let passed = |since: u64, ms: u64| ms > 0 && since.saturating_add(ms) <= step.now;
        match self.phase {
            Phase::Ended => {}
            Phase::Draining => {
                if due(self.clock.end_by) {
                    self.close_cleanly(step);
                }
            }
            Phase::Open => {
                if due(self.mute_at()) || passed(self.clock.heard, t.idle_ms) {
                    return self.fail(StreamError::ConnectionTimeout, None, step);
                }
                let quiet = passed(self.clock.heard.max(self.clock.spoke), t.keepalive_ms);
                if due(self.sm.ack_due()) {
                    self.sm.write_ack(&mut step.out.bytes);
                }
                if due(self.report_due()) {
                    self.report_written(step);
                }
                if quiet {
                    self.keep_alive(step);
                }
            }
            _ => {
                if passed(self.clock.opened, t.login_ms) {
                    let text = "no resource was bound in time";
                    self.fail(StreamError::ConnectionTimeout, Some(text), step);
                }
            }
        }
    }

    /// Something that a live client answers where it can (`<r/>`), or at least a byte that shows
    /// a broken connection and keeps address translation alive (RFC 6120 section 4.6.1).
    fn keep_alive(&mut self, step: &mut Step<'_>) {
        self.clock.spoke(step.now);
        if !self.sm.ask(step.now, &mut step.out.bytes) {
            step.out.bytes.push(b' ');
        }
    }
}
