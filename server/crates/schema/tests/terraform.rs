//! The Terraform module makes the same tables and buckets as a node does: it reads them from a
//! file that this test keeps equal to the schema. `UPDATE_GOLDEN=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use cirrus_schema::{
    BUCKETS, Billing, BucketEncryption, BucketSpec, KeyType, LifecycleRule, PublicAccess, TABLES,
    TableEncryption, TableSpec,
};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../terraform/modules/data/schema.json"
);

#[test]
fn terraform_reads_this_schema() {
    let expected = render();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &expected).unwrap();
    }
    let there = std::fs::read_to_string(Path::new(FILE)).unwrap_or_default();
    assert_eq!(
        there, expected,
        "{FILE} is not the schema any more; UPDATE_GOLDEN=1 writes it anew"
    );
}

/// What has no field here is what the module does for every table and bucket.
fn render() -> String {
    let tables: Vec<String> = TABLES.iter().map(table).collect();
    let buckets: Vec<String> = BUCKETS.iter().map(bucket).collect();
    format!(
        "{{\n  \"tables\": [\n{}\n  ],\n  \"buckets\": [\n{}\n  ]\n}}\n",
        tables.join(",\n"),
        buckets.join(",\n")
    )
}

fn table(spec: &TableSpec) -> String {
    let (partition_key, KeyType::Binary) = spec.partition_key;
    let (sort_key, KeyType::Binary) = spec.sort_key;
    let Billing::OnDemand = spec.billing;
    let TableEncryption::ProviderKey = spec.encryption;
    object(
        4,
        &[
            ("name", text(spec.id.name())),
            ("partition_key", text(partition_key)),
            ("sort_key", text(sort_key)),
            ("key_type", text("B")),
            ("ttl_attribute", text(spec.ttl_attribute)),
            ("billing_mode", text("PAY_PER_REQUEST")),
            (
                "point_in_time_recovery",
                spec.point_in_time_recovery.to_string(),
            ),
            ("deletion_protection", spec.deletion_protection.to_string()),
        ],
    )
}

fn bucket(spec: &BucketSpec) -> String {
    let BucketEncryption::ProviderKey = spec.encryption;
    let PublicAccess::Blocked = spec.public_access;
    let rules: Vec<String> = spec.lifecycle.iter().map(rule).collect();
    object(
        4,
        &[
            ("name", text(spec.id.name())),
            ("owner_enforced", spec.owner_enforced.to_string()),
            ("tls_only", spec.tls_only.to_string()),
            ("versioning", spec.versioning.to_string()),
            ("lifecycle", format!("[\n{}\n      ]", rules.join(",\n"))),
        ],
    )
}

fn rule(rule: &LifecycleRule) -> String {
    let days = |days: Option<u32>| days.map_or("null".to_owned(), |days| days.to_string());
    object(
        8,
        &[
            ("id", text(rule.id)),
            ("prefix", text(rule.prefix)),
            ("expire_days", days(rule.expire_days)),
            ("abort_multipart_days", days(rule.abort_multipart_days)),
        ],
    )
}

/// Names of the schema are plain: nothing in them is escaped in JSON.
fn text(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    assert!(value.chars().all(plain), "{value}");
    format!("\"{value}\"")
}

fn object(indent: usize, fields: &[(&str, String)]) -> String {
    let pad = " ".repeat(indent);
    let mut out = format!("{pad}{{");
    for (i, (name, value)) in fields.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\n{pad}  \"{name}\": {value}");
    }
    let _ = write!(out, "\n{pad}}}");
    out
}
