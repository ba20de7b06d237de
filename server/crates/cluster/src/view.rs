//! The view: who the members are.
//!
//! Format 1, key `v` / 0: `e` = epoch, `v` = 1, `k` = the 16 bytes of the slot-hash key, `m` = the
//! members. A member: instance id, address and zone, each as one byte of length and UTF-8; boot id
//! (16 bytes); weight and state (one byte each; 1 serving, 3 draining); wire and storage
//! format (two bytes each). Numbers are big-endian; the list begins with two bytes of count.
//! `f` = the newest format that the cluster had before.

use cirrus_schema::keys::cluster;
use cirrus_store::{Attrs, Item};

use crate::ClusterError;

/// Most members of a view: with texts of 64 bytes each the item stays below 64 KB.
pub const MAX_MEMBERS: usize = 256;
/// Most bytes of an instance id, address or zone.
pub const MAX_TEXT: usize = 64;
/// Largest weight. Placing a slot takes as many hashes as the members have weight together.
pub const MAX_WEIGHT: u8 = 32;

const FORMAT: u64 = 1;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It is home of slots.
    Serving,
    /// It is about to go: home and backup of nothing, still a pipe, and counted for majorities.
    Draining,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names the machine: on EC2 the instance id.
    pub instance: String,
    /// Names the process: drawn at random when it starts.
    pub boot: u128,
    /// Where other nodes and people find it.
    pub address: String,
    /// Availability zone, or empty.
    pub zone: String,
    /// Share of the slots, 1 to [`MAX_WEIGHT`].
    pub weight: u8,
    /// What it does.
    pub state: MemberState,
    /// The newest format of frames between nodes that it understands.
    pub wire: u16,
    /// The newest format of stored values that it understands.
    pub storage: u16,
}

impl Member {
    /// The name of its lease: machine and process.
    pub fn node(&self) -> String {
        format!("{}~{:032x}", self.instance, self.boot)
    }

    /// Names the process on links: the low 64 bits of its boot id, never 0.
    pub fn node_id(&self) -> u64 {
        (self.boot as u64).max(1)
    }

    /// Whether it is the same process, whatever it does now.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.boot, &self.instance) == (other.boot, &other.instance)
    }

    /// The newest format of both that it understands.
    pub fn understands(&self) -> u16 {
        self.wire.min(self.storage)
    }

    fn check(&self) -> Result<(), ClusterError> {
        let texts = [&self.instance, &self.address, &self.zone];
        let longest = texts.into_iter().map(String::len).max().unwrap_or(0);
        let weight = usize::from(self.weight);
        bounded("bytes of a member's text", longest, MAX_TEXT)?;
        bounded("a member's weight", weight, usize::from(MAX_WEIGHT))
    }
}

fn bounded(what: &'static str, given: usize, limit: usize) -> Result<(), ClusterError> {
    if given > limit {
        return Err(ClusterError::TooMuch { what, given, limit });
    }
    Ok(())
}

/// The members at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts the changes from 1; also the item's version.
    pub epoch: u64,
    /// Key of the hash that gives owners their slots, drawn when the view is created and never
    /// changed, so that nobody can choose a slot.
    pub slot_key: [u8; 16],
    /// The newest [common](View::common) format of the views before this one: what is stored may
    /// have it, also when no member is left.
    pub reached: u16,
    /// In no particular order.
    pub members: Vec<Member>,
}

impl View {
    /// The members that are home of slots.
    pub fn serving(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.state == MemberState::Serving)
    }

    /// The entry of that process.
    pub fn member(&self, me: &Member) -> Option<&Member> {
        self.members.iter().find(|member| member.is_same(me))
    }

    /// Whether these nodes, by [`Member::node_id`], are a majority: more than half of the members,
    /// or exactly half with the lowest id among them. Of two members only both are one, so that
    /// between two nodes only the store decides.
    pub fn is_majority(&self, counts: impl Fn(u64) -> bool) -> bool {
        let ids = || self.members.iter().map(Member::node_id);
        let (all, count) = (self.members.len(), ids().filter(|id| counts(*id)).count());
        let lowest = || ids().min().is_some_and(&counts);
        2 * count > all || (2 * count == all && all > 2 && lowest())
    }

    /// The cluster's format, of frames between nodes and of stored values alike: the newest that
    /// every member understands, which all of them write. Who does not understand it does not
    /// join, so it only rises.
    pub fn common(&self) -> Option<u16> {
        self.members.iter().map(Member::understands).min()
    }

    /// The newest format that the cluster has had: who does not understand it can't join.
    pub fn reached(&self) -> u16 {
        self.reached.max(self.common().unwrap_or_default())
    }

    /// The item that holds it.
    ///
    /// # Errors
    /// [`ClusterError::TooMuch`] when a limit is exceeded.
    pub fn to_item(&self) -> Result<Item, ClusterError> {
        bounded("members of a view", self.members.len(), MAX_MEMBERS)?;
        let mut members = (self.members.len() as u16).to_be_bytes().to_vec();
        for member in &self.members {
            member.check()?;
            for text in [&member.instance, &member.address, &member.zone] {
                members.push(text.len() as u8);
                members.extend_from_slice(text.as_bytes());
            }
            members.extend_from_slice(&member.boot.to_be_bytes());
            let state = match member.state {
                MemberState::Serving => 1,
                MemberState::Draining => 3,
            };
            members.extend_from_slice(&[member.weight, state]);
            members.extend_from_slice(&member.wire.to_be_bytes());
            members.extend_from_slice(&member.storage.to_be_bytes());
        }
        let attrs = Attrs::new()
            .with("v", FORMAT)
            .with("k", &self.slot_key[..])
            .with("f", u64::from(self.reached))
            .with("m", members);
        Ok(Item::new(cluster::view(), attrs).versioned(self.epoch))
    }

    /// The view of an item.
    ///
    /// # Errors
    /// [`ClusterError::Corrupt`] when the format is unknown or the item damaged.
    pub fn from_item(item: &Item) -> Result<Self, ClusterError> {
        let corrupt = |reason| ClusterError::Corrupt {
            key: item.key.clone(),
            reason,
        };
        if item.attrs.get_n("v") != Some(FORMAT) {
            return Err(corrupt("unknown format"));
        }
        let key = item
            .attrs
            .get_b("k")
            .and_then(|key| key.as_ref().try_into().ok());
        let reached = item.attrs.get_n("f").unwrap_or_default();
        let reached = u16::try_from(reached).ok();
        let members = item.attrs.get_b("m").and_then(|bytes| decode(bytes));
        Ok(Self {
            epoch: item.version,
            slot_key: key.ok_or_else(|| corrupt("no slot-hash key"))?,
            reached: reached.ok_or_else(|| corrupt("no format"))?,
            members: members.ok_or_else(|| corrupt("damaged members"))?,
        })
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<Member>> {
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count > MAX_MEMBERS {
        return None;
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let rest = &mut rest;
        let (instance, address, zone) = (text(rest)?, text(rest)?, text(rest)?);
        let boot = u128::from_be_bytes(*take(rest)?);
        let [weight, state] = *take(rest)?;
        let state = match state {
            1 => MemberState::Serving,
            3 => MemberState::Draining,
            _ => return None,
        };
        let (wire, storage) = (
            u16::from_be_bytes(*take(rest)?),
            u16::from_be_bytes(*take(rest)?),
        );
        let member = Member {
            instance,
            boot,
            address,
            zone,
            weight,
            state,
            wire,
            storage,
        };
        member.check().ok()?;
        members.push(member);
    }
    rest.is_empty().then_some(members)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(taken)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let [length] = *take(rest)?;
    let (text, left) = rest.split_at_checked(usize::from(length))?;
    *rest = left;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use cirrus_store::Value;

    use super::*;

    fn member(n: u8, state: MemberState) -> Member {
        Member {
            instance: format!("i-{n:04}"),
            boot: u128::from(n) << 64 | 7,
            address: format!("10.0.0.{n}:7250"),
            zone: "eu-central-1a".into(),
            weight: n,
            state,
            wire: 9,
            storage: u16::from(n) + 264,
        }
    }

    fn view() -> View {
        View {
            epoch: 42,
            slot_key: *b"0123456789abcdef",
            reached: 8,
            members: vec![
                member(1, MemberState::Serving),
                member(2, MemberState::Draining),
            ],
        }
    }

    #[test]
    fn format_1_is_as_it_was() {
        let item = view().to_item().unwrap();
        let mut text = format!("{} e={} exp={:?}\n", item.key, item.version, item.expires);
        for (name, value) in item.attrs.iter() {
            text += &match value {
                Value::N(number) => format!("  {name} N {number}\n"),
                Value::S(string) => format!("  {name} S {string}\n"),
                Value::B(bytes) => format!("  {name} B {}\n", bytes.escape_ascii()),
            };
        }
        assert_eq!(text, include_str!("golden/view-v1.txt"));
    }

    #[test]
    fn views_round_trip() {
        let empty = View {
            epoch: 1,
            slot_key: [0; 16],
            reached: 0,
            members: Vec::new(),
        };
        for view in [view(), empty] {
            assert_eq!(View::from_item(&view.to_item().unwrap()), Ok(view));
        }
        assert_eq!(view().serving().count(), 1);
        assert_eq!(view().common(), Some(9));
        let mut newer = view();
        newer.members[0].wire = 300;
        newer.members[1].wire = 300;
        assert_eq!(
            newer.common(),
            Some(265),
            "the older of both numbers counts"
        );
        let restarted = Member {
            boot: 9,
            ..member(1, MemberState::Serving)
        };
        assert_eq!(view().member(&restarted), None);
        assert_eq!(
            view()
                .member(&member(2, MemberState::Serving))
                .unwrap()
                .instance,
            "i-0002"
        );
        assert_eq!(
            member(2, MemberState::Serving).node(),
            "i-0002~00000000000000020000000000000007"
        );
    }

    #[test]
    fn a_draining_member_is_stored_and_an_unknown_state_is_damage() {
        let mut draining = view();
        draining.members[1].state = MemberState::Draining;
        let mut item = draining.to_item().unwrap();
        assert_eq!(View::from_item(&item), Ok(draining));
        let mut bytes = item.attrs.get_b("m").unwrap().to_vec();
        let state = bytes.len() - 5;
        assert_eq!(bytes[state], 3);
        bytes[state] = 4;
        item.attrs.set("m", Value::from(bytes));
        assert!(View::from_item(&item).is_err());
    }

    #[test]
    fn a_majority_is_more_than_half_or_half_with_the_lowest() {
        let of = |all: u8, some: &[u64]| {
            let mut members: Vec<Member> = (1..=all)
                .rev()
                .map(|n| member(n, MemberState::Draining))
                .collect();
            for member in &mut members {
                member.boot = u128::from(member.weight) | 99 << 64;
            }
            let view = View { members, ..view() };
            view.is_majority(|id| some.contains(&id))
        };
        assert!(of(1, &[1]));
        assert!(
            of(2, &[1, 2]) && !of(2, &[1]) && !of(2, &[2]),
            "of two, both"
        );
        assert!(of(3, &[2, 3]) && !of(3, &[1]));
        assert!(of(4, &[1, 4]) && !of(4, &[2, 3]) && of(4, &[2, 3, 4]));
        assert!(of(5, &[1, 2, 5]) && !of(5, &[1, 2]));
        assert!(!of(3, &[7, 8, 9]), "who is no member does not count");
        let zero = Member {
            boot: 1 << 64,
            ..member(1, MemberState::Serving)
        };
        assert_eq!(zero.node_id(), 1, "0 names nobody");
    }

    #[test]
    fn limits_hold() {
        let mut large = view();
        large.members = (0..257).map(|_| member(1, MemberState::Draining)).collect();
        assert!(matches!(
            large.to_item(),
            Err(ClusterError::TooMuch { given: 257, .. })
        ));
        let mut long = view();
        long.members[0].zone = "z".repeat(65);
        assert!(matches!(
            long.to_item(),
            Err(ClusterError::TooMuch { given: 65, .. })
        ));
        let mut heavy = view();
        heavy.members[0].weight = 33;
        assert!(matches!(
            heavy.to_item(),
            Err(ClusterError::TooMuch { given: 33, .. })
        ));
    }

    #[test]
    fn damage_is_an_error() {
        let good = view().to_item().unwrap();
        let bytes = good.attrs.get_b("m").unwrap().to_vec();
        let reason = |name: &str, value: Value| {
            let mut item = good.clone();
            item.attrs.set(name, value);
            match View::from_item(&item).unwrap_err() {
                ClusterError::Corrupt { reason, .. } => reason,
                other => panic!("{other}"),
            }
        };
        assert_eq!(reason("v", Value::N(2)), "unknown format");
        assert_eq!(reason("k", Value::from(&b"short"[..])), "no slot-hash key");
        for length in 0..bytes.len() {
            assert_eq!(
                reason("m", Value::from(&bytes[..length])),
                "damaged members"
            );
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(reason("m", Value::from(longer)), "damaged members");
        assert_eq!(
            reason("m", Value::from(&b"\xff\xff"[..])),
            "damaged members"
        );
    }
}
