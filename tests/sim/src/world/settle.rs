//! The end of a run: faults stop, everybody comes back, and what is then true is compared with
//! what must be.

use cirrus_router::Home;

use super::World;
use super::network::Up;
use crate::check::{Archive, Sealed, Violation, check_clients, check_rosters, is_any_unconfirmed};
use crate::client::{Client, Phase};
use crate::plan::{RESUME_SECONDS, Setup};

/// How often clients look whether they have to connect, milliseconds.
const ROUND_MS: u64 = 5_000;
/// How often it is looked whether the server is at rest, milliseconds.
const LOOK_MS: u64 = 500;
/// Rounds in which everything must have come to rest: broken sessions have ended, deletions too,
/// and what another home did not take was sent again.
const ROUNDS: usize = 30;
/// Rounds of rest in a row after which there is no need for more: what was not taken is sent again
/// within one.
const RESTS: usize = 3;

impl World {
    pub(super) fn settle(&mut self) {
        self.store.faulty = false;
        self.tell(|| "no more faults".into());
        self.mend_cluster();
        let mut rests = 0;
        for _ in 0..ROUNDS {
            self.come_back();
            self.run_until(self.now + ROUND_MS);
            rests = if self.is_at_rest() { rests + 1 } else { 0 };
            if rests >= RESTS {
                break;
            }
        }
        self.check_state();
        self.all_leave();
        self.rest(u64::from(RESUME_SECONDS) * 1_000 + 30_000);
        self.collect();
        let users = &self.plan.users;
        check_rosters(&self.store, users, &mut self.history);
        self.check_cluster();
        if self.cluster.is_none() && !self.home.as_ref().is_some_and(Home::is_quiet) {
            let census = self.home.as_ref().map(Home::census);
            self.wrong(Violation::Stuck(format!("{census:?}")));
        }
        if !self.has_erased() {
            self.wrong(Violation::Stuck("an account is not erased".into()));
        }
    }

    /// Time passes until the server has been at rest for a round, but not more than that.
    fn rest(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        let mut since = self.now;
        while self.now < end.min(since + ROUND_MS) {
            self.run_until(end.min(self.now + LOOK_MS));
            if !self.is_quiet() {
                since = self.now;
            }
        }
    }

    /// Nothing is under way in the server, and it waits for no client.
    fn is_quiet(&self) -> bool {
        match &self.home {
            Some(home) => home.is_quiet() && home.census().detached == 0,
            None => self.is_cluster_at_rest(),
        }
    }

    /// Nothing is under way any more, and nobody waits for anything.
    fn is_at_rest(&self) -> bool {
        let here = |index: usize| {
            let client = &self.clients[index];
            let on = client.phase == Phase::On && client.roster.live && client.presence.is_some();
            on || self.has_rival_before(index)
        };
        let all_here = (0..self.clients.len()).all(here);
        let (store, users) = (&self.store, &self.plan.users);
        let told = || !is_any_unconfirmed(store, users, &self.history);
        self.is_quiet() && self.has_erased() && all_here && told()
    }

    /// An earlier client wants the same resource.
    fn has_rival_before(&self, index: usize) -> bool {
        let jid = self.clients[index].jid();
        self.clients[..index].iter().any(|rival| rival.jid() == jid)
    }

    /// Everybody connects; of clients that want one resource, the first.
    fn come_back(&mut self) {
        for index in 0..self.clients.len() {
            if self.has_rival_before(index) {
                continue;
            }
            match self.clients[index].phase {
                Phase::Off => self.connect(index),
                Phase::Broken => self.reconnect(index),
                Phase::On => self.take_part(index),
                _ => {}
            }
        }
    }

    /// Becomes available, knows its roster, and acknowledges.
    fn take_part(&mut self, index: usize) {
        self.look_at(index);
        if self.clients[index].presence.is_none() {
            self.appear(index);
        }
        if !self.clients[index].roster.live {
            self.ask_roster(index);
        }
        self.acknowledge(index);
    }

    fn check_state(&mut self) {
        self.tell(|| "rosters and presence are compared".into());
        let users = &self.plan.users;
        let rosters = check_rosters(&self.store, users, &mut self.history);
        check_clients(&self.clients, &rosters, &mut self.history);
    }

    fn all_leave(&mut self) {
        for index in 0..self.clients.len() {
            if self.is_on(index) {
                self.acknowledge(index);
                self.send(index, Up::Close);
            }
        }
    }

    /// A last client of every account collects what waits.
    fn collect(&mut self) {
        let first = self.clients.len();
        for account in 0..self.plan.users.len() {
            let setup = Setup {
                account,
                resource: "last".into(),
                managed: true,
                late: false,
            };
            let user = self.user(account).clone();
            self.clients.push(Client::new(&setup, user));
            self.connect(first + account);
        }
        for _ in 0..4 {
            self.rest(15_000);
            for index in first..self.clients.len() {
                self.take_part(index);
            }
        }
        self.rest(15_000);
        for index in first..self.clients.len() {
            if !self.is_on(index) {
                let jid = self.clients[index].jid();
                self.wrong(Violation::Stuck(format!("{jid} can't log in")));
            }
        }
    }

    pub(super) fn judge(&mut self) {
        let mut archives = Vec::new();
        let replaced = !self.cluster.as_ref().is_some_and(|it| it.mixed);
        for account in 0..self.plan.users.len() {
            let floor = self.floor(account);
            let user = &self.plan.users[account];
            let whole = (floor, replaced);
            let (segments, retracted) = Sealed::check(&self.store, user, whole, &mut self.history);
            self.report.segments += segments;
            self.report.retracted += retracted;
            archives.push(Archive::read(&self.store, user, floor, &mut self.history));
        }
        self.history.judge(&archives);
        let messages = &self.history.messages;
        let accepted = messages.iter().filter(|m| m.accepted.is_some());
        self.report.accepted = accepted.count();
        self.report.messages = messages.len();
        self.report.views = self.cluster.as_ref().map_or(0, |cluster| cluster.epoch);
        self.report.store_operations = self.store.operations;
        self.report.faults = self.store.faults.values().sum();
        self.report.store_faults.clone_from(&self.store.faults);
        self.report.violations = std::mem::take(&mut self.history.violations);
    }
}
