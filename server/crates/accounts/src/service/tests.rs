mod deletion;
mod steps;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cirrus_sasl::client::Client;
use cirrus_sasl::{Mechanism, Server, Setup, Step};
use cirrus_schema::keys::accounts::Row;
use cirrus_store::fault::{Fault, Faults, Faulty};
use cirrus_store::{BoxFuture, Dump as _, Key, MemoryTable, Source};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const HOST: &str = "example.com";

struct Fixture {
    table: MemoryTable,
    faults: Faults,
    accounts: Arc<Accounts>,
    /// Unix milliseconds.
    now: Arc<AtomicU64>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|_| {})
    }

    fn with(change: impl Fn(&mut Options)) -> Fixture {
        let now = Arc::new(AtomicU64::new(NOW_MS));
        let told = Arc::clone(&now);
        let clock: Clock = Arc::new(move || told.load(Ordering::Relaxed));
        let table = MemoryTable::new(Arc::clone(&clock));
        let faults = Faults::none();
        let faulty = Arc::new(Faulty::new(table.clone(), faults.clone()));
        let mut options = Options::new(FakeKeys::new([3; 32], 4096).unwrap());
        options.iterations = 4096;
        change(&mut options);
        let random = AtomicU64::new(1);
        let random: Random = Arc::new(move |buffer| {
            for chunk in buffer.chunks_mut(8) {
                let number = random.fetch_add(1, Ordering::Relaxed);
                chunk.copy_from_slice(&number.to_be_bytes()[..chunk.len()]);
            }
        });
        let accounts = Arc::new(Accounts::new(faulty, options, clock, random));
        Fixture {
            table,
            faults,
            accounts,
            now,
        }
    }

    /// An account of juliet with the password "pencil".
    async fn juliet() -> Fixture {
        let fixture = Fixture::new();
        fixture
            .accounts
            .create(&jid("juliet"), &password("pencil"))
            .await
            .unwrap();
        fixture
    }

    /// Keys of all rows of accounts.
    async fn keys(&self) -> BTreeSet<Key> {
        let page = self.table.dump(TableId::Accounts, None).await.unwrap();
        assert!(page.next.is_none());
        page.items.into_iter().map(|item| item.key).collect()
    }

    async fn put(&self, key: impl Into<Key>, attrs: Attrs) {
        let table: &dyn Table = &self.table;
        table
            .put(Item::new(key, attrs), Condition::Any, 0)
            .await
            .unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let page = self.accounts.list(HOST, None, 100).await.unwrap();
        page.users
            .iter()
            .map(|user| user.local().unwrap().to_owned())
            .collect()
    }

    async fn right(&self, user: &str, text: &str) -> bool {
        let checked = self
            .accounts
            .verify_password(&jid(user), &password(text))
            .await;
        checked.unwrap().is_some()
    }
}

fn jid(local: &str) -> BareJid {
    BareJid::new(Some(local), HOST).unwrap()
}

fn password(text: &str) -> Password {
    Password::prepare(text).unwrap()
}

/// Erases nothing, and keeps whom it was called for.
#[derive(Default)]
struct Recorder(Mutex<Vec<BareJid>>);

impl Erase for Recorder {
    fn erase<'a>(&'a self, jid: &'a BareJid) -> BoxFuture<'a, Result<(), Source>> {
        self.0.lock().unwrap().push(jid.clone());
        Box::pin(async { Ok(()) })
    }
}

struct Refuses;

impl Erase for Refuses {
    fn erase<'a>(&'a self, _: &'a BareJid) -> BoxFuture<'a, Result<(), Source>> {
        Box::pin(async { Err("the archive is away".into()) })
    }
}

#[tokio::test]
async fn a_created_account_is_there_and_listed() {
    let fixture = Fixture::juliet().await;
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(account.created_ms, NOW_MS);
    assert!(!account.disabled);
    assert_eq!((account.min_generation, account.floor), (0, 0));
    let hashes: Vec<_> = account.credentials.iter().map(|key| key.hash).collect();
    assert_eq!(hashes, Hash::ALL);
    assert_ne!(account.credentials[0].salt, account.credentials[1].salt);
    assert_eq!(fixture.names().await, ["juliet"]);
    assert!(fixture.right("juliet", "pencil").await);
    assert!(!fixture.right("juliet", "pencils").await);
    assert!(!fixture.right("romeo", "pencil").await);
    assert!(
        fixture
            .accounts
            .load(&jid("romeo"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn what_is_stored_logs_in_with_scram() {
    let fixture = Fixture::juliet().await;
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    for (mechanism, hash) in [
        (Mechanism::ScramSha256, Hash::Sha256),
        (Mechanism::ScramSha1, Hash::Sha1),
    ] {
        let advertised = [mechanism];
        let setup = Setup {
            mechanism,
            host: HOST,
            advertised: &advertised,
            bindings: &[],
            nonce: [1; cirrus_sasl::NONCE_BYTES],
        };
        let mut server = Server::new(&setup).unwrap();
        let mut client = Client::new(hash, "juliet", password("pencil"), "nonce");
        assert!(matches!(
            server.start(Some(&client.first())),
            Step::NeedKeys { .. }
        ));
        let fake = &fixture.accounts.options.fake;
        let Step::Challenge(challenge) = server.keys(account.key(hash), fake) else {
            panic!("a challenge")
        };
        let answer = client.respond(&challenge).unwrap();
        let Step::Success { data, .. } = server.step(&answer) else {
            panic!("success")
        };
        client.finish(&data).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_creations_that_race_one_wins() {
    for _ in 0..20 {
        let fixture = Fixture::new();
        let start = Arc::new(tokio::sync::Barrier::new(4));
        let tasks: Vec<_> = (0..4)
            .map(|number| {
                let (accounts, start) = (Arc::clone(&fixture.accounts), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    accounts
                        .create(&jid("juliet"), &password(&format!("pass{number}")))
                        .await
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(()) => winners.push(number),
                Err(AccountError::Exists(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        for number in 0..4 {
            let right = fixture.right("juliet", &format!("pass{number}")).await;
            assert_eq!(right, winners == [number]);
        }
        assert_eq!(fixture.names().await, ["juliet"]);
    }
}

/// The race at its narrowest: the other creation lands between the look and the put.
#[tokio::test]
async fn a_name_taken_in_between_stays_with_its_taker() {
    let fixture = Fixture::juliet().await;
    let other = Fixture::new();
    let (table, taken) = (other.table.clone(), fixture.table.clone());
    other.faults.set(move |number, _| {
        if number == 2 {
            let key = record::row_key(&jid("juliet"));
            let Ok(Outcome::Item(Some(item))) = taken.apply_now(Op::Get { key }).result else {
                panic!("juliet exists")
            };
            let put = Op::Put {
                item,
                condition: Condition::Any,
                nonce: 0,
            };
            table.apply_now(put).result.unwrap();
        }
        Fault::None
    });
    let refused = other
        .accounts
        .create(&jid("juliet"), &password("mine"))
        .await
        .unwrap_err();
    assert!(matches!(refused, AccountError::Exists(_)), "{refused}");
    assert!(other.right("juliet", "pencil").await && !other.right("juliet", "mine").await);
}

#[tokio::test]
async fn the_requests_are_those_of_the_schema() {
    let fixture = Fixture::new();
    let counted = |what: &str, expected: u64| {
        assert_eq!(fixture.faults.requests(), expected, "{what}");
        fixture.faults.set(|_, _| Fault::None);
    };
    fixture.faults.set(|_, _| Fault::None);
    fixture
        .accounts
        .create(&jid("juliet"), &password("pencil"))
        .await
        .unwrap();
    counted("create: two reads, two writes", 4);
    fixture.accounts.load(&jid("juliet")).await.unwrap();
    counted("load: one query", 1);
    fixture.accounts.load(&jid("romeo")).await.unwrap();
    counted("load of nobody: one query", 1);
    fixture.right("juliet", "pencil").await;
    counted("check: one query", 1);
    fixture.accounts.list(HOST, None, 10).await.unwrap();
    counted("list: one query", 1);
}

#[tokio::test]
async fn names_are_checked() {
    let fixture = Fixture::new();
    let host = BareJid::new(None, HOST).unwrap();
    let refused = fixture
        .accounts
        .create(&host, &password("x"))
        .await
        .unwrap_err();
    assert!(matches!(refused, AccountError::NotAUser(_)), "{refused}");
    let long = jid(&"a".repeat(1023));
    let refused = fixture
        .accounts
        .create(&long, &password("x"))
        .await
        .unwrap_err();
    assert!(matches!(refused, AccountError::TooLong { .. }), "{refused}");
    assert!(fixture.keys().await.is_empty());
    let longest = jid(&"a".repeat(MAX_SK_OWNER - HOST.len() - 1));
    fixture
        .accounts
        .create(&longest, &password("x"))
        .await
        .unwrap();
    assert!(fixture.right(longest.local().unwrap(), "x").await);
}

#[tokio::test]
async fn a_new_password_replaces_the_old_and_voids_tokens() {
    let fixture = Fixture::juliet().await;
    fixture
        .accounts
        .set_password(&jid("juliet"), &password("brush"))
        .await
        .unwrap();
    assert!(fixture.right("juliet", "brush").await && !fixture.right("juliet", "pencil").await);
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((account.min_generation, account.version), (1, 2));
    assert_eq!(account.created_ms, NOW_MS);
    let nobody = fixture
        .accounts
        .set_password(&jid("romeo"), &password("x"))
        .await;
    assert!(matches!(nobody, Err(AccountError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_time_are_all_kept() {
    let fixture = Fixture::juliet().await;
    let change = |text: &'static str| {
        let accounts = Arc::clone(&fixture.accounts);
        tokio::spawn(async move { accounts.set_password(&jid("juliet"), &password(text)).await })
    };
    for task in [change("one"), change("two"), change("three")] {
        task.await.unwrap().unwrap();
    }
    fixture
        .accounts
        .set_disabled(&jid("juliet"), true)
        .await
        .unwrap();
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((account.min_generation, account.version), (4, 5));
    assert!(account.disabled);
    fixture
        .accounts
        .set_disabled(&jid("juliet"), false)
        .await
        .unwrap();
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert!(
        !account.disabled && account.min_generation == 4,
        "tokens stay void"
    );
}

#[tokio::test]
async fn the_list_has_pages_in_order() {
    let fixture = Fixture::new();
    for user in ["c", "a", "e", "b", "d"] {
        fixture
            .accounts
            .create(&jid(user), &password("x"))
            .await
            .unwrap();
    }
    let elsewhere = BareJid::parse("z@example.com.evil.example").unwrap();
    fixture
        .accounts
        .create(&elsewhere, &password("x"))
        .await
        .unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = fixture
            .accounts
            .list(HOST, after.as_deref(), 2)
            .await
            .unwrap();
        assert!(page.users.len() <= 2);
        seen.extend(page.users);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let names: Vec<_> = seen.iter().map(BareJid::as_str).collect();
    assert_eq!(
        names.join(" "),
        ["a", "b", "c", "d", "e"]
            .map(|it| format!("{it}@{HOST}"))
            .join(" ")
    );
    let none = fixture.accounts.list("example.org", None, 0).await.unwrap();
    assert!(none.users.is_empty() && none.next.is_none());
}

#[tokio::test]
async fn all_rows_are_loaded_and_none_has_keys() {
    let fixture = Fixture::juliet().await;
    let owner = jid("juliet").owner();
    for row in [Row::Fast("phone"), Row::Last, Row::Settings] {
        fixture
            .put(accounts::key(&owner, row), Attrs::new().with("v", 1))
            .await;
    }
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    let rows: Vec<_> = account
        .rows
        .iter()
        .map(|row| Row::parse(&row.key.sk))
        .collect();
    let wanted = [
        Row::Credentials,
        Row::Fast("phone"),
        Row::Settings,
        Row::Last,
    ];
    assert_eq!(rows, wanted.map(Some));
    assert_eq!(
        account.rows[0]
            .attrs
            .iter()
            .map(|it| it.0)
            .collect::<Vec<_>>(),
        ["c", "v"]
    );
}

#[tokio::test]
async fn checking_nobodys_password_takes_a_derivation_too() {
    let fixture = Fixture::with(|options| {
        options.derivations = 1;
        options.waiting = 0;
    });
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let accounts = Arc::clone(&fixture.accounts);
    let (started, has_started) = tokio::sync::oneshot::channel();
    let busy = tokio::spawn(async move {
        let work = move || {
            started.send(()).ok();
            gate.recv().ok();
        };
        accounts.derivations.run(work).await
    });
    has_started.await.unwrap();
    let refused = fixture
        .accounts
        .verify_password(&jid("nobody"), &password("x"))
        .await;
    assert!(matches!(refused, Err(AccountError::Busy)));
    assert!(AccountError::Busy.is_retryable());
    release.send(()).unwrap();
    busy.await.unwrap().unwrap();
    assert!(!fixture.right("nobody", "x").await);
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let fixture = Fixture::juliet().await;
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    let key = record::row_key(&jid("juliet"));
    let table: &dyn Table = &fixture.table;
    let item = table.get(key).await.unwrap().unwrap();
    let shown = |bytes: &[u8]| {
        let printed = format!("{:?}", bytes::Bytes::copy_from_slice(bytes));
        printed[2..printed.len() - 1].to_owned()
    };
    let secrets: Vec<_> = account
        .credentials
        .iter()
        .flat_map(|key| [&key.stored_key, &key.server_key])
        .collect();
    assert!(
        secrets
            .iter()
            .all(|secret| format!("{item:?}").contains(&shown(secret)))
    );
    let conflict = table.put(item, Condition::Absent, 1).await.unwrap_err();
    assert!(format!("{conflict:?}").contains("existing: Some"));
    let conflict = AccountError::from(conflict);
    let printed = format!(
        "{account:?} {:?} {conflict:?} {:?}",
        account.rows, fixture.accounts
    );
    assert!(printed.contains("existing: None"), "{printed}");
    assert!(
        !secrets
            .iter()
            .any(|secret| printed.contains(&shown(secret))),
        "{printed}"
    );
    assert!(printed.contains("iterations: 4096"));
}

#[tokio::test]
async fn a_row_of_a_newer_version_is_not_touched() {
    let fixture = Fixture::new();
    fixture
        .put(record::row_key(&jid("juliet")), Attrs::new().with("v", 2))
        .await;
    let user = jid("juliet");
    let corrupt = |error| matches!(error, AccountError::Corrupt { .. });
    assert!(corrupt(fixture.accounts.load(&user).await.unwrap_err()));
    assert!(corrupt(
        fixture
            .accounts
            .create(&user, &password("x"))
            .await
            .unwrap_err()
    ));
    assert!(corrupt(
        fixture
            .accounts
            .set_password(&user, &password("x"))
            .await
            .unwrap_err()
    ));
    let recorder = Recorder::default();
    assert!(corrupt(
        fixture.accounts.delete(&user, &recorder).await.unwrap_err()
    ));
    assert!(recorder.0.lock().unwrap().is_empty());
}
