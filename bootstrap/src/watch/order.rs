//! What the server was told: to give its slots away, or to stop.

use super::AFTER_DEADLINE_MS;

/// What is wanted of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its slots go, its connections stay: this can be taken back.
    Drain,
    /// It ends.
    Stop,
}

/// Whether the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It was not asked, or has forgotten.
    Unsaid,
    /// It is being asked.
    OnItsWay,
    /// It knows.
    Heard,
}

/// An order to the server.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) begun_ms: u64,
    /// When the server has ended, or has had its time.
    pub(super) finished_ms: Option<u64>,
    /// That nothing asks for it any more has been said.
    pub(super) told_withdrawn: bool,
    /// That it has not been heard has been said.
    told_unheard: bool,
    deadline_ms: u64,
    word: Word,
}

impl Order {
    pub(super) fn drain(now_ms: u64) -> Self {
        Self {
            kind: Kind::Drain,
            word: Word::OnItsWay,
            ..Self::stop(now_ms, u64::MAX)
        }
    }

    pub(super) fn stop(now_ms: u64, deadline_ms: u64) -> Self {
        Self {
            kind: Kind::Stop,
            begun_ms: now_ms,
            finished_ms: None,
            told_withdrawn: false,
            told_unheard: false,
            deadline_ms,
            word: Word::Unsaid,
        }
    }

    /// Brings the deadline nearer, if this one is by more than a second: the server must hear it.
    pub(super) fn sooner(&mut self, deadline_ms: u64) -> bool {
        let sooner = !self.is_finished() && deadline_ms.saturating_add(1_000) < self.deadline_ms;
        if sooner {
            self.deadline_ms = deadline_ms;
            self.word = Word::Unsaid;
        }
        sooner
    }

    /// Whether the server must be asked; then it counts as being asked.
    pub(super) fn ask(&mut self) -> bool {
        let ask = self.word == Word::Unsaid && !self.is_finished();
        if ask {
            self.word = Word::OnItsWay;
        }
        ask
    }

    /// Whether it is known already that it has not been heard.
    pub(super) fn heard(&mut self, heard: bool) -> bool {
        if self.word == Word::OnItsWay {
            self.word = if heard { Word::Heard } else { Word::Unsaid };
        }
        std::mem::replace(&mut self.told_unheard, !heard)
    }

    /// The server is gone; the next one knows nothing of it.
    pub(super) fn forget(&mut self) {
        if self.word == Word::Heard {
            self.word = Word::Unsaid;
        }
    }

    /// Whether the server answers although it has ended before.
    pub(super) fn hears_again(&self, stopping: bool) -> bool {
        self.is_finished() && !stopping
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished_ms.is_some()
    }

    pub(super) fn left_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms)
    }

    fn end_ms(&self) -> u64 {
        self.deadline_ms.saturating_add(AFTER_DEADLINE_MS)
    }

    /// Whether the server has had its time.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        self.kind == Kind::Stop && !self.is_finished() && now_ms >= self.end_ms()
    }

    pub(super) fn wake_ms(&self) -> Option<u64> {
        (self.kind == Kind::Stop && !self.is_finished()).then(|| self.end_ms())
    }
}
