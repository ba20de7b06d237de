//! The layers: which crate may use which. Edges point down only.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Fault, layout};

/// What each workspace member may depend on among the members, in builds of the product. A member
/// that is not listed is a fault: a new crate gets its row here first.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cirrus-jid", &[]),
    ("cirrus-xml", &[]),
    ("cirrus-schema", &[]),
    ("cirrus-config", &["jid", "schema"]),
    ("cirrus-stanza", &["jid", "xml"]),
    ("cirrus-sasl", &[]),
    ("cirrus-tls", &[]),
    // Bytes between nodes; what they mean is for who uses it.
    ("cirrus-link", &[]),
    // For whom a connection is; what it is for is for who uses it.
    ("cirrus-proxy", &[]),
    ("cirrus-web", &["proxy"]),
    ("cirrus-store", &["schema"]),
    ("cirrus-accounts", &["jid", "sasl", "schema", "store"]),
    ("cirrus-cluster", &["schema", "store"]),
    ("cirrus-replica", &["cluster"]),
    ("cirrus-acme", &["cluster", "proxy", "schema", "store"]),
    ("cirrus-route53", &["acme"]),
    (
        "cirrus-router",
        &["jid", "schema", "stanza", "store", "xml"],
    ),
    (
        "cirrus-xep",
        &["jid", "router", "schema", "stanza", "store", "xml"],
    ),
    (
        "cirrus-node",
        &[
            "cluster", "jid", "replica", "router", "schema", "stanza", "store", "xml",
        ],
    ),
    (
        "cirrus-runtime",
        &[
            "cluster", "jid", "link", "node", "replica", "router", "schema", "stanza", "store",
            "xml",
        ],
    ),
    (
        "cirrus-c2s",
        &[
            "accounts", "cluster", "jid", "link", "proxy", "router", "runtime", "sasl", "schema",
            "stanza", "store", "tls", "xml",
        ],
    ),
    (
        "cirrus-server",
        &[
            "accounts", "acme", "c2s", "cluster", "config", "jid", "link", "proxy", "route53",
            "router", "runtime", "sasl", "schema", "stanza", "store", "tls", "web", "xep", "xml",
        ],
    ),
    // Knows the server only by its configuration and by what must exist.
    ("cirrus-bootstrap", &["cloud", "config", "schema"]),
    // Calls of AWS; what they are for is bootstrap's.
    ("cirrus-cloud", &[]),
    // Runs the pure machines, and nothing that needs a runtime.
    (
        "cirrus-sim",
        &[
            "cluster", "jid", "node", "replica", "router", "schema", "stanza", "store", "xml",
        ],
    ),
    // Know the servers they load by their sockets, and by the command lines that start them.
    ("cirrus-client", &[]),
    ("cirrus-peers", &[]),
    ("cirrus-bench", &["peers", "tests"]),
    // Computes on paper: where slots go is the only thing that it asks the product.
    ("cirrus-figures", &["cluster"]),
    ("cirrus-loss", &["client", "peers"]),
    ("xtask", &[]),
];

/// The member that stands above all: it tests them.
const TESTS: &str = "cirrus-tests";

/// External crates that only one member may use, whatever the kind of dependency.
const SOLE_USERS: &[(&str, &str)] = &[
    ("aws-sdk-autoscaling", "cirrus-cloud"),
    ("aws-sdk-ec2", "cirrus-cloud"),
    ("aws-sdk-route53", "cirrus-route53"),
    ("aws-sdk-secretsmanager", "cirrus-cloud"),
    ("aws-sdk-ssm", "cirrus-cloud"),
    ("quick-xml", "cirrus-xml"),
    ("redb", "cirrus-store"),
];

/// Crates that no build of the server may contain.
const NOT_IN_SERVER: &[&str] = &[
    "aws-sdk-autoscaling",
    "aws-sdk-ec2",
    "aws-sdk-secretsmanager",
    "aws-sdk-ssm",
    "cirrus-bootstrap",
    "cirrus-cloud",
];

/// The faults of the workspace that `cargo metadata` describes.
#[must_use]
pub fn check(metadata: &Value) -> Vec<Fault> {
    let members = members(metadata);
    let names: BTreeSet<&str> = members.iter().map(|member| member.name).collect();
    let mut faults = Vec::new();
    for member in &members {
        let name = member.name;
        if let Some(empty) = layout::EMPTY_NAMES
            .iter()
            .find(|empty| name.split('-').any(|part| part == **empty))
        {
            faults.push(Fault::of(
                name,
                format!("`{empty}` is no name: say what it holds"),
            ));
        }
        for (external, user) in SOLE_USERS {
            if name != *user && member.dependencies.iter().any(|d| d.name == *external) {
                faults.push(Fault::of(name, format!("only {user} may use {external}")));
            }
        }
        if name == TESTS {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(row, _)| *row == name) else {
            faults.push(Fault::of(name, "has no row in the table of allowed edges"));
            continue;
        };
        for edge in member
            .dependencies
            .iter()
            .filter(|d| !d.dev && names.contains(d.name))
        {
            let short = edge.name.trim_start_matches("cirrus-");
            if !allowed.contains(&short) {
                faults.push(Fault::of(name, format!("must not use {}", edge.name)));
            }
        }
    }
    faults.extend(server_tree(metadata));
    faults
}

struct Member<'a> {
    name: &'a str,
    dependencies: Vec<Dependency<'a>>,
}

struct Dependency<'a> {
    name: &'a str,
    dev: bool,
}

fn members(metadata: &Value) -> Vec<Member<'_>> {
    let ids: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    let packages = list(&metadata["packages"]);
    let packages = packages.filter(|p| p["id"].as_str().is_some_and(|id| ids.contains(id)));
    let dependency = |d: &'_ Value| d["kind"].as_str() == Some("dev");
    packages
        .map(|package| Member {
            name: text(&package["name"]),
            dependencies: list(&package["dependencies"])
                .map(|d| Dependency {
                    name: text(&d["name"]),
                    dev: dependency(d),
                })
                .collect(),
        })
        .collect()
}

/// Follows the resolved graph down from the server.
fn server_tree(metadata: &Value) -> Vec<Fault> {
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .map(|node| (text(&node["id"]), node))
        .collect();
    let names: BTreeMap<&str, &str> = list(&metadata["packages"])
        .map(|p| (text(&p["id"]), text(&p["name"])))
        .collect();
    let mut waiting: Vec<&str> = names
        .iter()
        .filter(|(_, name)| **name == "cirrus-server")
        .map(|(id, _)| *id)
        .collect();
    let mut seen: BTreeSet<&str> = waiting.iter().copied().collect();
    while let Some(id) = waiting.pop() {
        let Some(node) = nodes.get(id) else { continue };
        for edge in list(&node["deps"]) {
            let in_product = list(&edge["dep_kinds"]).any(|k| k["kind"].as_str() != Some("dev"));
            let target = text(&edge["pkg"]);
            if in_product && seen.insert(target) {
                waiting.push(target);
            }
        }
    }
    let found = seen
        .iter()
        .filter_map(|id| names.get(id))
        .filter(|n| NOT_IN_SERVER.contains(n));
    found
        .map(|name| Fault::of("cirrus-server", format!("must not contain {name}")))
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A dependency: its name and its kind.
    type Edge<'a> = (&'a str, Option<&'a str>);

    fn workspace(members: &[(&str, &[Edge<'_>])]) -> Value {
        let packages: Vec<Value> = members
            .iter()
            .map(|(name, dependencies)| {
                let dependencies: Vec<Value> = dependencies
                    .iter()
                    .map(|(name, kind)| json!({ "name": name, "kind": kind }))
                    .collect();
                json!({ "id": name, "name": name, "dependencies": dependencies })
            })
            .collect();
        let ids: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        json!({ "packages": packages, "workspace_members": ids })
    }

    #[test]
    fn an_edge_that_points_up_is_a_fault_and_one_that_points_down_is_none() {
        let down = workspace(&[
            ("cirrus-jid", &[]),
            ("cirrus-stanza", &[("cirrus-jid", None)]),
        ]);
        assert_eq!(check(&down), []);
        let up = workspace(&[
            ("cirrus-jid", &[("cirrus-stanza", None)]),
            ("cirrus-stanza", &[]),
        ]);
        assert_eq!(
            check(&up),
            [Fault::of("cirrus-jid", "must not use cirrus-stanza")]
        );
        let build = workspace(&[
            ("cirrus-jid", &[("cirrus-stanza", Some("build"))]),
            ("cirrus-stanza", &[]),
        ]);
        assert_eq!(check(&build).len(), 1);
    }

    #[test]
    fn a_test_may_look_up_but_not_take_a_parser_of_its_own() {
        let dev = workspace(&[
            ("cirrus-jid", &[("cirrus-stanza", Some("dev"))]),
            ("cirrus-stanza", &[("quick-xml", Some("dev"))]),
            ("cirrus-xml", &[("quick-xml", None)]),
        ]);
        assert_eq!(
            check(&dev),
            [Fault::of(
                "cirrus-stanza",
                "only cirrus-xml may use quick-xml"
            )]
        );
    }

    #[test]
    fn bootstrap_knows_nothing_of_the_server_but_its_configuration() {
        let reach = workspace(&[
            ("cirrus-bootstrap", &[("cirrus-store", None)]),
            ("cirrus-store", &[]),
        ]);
        assert_eq!(
            check(&reach),
            [Fault::of("cirrus-bootstrap", "must not use cirrus-store")]
        );
    }

    #[test]
    fn a_member_without_a_row_or_with_an_empty_name_is_a_fault() {
        let faults = check(&workspace(&[("cirrus-util", &[])]));
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn the_server_contains_nothing_of_ec2_however_deep() {
        let tree = |kind: Value| {
            json!({
                "packages": [
                    { "id": "s", "name": "cirrus-server", "dependencies": [] },
                    { "id": "m", "name": "middle", "dependencies": [] },
                    { "id": "e", "name": "aws-sdk-ec2", "dependencies": [] },
                ],
                "workspace_members": ["s"],
                "resolve": { "nodes": [
                    { "id": "s", "deps": [{ "pkg": "m", "dep_kinds": [{ "kind": null }] }] },
                    { "id": "m", "deps": [{ "pkg": "e", "dep_kinds": [{ "kind": kind }] }] },
                ] },
            })
        };
        let fault = Fault::of("cirrus-server", "must not contain aws-sdk-ec2");
        assert_eq!(check(&tree(Value::Null)), [fault]);
        assert_eq!(check(&tree(json!("dev"))), []);
    }
}
