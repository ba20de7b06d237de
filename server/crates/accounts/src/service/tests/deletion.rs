//! Deletions that break off, and who finishes them.

use cirrus_schema::keys::archive;

use super::steps::from_any_step_of_a_deletion;
use super::*;

/// Longer than a deletion is left to whoever has begun it.
const LATER_MS: u64 = 3_600_000;

impl Fixture {
    fn later(&self) {
        self.now.fetch_add(LATER_MS, Ordering::Relaxed);
    }

    /// The credentials row says that the account is being deleted.
    async fn is_marked(&self, user: &BareJid) -> bool {
        let table: &dyn Table = &self.table;
        let row = table.get(record::row_key(user)).await.unwrap();
        row.is_some_and(|row| row.attrs.get_n("x").is_some())
    }

    /// Whether the list of today has the user.
    async fn is_listed(&self, user: &BareJid) -> bool {
        let day = u32::try_from(NOW_MS / 86_400_000).unwrap();
        let table: &dyn Table = &self.table;
        for shard in 0..archive::DUE_SHARDS {
            let key = archive::due(day, shard, &user.owner());
            if table.get(key).await.unwrap().is_some() {
                return true;
            }
        }
        false
    }
}

#[tokio::test]
async fn a_deletion_that_broke_off_anywhere_is_listed_and_finished() {
    let user = jid("juliet");
    from_any_step_of_a_deletion(async |fixture, recorder, result| {
        if fixture.is_marked(&user).await {
            assert!(fixture.is_listed(&user).await, "{result:?}");
            fixture.later();
            let finished = fixture.accounts.finish_deletion(&user, recorder).await;
            assert!(finished.unwrap());
        } else if result.is_err() {
            // It has not begun.
            fixture.accounts.delete(&user, recorder).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn only_what_is_being_deleted_is_finished() {
    let fixture = Fixture::juliet().await;
    let before = fixture.keys().await;
    let recorder = Recorder::default();
    let host = BareJid::new(None, HOST).unwrap();
    for user in [jid("juliet"), jid("nobody"), host] {
        let finished = fixture.accounts.finish_deletion(&user, &recorder).await;
        assert!(finished.unwrap(), "{user}");
    }
    let (accounts, juliet) = (&fixture.accounts, jid("juliet"));
    accounts.set_disabled(&juliet, true).await.unwrap();
    let finished = accounts.finish_deletion(&juliet, &recorder).await;
    assert!(finished.unwrap());
    assert_eq!(fixture.keys().await, before);
    assert!(recorder.0.lock().unwrap().is_empty());
}

/// While it erases, others ask for the same.
struct Meanwhile(Arc<Accounts>);

impl Erase for Meanwhile {
    fn erase<'a>(&'a self, jid: &'a BareJid) -> BoxFuture<'a, Result<(), Source>> {
        Box::pin(async move {
            let finished = self.0.finish_deletion(jid, &Refuses).await;
            assert!(!finished.unwrap(), "one is at it already");
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_deletion_under_way_is_left_alone() {
    let (fixture, user) = (Fixture::juliet().await, jid("juliet"));
    let meanwhile = Meanwhile(Arc::clone(&fixture.accounts));
    assert!(fixture.accounts.delete(&user, &meanwhile).await.unwrap());
    assert!(fixture.keys().await.is_empty());

    // The same if it is one that is being finished.
    let (fixture, user) = (Fixture::juliet().await, jid("juliet"));
    fixture.accounts.delete(&user, &Refuses).await.unwrap_err();
    fixture.later();
    let meanwhile = Meanwhile(Arc::clone(&fixture.accounts));
    let finished = fixture.accounts.finish_deletion(&user, &meanwhile).await;
    assert!(finished.unwrap());
    assert!(fixture.keys().await.is_empty());
}

/// While it erases, another deletes the account, and it is created anew.
struct Overtaken(Arc<Accounts>);

impl Erase for Overtaken {
    fn erase<'a>(&'a self, jid: &'a BareJid) -> BoxFuture<'a, Result<(), Source>> {
        Box::pin(async move {
            assert!(self.0.delete(jid, &Recorder::default()).await?);
            self.0.create(jid, &password("brush")).await?;
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_new_account_of_the_name_survives_an_old_deletion() {
    let (fixture, user) = (Fixture::juliet().await, jid("juliet"));
    let overtaken = Overtaken(Arc::clone(&fixture.accounts));
    assert!(fixture.accounts.delete(&user, &overtaken).await.unwrap());
    assert!(fixture.right("juliet", "brush").await);
    assert_eq!(fixture.names().await, ["juliet"]);
}
