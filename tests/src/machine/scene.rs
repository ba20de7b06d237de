//! What a machine finds around itself, in a network namespace of its own: its metadata at the
//! link-local address, DynamoDB and S3; and what the tests put on its disk to look inside.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail};

use super::disk::Disk;
use super::guest::MAC;
use crate::emulated::cloud::Cloud;
use crate::emulated::metadata::{Instance, Metadata};
use crate::emulated::services::Group;

/// The address of the instance metadata.
pub(super) const METADATA: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// As which address a machine sees the loopback of its namespace.
pub(super) const HOST: &str = "10.0.2.2";
/// The domain of the machine.
pub const DOMAIN: &str = "example.com";
/// An account that is made as an operator makes one.
pub const ACCOUNT: &str = "romeo@example.com";
/// Its password.
pub const PASSWORD: &str = "wherefore-art-thou";
/// What the console shows when the account is there.
pub const ACCOUNT_MADE: &str = "MACHINE account made";
/// What the console shows about the configuration, the server and cloud-init.
pub const FOUND: &str = "MACHINE found:";
/// What the console shows of how many nodes the cluster has.
pub const NODES: &str = "MACHINE nodes:";
/// What the console shows when everything has started, with what did not go well.
pub const REPORT: &str = "MACHINE report:";

/// What an instance of a group is told by its metadata: where it is in its life.
pub(super) const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";

/// Makes accounts: on an instance, bootstrap makes none.
const ACCOUNT_UNIT: &str = "\
[Unit]
DefaultDependencies=no
Requires=cirrus-bootstrap.service
After=cirrus-bootstrap.service
[Service]
Type=oneshot
StandardInput=file:/etc/cirrus-test/password
StandardOutput=journal+console
StandardError=journal+console
ACCOUNTS
ExecStart=/bin/echo MACHINE account made
";
/// What makes one of them.
const ACCOUNT_LINE: &str = "ExecStart=-/usr/local/bin/cirrus-server user add";

/// Reports when cloud-init, the last of all, has ended.
const REPORT_UNIT: &str = "\
[Unit]
DefaultDependencies=no
After=cloud-final.service multi-user.target cirrus-bootstrap.service
[Service]
Type=oneshot
StandardOutput=journal+console
StandardError=journal+console
ExecStart=/bin/sh /etc/cirrus-test/report.sh
";

const REPORT_SCRIPT: &str = r#"
failed=$(systemctl list-units --state=failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ')
warnings=$(grep -E ' - [^ ]+\[(WARNING|ERROR|CRITICAL)\]' /var/log/cloud-init.log)
refused=$(journalctl --boot --grep 'type=1326|not permitted|denied' --output cat | head -3)
echo "MACHINE server: $(systemctl show cirrus-server --property=StatusText,MemoryCurrent,NRestarts \
  | tr '\n' ' ')"
[ -z "$warnings" ] || echo "MACHINE cloud-init: $warnings"
[ -z "$refused" ] || echo "MACHINE refused: $refused"
nodes=$(cirrus-server cluster status --json 2>/dev/null | grep -o '"instance"' | wc -l)
echo "MACHINE nodes: $nodes"
[ -e /etc/cirrus/cirrus.yaml ] && configured=yes || configured=no
echo "MACHINE cloud-init status: $(cloud-init status --long | tr '\n' ' ')"
echo "MACHINE found: configured=$configured server=$(systemctl is-active cirrus-server) \
watch=$(systemctl is-active cirrus-watch) \
cloud-init=$(cloud-init status | head -1 | cut -d' ' -f2)"
echo "MACHINE report: failed=[$failed] cloud-init-warnings=$(printf '%s' "$warnings" | grep -c .)"
"#;

/// The emulated AWS around a machine.
pub struct Scene {
    cloud: Cloud,
    /// The machine's metadata.
    pub metadata: Metadata,
}

impl Scene {
    /// Starts everything; user-data is what the machine's owner gave.
    ///
    /// # Errors
    /// When something does not start: for one, outside of [`enter_namespace`].
    pub fn start(user_data: &str) -> Result<Scene> {
        let instance = Instance::default();
        let metadata = Metadata::start_at(METADATA, &instance, Some(user_data.as_bytes()))?;
        describe(&metadata, &instance, MAC);
        let cloud = Cloud::start()?;
        let scene = Scene { cloud, metadata };
        scene.launch();
        Ok(scene)
    }

    /// The AWS around the machine.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The group waits for the machine's word, as if it had just launched it.
    pub fn launch(&self) {
        let launched = launched(Instance::default().id);
        self.cloud.services().put_group(launched);
    }

    /// What the group has heard: hook and result of each word.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, String)> {
        let group = self.cloud.services().group();
        group.map(|group| group.completed).unwrap_or_default()
    }

    /// Puts onto a disk what a machine needs to find this AWS instead of the real one, an account,
    /// and the report.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn prepare(&self, disk: &Disk) -> Result<()> {
        prepare(disk, endpoints(&self.cloud), &[ACCOUNT])
    }
}

/// A machine that a group has launched, which waits for its word.
pub(super) fn launched(instance: String) -> Group {
    Group {
        name: "example-com-nodes".to_owned(),
        instance,
        states: vec!["Pending:Wait"],
        hooks: vec!["ready"],
        ..Group::default()
    }
}

/// What the metadata says beyond the instance: of its card, its names and its group.
pub(super) fn describe(metadata: &Metadata, instance: &Instance, mac: &str) {
    let interface = format!("meta-data/network/interfaces/macs/{mac}");
    let address = instance.address.as_str();
    let name = format!("ip-{}.ec2.internal", address.replace('.', "-"));
    for (path, value) in [
        ("meta-data/ami-id".to_owned(), "ami-0abcdef1234567890"),
        ("meta-data/instance-type".to_owned(), "t3.small"),
        ("meta-data/hostname".to_owned(), name.as_str()),
        ("meta-data/local-hostname".to_owned(), name.as_str()),
        ("meta-data/mac".to_owned(), mac),
        (format!("{interface}/mac"), mac),
        (format!("{interface}/device-number"), "0"),
        (format!("{interface}/local-ipv4s"), address),
        (format!("{interface}/subnet-ipv4-cidr-block"), "10.0.2.0/24"),
        (LIFECYCLE.to_owned(), "InService"),
    ] {
        metadata.set(&path, Some(value.as_bytes()));
    }
}

/// The environment that leads to this AWS, with its addresses on the loopback.
pub(super) fn endpoints(cloud: &Cloud) -> Vec<(&'static str, String)> {
    let mut endpoints = cloud.services().environment();
    endpoints.push(("AWS_ENDPOINT_URL_DYNAMODB", cloud.dynamodb()));
    endpoints.push(("AWS_ENDPOINT_URL_S3", cloud.s3()));
    endpoints
}

/// Puts onto a disk what a machine needs to find the AWS behind the endpoints, accounts, and the
/// report.
///
/// # Errors
/// When it can't be written.
pub(super) fn prepare(
    disk: &Disk,
    endpoints: Vec<(&'static str, String)>,
    accounts: &[&str],
) -> Result<()> {
    let seen = |endpoint: String| endpoint.replace("127.0.0.1", HOST);
    let lines = accounts.iter().map(|it| format!("{ACCOUNT_LINE} {it}"));
    let accounts = ACCOUNT_UNIT.replace("ACCOUNTS", &lines.collect::<Vec<_>>().join("\n"));
    let lines = endpoints.into_iter();
    let environment = lines
        .map(|(name, endpoint)| format!("{name}={}\n", seen(endpoint)))
        .collect();
    let text = str::to_owned;
    disk.add(&[
        ("/etc/cirrus/environment", 0o644, environment),
        ("/etc/cirrus-test/password", 0o600, format!("{PASSWORD}\n")),
        ("/etc/cirrus-test/report.sh", 0o644, text(REPORT_SCRIPT)),
        (
            "/etc/systemd/system/cirrus-test-account.service",
            0o644,
            accounts,
        ),
        (
            "/etc/systemd/system/cirrus-test-report.service",
            0o644,
            text(REPORT_UNIT),
        ),
    ])?;
    for unit in ["account", "report"] {
        let unit = format!("cirrus-test-{unit}.service");
        let wants = format!("/etc/systemd/system/multi-user.target.wants/{unit}");
        disk.link(&wants, &format!("/etc/systemd/system/{unit}"))?;
    }
    Ok(())
}

/// Runs this program again with these arguments, in a network namespace of its own whose loopback
/// has the metadata's address too. Comes back only with a failure.
///
/// # Errors
/// Why it can't.
pub fn enter_namespace(arguments: &[&str]) -> Result<()> {
    // And every other address leads here, as that of an instance must.
    let script = "ip link set lo up && ip address add 169.254.169.254/32 dev lo && \
                  ip route add local 0.0.0.0/0 dev lo && exec \"$0\" \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--", "sh", "-c", script]);
    unshare.arg(std::env::current_exe()?).args(arguments);
    let error = unshare.exec();
    bail!("no network namespace of its own: {error}; this needs root")
}
