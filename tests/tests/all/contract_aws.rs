//! The contract suite against DynamoDB and S3 through the AWS SDK, and what they bill.
//!
//! The services are emulated: passing here is no evidence about AWS itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use cirrus_schema::{ATTR_PK, ATTR_SK, BucketId, TableId, bucket_name, table_name};
use cirrus_store::aws::{AwsOptions, DynamoTable, S3Blob, behavior_version};
use cirrus_store::contract::{self, Subject, TestClock};
use cirrus_store::fault::Faults;
use cirrus_store::meter::{Meter, Metered, system_monotonic};
use cirrus_store::{
    Attrs, Blob, BlobKey, Condition, Direction, Item, Key, MemoryTable, Op, Presign, SkRange, Table,
};
use cirrus_tests::emulated::dynamodb::DynamoDb;
use cirrus_tests::emulated::s3::S3;

/// Both services, empty, and the options to reach them.
struct Aws {
    dynamodb: DynamoDb,
    s3: S3,
    options: AwsOptions,
}

impl Aws {
    async fn start(faults: &Faults) -> Aws {
        let dynamodb = DynamoDb::in_memory(faults.clone()).unwrap();
        let s3 = S3::start(faults.clone()).unwrap();
        let options = AwsOptions {
            account: Some("000000000000".to_owned()),
            attempts: 3,
            attempt_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(9),
            blob_deadline: Duration::from_secs(9),
            path_style: true,
            ..AwsOptions::new("contract.example", "abcdefgh")
        };
        let aws = Aws {
            dynamodb,
            s3,
            options,
        };
        aws.create_tables().await;
        aws.create_buckets().await;
        aws
    }

    fn table(&self, clock: &TestClock) -> DynamoTable {
        DynamoTable::new(
            &config(&self.dynamodb.endpoint()),
            &self.options,
            clock.as_clock(),
        )
    }

    fn blob(&self) -> S3Blob {
        S3Blob::new(&config(&self.s3.endpoint()), &self.options)
    }

    async fn create_tables(&self) {
        let client = aws_sdk_dynamodb::Client::new(&config(&self.dynamodb.endpoint()));
        for table in TableId::ALL {
            let mut create = client
                .create_table()
                .table_name(table_name(&self.options.prefix, table))
                .billing_mode(BillingMode::PayPerRequest);
            for (name, role) in [(ATTR_PK, KeyType::Hash), (ATTR_SK, KeyType::Range)] {
                let key = KeySchemaElement::builder()
                    .attribute_name(name)
                    .key_type(role);
                let definition = AttributeDefinition::builder()
                    .attribute_name(name)
                    .attribute_type(ScalarAttributeType::B);
                create = create
                    .key_schema(key.build().unwrap())
                    .attribute_definitions(definition.build().unwrap());
            }
            create.send().await.unwrap();
        }
    }

    async fn create_buckets(&self) {
        let config = config(&self.s3.endpoint());
        let config = aws_sdk_s3::config::Builder::from(&config)
            .force_path_style(true)
            .build();
        let client = aws_sdk_s3::Client::from_conf(config);
        for bucket in BucketId::ALL {
            let AwsOptions {
                prefix, bucket_tag, ..
            } = &self.options;
            let name = bucket_name(prefix, bucket_tag, bucket);
            client.create_bucket().bucket(name).send().await.unwrap();
        }
    }
}

fn config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(behavior_version())
        // The region in which a bucket needs no location.
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aws_keeps_the_contract() {
    let (clock, faults) = (TestClock::default(), Faults::none());
    let aws = Aws::start(&faults).await;
    let table = Arc::new(aws.table(&clock));
    let subject = Subject {
        dump: Arc::clone(&table) as _,
        table,
        blob: Arc::new(aws.blob()),
        clock,
        faults,
        attempts: aws.options.attempts.into(),
        run: 1,
    };
    let report = contract::run(&subject).await;
    println!("{report}");
    let golden = include_str!("../../../server/crates/store/tests/golden/contract.txt");
    assert_eq!(report.executed(), golden, "the executed cases");
    assert_eq!(report.red(), [""; 0]);
}

fn item(sk: &'static str, bytes: usize) -> Item {
    let key = Key::new(TableId::Archive, &b"uexample.com\0bob"[..], sk);
    let attrs = Attrs::new()
        .with("v", 1)
        .with("t", 1_700_000_000_123)
        .with("z", vec![]);
    let mut item = Item::new(key, attrs);
    item.attrs
        .set("z", vec![7; bytes.saturating_sub(item.size(true))]);
    item
}

/// Requests of every kind, at and around the edges of units, with and without success.
fn script() -> Vec<Op> {
    let key = |sk: &'static str| item(sk, 0).key;
    let put = |item, condition, nonce| Op::Put {
        item,
        condition,
        nonce,
    };
    let query = |direction, limit| Op::Query {
        table: TableId::Archive,
        pk: key("a").pk,
        range: SkRange::All,
        direction,
        limit,
        after: None,
    };
    let mut ops = Vec::new();
    for (n, bytes) in [100, 1_023, 1_024, 1_025, 4_096, 4_097, 100_000, 409_600]
        .into_iter()
        .enumerate()
    {
        let sk = ["a", "b", "c", "d", "e", "f", "g", "h"][n];
        ops.push(put(item(sk, bytes), Condition::Absent, n as u128 + 1));
        ops.push(Op::Get { key: key(sk) });
        // On its own success, then as a stranger.
        ops.push(put(item(sk, bytes), Condition::Absent, n as u128 + 1));
        ops.push(put(item(sk, bytes), Condition::Absent, 99));
    }
    ops.extend([
        Op::Get { key: key("none") },
        put(item("d", 200), Condition::Any, 7),
        put(item("d", 3_000).versioned(2), Condition::Version(1), 8),
        put(item("d", 3_000).versioned(1), Condition::Version(0), 9),
        put(
            item("d", 3_000).versioned(2).expiring(4_100_000_000),
            Condition::Version(1),
            10,
        ),
        query(Direction::Forward, Some(3)),
        query(Direction::Backward, Some(1)),
        query(Direction::Forward, None),
        Op::BatchGet {
            keys: ["a", "d", "none", "g", "a"].map(key).to_vec(),
        },
        Op::Delete {
            key: key("g"),
            condition: Condition::Version(7),
        },
        Op::Delete {
            key: key("g"),
            condition: Condition::Any,
        },
        Op::Delete {
            key: key("g"),
            condition: Condition::Any,
        },
    ]);
    ops
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_meter_says_what_the_provider_bills() {
    let clock = TestClock::default();
    let aws = Aws::start(&Faults::none()).await;
    let billed = Meter::new(system_monotonic());
    let computed = Meter::new(system_monotonic());
    let provider = Metered::new(Arc::new(aws.table(&clock)), Arc::clone(&billed));
    let ours = Metered::new(
        Arc::new(MemoryTable::new(clock.as_clock())),
        Arc::clone(&computed),
    );
    for op in script() {
        let what: String = format!("{op:?}").chars().take(200).collect();
        let before = (billed.snapshot(), computed.snapshot());
        let theirs = provider.apply(op.clone()).await.is_ok();
        assert_eq!(theirs, ours.apply(op).await.is_ok(), "{what}");
        let billed = billed.snapshot().since(&before.0).lines();
        assert_eq!(
            billed,
            computed.snapshot().since(&before.1).lines(),
            "{what}"
        );
    }
    println!("{}", billed.snapshot().lines());
}

/// Sends one request to a URL; status and body of the answer.
fn http(method: &str, url: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut socket = TcpStream::connect(host).unwrap();
    let length = body.len();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn presigned_urls_allow_one_thing_only() {
    let aws = Aws::start(&Faults::none()).await;
    let blob = aws.blob();
    let blob: &dyn Blob = &blob;
    let at = BlobKey::new(BucketId::Uploads, "0123/a b+\u{e9}.txt");
    let valid = Duration::from_secs(300);
    let what = Presign::Put {
        length: 5,
        content_type: "text/plain".to_owned(),
    };
    let put = blob
        .presign(at.clone(), what, valid)
        .await
        .unwrap()
        .unwrap();
    let headers = "content-type: text/plain\r\n";
    let (status, answer) = http("PUT", &put, headers, b"hello");
    assert_eq!(status, 200, "{}", answer.escape_ascii());
    assert_eq!(
        blob.get(at.clone(), None).await.unwrap().as_deref(),
        Some(&b"hello"[..])
    );
    let get = blob
        .presign(at.clone(), Presign::Get, valid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(http("GET", &get, "", b""), (200, b"hello".to_vec()));
    // Another length, another type, another name, another method: refused.
    for (method, url, headers, body) in [
        ("PUT", put.clone(), headers, &b"longer"[..]),
        ("PUT", put.clone(), "content-type: text/html\r\n", b"hello"),
        ("GET", get.replace("0123", "4567"), "", b""),
        ("DELETE", get, "", b""),
    ] {
        let (status, _) = http(method, &url, headers, body);
        assert_eq!(status, 403, "{method} {headers} {body:?}");
    }
    assert_eq!(
        blob.get(at, None).await.unwrap().as_deref(),
        Some(&b"hello"[..])
    );
}
