use cirrus_accounts::{Accounts, Erase};
use cirrus_router::archive::IdKey;
use cirrus_router::registry::{About, Registry};
use cirrus_router::{Entropy as _, HomeConfig, Limits};
use cirrus_runtime::{Options, Parts, ReplicaOptions, SystemEntropy};
use cirrus_sasl::{FakeKeys, MIN_ITERATIONS, Password};
use cirrus_store::{BoxFuture, MemoryBlob, MemoryTable, Source};

use super::*;

#[tokio::test]
async fn every_account_is_put_on_the_list_of_a_day() {
    let table: Arc<dyn Table> = Arc::new(MemoryTable::new(Arc::new(|| 0)));
    let hosts = ["a.example", "b.example"].map(str::to_owned);
    for n in 0..2 * PAGE {
        let host = &hosts[usize::from(n % 2 == 0)];
        let item = Item::new(accounts::directory(host, &format!("u{n}")), Attrs::new());
        table.put(item, Condition::Absent, 1).await.unwrap();
    }
    list_all(&*table, &hosts, 20_000).await.unwrap();
    let mut listed = 0;
    for shard in 0..archive::DUE_SHARDS {
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::due_partition(20_000, shard).into(),
            range: SkRange::All,
            direction: Direction::Forward,
            limit: None,
            after: None,
        };
        let Outcome::Page { items, .. } = table.apply(op).await.unwrap() else {
            panic!("no page");
        };
        assert!(items.iter().all(|item| user(&item.key.sk).is_some()));
        listed += items.len();
    }
    assert_eq!(listed, 2 * PAGE as usize);
}

/// The service of accounts, as it was so long ago.
fn accounts(table: &Arc<dyn Table>, ago_ms: u64) -> Accounts {
    let fake = FakeKeys::new([7; 32], MIN_ITERATIONS).unwrap();
    let options = cirrus_accounts::Options {
        iterations: MIN_ITERATIONS,
        ..cirrus_accounts::Options::new(fake)
    };
    let random = |buffer: &mut [u8]| SystemEntropy::default().fill(buffer);
    let clock = move || wall_ms() - ago_ms;
    Accounts::new(
        Arc::clone(table),
        options,
        Arc::new(clock),
        Arc::new(random),
    )
}

/// A node alone, whose only domain is `localhost`.
fn node(table: &Arc<dyn Table>, accounts: &Arc<AccountService>) -> HomeHandle {
    let home = HomeConfig {
        limits: Limits::default(),
        about: About {
            name: "test".into(),
            version: "0".into(),
            domains: vec!["localhost".into()],
            registration: false,
        },
        registry: Registry::new(&[]),
        archive: true,
        archive_key: IdKey::new([7; 32]),
        started_ms: wall_ms(),
    };
    let parts = Parts {
        home: Arc::new(home),
        table: Arc::clone(table),
        blobs: Arc::new(MemoryBlob::new()),
        accounts: Arc::clone(accounts) as _,
        cluster: None,
        public: None,
    };
    let patience = Duration::from_secs(10);
    let options = Options {
        inbox: 16,
        operations: 16,
        reads: 16,
        reads_waiting: 16,
        blob_operations: 16,
        blob_deadline: patience,
        shutdown: patience,
        park: patience,
        replica: ReplicaOptions::default(),
        spread: None,
        newest: cirrus_router::codec::FORMAT,
    };
    cirrus_runtime::start(parts, options).home
}

/// How archives are looked after by a node alone.
fn sweep(table: &Arc<dyn Table>, accounts: Accounts) -> Sweep {
    let service = AccountService::new(Arc::new(accounts));
    let home = node(table, &service);
    service.set_home(home.clone());
    Sweep {
        table: Arc::clone(table),
        home,
        accounts: service,
        every: Duration::from_secs(60),
        at_once: 2,
        hosts: vec!["localhost".into()],
        retention_days: 0,
        name: 1,
        late_days: Arc::default(),
    }
}

/// The node that erased has died.
struct Died;

impl Erase for Died {
    fn erase<'a>(&'a self, _: &'a BareJid) -> BoxFuture<'a, Result<(), Source>> {
        Box::pin(async { Err("it has died".into()) })
    }
}

#[tokio::test]
async fn a_deletion_that_broke_off_is_finished() {
    let table: Arc<dyn Table> = Arc::new(MemoryTable::new(Arc::new(wall_ms)));
    let (old, new) = (accounts(&table, 2 * DAY_MS), accounts(&table, 0));
    let password = Password::prepare("pencil").unwrap();
    let [gone, stays] =
        ["gone", "stays"].map(|name| BareJid::new(Some(name), "localhost").unwrap());
    for user in [&gone, &stays] {
        old.create(user, &password).await.unwrap();
    }
    old.delete(&gone, &Died).await.unwrap_err();
    let day = wall_ms() / DAY_MS - 2;
    table.apply(put_due(&stays.owner(), day)).await.unwrap();

    let sweep = sweep(&table, new);
    sweep.look().await.unwrap();
    let page = old.list("localhost", None, 10).await.unwrap();
    assert_eq!(page.users, [stays]);
    old.create(&gone, &password).await.unwrap();
    assert_eq!(sweep.late_days.load(Ordering::Relaxed), 0);
    let lists = (0..archive::DUE_SHARDS).map(|shard| {
        let pk = archive::due_partition(u32::try_from(day).unwrap(), shard);
        table.query_all(TableId::Archive, pk, SkRange::All)
    });
    for list in lists {
        assert!(list.await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_look_with_a_clock_that_was_ahead_leaves_nothing_out() {
    let table: Arc<dyn Table> = Arc::new(MemoryTable::new(Arc::new(wall_ms)));
    let accounts = accounts(&table, 0);
    let user = BareJid::new(Some("user"), "localhost").unwrap();
    let password = Password::prepare("pencil").unwrap();
    accounts.create(&user, &password).await.unwrap();
    let today = (wall_ms() - GRACE_MS) / DAY_MS;
    let due = put_due(&user.owner(), today - 1);
    table.apply(due).await.unwrap();
    let sweep = sweep(&table, accounts);
    let ahead = Lease {
        version: 1,
        done: today + 30,
        retention_days: 0,
    };
    sweep.put(&ahead, 0).await.unwrap();
    sweep.look().await.unwrap();
    let day = u32::try_from(today - 1).unwrap();
    for shard in 0..archive::DUE_SHARDS {
        let pk = archive::due_partition(day, shard);
        let list = table.query_all(TableId::Archive, pk, SkRange::All).await;
        assert!(list.unwrap().is_empty());
    }
    let row = table.get(cluster::sweep()).await.unwrap().unwrap();
    assert_eq!(row.attrs.get_n("d"), Some(today - 1));
}
