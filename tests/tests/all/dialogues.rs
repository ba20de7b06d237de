//! Plays every dialogue of `tests/dialogues`, each against a server of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cirrus_tests::dialogue::parse;
use cirrus_tests::dialogue::play::play;
use cirrus_tests::server::Server;

/// One test for each file, so that they run side by side and can be run one by one.
macro_rules! dialogues {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_file_is_played() {
            let listed: BTreeSet<String> =
                [$(stringify!($name)),*].map(|name| name.replace('_', "-")).into();
            let there: BTreeSet<String> = std::fs::read_dir(folder())
                .unwrap()
                .filter_map(|entry| {
                    let path = entry.unwrap().path();
                    let is_dialogue = path.extension().is_some_and(|kind| kind == "xmpp");
                    is_dialogue.then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
                })
                .collect();
            assert_eq!(listed, there);
        }
    };
}

dialogues! {
    account_queries
    archive
    archive_preferences
    archive_retraction
    bind
    bind_conflict
    carbons
    client_state
    domains
    iq_errors
    message_content
    message_delivery
    message_nobody
    offline
    offline_killed
    offline_limit
    offline_restart
    ping
    presence
    presence_directed
    presence_errors
    roster
    roster_errors
    roster_versions
    sasl_attempts
    sasl_failures
    sasl_mechanisms
    sasl2
    sasl2_errors
    sasl2_inline
    server_queries
    sm_acknowledge
    sm_errors
    sm_expired
    sm_resume
    sm_resume_takeover
    stream_direct_tls
    stream_header_errors
    stream_open
    stream_order
    stream_stanza_errors
    stream_xml_errors
    subscription
    subscription_cancelled
    subscription_declined
    subscription_ended
    subscription_offline
    subscription_preapproved
    subscription_removed
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues")
}

fn run(name: &str) {
    let path = folder().join(format!("{}.xmpp", name.replace('_', "-")));
    let text = std::fs::read_to_string(&path).unwrap();
    let dialogue = match parse::dialogue(&text) {
        Ok(dialogue) => dialogue,
        Err(error) => panic!("{}: {error:#}", path.display()),
    };
    let mut server = match Server::start(&dialogue.options) {
        Ok(server) => server,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = play(&dialogue, &mut server) {
        panic!(
            "{}: {error:#}\n\n{}",
            path.display(),
            server.process().log()
        );
    }
}
