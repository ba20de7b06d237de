//! The parts of a server, built from its configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cirrus_accounts::Accounts;
use cirrus_acme::AcmeError;
use cirrus_c2s::shell::{self, Shell, SocketOptions};
use cirrus_c2s::stream::{Features, Settings, Timeouts};
use cirrus_config::{Backend, Certificate, Config, Domain, Rebalance, TlsVersion};
use cirrus_proxy::Balancers;
use cirrus_router::registry::{About, Registry};
use cirrus_router::{Entropy, HomeConfig};
use cirrus_runtime::{Public, Running, SystemEntropy, wall_ms};
use cirrus_sasl::{FakeKeys, Mechanism, SaslError};
use cirrus_store::{Blob, StoreError, Table};
use cirrus_tls::{HostTls, MinVersion, PemFiles, ServerTls, TlsError};
use tokio::net::TcpListener;

use crate::certificates;
use crate::control::server::{Bounds, Control, ControlError};
use crate::joining;
use crate::service::{AccountService, Operator};
use crate::shared_keys::{self, KeyError};
use crate::stores::{self, Counted};

/// How long closing a connection may take.
const LINGER: Duration = Duration::from_secs(2);

/// A server that is ready to serve.
pub(crate) struct Parts {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) node: Running,
    pub(crate) shell: Shell,
    pub(crate) operator: Arc<Operator>,
}

/// What a server has before it is known whether it serves.
pub(crate) struct Base {
    /// The control socket: two servers must not have the same.
    pub(crate) control: Control,
    pub(crate) bounds: Bounds,
    /// Where health and metrics are asked for.
    pub(crate) health: Option<(TcpListener, SocketAddr)>,
    /// The store with a deadline for every request.
    pub(crate) table: Arc<dyn Table>,
    /// The store without: the home has deadlines of its own.
    pub(crate) direct: Arc<dyn Table>,
    /// Segments of archives.
    pub(crate) blobs: Arc<dyn Blob>,
    pub(crate) counted: Counted,
}

/// Why a server can't be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartsError {
    /// A certificate is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate that an authority issued.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// A key that all nodes share.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Links with other nodes.
    #[error(transparent)]
    Link(#[from] cirrus_link::LinkError),
    /// The number of iterations.
    #[error("auth.iterations: {0}")]
    Iterations(SaslError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
    /// The process is being stopped while it starts.
    #[error("stopped while opening the store")]
    Interrupted,
    /// A store that this binary was built without.
    #[cfg(not(feature = "aws"))]
    #[error("this cirrus-server was built without the store backend `{0}`")]
    Backend(&'static str),
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Opens control socket, health and store.
pub(crate) async fn open(config: &Config) -> Result<Base, PartsError> {
    let control = Control::open(&config.listen.control)?;
    let health = health(config)?;
    let (direct, table, blobs, counted) = stores::open(config).await?;
    let bounds = Bounds {
        connections: config.limits.control_connections,
        request_bytes: config.limits.control_request_bytes,
    };
    Ok(Base {
        control,
        bounds,
        health,
        table,
        direct,
        blobs,
        counted,
    })
}

fn offered(config: &Config) -> cirrus_xep::Offered {
    cirrus_xep::Offered {
        registration: config.registration.enabled,
        archive: config.archive.enabled,
        tombstones: config.archive.tombstones > 0,
    }
}

/// Builds the parts of a server. Its node begins to look for others at once; clients can't come
/// before [`listeners`] are open.
pub(crate) async fn build(
    config: &Config,
    (table, direct, blobs): (Arc<dyn Table>, Arc<dyn Table>, Arc<dyn Blob>),
    counted: Counted,
) -> Result<Parts, PartsError> {
    let tls = Arc::new(tls(config, &*table).await?);
    certificates::adopt(config, &*table, &tls).await?;
    certificates::tell(&tls);
    let secret = shared_keys::obtain(&*table, shared_keys::FAKE).await?;
    let fake_keys =
        FakeKeys::new(secret, config.auth.iterations).map_err(PartsError::Iterations)?;
    let token_key = match config.auth.fast {
        true => Some(shared_keys::obtain(&*table, shared_keys::TOKENS).await?),
        false => None,
    };
    let accounts = accounts(config, Arc::clone(&table), fake_keys.clone(), token_key);
    let accounts = Arc::new(accounts);
    let service = AccountService::new(Arc::clone(&accounts));
    let registry = cirrus_xep::registry(offered(config));
    let about = about(config);
    let settings = settings(config, fake_keys, &registry, &about);
    let cluster = match config.store.backend {
        Backend::Aws => Some(joining::cluster(config, &*table).await?),
        // One process alone can open these.
        Backend::Embedded | Backend::Memory => None,
    };
    let archive_key = shared_keys::obtain(&*table, shared_keys::ARCHIVE).await?;
    let home = home_config(config, about, (registry, archive_key), cluster.is_some());
    let node = cirrus_runtime::start(
        cirrus_runtime::Parts {
            home: Arc::new(home),
            table: direct,
            blobs,
            accounts: Arc::clone(&service) as _,
            cluster,
            public: public(config),
        },
        node_options(config),
    );
    service.set_home(node.home.clone());
    let paced = counted.paced.clone();
    let shell = Shell::new(shell::Parts {
        settings,
        limits: limits(config),
        socket: socket(config),
        balancers: balancers(config),
        home: node.home.clone(),
        accounts,
        tls: Arc::clone(&tls),
        public: config.cluster.public_host().is_some(),
        busy: Box::new(move || paced.as_ref().is_some_and(|it| it.is_late())),
    });
    let operator = Arc::new(Operator {
        accounts: service,
        hosts: hosts(config),
        shell: shell.clone(),
        home: node.home.clone(),
        tls: Arc::clone(&tls),
        counted,
        late_days: Arc::default(),
    });
    Ok(Parts {
        table,
        tls,
        node,
        shell,
        operator,
    })
}

/// The domains that are served.
pub(crate) fn hosts(config: &Config) -> Vec<String> {
    config
        .domains
        .iter()
        .map(|domain| domain.as_str().to_owned())
        .collect()
}

async fn tls(config: &Config, table: &dyn Table) -> Result<ServerTls, PartsError> {
    let files = |domain: &Domain| {
        let own = |certificate: &&Certificate| certificate.host == *domain;
        config
            .tls
            .certificates
            .iter()
            .find(own)
            .map(|certificate| PemFiles {
                chain: certificate.chain.clone(),
                key: certificate.key.clone(),
            })
    };
    let host = |domain: &Domain| HostTls {
        host: domain.to_string(),
        files: files(domain),
    };
    let hosts: Vec<HostTls> = config.domains.iter().map(host).collect();
    if !config.tls.self_signed {
        // What an authority is asked for has a self-signed one until it is there.
        let asked = certificates::subjects(config);
        let has_none =
            |it: &&HostTls| it.files.is_none() && !asked.iter().any(|asked| asked.host == it.host);
        if let Some(HostTls { host, .. }) = hosts.iter().find(has_none) {
            return Err(TlsError::NoFiles { host: host.clone() }.into());
        }
    }
    let tickets = match config.tls.tickets {
        true => Some(shared_keys::ticket_secrets(table).await?),
        false => None,
    };
    let options = cirrus_tls::Options {
        hosts,
        folder: Some(config.tls.folder.clone()),
        min_version: match config.tls.min_version {
            TlsVersion::V1_2 => MinVersion::V12,
            TlsVersion::V1_3 => MinVersion::V13,
        },
        tickets,
        clock: Arc::new(wall_ms),
    };
    Ok(ServerTls::build(options)?)
}

fn accounts(
    config: &Config,
    table: Arc<dyn Table>,
    fake: FakeKeys,
    token_key: Option<[u8; 32]>,
) -> Accounts {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let tokens = |key| cirrus_accounts::TokenOptions {
        key,
        lifetime_ms: config.auth.fast_days * DAY_MS,
        clients: config.limits.tokens_per_user,
    };
    let options = cirrus_accounts::Options {
        iterations: config.auth.iterations,
        derivations: config.limits.derivations_running,
        waiting: config.limits.derivations_waiting,
        fake,
        tokens: token_key.map(tokens),
    };
    let random = |buffer: &mut [u8]| SystemEntropy::default().fill(buffer);
    Accounts::new(table, options, Arc::new(wall_ms), Arc::new(random))
}

fn about(config: &Config) -> About {
    About {
        name: "Cirrus".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        domains: hosts(config),
        registration: config.registration.enabled,
    }
}

/// What every home is told about itself. Where homes are one for each slot, each gets its share of
/// the entities, and eight times that, as slots differ.
fn home_config(
    config: &Config,
    about: About,
    (registry, archive_key): (Registry, [u8; 32]),
    slots: bool,
) -> HomeConfig {
    const UNEVEN: usize = 8;
    const LEAST: usize = 256;
    let limits = &config.limits;
    let share = limits.entities_cached * UNEVEN / usize::from(cirrus_cluster::SLOTS);
    let entities = [limits.entities_cached, share.max(LEAST)][usize::from(slots)];
    let limits = cirrus_router::Limits {
        resources_per_user: limits.resources_per_user,
        roster_items: limits.roster_items,
        roster_bytes: limits.roster_bytes,
        roster_groups: limits.roster_groups,
        pending_subscriptions: limits.pending_subscriptions,
        presence_bytes: limits.presence_bytes,
        offline_messages: limits.offline_messages,
        unacked_bytes: (config.stream_management.unacked_bytes).max(4 * limits.stanza_bytes),
        // Connections pause at the configured number; the home ends those that don't.
        max_unhandled: limits.max_unhandled.saturating_mul(2),
        entity_queue: limits.entity_inbox,
        entities,
        entity_idle_ms: limits.entity_idle_seconds * 1_000,
        store_deadline_ms: config.store.deadline_ms,
        directed_presence: limits.directed_presence,
        held_stanzas: config.client_state.held_stanzas,
        held_bytes: config.client_state.held_bytes,
        resume_seconds: u32::try_from(config.stream_management.resume_seconds).unwrap_or(u32::MAX),
        archive_page: config.archive.page_messages,
        archive_page_bytes: config.archive.page_bytes,
        archive_queries: config.archive.queries_waiting,
        archive_prefs: config.archive.preferences,
        retention_days: config.archive.retention_days,
        index_rows: config.archive.index_rows,
        tombstones: config.archive.tombstones,
        seal_records: config.archive.segment_messages,
        seal_bytes: config.archive.segment_bytes,
        ..cirrus_router::Limits::default()
    };
    HomeConfig {
        limits,
        about,
        registry,
        archive: config.archive.enabled,
        archive_key: cirrus_router::archive::IdKey::new(archive_key),
        started_ms: wall_ms(),
    }
}

/// Where clients reach this node itself, if they are to know.
fn public(config: &Config) -> Option<Public> {
    let host = config.cluster.public_host()?;
    let port = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::port);
    Some(Public {
        host: host.to_owned(),
        c2s: port(&config.listen.c2s),
        c2s_tls: port(&config.listen.c2s_tls),
    })
}

fn node_options(config: &Config) -> cirrus_runtime::Options {
    cirrus_runtime::Options {
        inbox: config.limits.home_inbox,
        operations: config.limits.store_calls,
        reads: config.limits.activations_running,
        reads_waiting: config.limits.activations_waiting,
        blob_operations: config.limits.blob_calls,
        blob_deadline: Duration::from_millis(config.store.blob_deadline_ms),
        shutdown: Duration::from_millis(config.store.deadline_ms),
        park: Duration::from_secs(config.drain.deadline_seconds),
        replica: cirrus_runtime::ReplicaOptions {
            states: config.cluster.states_under_way,
            queue: config.cluster.slot_queue,
            fresh_ms: config.cluster.lease_ms + config.cluster.lease_ms.div_ceil(10),
            state_bytes: joining::STATE_BYTES,
            ..cirrus_runtime::ReplicaOptions::default()
        },
        spread: config.rebalance.enabled.then(|| spread(&config.rebalance)),
        newest: joining::newest(config),
    }
}

fn spread(config: &Rebalance) -> cirrus_runtime::SpreadOptions {
    cirrus_runtime::SpreadOptions {
        percent: config.percent,
        at_least: config.at_least,
        per_second: config.per_second,
        settle_ms: config.settle_seconds * 1_000,
    }
}

fn settings(config: &Config, fake_keys: FakeKeys, registry: &Registry, about: &About) -> Settings {
    let limits = &config.limits;
    let stanzas = cirrus_xml::Limits {
        max_stanza: limits.stanza_bytes,
        max_depth: limits.depth,
        max_attributes: limits.attributes,
        max_name: limits.name_bytes,
        max_header: limits.header_bytes,
    };
    let named = config
        .auth
        .mechanisms
        .iter()
        .filter_map(|it| Mechanism::parse(it.as_str()));
    let plain = config.auth.plain.then_some(Mechanism::Plain);
    Settings {
        hosts: hosts(config),
        gone_hosts: Vec::new(),
        mechanisms: named.chain(plain).collect(),
        features: Features {
            register: config.registration.enabled,
            roster_versions: true,
            pre_approval: true,
            stream_management: true,
            client_state: config.client_state.enabled,
            sasl2: config.auth.sasl2,
            fast: config.auth.sasl2 && config.auth.fast,
            extra: cirrus_xep::caps(registry, about).to_xml(),
        },
        limits_before: cirrus_xml::Limits {
            max_stanza: limits.unauthenticated_stanza_bytes,
            ..stanzas
        },
        limits: stanzas,
        max_failures: limits.auth_attempts_per_connection,
        max_unhandled: limits.max_unhandled as u64,
        fake_keys,
        timeouts: Timeouts {
            login_ms: limits.unauthenticated_seconds * 1_000,
            ack_ms: config.stream_management.ack_delay_ms,
            answer_ms: config.stream_management.ack_timeout_seconds * 1_000,
            ..Timeouts::default()
        },
    }
}

fn limits(config: &Config) -> shell::Limits {
    let limits = &config.limits;
    shell::Limits {
        connections: limits.connections_total,
        unauthenticated: limits.unauthenticated_total,
        per_address: limits.connections_per_address,
        accepts_per_second: limits.accepts_per_second,
        accepts_burst: limits.accepts_burst,
        accepts_late_ms: limits.accepts_late_ms,
        logins_per_second: limits.logins_per_second,
        logins_burst: limits.logins_burst,
        login_wait: Duration::from_secs(limits.login_wait_seconds),
        stanzas_per_second: limits.stanzas_per_second.into(),
        stanzas_burst: limits.stanzas_burst.into(),
        bytes_per_second: limits.bytes_per_second,
        bytes_burst: limits.bytes_burst,
        write_queue_stanzas: limits.write_queue_stanzas,
        write_queue_bytes: limits.write_queue_bytes,
        failures_per_address_per_minute: limits.auth_failures_per_address_per_minute,
        failures_per_account_per_minute: limits.auth_failures_per_account_per_minute,
        registrations_per_address_per_hour: config.registration.per_address_per_hour,
        registrations_per_hour: config.registration.per_hour,
        handshake: Duration::from_secs(config.tls.handshake_seconds),
        linger: LINGER,
    }
}

/// Who says for whom its connections are.
pub(crate) fn balancers(config: &Config) -> Balancers {
    let networks = config.listen.proxy_networks.clone();
    let options = cirrus_proxy::Options {
        most: config.listen.proxy_header_bytes,
        within: Duration::from_secs(config.listen.proxy_header_seconds),
    };
    let lists = move |peer| networks.iter().any(|network| network.contains(peer));
    Balancers::new(lists, options)
}

pub(crate) fn socket(config: &Config) -> SocketOptions {
    SocketOptions {
        backlog: config.listen.backlog,
        keepalive: Duration::from_secs(config.listen.keepalive_seconds),
    }
}

/// Opens the sockets for clients, and says whether their connections begin with TLS.
pub(crate) fn listeners(config: &Config) -> Result<Vec<(TcpListener, bool)>, PartsError> {
    let plain = config.listen.c2s.iter().map(|address| (*address, false));
    let direct = config.listen.c2s_tls.iter().map(|address| (*address, true));
    let all: Vec<_> = plain.chain(direct).collect();
    let options = socket(config);
    let open = |(address, direct): &(SocketAddr, bool)| {
        // An IPv6 wildcard leaves IPv4 to an address of its own, where one is given.
        let only_v6 = all
            .iter()
            .any(|(other, _)| other.is_ipv4() && other.port() == address.port());
        let listener =
            shell::listen(*address, only_v6, &options).map_err(|source| PartsError::Listen {
                address: *address,
                source,
            })?;
        Ok((listener, *direct))
    };
    all.iter().map(open).collect()
}

/// The listener for health and metrics, and where it is.
fn health(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, PartsError> {
    let Some(address) = config.listen.health else {
        return Ok(None);
    };
    let open = || {
        let listener = shell::listen(address, false, &socket(config))?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let open = open().map(Some);
    open.map_err(|source| PartsError::Listen { address, source })
}
