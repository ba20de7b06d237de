//! Membership event by event, and simulated with slow clocks, pauses and a faulty store.

mod events;
mod sim;

use std::collections::BTreeMap;

use cirrus_schema::TableId;
use cirrus_store::{Key, Place};

use super::*;

const LEASE: u64 = 3_000;
const RENEW: u64 = 1_000;
const WALL: u64 = 1_795_488_480_000;

fn options(instance: &str, boot: u128) -> Options {
    Options {
        me: Member {
            instance: instance.into(),
            boot,
            address: format!("{instance}:7250"),
            zone: String::new(),
            weight: 1,
            state: MemberState::Standby,
            wire: 1,
            storage: 1,
        },
        lease_ms: LEASE,
        renew_ms: RENEW,
        cut_off: CutOff::Stop,
        exclusive: false,
        slot_key: [7; 16],
        seed: boot << 64,
    }
}

/// The cluster table, by the rules of the store's contract.
#[derive(Default)]
struct Rows(BTreeMap<Key, (Item, u128)>);

impl Rows {
    fn apply(&mut self, op: Op) -> Result<Outcome, StoreError> {
        match op {
            Op::Get { key } => Ok(Outcome::Item(
                self.0.get(&key).map(|(item, _)| item.clone()),
            )),
            Op::Put {
                item,
                condition,
                nonce,
            } => {
                let existing = self.0.get(&item.key);
                if existing.is_some_and(|(_, by)| *by == nonce) {
                    return Ok(Outcome::Put);
                }
                let version = existing.map(|(item, _)| item.version);
                let holds = match condition {
                    Condition::Any => true,
                    Condition::Absent => version.is_none(),
                    Condition::Version(wanted) => version == Some(wanted),
                };
                if !holds {
                    let existing = existing.map(|(item, _)| Box::new(item.clone()));
                    return Err(StoreError::Conflict {
                        key: item.key,
                        existing,
                    });
                }
                self.0.insert(item.key.clone(), (item, nonce));
                Ok(Outcome::Put)
            }
            other => panic!("{other:?}"),
        }
    }

    fn view(&self) -> Option<View> {
        let item = self.0.get(&cluster::view().into());
        item.map(|(item, _)| View::from_item(item).unwrap())
    }
}

fn timeout() -> StoreError {
    StoreError::Timeout {
        place: Place::Table(TableId::Cluster),
        source: None,
    }
}
