//! What ends growth, and at which size.

use cirrus_cluster::{MAX_MEMBERS, SLOTS};

use super::{ITEM, PARTITION_READS, Size, TABLE, TARGETS, Table, fullest, view_reads};
use crate::day::{ASSUMED, Day};
use crate::document::{number, users, words};
use crate::measured::{RUN, SIMULATED, VIEW_MEMBER};
use crate::plan::Resources;

/// Something that ends growth.
struct Bound {
    what: String,
    kind: Kind,
    /// Nodes at which it is reached, if it is one of nodes.
    nodes: Option<f64>,
    users: f64,
    moves: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A variable of the Terraform module or an option.
    Setting,
    /// A quota of AWS that can be raised.
    Quota,
    /// A limit of AWS that cannot.
    Limit,
    /// A constant of Cirrus.
    Constant,
    /// What was tried.
    Tried,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Quota => "quota of AWS, can be raised",
            Self::Limit => "limit of AWS",
            Self::Constant => "constant of Cirrus",
            Self::Tried => "nothing larger was tried",
        }
    }
}

/// Bounds of a number of nodes.
struct Nodes {
    per_node: f64,
}

impl Nodes {
    fn of(&self, what: String, kind: Kind, nodes: f64, moves: &'static str) -> Bound {
        Bound {
            what,
            kind,
            nodes: Some(nodes.floor()),
            users: nodes.floor() * self.per_node / ASSUMED.sessions,
            moves,
        }
    }

    /// What the plan or nobody's trying sets.
    fn set(&self, resources: &Resources) -> [Bound; 3] {
        let most = resources.nodes_max;
        [
            self.of(
                format!("`size.max`, {} nodes", number(most)),
                Kind::Setting,
                most,
                "the variable",
            ),
            self.of(
                format!("clusters of up to {} real processes", number(RUN)),
                Kind::Tried,
                RUN,
                "a run with more",
            ),
            self.of(
                format!("simulated clusters of up to {} nodes", number(SIMULATED)),
                Kind::Tried,
                SIMULATED,
                "`cirrus-sim grow` with more",
            ),
        ]
    }

    fn balancer(&self, groups: f64) -> Bound {
        let (all, each) = (number(TARGETS), number(groups));
        self.of(
            format!("targets of the balancer: {all} in all, {each} for each node"),
            Kind::Quota,
            TARGETS / groups,
            "a higher quota; no port 80 (`acme_dns`); larger nodes; DNS alone",
        )
    }

    fn view(&self) -> [Bound; 3] {
        let counts = (1..10_000_u32).map(f64::from);
        let fits = counts.take_while(|nodes| view_reads(*nodes) <= PARTITION_READS);
        let reads = number(PARTITION_READS);
        [
            self.of(
                format!("members of a view, {MAX_MEMBERS}"),
                Kind::Constant,
                MAX_MEMBERS as f64,
                "the constant; larger nodes",
            ),
            self.of(
                format!("reads of the view, {reads} units a second of one partition"),
                Kind::Limit,
                fits.last().unwrap_or(0.0),
                "`cluster.renew_ms`; reads that need not be consistent",
            ),
            self.of(
                format!("bytes of the view, {} of one item", number(ITEM)),
                Kind::Limit,
                ITEM / VIEW_MEMBER,
                "a view of several items",
            ),
        ]
    }

    fn slots(&self) -> Option<Bound> {
        let counts = UNEVEN.map(|it| it * 25);
        let nodes = counts.into_iter().find(|it| fullest(*it) >= 2.0)?;
        let slots = number(f64::from(SLOTS));
        Some(self.of(
            format!("{slots} slots: the fullest node has twice the mean"),
            Kind::Constant,
            nodes as f64,
            "more slots; larger nodes",
        ))
    }
}

/// Sizes, in 25 nodes, of which the first one that is twice as full somewhere is looked for.
const UNEVEN: [usize; 11] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

fn all_bounds(resources: &Resources) -> Result<Vec<Bound>, String> {
    let day = Day::of(&ASSUMED)?;
    let per_node = resources.sessions_per_node;
    let nodes = Nodes { per_node };
    let a_user = Size::of(1.0, per_node, 0.0);
    let table = Bound {
        what: format!("write units of a table, {} a second", number(TABLE)),
        kind: Kind::Quota,
        nodes: None,
        users: TABLE / a_user.busiest(day.writes),
        moves: "a higher quota",
    };
    let mut all = vec![table, nodes.balancer(resources.target_groups)];
    all.extend(nodes.set(resources));
    all.extend(nodes.view());
    all.extend(nodes.slots());
    all.sort_by(|a, b| a.users.total_cmp(&b.users));
    Ok(all)
}

/// All of them.
pub(super) fn bounds(resources: &Resources) -> Table {
    let all = all_bounds(resources)?;
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|bound| {
            vec![
                bound.what.clone(),
                bound.kind.word().to_owned(),
                bound.nodes.map(number).unwrap_or_default(),
                users((bound.users / 1e4).round() * 1e4),
                bound.moves.to_owned(),
            ]
        })
        .collect();
    let head = ["bound", "", "nodes", "users a day", "what moves it"];
    Ok(words(&head, &rows))
}

/// The first one that is neither a setting nor only not tried, and the next.
pub(super) fn first(resources: &Resources) -> Table {
    let all = all_bounds(resources)?;
    let real = |bound: &&Bound| !matches!(bound.kind, Kind::Setting | Kind::Tried);
    let first = all.iter().find(real).ok_or("nothing is bounded")?;
    let second = all.iter().filter(real).nth(1).ok_or("one bound only")?;
    let nodes = |bound: &Bound| bound.nodes.map(|it| format!("{} nodes, ", number(it)));
    let say = |bound: &Bound| {
        let nodes = nodes(bound).unwrap_or_default();
        let people = users((bound.users / 1e4).round() * 1e4);
        format!("{} ({nodes}{people} users a day)", bound.what)
    };
    Ok(format!(
        "The first bound: **{}**.\nWhat moves it: {}.\n\nThe next one: {}.\n",
        say(first),
        first.moves,
        say(second)
    ))
}
