//! Who moves clients after nodes have come: a pure machine that looks at how many each node has.
//!
//! A node that has clearly more than its share lets so many go as it has beyond it, some each
//! second, and then waits until they have come elsewhere before it looks again. So nobody moves for
//! nothing:
//!
//! * What is told to the emptier nodes is nothing at all: whoever is crowded decides for itself,
//!   and what all of them let go together is what the others lack.
//! * It begins above a mark and goes down to the share, so it does not go on around the mark.
//! * Clients on their way are connected nowhere. While a round lasts nothing is added to it, and
//!   nodes tell each other how many they have let go.
//! * A balancer may send clients back to where they came from. When a round has not helped, the
//!   next one waits twice as long, up to [`MAX_PAUSE_MS`], until nodes come or go.
//! * While slots move, a node drains or one is not heard, it does nothing.

#[cfg(test)]
mod tests;

/// Time between two looks while nothing is moved, milliseconds.
const LOOK_MS: u64 = 1_000;
/// The same while clients are moved.
const STEP_MS: u64 = 100;
/// The longest time after a round that has not helped.
const MAX_PAUSE_MS: u64 = 3_600_000;

/// When clients are moved, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Percent above its share at which a node is crowded.
    pub percent: u64,
    /// Clients above its share that are worth to be moved.
    pub at_least: u64,
    /// Clients moved a second.
    pub per_second: u64,
    /// Time for clients to come elsewhere, and after every change of the view, milliseconds.
    pub settle_ms: u64,
}

/// How many connections with sessions there are, when all nodes serve and nothing else moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of the view.
    pub epoch: u64,
    /// Here.
    pub mine: u64,
    /// On the other nodes together.
    pub others: u64,
    /// Clients that other nodes have let go lately, which may be on their way.
    pub parted: u64,
    /// Nodes, this one included.
    pub nodes: u64,
}

impl Seen {
    /// Connections here beyond an equal share of all.
    fn surplus(&self) -> u64 {
        let all = self.mine.saturating_add(self.others);
        self.mine.saturating_sub(all.div_ceil(self.nodes.max(1)))
    }

    /// Those that are on their way make the share larger.
    fn with_parted(&self) -> Self {
        Self {
            others: self.others.saturating_add(self.parted),
            parted: 0,
            ..self.clone()
        }
    }

    fn is_crowded(&self, options: &Options) -> bool {
        let all = u128::from(self.mine.saturating_add(self.others));
        let mine = u128::from(self.mine) * u128::from(self.nodes);
        self.surplus() >= options.at_least.max(1)
            && mine * 100 > all * (100 + u128::from(options.percent))
    }
}

/// Clients that are being moved.
#[derive(Debug)]
struct Round {
    /// The surplus when it began.
    before: u64,
    left: u64,
    /// When some were let go for the last time.
    at: u64,
}

/// The machine of one node.
#[derive(Debug)]
pub(crate) struct Spread {
    options: Options,
    /// The epoch in which nothing else has moved, and since when.
    calm: Option<(u64, u64)>,
    round: Option<Round>,
    /// The surplus before the last round, until it is known whether that has helped.
    last: Option<u64>,
    pause_ms: u64,
    /// No round begins before.
    rests_until: u64,
    /// Clients let go since the last round began, and until when they may be on their way.
    parted: (u64, u64),
    look_at: u64,
}

impl Spread {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            calm: None,
            round: None,
            last: None,
            pause_ms: options.settle_ms,
            rests_until: 0,
            parted: (0, 0),
            look_at: 0,
        }
    }

    /// Whether [`Self::look`] has something to do.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        now >= self.look_at
    }

    /// Clients that are still to be moved in this round.
    pub(crate) fn left(&self) -> u64 {
        self.round.as_ref().map_or(0, |round| round.left)
    }

    /// Clients that were let go and may be on their way, for the others to know.
    pub(crate) fn parted(&self, now: u64) -> u64 {
        let (clients, until) = self.parted;
        if now < until { clients } else { 0 }
    }

    /// How many clients are to go now. `seen`: nothing, if something else moves or is not known.
    pub(crate) fn look(&mut self, now: u64, seen: Option<&Seen>) -> u64 {
        self.look_at = now.saturating_add(LOOK_MS);
        let Some(seen) = seen else {
            (self.calm, self.round, self.last) = (None, None, None);
            return 0;
        };
        let since = match self.calm {
            Some((epoch, since)) if epoch == seen.epoch => since,
            _ => {
                self.calm = Some((seen.epoch, now));
                (self.round, self.last) = (None, None);
                (self.pause_ms, self.rests_until) = (self.options.settle_ms, 0);
                now
            }
        };
        if self.round.is_some() {
            self.look_at = now.saturating_add(STEP_MS);
            return self.go_on(now, seen);
        }
        let settled = now >= since.saturating_add(self.options.settle_ms);
        if settled && now >= self.rests_until && self.has_helped(now, seen) {
            self.begin(now, seen);
        }
        0
    }

    /// Nobody more is moved from here until nodes come or go, or something else moves.
    pub(crate) fn abort(&mut self) {
        if let Some(round) = self.round.take() {
            tracing::info!(left = round.left, "moving clients was stopped");
        }
        (self.last, self.rests_until) = (None, u64::MAX);
    }

    fn begin(&mut self, now: u64, seen: &Seen) {
        let seen = seen.with_parted();
        if !seen.is_crowded(&self.options) {
            return;
        }
        let surplus = seen.surplus();
        let (mine, nodes) = (seen.mine, seen.nodes);
        tracing::info!(
            clients = surplus,
            of = mine,
            nodes,
            "moving clients to nodes with fewer"
        );
        self.look_at = now.saturating_add(STEP_MS);
        self.parted = (0, 0);
        self.round = Some(Round {
            before: surplus,
            left: surplus,
            at: now,
        });
    }

    fn go_on(&mut self, now: u64, seen: &Seen) -> u64 {
        let per_second = self.options.per_second.max(1);
        let Some(round) = &mut self.round else {
            return 0;
        };
        // Others may have come or gone; what is on the way makes the share smaller, not larger.
        round.left = round.left.min(seen.surplus());
        let time = now.saturating_sub(round.at).min(LOOK_MS);
        let clients = (time.saturating_mul(per_second) / 1_000).min(round.left);
        if clients > 0 {
            round.at = now;
            round.left -= clients;
            let until = now.saturating_add(self.options.settle_ms);
            self.parted = (self.parted.0.saturating_add(clients), until);
        }
        if round.left == 0 {
            self.last = Some(round.before);
            self.rests_until = now.saturating_add(self.pause_ms);
            self.round = None;
        }
        clients
    }

    /// Whether the last round has changed something, or another try is due.
    fn has_helped(&mut self, now: u64, seen: &Seen) -> bool {
        let Some(before) = self.last.take() else {
            return true;
        };
        let gained = before.saturating_sub(seen.surplus());
        if gained >= before.div_ceil(4) {
            self.pause_ms = self.options.settle_ms;
            return true;
        }
        self.pause_ms = self.pause_ms.saturating_mul(2).min(MAX_PAUSE_MS);
        self.rests_until = now.saturating_add(self.pause_ms);
        tracing::info!(
            seconds = self.pause_ms / 1_000,
            "clients that were moved have come back; the next try is later"
        );
        false
    }
}
