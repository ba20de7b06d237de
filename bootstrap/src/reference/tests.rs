use std::io::Write as _;
use std::path::Path;

use cirrus_config::Config;

use super::*;

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
const HASH: &str = "6f9b0acb3a5ec8ae5c2c1d0a6f8c2d0f6f9b0acb3a5ec8ae5c2c1d0a6f8c2d0f";

/// What stands elsewhere in these tests.
struct Shelf(Vec<(&'static str, Vec<u8>)>);

impl Shelf {
    fn of(items: &[(&'static str, &str)]) -> Self {
        let owned = |(name, text): &(&'static str, &str)| (*name, text.as_bytes().to_vec());
        Self(items.iter().map(owned).collect())
    }
}

impl Source for Shelf {
    async fn fetch(&self, place: &Place, limit: usize) -> Result<Found, FetchError> {
        let (name, secret) = match place {
            Place::Object { bucket, key, .. } => (format!("{bucket}/{key}"), false),
            Place::Parameter { name } => (name.clone(), name.contains("secure")),
            Place::Secret { id, .. } => (id.clone(), true),
        };
        let found = self.0.iter().find(|(known, _)| *known == name);
        let Some((_, bytes)) = found else {
            return Err(FetchError {
                code: Code::ReferenceAbsent,
                message: "GetObject: NoSuchKey: none".into(),
            });
        };
        let mut bytes = bytes.clone();
        bytes.truncate(limit + 1);
        Ok(Found {
            bytes,
            version: Some("7".into()),
            secret,
        })
    }
}

async fn said(user_data: &str, shelf: &Shelf) -> (Code, String) {
    match resolve(user_data.as_bytes(), "user-data", shelf).await {
        Ok(_) => panic!("resolved: {user_data}"),
        Err(error) => (error.code(), error.to_string()),
    }
}

#[test]
fn what_a_reference_is() {
    let parsed = Reference::parse("s3://bucket/a/b.yaml?versionId=v1").unwrap();
    let object = Place::Object {
        bucket: "bucket".into(),
        key: "a/b.yaml".into(),
        version_id: Some("v1".into()),
    };
    assert_eq!((parsed.place, parsed.sha256), (object, None));
    let hashed = Reference::parse(&format!("ssm:/chat/config:3?sha256={HASH}")).unwrap();
    assert_eq!(hashed.to_string(), "ssm:/chat/config:3");
    assert_eq!(hashed.sha256.unwrap()[..2], [0x6f, 0x9b]);
    let arn = "secretsmanager:arn:aws:secretsmanager:eu-west-1:000000000000:secret:a-b#key";
    let secret = Reference::parse(arn).unwrap();
    assert_eq!(secret.to_string(), arn);
    for (text, expected) in [
        ("https://example.com/x", "`https://example.com/x` is no"),
        ("s3://bucket", "`s3://bucket` is no reference"),
        ("s3://bucket/", "`s3://bucket/` is no reference"),
        ("ssm:", "`ssm:` is no reference"),
        ("secretsmanager:a#", "`secretsmanager:a#` is no reference"),
        ("s3://bucket/k?sha256=12", "sha256 has 64 hexadecimal"),
        ("s3://bucket/k?version=1", "`version=1` is neither"),
        ("ssm:/a?versionId=2", "a parameter's version is part of its"),
    ] {
        let why = Reference::parse(text).unwrap_err();
        assert!(why.starts_with(expected), "{text}: {why}");
    }
}

#[tokio::test]
async fn a_configuration_that_stands_elsewhere() {
    let yaml = "domains: [example.com]\nlimits: {depth: 32, attributes: 16}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(yaml.as_bytes()).unwrap();
    let mut shelf = Shelf::of(&[("bucket/plain", yaml), ("/config", "example.com")]);
    shelf.0.push(("bucket/gzip", gzip.finish().unwrap()));
    shelf
        .0
        .push(("app", br#"{"config": "domain=example.com"}"#.to_vec()));
    for text in [
        "config=s3://bucket/plain",
        "#cirrus\n\n config = s3://bucket/gzip \n",
        "config=ssm:/config",
        "config=secretsmanager:app#config",
    ] {
        let resolved = resolve(text.as_bytes(), "user-data", &shelf).await;
        let resolved = resolved.unwrap_or_else(|e| panic!("{text}: {e}"));
        let config = &resolved.data.given.config;
        assert_eq!(config.domains[0].as_str(), "example.com", "{text}");
        assert!(resolved.notes[0].contains("bytes, version 7"), "{text}");
    }
    // Other lines are laid over it.
    let text = "limits.depth=64\nconfig=s3://bucket/plain\nlog.level=debug\n";
    let resolved = resolve(text.as_bytes(), "user-data", &shelf).await;
    let config = resolved.unwrap_or_else(|e| panic!("{e}")).data.given.config;
    assert_eq!((config.limits.depth, config.limits.attributes), (64, 16));
    assert_eq!(config.log.level, cirrus_config::LogLevel::Debug);
}

#[tokio::test]
async fn what_cannot_be_a_configuration() {
    let bad = "domains: [example.com]\nlimits: {depth: 1}\n";
    let large = "#".repeat(300_000);
    let shelf = Shelf::of(&[
        ("bucket/bad", bad),
        ("bucket/good", "example.com"),
        ("bucket/nested", "config=s3://bucket/good\n"),
        ("bucket/large", &large),
    ]);
    let hashed = format!("config=s3://bucket/good?sha256={HASH}");
    for (text, code, expected) in [
        (
            "config=s3://bucket/none",
            Code::ReferenceAbsent,
            "user-data:1:8: config: s3://bucket/none: GetObject: NoSuchKey: none",
        ),
        (
            "# c\n config = http://x",
            Code::ConfigInvalid,
            "user-data:2:11: config: `http://x` is no reference; write `s3://",
        ),
        (
            "config=s3://bucket/bad",
            Code::ConfigInvalid,
            "s3://bucket/bad:2:17: limits.depth: 1 is out of range",
        ),
        (
            "config=s3://bucket/good\nlimits.depth=1",
            Code::ConfigInvalid,
            "user-data:2:14: limits.depth: 1 is out of range",
        ),
        (
            "config=s3://bucket/nested",
            Code::UserDataUnsupported,
            "s3://bucket/nested:1:1: a reference to a configuration (`config=`) where",
        ),
        (
            "config=s3://bucket/large",
            Code::ReferenceUnusable,
            "user-data:1:8: config: s3://bucket/large: it has 262145 bytes; at most 262144",
        ),
        (
            hashed.as_str(),
            Code::ReferenceHash,
            "user-data:1:8: config: s3://bucket/good: its SHA-256 is not 6f9b0acb",
        ),
    ] {
        let (found, why) = said(text, &shelf).await;
        assert_eq!(found, code, "{text}: {why}");
        assert!(why.starts_with(expected), "{text}: {why}");
    }
}

#[tokio::test]
async fn values_that_stand_elsewhere() {
    let secret = r#"{"depth": 40, "name": "wiglaf"}"#;
    let shelf = Shelf::of(&[
        ("/domains", "example.com,example.org"),
        ("app", secret),
        ("/secure/text", "24"),
        ("key", PEM),
        ("/chain", PEM),
    ]);
    let text = "domains: ssm:/domains\n\
                limits: {depth: 'secretsmanager:app#depth', attributes: ssm:/secure/text}\n\
                tls: {certificates: [{host: example.com, chain: ssm:/chain, \
                key: secretsmanager:key}]}\n";
    let resolved = resolve(text.as_bytes(), "user-data", &shelf).await;
    let resolved = resolved.unwrap_or_else(|e| panic!("{e}"));
    let mut config = resolved.data.given.config.clone();
    assert_eq!(config.domains.len(), 2);
    assert_eq!((config.limits.depth, config.limits.attributes), (40, 24));
    place_files(&mut config, &resolved.files, Path::new("/tls"));
    let certificate = &config.tls.certificates[0];
    assert_eq!(certificate.chain, Path::new("/tls/referenced/0-chain.pem"));
    assert_eq!(certificate.key, Path::new("/tls/referenced/0-key.pem"));
    assert_eq!(resolved.files.len(), 2);
    assert!(resolved.files.iter().all(|file| file.text == PEM));
    // What is printed names the references of secrets instead of their values.
    let printed = config.render_with(&resolved.hidden);
    assert!(
        printed.contains("depth: secretsmanager:app#depth"),
        "{printed}"
    );
    assert!(
        printed.contains("attributes: ssm:/secure/text"),
        "{printed}"
    );
    // What the server gets is a configuration without references.
    assert_eq!(Config::parse(&config.render(), "f").unwrap(), config);
    assert!(!config.render().contains("secretsmanager"));
}

#[tokio::test]
async fn values_that_cannot_be_used() {
    let shelf = Shelf::of(&[
        ("word", "wiglaf"),
        ("json", r#"{"a": {"b": "wiglaf"}, "c": "wiglaf"}"#),
        ("/long", &"9".repeat(5_000)),
    ]);
    let place = "user-data:2:14: limits.depth: ";
    let unusable = Code::ReferenceUnusable;
    for (value, code, expected) in [
        (
            "ssm:/none",
            Code::ReferenceAbsent,
            "ssm:/none: GetObject: NoSuchKey: none",
        ),
        (
            "secretsmanager:word",
            Code::ConfigInvalid,
            "expected a whole number, found the value of `secretsmanager:word`",
        ),
        (
            "secretsmanager:word#a",
            unusable,
            "secretsmanager:word#a: it is no JSON object",
        ),
        (
            "secretsmanager:json#a",
            unusable,
            "secretsmanager:json#a: this member of it is no text, number or truth value",
        ),
        (
            "secretsmanager:json#d",
            Code::ReferenceAbsent,
            "secretsmanager:json#d: it is a JSON object without this member",
        ),
        (
            "ssm:/long",
            unusable,
            "ssm:/long: it has 5000 bytes; at most 4096 are taken",
        ),
    ] {
        let text = format!("domain=example.com\nlimits.depth={value}\n");
        let (found, why) = said(&text, &shelf).await;
        assert_eq!(
            (found, why),
            (code, format!("{place}{expected}")),
            "{value}"
        );
    }
    // A secret has no place in what is printed, and only PEM texts become files.
    let (code, why) = said("domain=secretsmanager:word", &shelf).await;
    assert_eq!(code, Code::ConfigInvalid);
    assert!(
        why.contains("domains[0]: a secret cannot stand here"),
        "{why}"
    );
    let text = "domain=example.com\n\
                tls.certificates=[{host: example.com, chain: ssm:/long, key: /k}]\n";
    let (code, why) = said(text, &shelf).await;
    assert_eq!(code, unusable);
    assert!(
        why.ends_with("its value is no PEM text (`-----BEGIN …`)"),
        "{why}"
    );
    let many: String = (0..=MAX_REFERENCES).map(|i| format!("ssm:/{i},")).collect();
    let (_, why) = said(&format!("domain={many}"), &shelf).await;
    assert!(why.contains("more than 64 references"), "{why}");
}

/// No message has a secret in it, whatever is wrong with it.
#[tokio::test]
async fn no_message_tells_a_secret() {
    let shelf = Shelf::of(&[
        ("word", "wiglaf"),
        ("list", "[wiglaf"),
        ("map", "{wiglaf: 1}"),
    ]);
    let options = Config::options().into_iter().map(|o| o.path);
    for path in options.filter(|path| !path.contains("[]")) {
        for id in ["word", "list", "map"] {
            let reference = format!("secretsmanager:{id}");
            let text = format!("domain=example.com\n{path}={reference}?sha256={HASH}\n");
            let (code, why) = said(&text, &shelf).await;
            assert!(!why.contains("wiglaf"), "{path}: {why}");
            assert_eq!(code, Code::ReferenceHash, "{path}: {why}");
            let text = format!("domain=example.com\n{path}={reference}\n");
            if let Err(error) = resolve(text.as_bytes(), "user-data", &shelf).await {
                let why = error.to_string();
                assert!(!why.contains("wiglaf"), "{path}: {why}");
            }
        }
    }
}
