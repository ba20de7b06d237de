//! A server for one test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cirrus_accounts::Accounts;
use cirrus_c2s::shell::{Counts, Limits, Parts, Shell, SocketOptions, listen};
use cirrus_c2s::stream::{Features, Settings, Timeouts};
use cirrus_jid::BareJid;
use cirrus_proxy::Balancers;
use cirrus_router::registry::{About, Registry};
use cirrus_router::{AccountRequest, Entropy, HomeConfig};
use cirrus_runtime::{Change, HomeHandle, SystemEntropy, wall_ms};
use cirrus_sasl::{FakeKeys, MIN_ITERATIONS, Mechanism, Password};
use cirrus_store::{BoxFuture, MemoryTable, Op, Outcome, StoreError, Table};
use cirrus_tls::{HostTls, MinVersion, ServerTls};
use cirrus_xml::Limits as XmlLimits;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "pencil";

/// A running server on ports of its own.
pub(crate) struct Server {
    pub(crate) shell: Shell,
    /// Where STARTTLS is spoken.
    pub(crate) plain: SocketAddr,
    /// Where TLS comes first.
    pub(crate) direct: SocketAddr,
    pub(crate) home: HomeHandle,
    pub(crate) store: Arc<Store>,
    serving: JoinSet<()>,
    _folder: tempfile::TempDir,
}

/// A store whose writes can be held up.
pub(crate) struct Store {
    table: MemoryTable,
    held: watch::Sender<bool>,
}

impl Store {
    /// From now on no write is answered, or those that wait are.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

impl Table for Store {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            if matches!(op, Op::Put { .. } | Op::Delete { .. }) {
                let _ = self.held.subscribe().wait_for(|held| !held).await;
            }
            self.table.apply(op).await
        })
    }
}

struct NoChanges;

impl cirrus_runtime::Accounts for NoChanges {
    fn change(&self, _: AccountRequest) -> Change<'_> {
        Box::pin(async { Ok(()) })
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    /// A server with ada and bob, and other settings than usual.
    pub(crate) async fn with(change: impl Fn(&mut Settings, &mut Limits)) -> Self {
        Self::behind(Balancers::none(), change).await
    }

    /// As [`Self::with`], behind balancers.
    pub(crate) async fn behind(
        balancers: Balancers,
        change: impl Fn(&mut Settings, &mut Limits),
    ) -> Self {
        Self::build(balancers, 1_024, change).await
    }

    /// A server that writes one thing at a time.
    pub(crate) async fn narrow() -> Self {
        Self::build(Balancers::none(), 1, |_, _| {}).await
    }

    async fn build(
        balancers: Balancers,
        operations: usize,
        change: impl Fn(&mut Settings, &mut Limits),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store {
            table: MemoryTable::new(Arc::new(wall_ms)),
            held: watch::Sender::new(false),
        });
        let table = Arc::clone(&store) as Arc<dyn Table>;
        let fake_keys = FakeKeys::new([7; 32], MIN_ITERATIONS).unwrap();
        let options = cirrus_accounts::Options {
            iterations: MIN_ITERATIONS,
            ..cirrus_accounts::Options::new(fake_keys.clone())
        };
        let random = |buffer: &mut [u8]| SystemEntropy::default().fill(buffer);
        let accounts = Accounts::new(
            Arc::clone(&table),
            options,
            Arc::new(wall_ms),
            Arc::new(random),
        );
        for name in ["ada", "bob"] {
            let jid = BareJid::new(Some(name), "localhost").unwrap();
            accounts
                .create(&jid, &Password::prepare(PASSWORD).unwrap())
                .await
                .unwrap();
        }
        let config = HomeConfig {
            // The home's own bound is not what is tested here, and must not be the first one met.
            limits: cirrus_router::Limits {
                unacked_bytes: 16 * 1_024 * 1_024,
                ..cirrus_router::Limits::default()
            },
            about: About {
                name: "test".into(),
                version: "0".into(),
                domains: vec!["localhost".into()],
                registration: true,
            },
            registry: Registry::new(&[]),
            archive: true,
            archive_key: cirrus_router::archive::IdKey::new([7; 32]),
            started_ms: wall_ms(),
        };
        let parts = cirrus_runtime::Parts {
            home: Arc::new(config),
            table,
            blobs: Arc::new(cirrus_store::MemoryBlob::new()),
            accounts: Arc::new(NoChanges),
            cluster: None,
            public: None,
        };
        let options = cirrus_runtime::Options {
            inbox: 4_096,
            operations,
            reads: 64,
            reads_waiting: 1_024,
            blob_operations: 64,
            blob_deadline: Duration::from_secs(10),
            shutdown: Duration::from_secs(10),
            park: Duration::from_secs(10),
            replica: cirrus_runtime::ReplicaOptions::default(),
            spread: None,
            newest: cirrus_router::codec::FORMAT,
        };
        let home = cirrus_runtime::start(parts, options).home;
        let tls = cirrus_tls::Options {
            hosts: vec![HostTls {
                host: "localhost".into(),
                files: None,
            }],
            folder: Some(folder.path().to_owned()),
            min_version: MinVersion::V12,
            tickets: None,
            clock: Arc::new(wall_ms),
        };
        let (mut settings, mut limits) = (settings(fake_keys), crate::limits());
        change(&mut settings, &mut limits);
        let socket = SocketOptions {
            backlog: 128,
            keepalive: Duration::from_secs(60),
        };
        let shell = Shell::new(Parts {
            settings,
            limits,
            socket,
            balancers,
            home: home.clone(),
            accounts: Arc::new(accounts),
            tls: Arc::new(ServerTls::build(tls).unwrap()),
            public: false,
            busy: Box::new(|| false),
        });
        let mut serving = JoinSet::new();
        let mut open = |direct: bool| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = listen(any, false, &socket).unwrap();
            let address = listener.local_addr().unwrap();
            let shell = shell.clone();
            serving.spawn(async move { shell.serve(listener, direct).await });
            address
        };
        let (plain, direct) = (open(false), open(true));
        Self {
            shell,
            plain,
            direct,
            home,
            store,
            serving,
            _folder: folder,
        }
    }

    /// A client with a session, `name@localhost/x`.
    pub(crate) async fn log_in(&self, name: &str) -> Client {
        let mut client = Client::starttls(self).await;
        client
            .authenticate(name, PASSWORD, Mechanism::ScramSha256)
            .await;
        client.bind("x").await;
        client
    }

    /// Waits until the counts are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let reached = async {
            while !wanted(&self.shell.counts()) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{:?}", self.shell.counts());
    }

    /// Waits until nothing is served any more.
    pub(crate) async fn ended(mut self) {
        while self.serving.join_next().await.is_some() {}
        assert_eq!(self.shell.counts().connections, 0);
    }
}

fn settings(fake_keys: FakeKeys) -> Settings {
    Settings {
        hosts: vec!["localhost".into()],
        gone_hosts: Vec::new(),
        mechanisms: Mechanism::ALL.to_vec(),
        features: Features {
            stream_management: true,
            ..Features::default()
        },
        limits_before: XmlLimits {
            max_stanza: 16_384,
            ..XmlLimits::DEFAULT
        },
        limits: XmlLimits::DEFAULT,
        max_failures: 5,
        max_unhandled: 256,
        fake_keys,
        timeouts: Timeouts::default(),
    }
}
