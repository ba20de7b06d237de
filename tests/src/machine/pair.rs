//! Two machines in one network, as two instances of a group in one security group: each finds its
//! own metadata at the link-local address, both the same AWS, and each the other.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::checked;
use super::disk::Disk;
use super::guest::{Card, Guest};
use super::scene::{self, HOST, LIFECYCLE, METADATA};
use crate::emulated::cloud::Cloud;
use crate::emulated::metadata::{Instance, Metadata};
use crate::emulated::network::Network;
use crate::process::Process;

/// What both are plugged into.
const BRIDGE: &str = "cirrus0";
/// Seconds after which the group gives up on a machine that does not say that it goes on draining.
const HEARTBEAT_SECONDS: u32 = 300;

/// Two machines that are to be, and what is around them.
pub struct Pair {
    cloud: Cloud,
    seats: [Seat; 2],
    _network: Network,
    _addresses: Process,
    _folder: TempDir,
}

/// What one of them is.
struct Seat {
    instance: Instance,
    metadata: Metadata,
    card: Card,
}

/// Who both are: an instance, its address, its network card's, and what that is plugged into.
const WHO: [(&str, &str, &str, &str); 2] = [
    (
        "i-0123456789abcdef0",
        "10.0.2.15",
        "52:54:00:12:34:56",
        "cirrus1",
    ),
    (
        "i-0123456789abcdef1",
        "10.0.2.16",
        "52:54:00:12:34:57",
        "cirrus2",
    ),
];

impl Pair {
    /// Starts everything but the machines; user-data is what the owner of both gave.
    ///
    /// # Errors
    /// When something does not start: for one, outside of [`scene::enter_namespace`].
    pub fn start(user_data: &str) -> Result<Pair> {
        let cloud = Cloud::start()?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("address add {HOST}/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        let network = Network::default();
        let host: IpAddr = HOST.parse()?;
        for (_, endpoint) in scene::endpoints(&cloud) {
            let behind: SocketAddr = endpoint.trim_start_matches("http://").parse()?;
            // Several services are at the same one.
            drop(network.door(SocketAddr::new(host, behind.port()), behind));
        }
        let folder = TempDir::with_prefix("cirrus-pair-")?;
        let [one, other] = WHO.map(|(id, address, ..)| Instance {
            id: id.to_owned(),
            address: address.to_owned(),
            ..Instance::default()
        });
        let data = Some(user_data.as_bytes());
        let first = Metadata::start_at(METADATA, &one, data)?;
        let second = first.for_another(other.address.parse()?, &other, data);
        let seat = |at: usize, instance: Instance, metadata: Metadata| -> Result<Seat> {
            let (.., mac, tap) = WHO[at];
            scene::describe(&metadata, &instance, mac);
            let mut member = scene::launched(instance.id.clone());
            member.heartbeat_seconds = HEARTBEAT_SECONDS;
            cloud.services().put_member(member);
            ip(&format!("tuntap add dev {tap} mode tap"))?;
            ip(&format!("link set {tap} master {BRIDGE} up"))?;
            Ok(Seat {
                instance,
                metadata,
                card: Card::tap(mac, tap),
            })
        };
        let seats = [seat(0, one, first)?, seat(1, other, second)?];
        Ok(Pair {
            _addresses: give_addresses(folder.path())?,
            cloud,
            seats,
            _network: network,
            _folder: folder,
        })
    }

    /// Puts onto a disk what the machines need, and these accounts.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn prepare(&self, disk: &Disk, accounts: &[&str]) -> Result<()> {
        scene::prepare(disk, scene::endpoints(&self.cloud), accounts)
    }

    /// Switches one of the two on, with a disk of its own.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn switch_on(&self, which: usize, disk: &Disk) -> Result<Guest> {
        Guest::with(disk, &self.seats[which].card)
    }

    /// Where clients reach one of the two.
    ///
    /// # Errors
    /// Never: its address is one.
    pub fn c2s(&self, which: usize) -> Result<SocketAddr> {
        let address = self.seats[which].instance.address.parse::<IpAddr>()?;
        Ok(SocketAddr::new(address, 5_222))
    }

    /// The group wants one of the two gone, and waits for its word.
    pub fn notify(&self, which: usize) {
        let seat = &self.seats[which];
        self.cloud.services().change(&seat.instance.id, |member| {
            member.states = vec!["Terminating:Wait"];
        });
        seat.metadata.set(LIFECYCLE, Some(b"Terminated"));
    }

    /// What the group has heard of one of the two: hook and result of each word.
    #[must_use]
    pub fn heard(&self, which: usize) -> Vec<(String, String)> {
        let member = self.cloud.services().member(&self.seats[which].instance.id);
        member.map(|member| member.completed).unwrap_or_default()
    }
}

/// Gives each machine its address, as a subnet does.
fn give_addresses(folder: &Path) -> Result<Process> {
    let mut server = Command::new("dnsmasq");
    server.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user="]);
    server.args(["--port=0", "--bind-interfaces", "--no-ping", "--no-hosts"]);
    server.arg(format!("--interface={BRIDGE}"));
    server.args(["--log-facility=-", "--pid-file="]);
    let leases = folder.join("leases");
    server.arg(format!("--dhcp-leasefile={}", leases.display()));
    server.arg("--dhcp-range=10.0.2.0,static,255.255.255.0,1h");
    for option in ["router", "dns-server"] {
        server.arg(format!("--dhcp-option=option:{option},{HOST}"));
    }
    for (_, address, mac, _) in WHO {
        server.arg(format!("--dhcp-host={mac},{address}"));
    }
    let server = Process::start("dnsmasq", &mut server)?;
    let ready = |line: &str| line.contains("static leases only").then_some(());
    server.wait_for("its range of addresses", ready)?;
    Ok(server)
}

fn ip(words: &str) -> Result<()> {
    let done = checked(Command::new("ip").args(words.split_whitespace()));
    done.map(drop).with_context(|| format!("ip {words}"))
}
