//! Where a node stands, and what it has.

use cirrus_router::home::Tally;

use crate::membership::About;
use crate::public::Public;

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not serve yet.
    Joining,
    /// It can't join yet.
    Waiting {
        /// Why, and what to look at.
        why: String,
    },
    /// It serves, in the view of that epoch; 0 = it can open its store alone.
    Serving {
        /// The view's epoch.
        epoch: u64,
    },
    /// It serves on although the store does not answer.
    Degraded,
    /// It must not serve any more.
    Stopped(&'static str),
    /// It has left the cluster.
    Left,
}

impl Standing {
    /// One word for a program, one sentence for a person.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Joining => ("joining", "the server is looking for other nodes".into()),
            Self::Waiting { why } => ("joining", why.clone()),
            Self::Serving { epoch: 0 } => ("serving", "this node serves".into()),
            Self::Serving { epoch } => ("serving", format!("this node serves, in view {epoch}")),
            Self::Degraded => (
                "serving",
                "this node serves; the store does not answer".into(),
            ),
            Self::Stopped(why) => ("stopped", format!("this node must not serve: {why}")),
            Self::Left => ("stopped", "this node has left the cluster".into()),
        }
    }
}

/// What a node has, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots, copies and entities.
    pub slots: cirrus_replica::Census,
    /// Sessions with a connection, whose home is here.
    pub attached: usize,
    /// Sessions that wait to be resumed, whose home is here.
    pub detached: usize,
    /// Store operations under way, but for reads.
    pub operations: usize,
    /// Reads of the store under way.
    pub reads: usize,
    /// Reads that wait for their turn.
    pub reads_waiting: usize,
    /// Reads that were refused because as many waited as may.
    pub reads_refused: u64,
    /// What happened to archives whose home is here.
    pub tally: Tally,
    /// Connections of this node that have a session or want one.
    pub pipes: usize,
    /// What connections have said and the node has not taken yet.
    pub waiting: usize,
    /// Clients that this node has beyond its share and that it is letting go.
    pub moving: u64,
    /// Members of the view.
    pub members: usize,
    /// Nodes with whom there is a link.
    pub linked: usize,
}

/// Where an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its slot.
    pub slot: u16,
    /// The machine that is its home.
    pub home: String,
    /// The machine that has the copy, unless there is one node only.
    pub copy: Option<String>,
}

/// The view, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSeen {
    /// Its epoch.
    pub epoch: u64,
    /// The cluster's format: what every member writes.
    pub format: Option<u16>,
    /// Its members.
    pub nodes: Vec<NodeSeen>,
}

/// A member of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// The machine's name.
    pub instance: String,
    /// Where other nodes find it.
    pub address: String,
    /// Availability zone, or empty.
    pub zone: String,
    /// `serving` or `draining`.
    pub state: &'static str,
    /// It is this node.
    pub here: bool,
    /// Its share of the slots beside the others' weights; 0 while it drains.
    pub weight: u8,
    /// Where clients reach it itself, if it has said so.
    pub public: Option<Public>,
    /// Its connections that have a session or want one, if it has said how many.
    pub connections: Option<u64>,
    /// What it says of itself, if it has.
    pub about: Option<About>,
}
