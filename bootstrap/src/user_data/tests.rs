//! Every form, and what is said about everything else.

mod properties;

use proptest::prelude::*;

use super::*;
use properties::{any_body, any_bytes, gzip};

fn said(bytes: &[u8]) -> (Code, String) {
    let error = parse(bytes, "user-data").unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn forms() {
    for (text, form, domain) in [
        ("example.com", Form::Domain, "example.com"),
        ("example.com\r\n", Form::Domain, "example.com"),
        (
            "\u{feff}# chat\n\nExample.COM.\n",
            Form::Domain,
            "example.com",
        ),
        ("localhost", Form::Domain, "localhost"),
        ("[::1]", Form::Domain, "[::1]"),
        ("münchen.example", Form::Domain, "münchen.example"),
        ("domain=example.com", Form::Assignments, "example.com"),
        (
            "# c\ndomain = example.com\nlimits.depth = 32\n",
            Form::Assignments,
            "example.com",
        ),
        ("domains: [example.com]\n", Form::Yaml, "example.com"),
        (
            "---\ndomains:\n  - example.com\n",
            Form::Yaml,
            "example.com",
        ),
        ("{domains: [example.com]}\n", Form::Yaml, "example.com"),
        (
            "#cirrus\ndomains: [example.com]\n",
            Form::Yaml,
            "example.com",
        ),
        (
            "#cirrus\ndomain=example.com\n",
            Form::Assignments,
            "example.com",
        ),
        ("#cirrus\nexample.com\n", Form::Domain, "example.com"),
        (
            "#cloud-config\npackages: [vim]\ncirrus:\n  domains: [example.com]\n",
            Form::CloudConfig,
            "example.com",
        ),
        (
            "hosts:\n  - example.com\nmodules:\n  mod_ping: {}\n",
            Form::Ejabberd,
            "example.com",
        ),
    ] {
        for bytes in [text.as_bytes().to_vec(), gzip(text.as_bytes())] {
            let data = parse(&bytes, "user-data").unwrap();
            assert_eq!(data.form, form, "{text}");
            assert_eq!(data.given.config.domains[0].as_str(), domain, "{text}");
            assert!(data.given.has("domains"), "{text}");
        }
    }
}

const READS: &str = "a domain (`example.com`), `domain=example.com` and further key=value lines, \
                     a Cirrus YAML configuration (`domains: [example.com]`), or an ejabberd.yml, \
                     each also gzipped or as a part of a MIME multipart";

#[test]
fn what_is_not_understood_and_what_is_said() {
    use Code::{
        ConfigInvalid, UserDataBinary, UserDataEmpty, UserDataForeign, UserDataUnrecognised,
        UserDataUnsupported,
    };
    let empty = "user-data: empty; the shortest user-data is a domain: `example.com`";
    for (text, code, expected) in [
        ("", UserDataEmpty, empty.into()),
        (" \n\t\n", UserDataEmpty, empty.into()),
        ("# only a comment\n", UserDataEmpty, empty.into()),
        (
            "#cloud-config\npackages: [vim]\n",
            UserDataForeign,
            format!(
                "user-data:1:1: a #cloud-config, which is not for Cirrus; Cirrus reads {READS}"
            ),
        ),
        (
            "#!/bin/sh\necho domain=example.com\n",
            UserDataForeign,
            format!("user-data:1:1: a script, which is not for Cirrus; Cirrus reads {READS}"),
        ),
        (
            "#cloud-config\ncirrus:\n  domians: [example.com]\n",
            ConfigInvalid,
            "user-data:3:3: domians: unknown option; did you mean `domains`?\n\
             user-data:3:3: domains: missing; it has no default"
                .into(),
        ),
        (
            "#cloud-config\ncirrus:\n",
            ConfigInvalid,
            "user-data: the file is empty; the shortest configuration is `domains: [example.com]`"
                .into(),
        ),
        (
            "hosts: [example.com]\ninclude_config_file: more.yml\n",
            UserDataUnsupported,
            format!(
                "user-data:2:1: `include_config_file`: another file does not come with the \
                 user-data, so put its content here; this version reads {READS}"
            ),
        ),
        (
            "config=s3://bucket/cirrus.yaml\n",
            UserDataUnsupported,
            format!(
                "user-data:1:1: a reference to a configuration (`config=`) where the \
                 configuration itself must be; this version reads {READS}"
            ),
        ),
        (
            "hello, world: this is prose\n",
            UserDataUnrecognised,
            format!("user-data:1:1: `hello, world: this is prose` is none of {READS}"),
        ),
        (
            "example.com\nexample.org\n",
            UserDataUnrecognised,
            format!("user-data:1:1: `example.com` is none of {READS}"),
        ),
        (
            "<xml/>\n",
            UserDataUnrecognised,
            format!("user-data:1:1: `<xml/>` is none of {READS}"),
        ),
        (
            "exa_mple.com\n",
            ConfigInvalid,
            "user-data:1:1: domains: `exa_mple.com` is not a domain: the host has the \
             character '_', which it may not have"
                .into(),
        ),
        (
            "https://example.com\n",
            ConfigInvalid,
            "user-data:1:1: domains: `https://example.com` is not a domain: leave out `https://`"
                .into(),
        ),
        (
            "domian=example.com\n",
            ConfigInvalid,
            "user-data:1:1: domian: unknown option; did you mean `domains`?\n\
             user-data:1:1: domains: missing; it has no default"
                .into(),
        ),
        (
            "domian: [example.com]\n",
            ConfigInvalid,
            "user-data:1:1: domian: unknown option; did you mean `domains`?\n\
             user-data:1:1: domains: missing; it has no default"
                .into(),
        ),
        (
            "domain=example.com\nlimits.depth=deep\n",
            ConfigInvalid,
            "user-data:2:14: limits.depth: expected a whole number, found the text `deep`".into(),
        ),
        (
            "example.com\0",
            UserDataBinary,
            "user-data:1:12: the file is not text: control character U+0000".into(),
        ),
    ] {
        assert_eq!(said(text.as_bytes()), (code, expected), "{text}");
    }
}

#[test]
fn bytes_that_are_no_text() {
    let elf = b"\x7fELF\x02\x01\x01\0";
    let expected = "user-data:1:1: the file is not text: control character U+007F";
    assert_eq!(said(elf), (Code::UserDataBinary, expected.into()));
    let latin = b"domain=m\xfcnchen.example\n";
    let expected = "user-data:1:9: the file is not text: byte 0xFC is not UTF-8";
    assert_eq!(said(latin), (Code::UserDataBinary, expected.into()));
}

#[test]
fn sizes() {
    let limit = format!("domain=example.com\n#{}", "x".repeat(MAX_USER_DATA - 20));
    assert_eq!(limit.len(), MAX_USER_DATA);
    assert!(parse(limit.as_bytes(), "user-data").is_ok());
    let expected = "user-data: 16385 bytes; user-data has at most 16384 (gzip it)";
    let over = format!("{limit}x");
    assert_eq!(
        said(over.as_bytes()),
        (Code::UserDataOversized, expected.into())
    );
    // Compressed, more fits: up to the limit of a configuration.
    let large = format!("domain=example.com\n#{}", "x".repeat(100_000));
    assert!(parse(&gzip(large.as_bytes()), "user-data").unwrap().gzipped);
}

#[test]
fn gzip_that_is_none_and_bombs() {
    let (code, text) = said(b"\x1f\x8b\x08\0garbage");
    assert_eq!(code, Code::UserDataGzip);
    assert!(
        text.starts_with("user-data: starts like gzip, but does not inflate: "),
        "{text}"
    );
    let cut = &gzip(b"domain=example.com\n")[..20];
    assert_eq!(said(cut).0, Code::UserDataGzip);
    let bomb = gzip(&vec![b'a'; 10_000_000]);
    let expected = format!(
        "user-data: a gzip bomb: its {} bytes inflate to more than 262144; \
         a configuration has at most that",
        bomb.len()
    );
    assert_eq!(said(&bomb), (Code::UserDataGzip, expected));
    // Gzip inside of gzip is not unwrapped.
    assert_eq!(said(&gzip(&gzip(b"example.com"))).0, Code::UserDataBinary);
}

/// A multipart of these headers and contents.
fn multipart(parts: &[(&str, &str)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(headers, content)| format!("--b\n{headers}\n\n{content}\n"))
        .collect();
    format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n")
}

const CLOUD: (&str, &str) = (
    "Content-Type: text/cloud-config",
    "#cloud-config\npackages: [vim]",
);
const SCRIPT: (&str, &str) = ("Content-Type: text/x-shellscript", "#!/bin/sh\ntrue");

#[test]
fn the_part_for_cirrus() {
    let zipped = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(gzip(b"domain=example.com\n"))
    };
    let base64 = "Content-Type: text/x-cirrus\nContent-Transfer-Encoding: base64";
    let inner = multipart(&[("Content-Type: text/x-cirrus", "example.com")]);
    let (inner_headers, inner_body) = inner.split_once("\n\n").unwrap();
    let inner_headers = inner_headers.replace("=b", "=c");
    let inner_body = inner_body.replace("--b", "--c");
    for (part, form, gzipped) in [
        (
            ("Content-Type: application/vnd.cirrus-config", "example.com"),
            Form::Domain,
            false,
        ),
        (
            ("Content-Type: text/x-cirrus", "domain=example.com"),
            Form::Assignments,
            false,
        ),
        (
            ("Content-Type: text/plain", "domain=example.com"),
            Form::Assignments,
            false,
        ),
        (
            ("Content-Type: text/plain", "domains: [example.com]"),
            Form::Yaml,
            false,
        ),
        (
            ("Content-Type: text/x-not-multipart", "example.com"),
            Form::Domain,
            false,
        ),
        (
            ("X-Odd: header", "#cirrus\ndomain=example.com"),
            Form::Assignments,
            false,
        ),
        (
            ("Content-Type: text/plain", "hosts: [example.com]"),
            Form::Ejabberd,
            false,
        ),
        (
            (
                "Content-Type: text/cloud-config",
                "#cloud-config\ncirrus: {domains: [example.com]}",
            ),
            Form::CloudConfig,
            false,
        ),
        ((base64, &zipped), Form::Assignments, true),
        (
            (inner_headers.as_str(), inner_body.as_str()),
            Form::Domain,
            false,
        ),
    ] {
        for parts in [vec![CLOUD, part, SCRIPT], vec![part]] {
            let text = multipart(&parts);
            for text in [text.clone(), text.replace('\n', "\r\n")] {
                let data =
                    parse(text.as_bytes(), "user-data").unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(
                    data.given.config.domains[0].as_str(),
                    "example.com",
                    "{text}"
                );
                assert_eq!((data.form, data.gzipped), (form, gzipped), "{text}");
                assert_eq!(
                    data.notes
                        .iter()
                        .filter(|n| n.text.contains("boundary"))
                        .count(),
                    0
                );
            }
        }
    }
    // A whole message may be one part.
    let alone = "MIME-Version: 1.0\nContent-Type: text/x-cirrus\n\nexample.com\n";
    assert!(parse(alone.as_bytes(), "user-data").unwrap().part.is_some());
    assert!(parse(&gzip(alone.as_bytes()), "user-data").unwrap().gzipped);
}

#[test]
fn multiparts_that_are_not_understood() {
    let ours = ("Content-Type: text/x-cirrus", "domain=example.com");
    let wrong = (
        "Content-Type: text/x-cirrus",
        "domain=example.com\nlimits.depth=5",
    );
    let encoded = (
        "Content-Type: text/x-cirrus; name=c.txt\nContent-Transfer-Encoding: quoted-printable",
        "domain=3Dexample.com\nlimits.depth=3D5",
    );
    let broken = (
        "Content-Type: text/x-cirrus\nContent-Transfer-Encoding: base64",
        "%%%",
    );
    for (parts, code, expected) in [
        (
            vec![CLOUD, SCRIPT],
            Code::UserDataForeign,
            "user-data:1:1: a MIME multipart with no part for Cirrus (part 1: text/cloud-config; \
             part 2: text/x-shellscript), which is not for Cirrus; Cirrus reads",
        ),
        (
            vec![ours, CLOUD, ours],
            Code::UserDataMime,
            "user-data:15:1: MIME: several parts are for Cirrus (part 1: text/x-cirrus and part \
             3: text/x-cirrus); leave one",
        ),
        (
            vec![CLOUD, wrong],
            Code::ConfigInvalid,
            "user-data:13:14: limits.depth: 5 is out of range; allowed are 8 to 512",
        ),
        (
            vec![encoded],
            Code::ConfigInvalid,
            "user-data (part 1, c.txt):2:14: limits.depth: 5 is out of range",
        ),
        (
            vec![broken],
            Code::UserDataMime,
            "user-data:7:1: MIME: part 1: not base64",
        ),
        (
            vec![CLOUD, ("Content-Type: text/x-cirrus", "#!/bin/sh")],
            Code::UserDataForeign,
            "user-data:12:1: a script, which is not for Cirrus",
        ),
        (
            vec![("Content-Type: text/plain", "please read this")],
            Code::UserDataForeign,
            "user-data:1:1: a MIME multipart with no part for Cirrus (part 1: text/plain)",
        ),
    ] {
        let text = multipart(&parts);
        let (found, said) = said(text.as_bytes());
        assert_eq!(found, code, "{said}");
        assert!(said.starts_with(expected), "{said}\n{text}");
    }
}

#[test]
fn nothing_that_is_shown_moves_the_cursor() {
    for text in [
        "what\tis\u{85}this?\r;",
        "hosts: [\"a\\eb.example\"]\n",
        "hosts: [example.com]\n\"x\\e[2J\\ny\": \"a\\e[2J\"\n",
        "hosts: [example.com]\nloglevel: \"a\\e[2J\"\nmodules:\n  \"mod_\\e[2J\": {}\n",
        "hosts: [example.com]\ncertfiles: [\"/a\\e[2J\"]\nacl:\n  \"b\\e\": {\"c\\e\": \"d\\e\"}\n",
        "hosts: [a.example]\nlisten:\n  - port: 1\n    module: \"m\\e\"\n    \"o\\e\": \"v\\e\"\n",
    ] {
        any_bytes(text.as_bytes());
    }
}

#[test]
fn what_is_mended_is_noted() {
    let text = multipart(&[("Content-Type: text/x-cirrus", "domain=example.com")]);
    let cut = text.replace("--b--\n", "");
    let data = parse(cut.as_bytes(), "user-data").unwrap();
    let notes: Vec<String> = data.notes.iter().map(ToString::to_string).collect();
    let expected = "user-data:7: the last boundary (`--b--`) is missing; read to the end";
    assert_eq!(notes, [expected]);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        any_bytes(&bytes);
        any_bytes(&gzip(&bytes));
    }

    #[test]
    fn no_text_panics(text in "(domains?|#cirrus|#|=|:|[\\[\\]{}]|example\\.com|[ \n\ta-zé.-]){0,60}") {
        any_bytes(text.as_bytes());
        any_body(&text);
    }
}
