use proptest::prelude::*;

use super::*;
use crate::client::{self, Client, ClientBinding};
use crate::{BindingKind, Condition, MIN_ITERATIONS, derive, offer};

const HOST: &str = "example.com";
const CLIENT_NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";

fn fake() -> FakeKeys {
    FakeKeys::new([9; 32], MIN_ITERATIONS).unwrap()
}

fn password(text: &str) -> Password {
    Password::prepare(text).unwrap()
}

fn key(hash: Hash) -> StoredKey {
    derive(
        hash,
        &password("pencil"),
        b"sixteen bytes ok",
        MIN_ITERATIONS,
    )
    .unwrap()
}

fn bindings() -> Vec<ChannelBinding> {
    vec![
        ChannelBinding {
            kind: BindingKind::TlsExporter,
            data: vec![0xAA; 32],
        },
        ChannelBinding {
            kind: BindingKind::TlsServerEndPoint,
            data: vec![0xBB; 32],
        },
    ]
}

fn server_with(mechanism: Mechanism, bindings: &[ChannelBinding]) -> Server {
    let advertised = offer(&Mechanism::ALL, true, bindings);
    let setup = Setup {
        mechanism,
        host: HOST,
        advertised: &advertised,
        bindings,
        nonce: [5; 18],
    };
    Server::new(&setup).unwrap()
}

fn scram(hash: Hash) -> Mechanism {
    match hash {
        Hash::Sha1 => Mechanism::ScramSha1,
        Hash::Sha256 => Mechanism::ScramSha256,
    }
}

fn plus(hash: Hash) -> Mechanism {
    match hash {
        Hash::Sha1 => Mechanism::ScramSha1Plus,
        Hash::Sha256 => Mechanism::ScramSha256Plus,
    }
}

fn failure(step: Step) -> SaslError {
    match step {
        Step::Failure(error) => error,
        other => panic!("not a failure: {other:?}"),
    }
}

fn challenge(step: Step) -> Vec<u8> {
    match step {
        Step::Challenge(data) => data,
        other => panic!("not a challenge: {other:?}"),
    }
}

/// Runs a whole exchange; `key` is what the account store has.
fn exchange(
    server: &mut Server,
    client: &mut Client,
    key: Option<&StoredKey>,
) -> Result<String, SaslError> {
    let step = server.start(Some(&client.first()));
    let Step::NeedKeys { .. } = step else {
        return Err(failure(step));
    };
    let answer = client.respond(&challenge(server.keys(key, &fake())))?;
    match server.step(&answer) {
        Step::Success { user, data, .. } => client.finish(&data).map(|()| user),
        step => Err(failure(step)),
    }
}

struct Vector {
    mechanism: Mechanism,
    server_nonce: &'static str,
    salt: &'static str,
    messages: [&'static str; 4],
}

/// The examples of RFC 5802, section 5, and RFC 7677, section 3.
const VECTORS: [Vector; 2] = [
    Vector {
        mechanism: Mechanism::ScramSha1,
        server_nonce: "3rfcNHYJY1ZVvWVs7j",
        salt: "QSXCR+Q6sek8bf92",
        messages: [
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ],
    },
    Vector {
        mechanism: Mechanism::ScramSha256,
        server_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
        messages: [
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ],
    },
];

#[test]
fn vectors_of_the_rfcs() {
    for Vector {
        mechanism,
        server_nonce,
        salt,
        messages,
    } in VECTORS
    {
        let advertised = [mechanism];
        let setup = Setup {
            mechanism,
            host: HOST,
            advertised: &advertised,
            bindings: &[],
            nonce: [0; NONCE_BYTES],
        };
        let mut server = Server::with_nonce(&setup, server_nonce.to_owned()).unwrap();
        let salt = STANDARD.decode(salt).unwrap();
        let key = derive(mechanism.hash().unwrap(), &password("pencil"), &salt, 4096).unwrap();
        let Step::NeedKeys { user, .. } = server.start(Some(messages[0].as_bytes())) else {
            panic!("keys are needed")
        };
        assert_eq!(user, "user");
        assert_eq!(
            challenge(server.keys(Some(&key), &fake())),
            messages[1].as_bytes()
        );
        let Step::Success {
            user,
            authzid,
            data,
        } = server.step(messages[2].as_bytes())
        else {
            panic!("the proof is right")
        };
        assert_eq!((user.as_str(), authzid), ("user", None));
        assert_eq!(data, messages[3].as_bytes());
    }
}

#[test]
fn the_client_double_agrees_with_the_vectors() {
    for Vector {
        mechanism,
        messages,
        ..
    } in VECTORS
    {
        let nonce = messages[0].rsplit_once("r=").unwrap().1;
        let hash = mechanism.hash().unwrap();
        let mut client = Client::new(hash, "user", password("pencil"), nonce);
        assert_eq!(client.first(), messages[0].as_bytes());
        assert_eq!(
            client.respond(messages[1].as_bytes()).unwrap(),
            messages[2].as_bytes()
        );
        client.finish(messages[3].as_bytes()).unwrap();
    }
}

#[test]
fn right_and_wrong_passwords() {
    for hash in Hash::ALL {
        let key = key(hash);
        let try_with = |text| {
            let mut client = Client::new(hash, "juliet", password(text), CLIENT_NONCE);
            exchange(&mut server_with(scram(hash), &[]), &mut client, Some(&key))
        };
        assert_eq!(try_with("pencil").unwrap(), "juliet");
        assert_eq!(try_with("pencils").unwrap_err(), SaslError::NotAuthorized);
    }
}

#[test]
fn unknown_users_look_like_wrong_passwords() {
    let run = |user: &str| {
        let mut server = server_with(Mechanism::ScramSha256, &[]);
        let mut client = Client::new(Hash::Sha256, user, password("pencil"), CLIENT_NONCE);
        let step = server.start(Some(&client.first()));
        assert!(matches!(step, Step::NeedKeys { .. }));
        let first = challenge(server.keys(None, &fake()));
        let answer = client.respond(&first).unwrap();
        assert_eq!(failure(server.step(&answer)), SaslError::NotAuthorized);
        String::from_utf8(first).unwrap()
    };
    let salt = |first: String| first.split(',').nth(1).unwrap().to_owned();
    let first = run("nobody");
    assert!(first.ends_with(",i=4096"));
    assert_eq!(first, run("nobody"), "the same answer each time");
    assert_eq!(salt(run("nobody")), salt(run("NOBODY")));
    assert_ne!(salt(run("nobody")), salt(run("somebody")));
    let real = key(Hash::Sha256);
    assert_eq!(
        STANDARD
            .decode(&salt(run("nobody"))["s=".len()..])
            .unwrap()
            .len(),
        real.salt.len(),
        "fake salts are as long as real ones"
    );
}

/// Who holds the secret could make a proof for a fake key; it must not open anything.
#[test]
fn the_right_proof_for_a_fake_key_is_refused() {
    let mut server = server_with(Mechanism::ScramSha1, &[]);
    server.start(Some(b"n,,n=nobody,r=abc"));
    challenge(server.keys(None, &fake()));
    let State::Scram(exchange) = &mut server.state else {
        panic!("SCRAM")
    };
    exchange.plant(key(Hash::Sha1));
    let nonce = STANDARD.encode([5; NONCE_BYTES]);
    let mut client = Client::new(Hash::Sha1, "nobody", password("pencil"), "abc");
    let salt = STANDARD.encode(key(Hash::Sha1).salt);
    let answer = client
        .respond(format!("r=abc{nonce},s={salt},i=4096").as_bytes())
        .unwrap();
    assert_eq!(failure(server.step(&answer)), SaslError::NotAuthorized);
}

#[test]
fn plus_binds_to_the_connection() {
    for hash in Hash::ALL {
        let key = key(hash);
        for bound in bindings() {
            let mut client = Client::new(hash, "juliet", password("pencil"), CLIENT_NONCE)
                .binding(ClientBinding::Bound(bound));
            let mut server = server_with(plus(hash), &bindings());
            assert_eq!(
                exchange(&mut server, &mut client, Some(&key)).unwrap(),
                "juliet"
            );
        }
    }
}

#[test]
fn a_relayed_exchange_is_refused() {
    let elsewhere = ChannelBinding {
        kind: BindingKind::TlsExporter,
        data: vec![0xCC; 32],
    };
    let mut client = Client::new(Hash::Sha256, "juliet", password("pencil"), CLIENT_NONCE)
        .binding(ClientBinding::Bound(elsewhere));
    let mut server = server_with(Mechanism::ScramSha256Plus, &bindings());
    let result = exchange(&mut server, &mut client, Some(&key(Hash::Sha256)));
    assert_eq!(result, Err(SaslError::BindingMismatch));
}

#[test]
fn binding_flags_must_fit() {
    let start = |mechanism, bindings: &[ChannelBinding], flag: &str| {
        let first = format!("{flag},,n=juliet,r=abc");
        match server_with(mechanism, bindings).start(Some(first.as_bytes())) {
            Step::Failure(error) => Err(error),
            _ => Ok(()),
        }
    };
    let all = bindings();
    let only_exporter = &all[..1];
    let plain = Mechanism::ScramSha256;
    let plus = Mechanism::ScramSha256Plus;
    assert_eq!(start(plain, &[], "n"), Ok(()));
    assert_eq!(start(plain, &[], "y"), Ok(()));
    assert_eq!(start(plain, &all, "n"), Ok(()));
    assert_eq!(start(plain, &all, "y"), Err(SaslError::Downgrade));
    assert_eq!(
        start(plain, &all, "p=tls-exporter"),
        Err(SaslError::BindingFlag)
    );
    assert_eq!(start(plus, &all, "n"), Err(SaslError::BindingFlag));
    assert_eq!(start(plus, &all, "y"), Err(SaslError::BindingFlag));
    assert_eq!(
        start(plus, &all, "p=tls-unique"),
        Err(SaslError::BindingUnsupported)
    );
    assert_eq!(
        start(plus, only_exporter, "p=tls-server-end-point"),
        Err(SaslError::BindingUnsupported)
    );
    assert_eq!(start(plus, &all, "p=tls-server-end-point"), Ok(()));
    assert_eq!(
        SaslError::Downgrade.scram_error(),
        "server-does-support-channel-binding"
    );
    assert_eq!(
        SaslError::BindingUnsupported.scram_error(),
        "unsupported-channel-binding-type"
    );
    assert_eq!(SaslError::Downgrade.condition(), Condition::NotAuthorized);
}

/// The gs2 header is signed: a flag changed on the way is noticed by `c=`.
#[test]
fn a_changed_gs2_header_is_noticed() {
    let key = key(Hash::Sha256);
    let mut client = Client::new(Hash::Sha256, "juliet", password("pencil"), CLIENT_NONCE)
        .binding(ClientBinding::NotOffered);
    let mut server = server_with(Mechanism::ScramSha256, &bindings());
    let sent = String::from_utf8(client.first())
        .unwrap()
        .replacen('y', "n", 1);
    assert!(matches!(
        server.start(Some(sent.as_bytes())),
        Step::NeedKeys { .. }
    ));
    let answer = client
        .respond(&challenge(server.keys(Some(&key), &fake())))
        .unwrap();
    assert_eq!(failure(server.step(&answer)), SaslError::BindingMismatch);
}

#[test]
fn only_advertised_mechanisms_run() {
    let setup = |mechanism, advertised| Setup {
        mechanism,
        host: HOST,
        advertised,
        bindings: &[],
        nonce: [0; NONCE_BYTES],
    };
    let only = [Mechanism::ScramSha256];
    assert!(Server::new(&setup(Mechanism::ScramSha256, &only)).is_ok());
    for mechanism in [
        Mechanism::Plain,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256Plus,
    ] {
        let refused = Server::new(&setup(mechanism, &only)).err().unwrap();
        assert_eq!(refused.condition().name(), "invalid-mechanism");
    }
}

#[test]
fn the_authzid_is_the_users_bare_jid() {
    let start = |user: &str, authzid: &str| {
        let first = format!("n,a={authzid},n={user},r=abc");
        match server_with(Mechanism::ScramSha256, &[]).start(Some(first.as_bytes())) {
            Step::Failure(error) => error.condition().name(),
            Step::NeedKeys { authzid: found, .. } => {
                assert_eq!(found.as_deref(), Some(authzid));
                "accepted"
            }
            _ => "?",
        }
    };
    assert_eq!(start("juliet", "juliet@example.com"), "accepted");
    assert_eq!(start("Juliet", "juliet@EXAMPLE.com"), "accepted");
    for authzid in [
        "romeo@example.com",
        "juliet@example.org",
        "juliet",
        "example.com",
        "@example.com",
        "juliet@",
        "juliet@example.com/balcony",
        "juliet@example.com@example.com",
        "a@b@example.com",
    ] {
        assert_eq!(start("juliet", authzid), "invalid-authzid", "{authzid}");
    }
    assert_eq!(start("a@b", "a@b@example.com"), "invalid-authzid");
}

#[test]
fn plain_asks_for_a_check() {
    let run = |message: &[u8], right| {
        let mut server = server_with(Mechanism::Plain, &[]);
        match server.start(Some(message)) {
            Step::NeedVerify { user, password } => {
                assert_eq!((user.as_str(), password.expose()), ("juliet", "pencil"));
                match server.verified(right) {
                    Step::Success { user, data, .. } => {
                        assert!(data.is_empty());
                        Ok(user)
                    }
                    step => Err(failure(step)),
                }
            }
            step => Err(failure(step)),
        }
    };
    let message = client::plain("juliet@example.com", "juliet", &password("pencil"));
    assert_eq!(run(&message, true).unwrap(), "juliet");
    assert_eq!(run(&message, false), Err(SaslError::NotAuthorized));
    assert_eq!(run(b"\0juliet\0pencil", true).unwrap(), "juliet");
    assert_eq!(
        run(b"romeo@example.com\0juliet\0pencil", true),
        Err(SaslError::InvalidAuthzid)
    );
    assert_eq!(run(b"\0juliet\0\x07", true), Err(SaslError::NotAuthorized));
    assert_eq!(run(b"\0\x07\0pencil", true), Err(SaslError::UserName));
    for bad in [
        &b""[..],
        b"juliet",
        b"\0juliet",
        b"\0juliet\0",
        b"\0\0pencil",
        b"\0a\0b\0c",
        b"\0a\0\xFF",
    ] {
        assert!(
            matches!(run(bad, true), Err(SaslError::Malformed(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn without_initial_response_it_is_asked_for() {
    let mut server = server_with(Mechanism::Plain, &[]);
    assert_eq!(challenge(server.start(None)), b"");
    assert!(matches!(
        server.step(b"\0juliet\0pencil"),
        Step::NeedVerify { .. }
    ));
}

#[test]
fn calls_out_of_turn_end_the_exchange() {
    let key = key(Hash::Sha256);
    let begun = || {
        let mut server = server_with(Mechanism::ScramSha256, &[]);
        server.start(Some(b"n,,n=u,r=abc"));
        server
    };
    assert_eq!(failure(begun().step(b"n,,n=u,r=abc")), SaslError::OutOfTurn);
    assert_eq!(failure(begun().verified(true)), SaslError::OutOfTurn);
    let mut fresh = server_with(Mechanism::ScramSha256, &[]);
    assert_eq!(
        failure(fresh.keys(Some(&key), &fake())),
        SaslError::OutOfTurn
    );
    assert_eq!(failure(fresh.step(b"n,,n=u,r=abc")), SaslError::OutOfTurn);
    assert_eq!(
        failure(server_with(Mechanism::Plain, &[]).verified(true)),
        SaslError::OutOfTurn
    );
    let mut plain = server_with(Mechanism::Plain, &[]);
    plain.start(Some(b"\0u\0p"));
    assert!(matches!(plain.verified(true), Step::Success { .. }));
    assert_eq!(failure(plain.verified(true)), SaslError::OutOfTurn);

    let mut client = Client::new(Hash::Sha256, "u", password("pencil"), CLIENT_NONCE);
    let mut server = server_with(Mechanism::ScramSha256, &[]);
    exchange(&mut server, &mut client, Some(&key)).unwrap();
    assert_eq!(failure(server.step(b"anything")), SaslError::OutOfTurn);
}

#[test]
fn finals_that_do_not_fit_are_refused() {
    let nonce = format!("abc{}", STANDARD.encode([5; NONCE_BYTES]));
    let last = |text: &str| {
        let mut server = server_with(Mechanism::ScramSha1, &[]);
        server.start(Some(b"n,,n=u,r=abc"));
        challenge(server.keys(Some(&key(Hash::Sha1)), &fake()));
        failure(server.step(text.replace("NONCE", &nonce).as_bytes()))
    };
    let proof = STANDARD.encode([0; 20]);
    assert_eq!(
        last(&format!("c=biws,r=NONCE,p={proof}")),
        SaslError::NotAuthorized
    );
    assert!(matches!(
        last(&format!("c=biws,r=abc,p={proof}")),
        SaslError::Malformed(_)
    ));
    assert!(matches!(
        last(&format!("c=biws,r=NONCEx,p={proof}")),
        SaslError::Malformed(_)
    ));
    assert_eq!(
        last(&format!("c=eSws,r=NONCE,p={proof}")),
        SaslError::BindingMismatch
    );
    assert_eq!(
        last(&format!("c=bi*s,r=NONCE,p={proof}")),
        SaslError::IncorrectEncoding
    );
    assert_eq!(last("c=biws,r=NONCE,p=AAA"), SaslError::IncorrectEncoding);
    assert!(matches!(
        last("c=biws,r=NONCE,p=AAAA"),
        SaslError::Malformed(_)
    ));
    assert_eq!(
        last(&format!("c=biws,r=NONCE,m=x,p={proof}")),
        SaslError::ExtensionRefused
    );
}

#[test]
fn messages_and_names_are_bounded() {
    let start =
        |message: &[u8]| failure(server_with(Mechanism::ScramSha256, &[]).start(Some(message)));
    let long = vec![b'a'; MAX_MESSAGE_BYTES + 1];
    assert!(matches!(start(&long), SaslError::TooLong { .. }));
    let name = "a".repeat(MAX_NAME_BYTES + 1);
    let message = format!("n,,n={name},r=abc");
    assert!(matches!(
        start(message.as_bytes()),
        SaslError::TooLong { .. }
    ));
    assert!(matches!(start(b"n,,n=u\0,r=abc"), SaslError::Malformed(_)));
    assert!(matches!(start(b"n,,n=\xFF,r=abc"), SaslError::Malformed(_)));
    assert_eq!(start("n,,n=\u{AD},r=abc".as_bytes()), SaslError::UserName);
}

#[test]
fn keys_of_another_hash_are_a_fault_of_the_store() {
    let mut server = server_with(Mechanism::ScramSha256, &[]);
    server.start(Some(b"n,,n=u,r=abc"));
    let error = failure(server.keys(Some(&key(Hash::Sha1)), &fake()));
    assert_eq!(error.condition(), Condition::TemporaryAuthFailure);
}

#[test]
fn nothing_secret_is_printed() {
    let mut server = server_with(Mechanism::Plain, &[]);
    let step = server.start(Some(b"\0juliet\0hunter2"));
    assert!(!format!("{step:?} {server:?}").contains("hunter2"));
    let mut server = server_with(Mechanism::ScramSha256Plus, &bindings());
    server.start(Some(b"p=tls-exporter,,n=u,r=abc"));
    server.keys(Some(&key(Hash::Sha256)), &fake());
    let printed = format!("{server:?}");
    assert_eq!(
        printed,
        r#"Server { host: "example.com", state: Scram(SHA-256, Final) }"#
    );
}

fn any_mechanism() -> impl Strategy<Value = Mechanism> {
    proptest::sample::select(Mechanism::ALL.to_vec())
}

/// Bytes that get further into the grammar than random ones.
fn grammatical() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "n,,",
        "y,,",
        "p=tls-exporter,,",
        "a=u@example.com,",
        "n=u",
        "r=abc",
        ",",
        "=",
        "=2C",
        "c=biws",
        "p=AAAA",
        "m=x",
        "x=1",
        "\0",
        "\u{AD}",
        "\u{FDFA}",
        "u",
        "@",
    ]);
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_let_anyone_in(
        mechanism in any_mechanism(),
        first in prop_oneof![proptest::collection::vec(any::<u8>(), 0..60), grammatical()],
        last in prop_oneof![proptest::collection::vec(any::<u8>(), 0..60), grammatical()],
        known in any::<bool>(),
    ) {
        let mut server = server_with(mechanism, &bindings());
        let step = server.start(Some(&first));
        let step = match step {
            Step::NeedKeys { hash, .. } => {
                let made_up = fake().key(hash, "", "");
                let stored = StoredKey { stored_key: vec![1; hash.size()], ..made_up };
                server.keys(known.then_some(&stored), &fake())
            }
            Step::NeedVerify { .. } => server.verified(false),
            step => step,
        };
        prop_assert!(!matches!(step, Step::Success { .. }), "{:?}", step);
        let step = server.step(&last);
        prop_assert!(!matches!(step, Step::Success { .. }), "{:?}", step);
    }

    #[test]
    fn any_name_that_saslprep_takes_logs_in(name in "[a-zA-Z0-9=,.\u{e9}\u{4e2d}-]{1,40}") {
        let hash = Hash::Sha256;
        let stored = key(hash);
        let mut client = Client::new(hash, &name, password("pencil"), CLIENT_NONCE);
        let user = exchange(&mut server_with(scram(hash), &[]), &mut client, Some(&stored));
        prop_assert_eq!(user, Ok(name));
    }
}
