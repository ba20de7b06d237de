//! Tokens: how they come, serve, are replaced and end.

use cirrus_sasl::token::present;
use cirrus_sasl::{TokenMechanism, TokenProof};

use super::*;
use crate::{IssuedToken, TokenOptions, TokenOutcome, TokenUse};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MECHANISM: TokenMechanism = TokenMechanism::Unbound;

/// The accounts of [`Fixture`], with tokens of 30 days for two clients, and a clock that can be set.
struct World {
    fixture: Fixture,
    accounts: Accounts,
    now: Arc<AtomicU64>,
}

impl World {
    async fn new() -> World {
        let now = Arc::new(AtomicU64::new(NOW_MS));
        let fixture = Fixture::new();
        let clock = Arc::clone(&now);
        let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let mut options = Options::new(FakeKeys::new([3; 32], 4096).unwrap());
        options.iterations = 4096;
        options.tokens = Some(TokenOptions {
            key: [5; 32],
            lifetime_ms: 30 * DAY_MS,
            clients: 2,
        });
        let random = AtomicU64::new(1);
        let random: Random = Arc::new(move |buffer| {
            let number = random.fetch_add(1, Ordering::Relaxed);
            buffer[..8].copy_from_slice(&number.to_be_bytes());
        });
        let table = MemoryTable::new(Arc::clone(&clock));
        let faulty = Arc::new(Faulty::new(table.clone(), fixture.faults.clone()));
        let accounts = Accounts::new(faulty, options, clock, random);
        let fixture = Fixture { table, ..fixture };
        let world = World {
            fixture,
            accounts,
            now,
        };
        world.create().await;
        world
    }

    async fn create(&self) {
        let (user, password) = (jid("juliet"), password("pencil"));
        self.accounts.create(&user, &password).await.unwrap();
    }

    fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    /// As after a login with a password.
    async fn issue(&self, client: &str) -> IssuedToken {
        let user = jid("juliet");
        let account = self.accounts.load(&user).await.unwrap().unwrap();
        let accounts = &self.accounts;
        let issued = accounts.issue_token(&user, account.rows, client, MECHANISM);
        issued.await.unwrap()
    }

    async fn show(&self, change: impl Fn(&mut TokenUse), token: &IssuedToken) -> TokenOutcome {
        let (message, _) = present("juliet", token.token.expose(), &[]);
        let mut shown = TokenUse {
            client: "phone".into(),
            proof: TokenProof::parse(MECHANISM, &message, &[]).unwrap(),
            invalidate: false,
            request: None,
        };
        change(&mut shown);
        let user = jid("juliet");
        self.accounts.verify_token(&user, &shown).await.unwrap()
    }

    /// The login succeeds; what the client is given.
    async fn login(&self, token: &IssuedToken) -> Option<IssuedToken> {
        right(self.show(|_| {}, token).await)
    }

    async fn is_wrong(&self, token: &IssuedToken) -> bool {
        matches!(self.show(|_| {}, token).await, TokenOutcome::Wrong)
    }

    async fn is_expired(&self, token: &IssuedToken) -> bool {
        matches!(self.show(|_| {}, token).await, TokenOutcome::Expired)
    }

    /// How often a row of tokens was written: its version.
    async fn version(&self, client: &str) -> u64 {
        let key: Key = accounts::key(&jid("juliet").owner(), Row::Fast(client)).into();
        let table: &dyn Table = &self.fixture.table;
        table.get(key).await.unwrap().map_or(0, |row| row.version)
    }
}

fn right(outcome: TokenOutcome) -> Option<IssuedToken> {
    match outcome {
        TokenOutcome::Right(login) => login.issued,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_logs_in_its_client_and_writes_nothing() {
    let world = World::new().await;
    let token = world.issue("phone").await;
    assert_eq!(token.expires_ms, NOW_MS + 30 * DAY_MS);
    let (_, answer) = present("juliet", token.token.expose(), &[]);
    for _ in 0..3 {
        let TokenOutcome::Right(login) = world.show(|_| {}, &token).await else {
            panic!("not right")
        };
        assert_eq!(login.answer, answer);
        assert!(login.issued.is_none());
        assert_eq!(login.account.jid, jid("juliet"));
        world.pass(4 * DAY_MS);
    }
    assert_eq!(world.version("phone").await, 1);
    let other_client = world.show(|shown| shown.client = "tablet".into(), &token);
    assert!(matches!(other_client.await, TokenOutcome::Wrong));
    let other_mechanism = |shown: &mut TokenUse| shown.proof.mechanism = TokenMechanism::EndPoint;
    let outcome = world.show(other_mechanism, &token).await;
    assert!(matches!(outcome, TokenOutcome::Wrong), "{outcome:?}");
}

#[tokio::test]
async fn a_token_is_replaced_at_half_of_its_life_and_lives_until_the_new_one_is_used() {
    let world = World::new().await;
    let first = world.issue("phone").await;
    world.pass(15 * DAY_MS);
    let second = world.login(&first).await.unwrap();
    // The client has not got it, so it is given the same once more, and nothing is written.
    let again = world.login(&first).await.unwrap();
    assert_eq!(again.token.expose(), second.token.expose());
    assert_eq!(world.version("phone").await, 2);
    assert!(world.login(&second).await.is_none());
    assert_eq!(world.version("phone").await, 3);
    assert!(world.is_wrong(&first).await, "an older one is void");
    assert!(world.login(&second).await.is_none());
    assert_eq!(world.version("phone").await, 3);
}

#[tokio::test]
async fn a_token_ends_with_its_time_the_password_or_the_account() {
    let world = World::new().await;
    let token = world.issue("phone").await;
    world.pass(30 * DAY_MS);
    assert!(world.is_expired(&token).await);
    world.pass(7 * DAY_MS);
    assert!(world.is_wrong(&token).await, "its row is gone");
    let token = world.issue("phone").await;
    let user = jid("juliet");
    let other = password("pencils");
    world.accounts.set_password(&user, &other).await.unwrap();
    assert!(world.is_expired(&token).await);
    let token = world.issue("phone").await;
    assert!(world.login(&token).await.is_none());
    world.accounts.set_disabled(&user, true).await.unwrap();
    assert!(world.is_expired(&token).await);
    // Another account of that name, in which a row of the former one has been left.
    let row: Key = accounts::key(&user.owner(), Row::Fast("phone")).into();
    let table: &dyn Table = &world.fixture.table;
    let left = table.get(row).await.unwrap().unwrap();
    world
        .accounts
        .delete(&user, &Recorder::default())
        .await
        .unwrap();
    world.pass(1);
    world.create().await;
    table.put(left, Condition::Any, 0).await.unwrap();
    assert!(world.is_wrong(&token).await);
}

#[tokio::test]
async fn a_client_takes_its_tokens_back_and_may_have_another() {
    let world = World::new().await;
    let first = world.issue("phone").await;
    world.pass(20 * DAY_MS);
    let second = world.login(&first).await.unwrap();
    let invalidate = |shown: &mut TokenUse| shown.invalidate = true;
    assert!(right(world.show(invalidate, &first).await).is_none());
    assert!(world.is_wrong(&first).await && world.is_wrong(&second).await);
    let first = world.issue("phone").await;
    let replace = |shown: &mut TokenUse| {
        shown.invalidate = true;
        shown.request = Some(MECHANISM);
    };
    let second = right(world.show(replace, &first).await).unwrap();
    assert!(world.is_wrong(&first).await);
    assert!(world.login(&second).await.is_none());
    let request = |shown: &mut TokenUse| shown.request = Some(MECHANISM);
    let third = right(world.show(request, &second).await).unwrap();
    assert!(world.login(&second).await.is_none());
    assert!(world.login(&third).await.is_none());
    assert!(world.is_wrong(&second).await);
}

#[tokio::test]
async fn one_client_too_many_takes_the_place_of_the_one_whose_tokens_end_first() {
    let world = World::new().await;
    let mut tokens = Vec::new();
    for client in ["a", "b", "c"] {
        tokens.push(world.issue(client).await);
        world.pass(DAY_MS);
    }
    for (client, token, good) in [
        ("a", &tokens[0], false),
        ("b", &tokens[1], true),
        ("c", &tokens[2], true),
    ] {
        let outcome = world
            .show(|shown| shown.client = client.into(), token)
            .await;
        assert_eq!(matches!(outcome, TokenOutcome::Right(_)), good, "{client}");
    }
    world.issue("c").await;
    assert_eq!(world.version("b").await, 1, "the same client needs no room");
}

#[tokio::test]
async fn what_others_do_at_the_same_time_and_a_store_that_fails() {
    let world = World::new().await;
    let first = world.issue("phone").await;
    world.pass(20 * DAY_MS);
    let user = jid("juliet");
    let stale = world.accounts.load(&user).await.unwrap().unwrap();
    let second = world.login(&first).await.unwrap();
    // Rows that were read before: the token is issued all the same, and takes the place of the one
    // that nobody has used.
    let third = world
        .accounts
        .issue_token(&user, stale.rows, "phone", MECHANISM);
    let third = third.await.unwrap();
    assert!(world.is_wrong(&second).await);
    // That the older one is void from now on can't be written: the login succeeds all the same, and
    // the next one writes it.
    let refused = || {
        let faults = [Fault::None, Fault::Throttle];
        world.fixture.faults.set_list(faults);
    };
    refused();
    assert!(world.login(&third).await.is_none());
    assert!(world.login(&first).await.is_some());
    assert!(world.login(&third).await.is_none());
    assert!(world.is_wrong(&first).await);
    // What the client wants to be void must be.
    refused();
    let (message, _) = present("juliet", third.token.expose(), &[]);
    let shown = TokenUse {
        client: "phone".into(),
        proof: TokenProof::parse(MECHANISM, &message, &[]).unwrap(),
        invalidate: true,
        request: None,
    };
    let verified = world.accounts.verify_token(&jid("juliet"), &shown).await;
    assert!(matches!(verified, Err(AccountError::Store(_))));
    assert!(right(world.show(|shown| shown.invalidate = true, &third).await).is_none());
    assert!(world.is_wrong(&third).await);
}

#[tokio::test]
async fn without_tokens_none_is_taken_or_given() {
    let fixture = Fixture::juliet().await;
    let user = jid("juliet");
    let account = fixture.accounts.load(&user).await.unwrap().unwrap();
    let issued = fixture
        .accounts
        .issue_token(&user, account.rows, "phone", MECHANISM);
    assert!(issued.await.is_err());
}
