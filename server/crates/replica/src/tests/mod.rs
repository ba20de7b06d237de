mod others;
mod sim;
mod toy;

use cirrus_cluster::{Member, MemberState, View};

use crate::{Now, Random};

/// Numbers from a seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

impl Random for Rng {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.next() as u8;
        }
    }
}

pub(crate) fn at(ms: u64) -> Now {
    Now {
        steady: ms,
        wall: ms,
    }
}

/// A view of serving members with these numbers.
pub(crate) fn view(epoch: u64, nodes: &[u64], draining: &[u64]) -> View {
    let member = |node: &u64| Member {
        instance: format!("i-{node}"),
        boot: u128::from(*node),
        address: String::new(),
        zone: String::new(),
        weight: 1,
        state: match draining.contains(node) {
            true => MemberState::Draining,
            false => MemberState::Serving,
        },
        wire: 9,
        storage: 9,
    };
    View {
        epoch,
        slot_key: *b"0123456789abcdef",
        reached: 0,
        members: nodes.iter().map(member).collect(),
    }
}
