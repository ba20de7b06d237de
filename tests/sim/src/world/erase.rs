//! An account is deleted and, later, created anew: what the accounts service does around
//! [`Event::Erase`], step by step, each of which can be repeated after a kill.

use cirrus_router::{Event, Token};
use cirrus_schema::TableId;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_schema::keys::{archive, cluster, rosters};
use cirrus_store::{Attrs, Condition, Item, Op, Outcome};

use super::server::STRAY_MS;
use super::{Happening, World};
use crate::check::Violation;

/// How long a refused or unanswered step rests, milliseconds.
const RETRY_MS: u64 = 3_000;

/// A deletion under way.
pub struct Erasure {
    stage: Stage,
    token: Token,
    /// When the next step is due.
    due: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The account may not log in; what it owns is being erased.
    Erasing,
    /// Nothing of it is left.
    Gone,
    /// It was created again.
    Back,
}

impl World {
    pub(super) fn begin_erasure(&mut self, account: usize) {
        if self.erasures.contains_key(&account) {
            return;
        }
        self.tell(|| format!("user{account} is being deleted"));
        self.history.erased.insert(account, (self.now, u64::MAX));
        let key = accounts::key(&self.user(account).owner(), Row::Credentials);
        let floor = self.floor(account);
        let attrs = Attrs::new().with("v", 1u64).with("f", floor);
        self.put(Item::new(key, attrs.with("x", 1u64)));
        let stage = Stage::Erasing;
        self.erasures.insert(
            account,
            Erasure {
                stage,
                token: 0,
                due: self.now,
            },
        );
        self.go_on_erasing(account);
    }

    /// Whether the account may not log in, because it is being deleted or is gone.
    pub(super) fn is_away(&self, account: usize) -> bool {
        self.erasures
            .get(&account)
            .is_some_and(|e| e.stage != Stage::Back)
    }

    /// Whether what an account owns is being erased.
    pub(super) fn is_erasing(&self) -> bool {
        self.erasures.values().any(|e| e.stage == Stage::Erasing)
    }

    /// Whether what that account owns is being erased.
    pub(super) fn is_erasing_account(&self, account: usize) -> bool {
        let erasure = self.erasures.get(&account);
        erasure.is_some_and(|e| e.stage == Stage::Erasing)
    }

    /// Every deletion has come to its end.
    pub(super) fn has_erased(&self) -> bool {
        self.erasures.values().all(|e| e.stage == Stage::Back)
    }

    /// The last archive position of the account's former life.
    pub(super) fn floor(&self, account: usize) -> u64 {
        let key = cluster::erased(&self.user(account).owner()).into();
        match self.store.apply(Op::Get { key }) {
            Ok(Outcome::Item(Some(item))) => item.attrs.get_n("p").unwrap_or(0),
            _ => 0,
        }
    }

    fn erase_in(&mut self, account: usize, milliseconds: u64) {
        let due = self.now + milliseconds;
        if let Some(erasure) = self.erasures.get_mut(&account) {
            erasure.due = due;
        }
        self.at(due, Happening::Erase(account));
    }

    pub(super) fn go_on_erasing(&mut self, account: usize) {
        let due = self.erasures.get(&account).filter(|e| e.due == self.now);
        let Some(stage) = due.map(|erasure| erasure.stage) else {
            return;
        };
        match stage {
            Stage::Erasing => {
                let token = self.mark();
                if let Some(erasure) = self.erasures.get_mut(&account) {
                    erasure.token = token;
                }
                // A row that a dead server wrote must not land behind the deletion: a request
                // that is under way when a node dies is settled within seconds.
                if !self.is_up() || self.now < self.died_at + STRAY_MS {
                    return self.erase_in(account, RETRY_MS);
                }
                self.erase_in(account, 20 * RETRY_MS);
                if self.cluster.is_some() {
                    return self.erase_at_a_node(account, token);
                }
                let user = self.user(account).clone();
                self.home_event(Event::Erase { user, token });
            }
            Stage::Gone => self.bring_back(account),
            Stage::Back => {}
        }
    }

    /// The home has erased an account, or could not.
    pub(super) fn erased(&mut self, token: Token, result: Result<(), String>) {
        let mut erasures = self.erasures.iter();
        let found = erasures.find(|(_, e)| e.token == token && e.stage == Stage::Erasing);
        let Some(account) = found.map(|(account, _)| *account) else {
            return;
        };
        self.tell(|| format!("user{account} erased: {result:?}"));
        if result.is_err() {
            return self.erase_in(account, RETRY_MS);
        }
        let owner = self.user(account).owner();
        let left = [
            (TableId::Archive, archive::partition(&owner)),
            (TableId::Rosters, rosters::partition(&owner)),
        ];
        for (table, pk) in left {
            for row in self.store.rows(table, &pk) {
                self.wrong(Violation::Erased(format!("{} is still there", row.key)));
            }
        }
        for row in self
            .store
            .rows(TableId::Accounts, &accounts::partition(&owner))
        {
            let (key, condition) = (row.key, Condition::Any);
            drop(self.store.apply(Op::Delete { key, condition }));
        }
        if let Some((_, gone)) = self.history.erased.get_mut(&account) {
            *gone = self.now;
        }
        for client in self.clients.iter_mut().filter(|c| c.account == account) {
            client.roster = Default::default();
        }
        if let Some(erasure) = self.erasures.get_mut(&account) {
            erasure.stage = Stage::Gone;
        }
        self.report.erased += 1;
        let pause = 1 + self.rng.below(8_000);
        self.erase_in(account, pause);
    }

    fn bring_back(&mut self, account: usize) {
        self.tell(|| format!("user{account} is created again"));
        let floor = self.floor(account);
        self.create_account(account, floor);
        if let Some(erasure) = self.erasures.get_mut(&account) {
            erasure.stage = Stage::Back;
        }
    }
}
