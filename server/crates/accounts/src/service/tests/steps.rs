//! Deletions, and what is left when one or a creation breaks off at any step.

use super::*;

#[tokio::test]
async fn a_deleted_account_leaves_nothing() {
    let fixture = Fixture::juliet().await;
    fixture
        .accounts
        .create(&jid("julie"), &password("x"))
        .await
        .unwrap();
    let others = fixture.keys().await;
    let owner = jid("juliet").owner();
    for row in [
        Row::Fast("phone"),
        Row::Fast("desk"),
        Row::Last,
        Row::Settings,
    ] {
        fixture
            .put(accounts::key(&owner, row), Attrs::new().with("v", 1))
            .await;
    }
    let recorder = Recorder::default();
    assert!(
        fixture
            .accounts
            .delete(&jid("juliet"), &recorder)
            .await
            .unwrap()
    );
    assert_eq!(*recorder.0.lock().unwrap(), [jid("juliet")]);
    assert_eq!(fixture.names().await, ["julie"]);
    assert!(!fixture.right("juliet", "pencil").await);
    let left = fixture.keys().await;
    assert_eq!(left.len() + 2, others.len(), "{left:?}");
    assert!(left.is_subset(&others));
    assert!(
        !fixture
            .accounts
            .delete(&jid("juliet"), &recorder)
            .await
            .unwrap()
    );
    assert_eq!(
        recorder.0.lock().unwrap().len(),
        1,
        "there was nothing to erase"
    );
}

#[tokio::test]
async fn while_an_account_is_deleted_its_name_is_not_free() {
    let fixture = Fixture::juliet().await;
    let refused = fixture
        .accounts
        .delete(&jid("juliet"), &Refuses)
        .await
        .unwrap_err();
    assert!(refused.is_retryable());
    let text = "what juliet@example.com owned could not be erased: the archive is away; \
                delete it again";
    assert_eq!(refused.to_string(), text);
    assert!(!fixture.right("juliet", "pencil").await);
    assert!(
        fixture
            .accounts
            .load(&jid("juliet"))
            .await
            .unwrap()
            .is_none()
    );
    let change = fixture
        .accounts
        .set_password(&jid("juliet"), &password("x"))
        .await;
    assert!(matches!(change, Err(AccountError::NotFound(_))));
    let enable = fixture.accounts.set_disabled(&jid("juliet"), false).await;
    assert!(matches!(enable, Err(AccountError::NotFound(_))));
    let create = fixture
        .accounts
        .create(&jid("juliet"), &password("x"))
        .await;
    assert!(matches!(create, Err(AccountError::Deleting(_))));
    assert_eq!(
        fixture.names().await,
        ["juliet"],
        "an operator sees what is left to do"
    );
    assert!(
        fixture
            .accounts
            .delete(&jid("juliet"), &Recorder::default())
            .await
            .unwrap()
    );
    assert!(fixture.keys().await.is_empty());
}

#[tokio::test]
async fn a_later_account_of_the_name_starts_above_the_floor() {
    let fixture = Fixture::new();
    let erased = cluster::erased(&jid("juliet").owner());
    fixture
        .put(erased, Attrs::new().with("v", 1).with("p", 41))
        .await;
    fixture
        .accounts
        .create(&jid("juliet"), &password("x"))
        .await
        .unwrap();
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(account.floor, 41);
    assert_eq!(account.rows[0].attrs.get_n("f"), Some(41));
    fixture
        .accounts
        .set_password(&jid("juliet"), &password("y"))
        .await
        .unwrap();
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(account.floor, 41, "a change keeps it");
}

const INTERRUPTIONS: [Fault; 5] = [
    Fault::Throttle,
    Fault::Fail { carried_out: false },
    Fault::Fail { carried_out: true },
    Fault::Timeout { carried_out: false },
    Fault::Timeout { carried_out: true },
];

/// Every request fails from the `from`th on.
fn break_from(faults: &Faults, from: u64, fault: Fault) {
    faults.set(move |number, _| if number >= from { fault } else { Fault::None });
}

/// Deletions of an account that break off, each at another request and in another way, up to one
/// that does not; what is done then leaves nothing of the account.
pub(super) async fn from_any_step_of_a_deletion(
    go_on: impl AsyncFn(&Fixture, &Recorder, &Result<bool, AccountError>),
) {
    for fault in INTERRUPTIONS {
        let mut step = 0;
        loop {
            let fixture = Fixture::juliet().await;
            let last = accounts::key(&jid("juliet").owner(), Row::Last);
            fixture.put(last, Attrs::new().with("v", 1)).await;
            break_from(&fixture.faults, step, fault);
            let recorder = Recorder::default();
            let result = fixture.accounts.delete(&jid("juliet"), &recorder).await;
            fixture.faults.clear();
            go_on(&fixture, &recorder, &result).await;
            assert!(
                fixture.keys().await.is_empty(),
                "{fault:?} from request {step}"
            );
            assert!(!recorder.0.lock().unwrap().is_empty());
            if result.is_ok() {
                break;
            }
            step += 1;
        }
        assert!(step >= 5, "{step}");
    }
}

#[tokio::test]
async fn a_deletion_can_be_repeated_from_any_step() {
    from_any_step_of_a_deletion(async |fixture, recorder, result| {
        if let Err(error) = result {
            assert!(error.is_retryable(), "{error}");
            let again = fixture.accounts.delete(&jid("juliet"), recorder).await;
            again.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_creation_can_be_repeated_from_any_step() {
    for fault in INTERRUPTIONS {
        let mut step = 0;
        loop {
            let fixture = Fixture::new();
            break_from(&fixture.faults, step, fault);
            let result = fixture
                .accounts
                .create(&jid("juliet"), &password("pencil"))
                .await;
            fixture.faults.clear();
            if let Err(error) = &result {
                assert!(error.is_retryable(), "{error}");
                let again = fixture
                    .accounts
                    .create(&jid("juliet"), &password("pencil"))
                    .await;
                assert!(
                    matches!(again, Ok(()) | Err(AccountError::Exists(_))),
                    "{again:?}"
                );
            }
            assert!(
                fixture.right("juliet", "pencil").await,
                "{fault:?} from request {step}"
            );
            assert_eq!(fixture.names().await, ["juliet"]);
            if result.is_ok() {
                break;
            }
            step += 1;
        }
        assert!(step >= 4, "{step}");
    }
}

/// One lost answer is not the caller's business: the second try finds its own write.
#[tokio::test]
async fn an_answer_that_got_lost_is_asked_for_again() {
    let lost = Fault::Timeout { carried_out: true };
    let fixture = Fixture::new();
    fixture.faults.set_list([Fault::None, Fault::None, lost]);
    fixture
        .accounts
        .create(&jid("juliet"), &password("pencil"))
        .await
        .unwrap();
    fixture.faults.set_list([Fault::None, Fault::None, lost]);
    fixture
        .accounts
        .set_password(&jid("juliet"), &password("brush"))
        .await
        .unwrap();
    assert!(fixture.right("juliet", "brush").await);
    let account = fixture
        .accounts
        .load(&jid("juliet"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(account.version, 2, "changed once");
}
