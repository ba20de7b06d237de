use cirrus_schema::{BUCKETS, BucketId, TABLES};

use super::bucket::decide as bucket;
use super::table::decide as table;
use super::*;

fn good_table() -> FoundTable {
    FoundTable {
        status: TableStatus::Active,
        partition_key: ("pk".into(), "B".into()),
        sort_key: Some(("sk".into(), "B".into())),
        on_demand: true,
        deletion_protection: true,
        point_in_time_recovery: true,
        ttl_attribute: Some("exp".into()),
    }
}

fn good_bucket(id: BucketId) -> FoundBucket {
    let rule = |r: &cirrus_schema::LifecycleRule| FoundRule {
        id: r.id.into(),
        enabled: true,
        expire_days: r.expire_days,
        abort_multipart_days: r.abort_multipart_days,
    };
    FoundBucket {
        public_access_blocked: true,
        owner_enforced: true,
        encryption: Some("AES256".into()),
        policy: Policy::TlsOnly,
        versioning: false,
        lifecycle: Some(id.spec().lifecycle.iter().map(rule).collect()),
    }
}

#[test]
fn a_table_from_nothing_to_ready() {
    let spec = &TABLES[0];
    assert_eq!(
        table("t", spec, None),
        Decision::Do(vec![TableStep::Create])
    );
    let mut found = FoundTable {
        status: TableStatus::Creating,
        point_in_time_recovery: false,
        ttl_attribute: None,
        ..good_table()
    };
    assert_eq!(table("t", spec, Some(&found)), Decision::Wait("being made"));
    found.status = TableStatus::Active;
    let steps = vec![TableStep::Recovery, TableStep::Ttl];
    assert_eq!(table("t", spec, Some(&found)), Decision::Do(steps));
    // Another bootstrap, or this one before it died, has switched recovery on.
    found.point_in_time_recovery = true;
    assert_eq!(
        table("t", spec, Some(&found)),
        Decision::Do(vec![TableStep::Ttl])
    );
    assert_eq!(
        table("t", spec, Some(&good_table())),
        Decision::Ready(vec![])
    );
    found.status = TableStatus::Deleting;
    assert_eq!(
        table("t", spec, Some(&found)),
        Decision::Wait("being deleted")
    );
}

#[test]
fn a_table_that_differs_is_left_alone_and_reported() {
    let found = FoundTable {
        on_demand: false,
        deletion_protection: false,
        point_in_time_recovery: false,
        ttl_attribute: Some("ttl".into()),
        ..good_table()
    };
    let Decision::Ready(drift) = table("p-rooms", &TABLES[4], Some(&found)) else {
        panic!()
    };
    let said: Vec<String> = drift.iter().map(ToString::to_string).collect();
    let expected = [
        "p-rooms: billing is provisioned, the schema says on demand; left alone",
        "p-rooms: deletion protection is off, the schema says on; left alone",
        "p-rooms: point-in-time recovery is off, the schema says on; left alone",
        "p-rooms: expiry attribute is ttl, the schema says exp; left alone",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_table_with_other_keys_is_not_used() {
    let mut found = FoundTable {
        partition_key: ("id".into(), "S".into()),
        ..good_table()
    };
    found.sort_key = None;
    let why = "its keys are id (S); Cirrus needs pk (B), sk (B). It is not a table of Cirrus";
    assert_eq!(
        table("t", &TABLES[0], Some(&found)),
        Decision::Incompatible(why.into())
    );
}

#[test]
fn a_bucket_from_nothing_to_ready() {
    for spec in &BUCKETS {
        assert_eq!(
            bucket("b", spec, None),
            Decision::Do(vec![BucketStep::Create])
        );
        let new = FoundBucket {
            public_access_blocked: false,
            owner_enforced: false,
            encryption: None,
            policy: Policy::Absent,
            versioning: false,
            lifecycle: None,
        };
        let all = vec![
            BucketStep::PublicAccess,
            BucketStep::Ownership,
            BucketStep::Encryption,
            BucketStep::Policy,
            BucketStep::Lifecycle,
        ];
        assert_eq!(bucket("b", spec, Some(&new)), Decision::Do(all));
        let ready = good_bucket(spec.id);
        assert_eq!(bucket("b", spec, Some(&ready)), Decision::Ready(vec![]));
        let died = FoundBucket {
            lifecycle: None,
            policy: Policy::Other,
            ..ready
        };
        assert_eq!(
            bucket("b", spec, Some(&died)),
            Decision::Do(vec![BucketStep::Lifecycle])
        );
    }
}

#[test]
fn a_bucket_that_differs_is_left_alone_and_reported() {
    let found = FoundBucket {
        public_access_blocked: false,
        owner_enforced: false,
        encryption: None,
        policy: Policy::Other,
        versioning: true,
        lifecycle: Some(vec![FoundRule {
            id: "expire-uploads".into(),
            enabled: true,
            expire_days: Some(7),
            abort_multipart_days: None,
        }]),
    };
    let spec = BucketId::Uploads.spec();
    let Decision::Ready(drift) = bucket("b", spec, Some(&found)) else {
        panic!()
    };
    let said: Vec<String> = drift.iter().map(ToString::to_string).collect();
    let expected = [
        "b: public access is not blocked, the schema says blocked; left alone",
        "b: ACLs off is off, the schema says on; left alone",
        "b: encryption is off, the schema says on; left alone",
        "b: access without TLS is allowed, the schema says refused; left alone",
        "b: versioning is on, the schema says off; left alone",
        "b: lifecycle rule abort-unfinished is absent, the schema says abort uploads after 1 days; \
         left alone",
        "b: lifecycle rule expire-uploads is expire after 7 days, \
         the schema says expire after 30 days; left alone",
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_is_said_of_a_run() {
    let names = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mut report = Report {
        unchanged: names(&["a", "b"]),
        ..Report::default()
    };
    assert_eq!(
        report.summary(),
        "2 tables and buckets exist, nothing changed"
    );
    report.drift = vec![Drift {
        object: "a".into(),
        field: "f".into(),
        expected: "x".into(),
        found: "y".into(),
    }];
    let expected = "2 tables and buckets exist, nothing changed; 1 setting differs from the schema";
    assert_eq!(report.summary(), expected);
    report.created = names(&["c"]);
    report.finished = names(&["d", "e"]);
    report.drift.clear();
    assert_eq!(report.summary(), "made c; finished d, e; 2 were there");
}
