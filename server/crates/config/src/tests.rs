//! Good files, bad files with their exact messages, and properties.

use proptest::prelude::*;

use super::*;

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, "cirrus.yaml") {
        Ok(_) => panic!("accepted: {text}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_error_is_one_line_without_control_characters() {
    for text in [
        r#"domains: ["a\e[2J\nb c"]"#,
        "domains: [a]\n\"x\\ny\\e[2J\": 1\n",
        "domains: [a]\nlog:\n  level: \"a\\u0085\\u009b2J\"\n",
    ] {
        for error in errors(text) {
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}

#[test]
fn one_line_is_enough() {
    let config = Config::parse("domains: [Example.COM]\n", "cirrus.yaml").unwrap();
    assert_eq!(config, Config::new("example.com").unwrap());
    assert_eq!(config.prefix(), "example.com");
    assert_eq!(config.limits.stanza_bytes, 262_144);
    assert_eq!(config.stream_management.resume_seconds, 300);
}

#[test]
fn where_clients_reach_a_node() {
    for (text, host, seeks) in [
        ("a.example.com", Some("a.example.com"), false),
        ("192.0.2.1", Some("192.0.2.1"), false),
        ("2001:db8::1", Some("2001:db8::1"), false),
        ("auto", None, true),
    ] {
        let text = format!("domains: [a]\ncluster: {{ public_address: \"{text}\" }}\n");
        let cluster = Config::parse(&text, "f").unwrap().cluster;
        assert_eq!(cluster.public_host(), host, "{text}");
        assert_eq!(cluster.seeks_public_host(), seeks, "{text}");
    }
    for text in [
        "",
        "a.example.com:5222",
        "[2001:db8::1]",
        "https://a",
        "a b",
    ] {
        let text = format!("domains: [a]\ncluster: {{ public_address: \"{text}\" }}\n");
        assert_eq!(errors(&text).len(), 1, "{text}");
    }
}

#[test]
fn every_form_of_value() {
    let text = r#"
domains: [example.com, münchen.example]
store: { backend: aws, region: eu-west-1, account: "012345678901" }
listen:
  c2s: [":15222", "127.0.0.1:15223"]
  health: null
tls:
  min_version: 1.3
  certificates:
    - host: example.com
      chain: /etc/cirrus/chain.pem
      key: /etc/cirrus/key.pem
auth: { mechanisms: [SCRAM-SHA-256], plain: true }
archive:
"#;
    let config = Config::parse(text, "cirrus.yaml").unwrap();
    assert_eq!(config.store.account.as_deref(), Some("012345678901"));
    assert_eq!(config.listen.c2s[0], "[::]:15222".parse().unwrap());
    assert_eq!(config.listen.health, None);
    assert_eq!(config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(config.tls.certificates[0].host.as_str(), "example.com");
    assert_eq!(config.archive, Config::new("a.example").unwrap().archive);
    assert_eq!(Config::parse(&config.render(), "again").unwrap(), config);
}

#[test]
fn bad_files_and_what_is_said() {
    for (text, expected) in BAD {
        assert_eq!(errors(text), [*expected], "{text}");
    }
}

const BAD: &[(&str, &str)] = &[
    (
        "",
        "cirrus.yaml: the file is empty; the shortest configuration is `domains: [example.com]`",
    ),
    (
        "# only a comment\n---\n",
        "cirrus.yaml: the file is empty; the shortest configuration is `domains: [example.com]`",
    ),
    (
        "domains: [a.example]\nlimits:\n  stanza_byte: 5\n",
        "cirrus.yaml:3:3: limits.stanza_byte: unknown option; \
         did you mean `limits.stanza_bytes`?",
    ),
    (
        "domains: [a.example]\nresume_seconds: 60\n",
        "cirrus.yaml:2:1: resume_seconds: unknown option; \
         did you mean `stream_management.resume_seconds`?",
    ),
    (
        "domains: [a.example]\nlog: { colour: red }\n",
        "cirrus.yaml:2:8: log.colour: unknown option; valid here are format, level",
    ),
    (
        "domains: [a.example]\nlimits: { depth: many }\n",
        "cirrus.yaml:2:18: limits.depth: expected a whole number, found the text `many`",
    ),
    (
        "domains: [a.example]\nlimits: { depth: 1.5 }\n",
        "cirrus.yaml:2:18: limits.depth: expected a whole number, found the number 1.5",
    ),
    (
        "domains: [a.example]\nlimits: { depth: 100000 }\n",
        "cirrus.yaml:2:18: limits.depth: 100000 is out of range; allowed are 8 to 512",
    ),
    (
        "domains: [a.example]\nlimits: { depth: -1 }\n",
        "cirrus.yaml:2:18: limits.depth: -1 is out of range; \
         allowed are 0 to 18446744073709551615",
    ),
    (
        "domains: [a.example]\nauth: { plain: yes }\n",
        "cirrus.yaml:2:16: auth.plain: expected true or false, found the text `yes`",
    ),
    (
        "domains: [a.example]\nlog: { level: info }\nlog: { level: debug }\n",
        "cirrus.yaml:3:1: log: given twice; first in line 2",
    ),
    (
        "domains: [a.example]\nstore: { backend: dynamodb }\n",
        "cirrus.yaml:2:19: store.backend: `dynamodb` is not one of embedded, memory, aws",
    ),
    (
        "domains: [a.example]\nlog: { format: jsn }\n",
        "cirrus.yaml:2:16: log.format: `jsn` is not one of auto, text, json; did you mean `json`?",
    ),
    (
        "domains: [a.example]\nlimits: 5\n",
        "cirrus.yaml:2:9: limits: expected a section with options such as stanza_bytes, \
         unauthenticated_stanza_bytes, header_bytes, found the number 5",
    ),
    (
        "log: { level: info }\n",
        "cirrus.yaml:1:1: domains: missing; it has no default",
    ),
    (
        "domains: example.com\n",
        "cirrus.yaml:1:10: domains: expected a list (`[a, b]`) of: domain, \
         found the text `example.com`",
    ),
    (
        "domains: []\n",
        "cirrus.yaml:1:10: domains: the list is empty; at least one is needed",
    ),
    (
        "domains: [a.example, \"https://b.example\"]\n",
        "cirrus.yaml:1:22: domains[1]: `https://b.example` is not a domain: leave out `https://`",
    ),
    (
        "domains: [a.example, a.example]\n",
        "cirrus.yaml:1:10: domains: a.example is given twice",
    ),
    (
        "domains: [a.example]\nlisten: { c2s: [5222] }\n",
        "cirrus.yaml:2:17: listen.c2s[0]: expected an address and port such as `[::]:5222` or \
         `:5222` (write it in quotes), found the number 5222",
    ),
    (
        "domains: [a.example]\nlisten: { c2s: [\":99999\"] }\n",
        "cirrus.yaml:2:17: listen.c2s[0]: expected an address and port such as `[::]:5222` or \
         `:5222`, found the text `:99999`",
    ),
    (
        "domains: [a.example]\ncluster: { lease_ms: 1000, renew_ms: 900 }\n",
        "cirrus.yaml:2:38: cluster.renew_ms: at most half of cluster.lease_ms, which is 1000",
    ),
    (
        "domains: [a.example]\ntls: { certificates: [{ host: b.example, chain: c, key: k }] }\n",
        "cirrus.yaml:2:31: tls.certificates[0].host: b.example is not one of domains",
    ),
    (
        "domains: [a.example]\ntls: { certificates: [{ host: a.example, chain: c }] }\n",
        "cirrus.yaml:2:23: tls.certificates[0].key: missing; it has no default",
    ),
    (
        "domains: [a.example]\nstore: { prefix: \"a b\" }\n",
        "cirrus.yaml:2:18: store.prefix: a prefix has only a-z, A-Z, 0-9, '_', '-' and '.', \
         not ' '",
    ),
    (
        "domains: [a.example]\nstore: { account: 12 }\n",
        "cirrus.yaml:2:19: store.account: expected text (write it in quotes), found the number 12",
    ),
    (
        "just text\n",
        "cirrus.yaml:1:1: expected a section with options such as domains, store, listen, \
         found the text `just text`",
    ),
    (
        "domains: [a.example]\0\n",
        "cirrus.yaml:1:21: the file is not text: control character U+0000",
    ),
];

#[test]
fn broken_yaml_is_placed() {
    for (text, expected) in [
        (
            "domains: [a.example\nlog: {}\n",
            "2:4: not YAML: illegal placement of ':' indicator",
        ),
        (
            "domains:\n\t- a.example\n",
            "2:2: not YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "domains: [a.example]\nlog: 'x\n",
            "2:6: not YAML: unclosed quote",
        ),
        (
            "domains: [a.example]\n  log: {}\n",
            "2:3: not YAML: while parsing a block mapping, did not find expected key",
        ),
        (
            "domains: [a.example]\n---\ndomains: [b.example]\n",
            "2:1: not YAML: more than one document (`---`)",
        ),
        (
            "domains: *nothing\n",
            "1:10: not YAML: alias references unknown anchor",
        ),
    ] {
        assert_eq!(errors(text), [format!("cirrus.yaml:{expected}")], "{text}");
    }
}

#[test]
fn bombs_are_named() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs += &format!("a{i}: &a{i} [{refs}]\n");
    }
    let recursive = "a: &a [*a]\n".to_owned();
    let deep = format!("domains: {}{}\n", "[".repeat(5_000), "]".repeat(5_000));
    let stairs: String = (0..40).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    let wide = format!("domains: [{}]\n", "a,".repeat(100_000));
    for (text, expected) in [
        (laughs, "4:20: refused: aliases that repeat without bound"),
        (recursive, "1:8: refused: aliases that repeat without bound"),
        (deep, "1:26: refused: nested deeper than 16"),
        (stairs, "17:17: refused: nested deeper than 16"),
        (wide, "1:40005: refused: more than 20000 values"),
    ] {
        let expected = format!("cirrus.yaml:{expected}; a configuration never needs this");
        assert_eq!(errors(&text), [expected]);
    }
}

#[test]
fn what_is_no_file_of_ours() {
    let huge = format!("domains: [a.example] # {}\n", "x".repeat(MAX_FILE_BYTES));
    let found = errors(&huge);
    let expected = format!(
        "cirrus.yaml: the file has {} bytes; a configuration has at most 262144",
        huge.len()
    );
    assert_eq!(found, [expected]);
    let found = Config::parse_bytes(b"domains: [a]\nlog: \xFF\xFE", "cirrus.yaml").unwrap_err();
    let expected = "cirrus.yaml:2:6: the file is not text: byte 0xFF is not UTF-8";
    assert_eq!(found[0].to_string(), expected);
    let found = Config::parse_bytes(b"\x7FELF\x02\x01\x01\0\0\0", "cirrus.yaml").unwrap_err();
    let expected = "cirrus.yaml:1:1: the file is not text: control character U+007F";
    assert_eq!(found[0].to_string(), expected);
}

#[test]
fn all_faults_of_a_file_in_its_order() {
    let text = "log: { level: loud }\ndomains: [a b]\nlimits: { depth: 1, dept: 2 }\n";
    let found = Config::parse(text, "f").unwrap_err();
    let places: Vec<_> = found
        .iter()
        .map(|e| (e.line, e.column, e.path.as_str()))
        .collect();
    let expected = [
        (1, 15, "log.level"),
        (2, 11, "domains[0]"),
        (3, 18, "limits.depth"),
        (3, 21, "limits.dept"),
    ];
    assert_eq!(places, expected);
}

#[test]
fn an_alias_is_allowed_and_placed_where_it_stands() {
    let text = "domains: [&d a.example]\ntls: { certificates: [{host: *d, chain: c, key: k}] }\n";
    assert!(Config::parse(text, "f").is_ok());
}

/// A configuration with some options changed to allowed values.
fn some_config() -> impl Strategy<Value = Config> {
    let text = "[ -~à-ÿΑ-Ω一-丏]{1,40}";
    let numbers = (
        8usize..=512,
        100u64..=60_000,
        0u64..=600,
        4_096u32..=1_000_000,
    );
    let words = (
        prop::sample::select(vec![Backend::Embedded, Backend::Memory, Backend::Aws]),
        prop::sample::select(vec![LogLevel::Error, LogLevel::Trace]),
        any::<bool>(),
        prop::option::of("[a-zA-Z0-9][a-zA-Z0-9._-]{0,30}"),
    );
    let places = (
        text,
        text,
        prop::option::of(text),
        any::<u16>(),
        any::<u32>(),
    );
    (numbers, words, places).prop_map(|(numbers, words, places)| {
        let mut c = Config::new("example.com").unwrap();
        c.limits.depth = numbers.0;
        c.store.deadline_ms = numbers.1;
        c.stream_management.resume_seconds = numbers.2;
        c.auth.iterations = numbers.3;
        (c.store.backend, c.log.level) = (words.0, words.1);
        c.auth.plain = words.2;
        c.store.prefix = words.3;
        c.store.path = places.0.clone().into();
        let (host, chain, key) = (c.domains[0].clone(), places.0.into(), places.1.into());
        c.tls.certificates = vec![Certificate { host, chain, key }];
        c.cluster.zone = places.2;
        c.listen.c2s = vec![(std::net::Ipv4Addr::from(places.4), places.3).into()];
        c.listen.health = None;
        c
    })
}

proptest! {
    #[test]
    fn rendering_and_reading_give_the_same(config in some_config()) {
        let text = config.render();
        prop_assert_eq!(Config::parse(&text, "rendered").map_err(|e| e[0].to_string()), Ok(config));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Config::parse_bytes(&bytes, "f");
    }

    #[test]
    fn no_text_panics(
        text in "(domains|store|limits|depth|[a-z]{1,3}|[:\\-\\[\\]{}&*!|>'\"%@`,?#~ \n\t0-9.]|é){0,80}",
    ) {
        let lines = text.replace(':', "=");
        for result in [Config::parse(&text, "f"), Config::parse_assignments(&lines, "f")] {
            let Err(errors) = result else { continue };
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|e| !e.to_string().contains('\n')));
        }
    }
}
