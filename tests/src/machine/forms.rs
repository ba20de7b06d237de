//! Every form of user-data, and one that is wrong for each code with which bootstrap refuses it;
//! and what can be wrong with the machine itself.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::emulated::cloud::Cloud;

/// One boot.
#[derive(Clone, Debug)]
pub struct Form {
    /// What it is, for the table.
    pub name: &'static str,
    /// The user-data; `None` is an instance without.
    pub user_data: Option<Vec<u8>>,
    /// What is wrong with the machine or its surroundings.
    pub trouble: Trouble,
    /// The code of its status line.
    pub code: &'static str,
    /// Words that its console must show.
    pub words: &'static str,
}

/// What is wrong besides the user-data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// No block of the disk is free.
    FullDisk,
    /// The clock is a year behind.
    WrongClock,
    /// The role may not make tables.
    NoPermission,
}

/// What a Cirrus part is called.
const TYPE: &str = "application/vnd.cirrus-config";
/// What cloud-init does beside Cirrus.
const CLOUD_CONFIG: &str =
    "#cloud-config\nruncmd:\n - [sh, -c, \"echo MACHINE runcmd has run > /dev/console\"]\n";
/// An option must be a number.
const INVALID: &str = "domain=example.com\nlimits.depth=many\n";

/// All of them, the wrong ones first: these must leave an AWS without anything in it as it is. Puts
/// into the AWS what they refer to.
///
/// # Errors
/// When a file is missing, or the AWS takes something not.
pub fn all(workspace: &Path, cloud: &Cloud) -> Result<Vec<Form>> {
    let mut forms = wrong(cloud)?;
    forms.extend(troubles());
    forms.extend(right(workspace, cloud)?);
    Ok(forms)
}

fn form(name: &'static str, user_data: impl Into<Vec<u8>>, code: &'static str) -> Form {
    Form {
        name,
        user_data: Some(user_data.into()),
        trouble: Trouble::None,
        code,
        words: "",
    }
}

/// One for each code of the user-data and of what it refers to.
fn wrong(cloud: &Cloud) -> Result<Vec<Form>> {
    cloud
        .services()
        .put_parameter("/chat/long", "String", &"3".repeat(5_000));
    cloud
        .services()
        .put_parameter("/chat/config", "String", "domain=example.com\n");
    let gzipped = gzip(b"domain=example.com\n")?;
    let part = |text: &str| (TYPE, "", text.as_bytes().to_vec());
    let two = multipart(&[part("example.com\n"), part("example.org\n")]);
    let long = format!("domain=example.com\n{}", "# nothing\n".repeat(1_700));
    let absent = Form {
        user_data: None,
        ..form("none", "", "user-data-absent")
    };
    Ok(vec![
        absent,
        form("17 KB", long, "user-data-oversized"),
        form("gzip, cut off", &gzipped[..20], "user-data-gzip"),
        form("not text", [0x80, 0xff, 0, 1, 2, 3], "user-data-binary"),
        form("only a comment", "# later\n", "user-data-empty"),
        form(
            "ejabberd.yml with another file in it",
            "hosts: [example.com]\ninclude_config_file: more.yml\n",
            "user-data-unsupported",
        ),
        form("a script", "#!/bin/sh\ntrue\n", "user-data-foreign"),
        form(
            "prose",
            "hello, world: this is prose\n",
            "user-data-unrecognised",
        ),
        form("multipart with two parts for Cirrus", two, "user-data-mime"),
        form("an option that is no number", INVALID, "config-invalid"),
        form(
            "a certificate that is not there",
            "domains: [example.com]\ntls:\n  certificates:\n    - { host: example.com, chain: \
             /etc/none.pem, key: /etc/none.key }\n",
            "config-impossible",
        ),
        form(
            "a parameter that is not there",
            "domain=example.com\nlimits.depth=ssm:/chat/none\n",
            "reference-absent",
        ),
        form(
            "a configuration with another hash",
            format!("config=ssm:/chat/config?sha256={}\n", "0".repeat(64)),
            "reference-hash",
        ),
        form(
            "a value of 5,000 bytes",
            "domain=example.com\nlimits.depth=ssm:/chat/long\n",
            "reference-unusable",
        ),
    ])
}

/// What is wrong with the machine; the disk last, as tables are made before it is written to.
fn troubles() -> Vec<Form> {
    let trouble = |name, trouble, code, words| Form {
        trouble,
        words,
        ..form(name, "example.com\n", code)
    };
    vec![
        trouble(
            "no permission for CreateTable",
            Trouble::NoPermission,
            "aws-refused",
            "the role or user of this machine lacks the permission",
        ),
        trouble(
            "a clock one year behind",
            Trouble::WrongClock,
            "clock-wrong",
            "the clock of this machine is wrong: set it",
        ),
        trouble(
            "a full disk",
            Trouble::FullDisk,
            "disk-full",
            "make room on the disk",
        ),
    ]
}

/// One of each form.
fn right(workspace: &Path, cloud: &Cloud) -> Result<Vec<Form>> {
    let read = |path: &str| {
        let path = workspace.join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let yaml = read("cloud-init/examples/configuration.yaml")?;
    let ejabberd = read("tests/ejabberd/debian.yml")?.replace("localhost", "example.com");
    cloud.make_bucket("configurations")?;
    cloud.put("configurations/cirrus.yaml", &yaml)?;
    let hash = digest(&SHA256, yaml.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let services = cloud.services();
    services.put_parameter("/chat/depth", "String", "32");
    services.put_secret("chat", "{\"rate\":\"500\"}");
    let cloud_config = ("text/cloud-config", "", CLOUD_CONFIG.as_bytes().to_vec());
    let plain = (TYPE, "", b"example.com\n".to_vec());
    let encoded = STANDARD.encode(gzip(yaml.as_bytes())?).into_bytes();
    let zipped = (TYPE, "Content-Transfer-Encoding: base64\n", encoded);
    let beside = |name, part| Form {
        words: "MACHINE runcmd has run",
        ..form(name, multipart(&[cloud_config.clone(), part]), "ok")
    };
    Ok(vec![
        form("a domain", "example.com\n", "ok"),
        form(
            "key=value lines",
            read("cloud-init/examples/lines.txt")?,
            "ok",
        ),
        form("a Cirrus YAML", yaml.clone(), "ok"),
        form("a whole ejabberd.yml (Debian's)", ejabberd, "ok"),
        beside("multipart beside #cloud-config", plain),
        beside("multipart with a gzipped part", zipped),
        form("gzip of the whole", gzip(yaml.as_bytes())?, "ok"),
        form(
            "config=s3:// with its hash",
            format!("config=s3://configurations/cirrus.yaml?sha256={hash}\n"),
            "ok",
        ),
        form(
            "values by ssm: and secretsmanager:",
            "domain=example.com\nlimits.depth=ssm:/chat/depth\n\
             limits.stanzas_per_second=secretsmanager:chat#rate\n",
            "ok",
        ),
        form(
            "what README's Terraform renders",
            read("terraform/tests/user-data/one-domain.txt")?,
            "ok",
        ),
    ])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// A MIME message of parts, each with its type, further header lines and its content.
fn multipart(parts: &[(&str, &str, Vec<u8>)]) -> Vec<u8> {
    let mut message =
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"==b\"\n\n".to_vec();
    for (kind, headers, content) in parts {
        message.extend(format!("--==b\nContent-Type: {kind}\n{headers}\n").bytes());
        message.extend(content);
        message.extend(b"\n");
    }
    message.extend(b"--==b--\n");
    message
}
