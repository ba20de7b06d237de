//! How a client ends its session.

use crate::ledger::{At, Event, Login};

use super::{FAREWELL, Machine, Phase};

impl Machine {
    pub(super) fn leave(&mut self, now: At, back_at: At) {
        self.back_at = back_at;
        self.leaving = true;
        if matches!(self.phase, Phase::Online) {
            self.phase = Phase::Leaving(now + FAREWELL);
            if self.is_acknowledged() {
                self.close(now);
            }
        }
    }

    /// Ends the session in good order.
    pub(super) fn close(&mut self, now: At) {
        let away = "<presence type='unavailable'/>";
        let answer = self.managed.as_mut().map(|managed| {
            managed.send(away.to_owned(), None);
            managed.answer()
        });
        let answer = answer.unwrap_or_default();
        self.send(format!("{away}{answer}</stream:stream>"));
        self.phase = Phase::Closing(now + FAREWELL);
        self.said_goodbye = true;
    }

    /// Its session has ended in good order, as far as it can know.
    pub(super) fn left(&mut self, now: At) {
        (self.leaving, self.said_goodbye) = (false, false);
        self.note(Event::Left);
        self.lose_session(Login::Expected);
        self.phase = Phase::Away(self.back_at.max(now));
        self.coming_back = (self.back_at.max(now), true);
    }
}
