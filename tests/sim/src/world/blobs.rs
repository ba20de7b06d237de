//! The store of blobs, with the same faults as the tables.

use cirrus_cluster::Slot;
use cirrus_node::Answered;
use cirrus_router::{Event, Token};
use cirrus_store::{BlobOp, BlobOutcome, StoreError};

use super::cluster::Input;
use super::{Happening, World};
use crate::store::{Fate, throttled, timeout};

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// The home, in that life of it.
    Home(u64, Token),
    /// A slot of a node.
    Node(u64, Slot, Token),
}

/// What the store says, unless it is asked when it answers.
pub type Said = Option<Result<BlobOutcome, StoreError>>;

impl World {
    pub(super) fn ask_blob(&mut self, asker: Asker, op: BlobOp) {
        let fate = self.store.fate(&mut self.rng);
        self.tell(|| format!("blob {asker:?} {fate:?} {:?} {}", op.kind(), op.place()));
        let place = op.place();
        let said = match fate {
            Fate::Late => None,
            Fate::Early => Some(self.store.apply_blob(op.clone())),
            Fate::Throttled => Some(Err(throttled(place))),
            Fate::Lost => {
                drop(self.store.apply_blob(op.clone()));
                Some(Err(timeout(place)))
            }
            Fate::Vanished => Some(Err(timeout(place))),
        };
        let happening = Happening::Blob(asker, Box::new(op), Box::new(said));
        self.soon(self.plan.faults.slowest_ms, happening);
    }

    pub(super) fn blob_answered(&mut self, asker: Asker, op: BlobOp, said: Said) {
        let alive = match asker {
            Asker::Home(life, _) => life == self.life && self.home.is_some(),
            Asker::Node(id, ..) => self.runs(id),
        };
        if !alive {
            // What a dead node asked for lands, late, or never.
            if said.is_none() && self.rng.one_in(2) {
                drop(self.store.apply_blob(op));
            }
            return;
        }
        let result = said.unwrap_or_else(|| self.store.apply_blob(op));
        match asker {
            Asker::Home(_, token) => self.home_event(Event::Blob { token, result }),
            Asker::Node(id, slot, token) => {
                let answer = Answered::Blob(result);
                self.feed(id, Input::Answer(slot, token, answer));
            }
        }
    }
}
