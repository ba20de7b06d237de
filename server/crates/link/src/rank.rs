//! Which of two links with one node counts. Both sides ask this of the same facts, so both keep the
//! same link, whatever order they learned of them in.

/// What decides between links with one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rank {
    /// Sequence of this node's hello on the link, and of the other's.
    pub(crate) mine: u64,
    pub(crate) theirs: u64,
    /// The other's process.
    pub(crate) incarnation: u64,
    /// This node dialled it.
    pub(crate) dialled: bool,
}

/// Whether `new` counts rather than `old`, at node `me`, for links with node `other`.
pub(crate) fn supersedes(new: &Rank, old: &Rank, me: u64, other: u64) -> bool {
    if new.incarnation != old.incarnation {
        // The process at the other end of the old one is gone.
        return true;
    }
    if new.dialled == old.dialled {
        // Who dials again had no link any more.
        return if new.dialled {
            new.mine > old.mine
        } else {
            new.theirs > old.theirs
        };
    }
    match (new.mine > old.mine, new.theirs > old.theirs) {
        (true, true) => true,
        (false, false) => false,
        // Each dialled before it heard of the other's: the higher node's is kept.
        _ => new.dialled == (me > other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(rank: Rank, incarnation: u64) -> Rank {
        Rank {
            mine: rank.theirs,
            theirs: rank.mine,
            incarnation,
            dialled: !rank.dialled,
        }
    }

    #[test]
    fn both_sides_agree_in_any_order() {
        let side = |mine, theirs, dialled| Rank {
            mine,
            theirs,
            incarnation: 1,
            dialled,
        };
        for bits in 0..16_u64 {
            // Sequences of one process are never equal.
            let one = side(1 + 2 * (bits & 1), 1 + (bits & 2), bits & 4 != 0);
            let two = side(2, 2, bits & 8 != 0);
            let here = supersedes(&one, &two, 5, 9);
            assert_eq!(supersedes(&two, &one, 5, 9), !here, "{one:?} {two:?}");
            let there = supersedes(&mirrored(one, 2), &mirrored(two, 2), 9, 5);
            assert_eq!(here, there, "{one:?} {two:?}");
        }
    }

    #[test]
    fn of_crossing_links_that_of_the_higher_node_counts() {
        let dialled = Rank {
            mine: 1,
            theirs: 2,
            incarnation: 1,
            dialled: true,
        };
        let accepted = Rank {
            mine: 2,
            theirs: 1,
            incarnation: 1,
            dialled: false,
        };
        assert!(supersedes(&accepted, &dialled, 5, 9));
        assert!(!supersedes(&accepted, &dialled, 9, 5));
    }

    #[test]
    fn a_node_that_dials_after_it_had_answered_has_lost_the_older_link() {
        let dialled = Rank {
            mine: 1,
            theirs: 2,
            incarnation: 1,
            dialled: true,
        };
        let accepted = Rank {
            mine: 2,
            theirs: 3,
            incarnation: 1,
            dialled: false,
        };
        assert!(supersedes(&accepted, &dialled, 9, 5));
    }

    #[test]
    fn a_new_process_counts_rather_than_the_old_one() {
        let old = Rank {
            mine: 1,
            theirs: 90,
            incarnation: 1,
            dialled: true,
        };
        let new = Rank {
            mine: 2,
            theirs: 1,
            incarnation: 2,
            dialled: false,
        };
        assert!(supersedes(&new, &old, 9, 5));
    }
}
