//! Every form, and what is said about everything else.

use std::io::Write;

use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

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
                     or a Cirrus YAML configuration (`domains: [example.com]`), each also gzipped";

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
            "#cloud-config\ncirrus:\n  domains: [example.com]\n",
            UserDataUnsupported,
            format!(
                "user-data:2:1: `cirrus:` inside of a #cloud-config; this version reads {READS}"
            ),
        ),
        (
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n",
            UserDataUnsupported,
            format!("user-data:1:1: a MIME multipart; this version reads {READS}"),
        ),
        (
            "hosts:\n  - example.com\nmodules:\n  mod_mam: {}\n",
            UserDataUnsupported,
            format!("user-data:1:1: an ejabberd configuration; this version reads {READS}"),
        ),
        (
            "config=s3://bucket/cirrus.yaml\n",
            UserDataUnsupported,
            format!(
                "user-data:1:1: a reference to a configuration elsewhere (`config=`); \
                 this version reads {READS}"
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

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes, "user-data");
        let _ = parse(&gzip(&bytes), "user-data");
    }

    #[test]
    fn no_text_panics(text in "(domains?|#cirrus|#|=|:|[\\[\\]{}]|example\\.com|[ \n\ta-zé.-]){0,60}") {
        if let Err(error) = parse(text.as_bytes(), "user-data") {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
