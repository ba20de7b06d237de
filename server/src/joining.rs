//! What a server needs to be one of several.

use std::time::Duration;

use cirrus_cluster::members::Options;
use cirrus_cluster::{Member, MemberState};
use cirrus_config::Config;
use cirrus_link::Links;
use cirrus_router::Entropy;
use cirrus_router::codec::{FORMAT, OLDEST};
use cirrus_runtime::{Cluster, SystemEntropy};
use cirrus_store::Table;
use tokio::sync::mpsc;

use crate::parts::{self, PartsError};
use crate::shared_keys;

/// Largest frame between nodes: the state of a slot.
const FRAME_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of a slot's state in one.
pub(crate) const STATE_BYTES: usize = FRAME_BYTES - 64 * 1024;
/// Events of links that wait for the node.
const EVENTS: usize = 4_096;
/// How long connecting to a node may take, and then introducing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that have not said who they are.
const STRANGERS: usize = 64;
/// Pauses between tries to reach a node: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Silence after which the system probes a link.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Times of silence of which each alone may make others remove a node, after which a link with it
/// is made anew: there are four beats in one.
const SILENCES: u64 = 3;
/// A link is made anew after so many milliseconds of silence at the earliest: where times of
/// silence are short, a busy machine is not to lose its links as well.
const LEAST_IDLE_MS: u64 = 5_000;

/// This server's links, and who it is among the others.
pub(crate) async fn cluster(config: &Config, table: &dyn Table) -> Result<Cluster, PartsError> {
    let address = config.listen.links;
    let open = || {
        let listener = cirrus_c2s::shell::listen(address, false, &parts::socket(config))?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let (listener, port) = open().map_err(|source| PartsError::Listen { address, source })?;
    let me = member(config, port);
    let (tell, events) = mpsc::channel(EVENTS);
    let options = cirrus_link::Options {
        me: me.node_id(),
        key: shared_keys::obtain(table, shared_keys::LINKS).await?,
        versions: OLDEST.into()..=newest(config).into(),
        from: (!address.ip().is_unspecified()).then(|| address.ip()),
        queue_bytes: config.cluster.link_queue_bytes,
        frame_bytes: FRAME_BYTES,
        greetings: STRANGERS,
        connect: PATIENCE,
        handshake: PATIENCE,
        retry: RETRY.0,
        retry_max: RETRY.1,
        keepalive: KEEPALIVE,
        idle: idle(config.cluster.silence_ms),
    };
    let links = Links::start(options, listener, tell)?;
    tracing::info!(node = me.node(), address = me.address, "links");
    let mut entropy = SystemEntropy::default();
    let mut slot_key = [0; 16];
    entropy.fill(&mut slot_key);
    let options = Options {
        me,
        oldest: OLDEST.into(),
        lease_ms: config.cluster.lease_ms,
        renew_ms: config.cluster.renew_ms,
        silence_ms: config.cluster.silence_ms.min(config.cluster.lease_ms),
        cut_off_ms: config.cluster.cut_off_ms,
        slot_key,
        seed: entropy.u128(),
    };
    Ok(Cluster::new(options, links, events))
}

/// How long a link may be silent.
fn idle(silence_ms: u64) -> Duration {
    Duration::from_millis(silence_ms.saturating_mul(SILENCES).max(LEAST_IDLE_MS))
}

/// The newest format that this server writes, and lets others write to it.
pub(crate) fn newest(config: &Config) -> u8 {
    match config.cluster.hold_format {
        true => OLDEST,
        false => FORMAT,
    }
}

fn member(config: &Config, port: u16) -> Member {
    let host = config.cluster.address.clone();
    let host = host.unwrap_or_else(|| "127.0.0.1".into());
    let address = match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    Member {
        instance: config.cluster.node.clone().unwrap_or_else(host_name),
        boot: SystemEntropy::default().u128(),
        address,
        zone: config.cluster.zone.clone().unwrap_or_default(),
        weight: 1,
        state: MemberState::Serving,
        wire: newest(config).into(),
        storage: newest(config).into(),
    }
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() { "node".into() } else { name }
}
