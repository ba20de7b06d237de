//! Slots, and which members are their home and backup.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::{Member, MemberState, View};

/// How many slots the owners are spread over.
pub const SLOTS: u16 = 4_096;

/// Number of a slot, below [`SLOTS`].
pub type Slot = u16;

/// The slot of an owner (`host NUL local`), by a keyed hash: who doesn't know the key can't choose.
pub fn slot(key: &[u8; 16], host: &str, local: &str) -> Slot {
    let mut hasher = SipHasher24::new_with_key(key);
    for part in [host.as_bytes(), &[0], local.as_bytes()] {
        hasher.write(part);
    }
    (hasher.finish() % u64::from(SLOTS)) as Slot
}

/// Home and backup of every slot, as indices into the view's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    home: u16,
    backup: Option<u16>,
}

impl Placement {
    /// Places the slots on the serving members by rendezvous hashing: when a member comes or goes,
    /// only the slots that it gets or had change their home. A member of weight w gets the best of
    /// w hashes, so its share is proportional to w. The backup is the second best, of another zone
    /// if there is one. Where nobody serves, those that drain go on: `None` in a view of nobody.
    ///
    /// Takes 4,096 hashes per unit of weight: some milliseconds for a large view.
    pub fn new(view: &View) -> Option<Self> {
        let candidates = candidates(view);
        let places: Option<Vec<Place>> = (0..SLOTS).map(|slot| place(&candidates, slot)).collect();
        Some(Self { places: places? })
    }

    /// Home and backup of one slot alone.
    pub fn of(view: &View, slot: Slot) -> Option<(usize, Option<usize>)> {
        let place = place(&candidates(view), slot % SLOTS)?;
        Some((usize::from(place.home), place.backup.map(usize::from)))
    }

    /// The member that is home of a slot.
    pub fn home(&self, slot: Slot) -> usize {
        usize::from(self.places[usize::from(slot % SLOTS)].home)
    }

    /// The member that backs a slot up; `None` in a view of one.
    pub fn backup(&self, slot: Slot) -> Option<usize> {
        self.places[usize::from(slot % SLOTS)]
            .backup
            .map(usize::from)
    }
}

fn candidates(view: &View) -> Vec<Candidate<'_>> {
    let serves = |member: &Member| member.state == MemberState::Serving;
    let nobody = !view.members.iter().any(serves);
    let members = view.members.iter().enumerate();
    members
        .filter(|(_, member)| nobody || serves(member))
        .map(|(index, member)| Candidate::new(&view.slot_key, index, member))
        .collect()
}

/// A member that slots can be placed on.
struct Candidate<'a> {
    index: usize,
    member: &'a Member,
    node: String,
    /// The hash of its name, to be gone on with.
    named: SipHasher24,
}

impl<'a> Candidate<'a> {
    fn new(key: &[u8; 16], index: usize, member: &'a Member) -> Self {
        let node = member.node();
        let mut named = SipHasher24::new_with_key(key);
        named.write(node.as_bytes());
        Self {
            index,
            member,
            node,
            named,
        }
    }

    /// How much a slot likes it: the best of as many hashes as it has weight.
    fn score(&self, slot: Slot) -> u64 {
        let mut base = self.named;
        base.write(&slot.to_be_bytes());
        let hash = |n: u8| {
            let mut hasher = base;
            hasher.write(&[n]);
            hasher.finish()
        };
        (0..self.member.weight.max(1))
            .map(hash)
            .max()
            .unwrap_or_default()
    }
}

/// The best for a slot, and the best besides it, of another zone if there is one.
fn place(candidates: &[Candidate<'_>], slot: Slot) -> Option<Place> {
    let scores: Vec<u64> = candidates.iter().map(|it| it.score(slot)).collect();
    let better = |n: &usize| (scores[*n], std::cmp::Reverse(&candidates[*n].node));
    let all = 0..candidates.len();
    let home = all.clone().max_by_key(better)?;
    let zone = |n: usize| &candidates[n].member.zone;
    let others = all.filter(|n| *n != home);
    let backup = others.max_by_key(|n| (zone(*n) != zone(home), better(n)));
    // A view has at most 256 members.
    let index = |n: usize| candidates[n].index as u16;
    Some(Place {
        home: index(home),
        backup: backup.map(index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    fn view(members: &[(&str, &str, u8)]) -> View {
        let member = |(n, (instance, zone, weight)): (usize, &(&str, &str, u8))| Member {
            instance: (*instance).into(),
            boot: n as u128,
            address: String::new(),
            zone: (*zone).into(),
            weight: *weight,
            state: MemberState::Serving,
            wire: 9,
            storage: 9,
        };
        let members = members.iter().enumerate().map(member).collect();
        View {
            epoch: 1,
            slot_key: KEY,
            reached: 0,
            members,
        }
    }

    /// How many slots each member is home of.
    fn shares(view: &View) -> Vec<usize> {
        let placement = Placement::new(view).unwrap();
        let mut shares = vec![0; view.members.len()];
        (0..SLOTS).for_each(|slot| shares[placement.home(slot)] += 1);
        shares
    }

    /// Stored data depends on none of these numbers, but a running cluster's nodes must agree on
    /// them across versions.
    #[test]
    fn the_hashes_are_as_they_were() {
        let owners = [
            ("example.com", "juliet"),
            ("example.net", "romeo"),
            ("example.com", ""),
        ];
        let slots = owners.map(|(host, local)| slot(&KEY, host, local));
        assert_eq!(slots, [2_989, 718, 204]);
        let three = view(&[("a", "", 1), ("b", "", 2), ("c", "", 1)]);
        let placement = Placement::new(&three).unwrap();
        let homes: Vec<usize> = (0..16).map(|slot| placement.home(slot)).collect();
        assert_eq!(homes, [2, 2, 1, 0, 0, 1, 2, 2, 1, 1, 2, 1, 1, 2, 1, 1]);
    }

    #[test]
    fn slots_are_spread_evenly_and_depend_on_the_key() {
        let mut counts = vec![0u32; usize::from(SLOTS)];
        let mut moved = 0;
        for n in 0..100_000 {
            let (host, local) = ("example.com", format!("user{n}"));
            let slot = slot(&KEY, host, &local);
            counts[usize::from(slot)] += 1;
            moved += u32::from(slot != super::slot(&[7; 16], host, &local));
        }
        assert!(counts.iter().all(|count| (4..=60).contains(count)));
        assert!(moved > 99_000);
    }

    #[test]
    fn shares_follow_the_weights() {
        let given = shares(&view(&[("a", "", 1), ("b", "", 2), ("c", "", 5)]));
        for (share, weight) in given.iter().zip([1, 2, 5]) {
            let expected = usize::from(SLOTS) * weight / 8;
            assert!(
                share.abs_diff(expected) < expected / 5,
                "{share} of {expected}"
            );
        }
        // A weight of 0 counts as 1.
        let zero = shares(&view(&[("a", "", 0), ("b", "", 1)]));
        assert!(zero.iter().all(|share| *share > 1_500));
    }

    #[test]
    fn only_what_a_leaving_member_had_moves_and_it_moves_to_the_backup() {
        let all = view(&[("a", "", 1), ("b", "", 1), ("c", "", 3), ("d", "", 1)]);
        let before = Placement::new(&all).unwrap();
        for gone in 0..4 {
            let mut rest = all.clone();
            rest.members.remove(gone);
            let after = Placement::new(&rest).unwrap();
            let name = |view: &View, n: usize| view.members[n].instance.clone();
            for slot in 0..SLOTS {
                let now = name(&rest, after.home(slot));
                if before.home(slot) == gone {
                    let backup = before.backup(slot).unwrap();
                    assert_eq!(now, name(&all, backup), "the backup becomes home");
                } else {
                    assert_eq!(now, name(&all, before.home(slot)));
                }
            }
        }
    }

    #[test]
    fn the_backup_is_in_another_zone_if_there_is_one() {
        let zones = view(&[("a", "1a", 1), ("b", "1a", 1), ("c", "1b", 1)]);
        let placement = Placement::new(&zones).unwrap();
        for slot in 0..SLOTS {
            let backup = placement.backup(slot).unwrap();
            let zone = |n: usize| &zones.members[n].zone;
            assert_ne!(zone(placement.home(slot)), zone(backup));
        }
        let one = Placement::new(&view(&[("a", "1a", 1)])).unwrap();
        assert_eq!((one.home(7), one.backup(7)), (0, None));
        let mut draining = view(&[("a", "", 1), ("b", "", 1)]);
        draining.members[0].state = MemberState::Draining;
        assert_eq!(shares(&draining), [0, usize::from(SLOTS)]);
        let drained = Placement::new(&draining).unwrap();
        assert_eq!(
            (drained.home(7), drained.backup(7)),
            (1, None),
            "it gets nothing"
        );
        draining.members[1].state = MemberState::Draining;
        let [a, b] = shares(&draining)[..] else {
            panic!("two members");
        };
        assert!(a > 1_500 && b > 1_500, "somebody has to: {a}, {b}");
        draining.members.clear();
        assert_eq!(Placement::new(&draining), None);
    }
}
