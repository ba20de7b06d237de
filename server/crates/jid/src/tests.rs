use std::collections::{BTreeSet, HashMap};

use super::*;

/// Input and the normalised text, or `None` if it is refused.
fn check(cases: &[(&str, Option<&str>)]) {
    for (input, expected) in cases {
        let parsed = Jid::parse(input);
        assert_eq!(
            parsed.as_ref().ok().map(Jid::as_str),
            *expected,
            "{input:?}: {parsed:?}"
        );
    }
}

#[test]
fn parts() {
    let jid = Jid::parse("Juliet@Example.COM/Balcony @ 5/2").unwrap();
    assert_eq!(jid.local(), Some("juliet"));
    assert_eq!(jid.host(), "example.com");
    assert_eq!(jid.resource(), Some("Balcony @ 5/2"));
    assert!(!jid.is_bare());
    assert_eq!(jid.to_string(), "juliet@example.com/Balcony @ 5/2");
    let bare = jid.bare();
    assert_eq!((bare.local(), bare.host()), (Some("juliet"), "example.com"));
    assert_eq!(bare.as_str(), "juliet@example.com");

    let host = Jid::parse("example.com").unwrap();
    assert_eq!(
        (host.local(), host.host(), host.resource()),
        (None, "example.com", None)
    );
    assert!(host.is_bare());
    let service = Jid::parse("example.com/echo").unwrap();
    assert_eq!((service.local(), service.resource()), (None, Some("echo")));
    assert_eq!(service.bare(), BareJid::parse("example.com").unwrap());
}

#[test]
fn examples_of_rfc_7622() {
    // Section 3.5, with the outcome that stringprep gives.
    check(&[
        ("juliet@example.com", Some("juliet@example.com")),
        ("juliet@example.com/foo", Some("juliet@example.com/foo")),
        (
            "juliet@example.com/foo bar",
            Some("juliet@example.com/foo bar"),
        ),
        (
            "juliet@example.com/foo@bar",
            Some("juliet@example.com/foo@bar"),
        ),
        ("foo\\20bar@example.com", Some("foo\\20bar@example.com")),
        ("fussball@example.com", Some("fussball@example.com")),
        ("fu\u{DF}ball@example.com", Some("fussball@example.com")),
        ("\u{3C0}@example.com", Some("\u{3C0}@example.com")),
        ("\u{3A3}@example.com/foo", Some("\u{3C3}@example.com/foo")),
        ("\u{3C3}@example.com/foo", Some("\u{3C3}@example.com/foo")),
        (
            "king@example.com/\u{265A}",
            Some("king@example.com/\u{265A}"),
        ),
        ("example.com", Some("example.com")),
        ("example.com/foobar", Some("example.com/foobar")),
        (
            "a.example.com/b@example.net",
            Some("a.example.com/b@example.net"),
        ),
        ("\"juliet\"@example.com", None),
        ("foo bar@example.com", None),
        ("juliet@example.com/", None),
        ("@example.com/", None),
        ("henry\u{2163}@example.com", Some("henryiv@example.com")),
        ("\u{265A}@example.com", Some("\u{265A}@example.com")),
        ("juliet@", None),
        ("/foobar", None),
    ]);
}

#[test]
fn local_parts() {
    check(&[
        ("@example.com", None),
        ("a\"@h", None),
        ("a&@h", None),
        ("a'@h", None),
        ("a:@h", None),
        ("a<@h", None),
        ("a>@h", None),
        ("a@b@h", None),
        ("a\u{0}@h", None),
        ("a\u{7F}@h", None),
        ("a\tb@h", None),
        (
            "a!#$%()*+,-.;=?[\\]^_`{|}~@h",
            Some("a!#$%()*+,-.;=?[\\]^_`{|}~@h"),
        ),
        // A soft hyphen and a joiner count for nothing, alone they leave nothing.
        ("a\u{AD}b@h", Some("ab@h")),
        ("\u{AD}\u{200D}@h", None),
        // Full-width letters are letters; a full-width @ does not become a separator.
        ("\u{FF21}@h", Some("a@h")),
        ("a\u{FF20}b@h", None),
        ("a\u{3000}b@h", None),
        ("a\u{A0}b@h", None),
        ("a\u{E000}@h", None),
        ("a\u{FFFD}@h", None),
        ("a\u{202E}b@h", None),
        // Right-to-left by itself, and mixed.
        ("\u{5D0}\u{5D1}@h", Some("\u{5D0}\u{5D1}@h")),
        ("\u{5D0}a@h", None),
        ("\u{5D0}1@h", None),
        // Younger than Unicode 3.2: an emoji, and a squared letter that folds in two steps.
        ("\u{1F600}@h", None),
        ("\u{1F130}@h", None),
        ("\u{212B}@h", Some("\u{E5}@h")),
        ("\u{130}@h", Some("i\u{307}@h")),
    ]);
}

#[test]
fn resources() {
    check(&[
        ("h/ ", Some("h/ ")),
        ("h/A<b>&\"'", Some("h/A<b>&\"'")),
        ("h/a\u{1}", None),
        ("h/a\nb", None),
        ("h/\u{7F}", None),
        ("h/\u{AD}", None),
        ("h/\u{A0}", Some("h/ ")),
        ("h/a\u{202E}b", None),
        ("h/\u{FFFE}", None),
        ("h/\u{FDD0}", None),
        ("h/\u{1F600}", Some("h/\u{1F600}")),
        (
            "h/\u{1F468}\u{200D}\u{1F4BB}\u{FE0F}",
            Some("h/\u{1F468}\u{1F4BB}"),
        ),
        // Younger than Unicode 3.2 and invisible: an isolate; and not assigned at all.
        ("h/a\u{2066}b", None),
        ("h/a\u{378}b", None),
        ("h/\u{E0001}", None),
        ("h/\u{FF21}", Some("h/A")),
        ("h/e\u{301}", Some("h/\u{E9}")),
        ("h/\u{5D0}a", None),
    ]);
}

#[test]
fn hosts() {
    check(&[
        ("", None),
        (".", None),
        ("..", None),
        ("a..b", None),
        (".a", None),
        ("a.", Some("a")),
        ("a..", None),
        ("a_b", None),
        ("a b", None),
        ("-a.b", None),
        ("a-.b", None),
        ("r3---sn.example", Some("r3---sn.example")),
        ("localhost", Some("localhost")),
        ("EXAMPLE.com.", Some("example.com")),
        ("EXAMPLE.com./R", Some("example.com/R")),
        // Internationalised, decoded from and compared with its ASCII form.
        ("m\u{FC}ller.example", Some("m\u{FC}ller.example")),
        ("M\u{DC}LLER.example", Some("m\u{FC}ller.example")),
        ("mu\u{308}ller.example", Some("m\u{FC}ller.example")),
        ("xn--mller-kva.example", Some("m\u{FC}ller.example")),
        ("XN--MLLER-KVA.example", Some("m\u{FC}ller.example")),
        ("fa\u{DF}.example", Some("fa\u{DF}.example")),
        ("xn--a", None),
        ("xn--", None),
        ("xn--\u{FC}", None),
        ("example\u{3002}com", Some("example.com")),
        ("example.com\u{3002}", Some("example.com")),
        ("\u{FF45}xample.com", Some("example.com")),
        ("ex\u{FF20}mple.com", None),
        ("ex\u{2044}mple.com", None),
        ("\u{200D}.com", None),
        ("i\u{2665}.example", None),
        ("l\u{B7}l.example", Some("l\u{B7}l.example")),
        ("l\u{B7}a.example", None),
        ("\u{B7}l.example", None),
        ("a\u{30FB}b.example", None),
        (
            "\u{30D0}\u{30FC}\u{30FB}.example",
            Some("\u{30D0}\u{30FC}\u{30FB}.example"),
        ),
        // Addresses.
        ("192.0.2.1", Some("192.0.2.1")),
        ("a@192.0.2.1/r", Some("a@192.0.2.1/r")),
        ("192.0.2.256", None),
        ("192.0.2.01", None),
        ("192.0.2", None),
        ("\u{FF11}92.0.2.1", Some("192.0.2.1")),
        ("[2001:DB8::1]", Some("[2001:db8::1]")),
        ("[2001:db8:0:0:0:0:0:1]", Some("[2001:db8::1]")),
        ("[::ffff:192.0.2.1]/r", Some("[::ffff:192.0.2.1]/r")),
        ("[::1", None),
        ("[]", None),
        ("[192.0.2.1]", None),
        ("[fe80::1%eth0]", None),
        ("[::1].", None),
        ("::1", None),
    ]);
}

#[test]
fn lengths() {
    let longest = "x".repeat(MAX_PART);
    let over = "x".repeat(MAX_PART + 1);
    let jid = Jid::parse(&format!("{longest}@h/{longest}")).unwrap();
    assert_eq!(jid.local().unwrap().len(), MAX_PART);
    assert_eq!(jid.resource().unwrap().len(), MAX_PART);
    let too_long = |part| JidError::TooLong {
        part,
        bytes: MAX_PART + 1,
    };
    assert_eq!(Jid::parse(&format!("{over}@h")), Err(too_long(Part::Local)));
    assert_eq!(
        Jid::parse(&format!("h/{over}")),
        Err(too_long(Part::Resource))
    );
    assert_eq!(Jid::parse(&over), Err(too_long(Part::Host)));
    // One character of three bytes becomes eighteen of thirty-three.
    assert!(matches!(
        Jid::parse(&format!("h/{}", "\u{FDFA}".repeat(40))),
        Err(JidError::TooLong {
            part: Part::Resource,
            ..
        })
    ));
    let label = "x".repeat(63);
    check(&[(&label, Some(&label)), (&format!("{label}x"), None)]);
    let name = format!("{label}.{label}.{label}.{}", &label[..61]);
    assert_eq!(name.len(), 253);
    check(&[(&name, Some(&name)), (&format!("{name}x"), None)]);
    // Fewer than 63 characters, but too many in ASCII form.
    assert!(host(&"\u{FC}".repeat(50)).is_ok());
    assert!(host(&"\u{FC}".repeat(60)).is_err());
}

#[test]
fn errors_name_the_part() {
    assert_eq!(Jid::parse("@h"), Err(JidError::Empty(Part::Local)));
    assert_eq!(Jid::parse("a@"), Err(JidError::Empty(Part::Host)));
    assert_eq!(Jid::parse("h/"), Err(JidError::Empty(Part::Resource)));
    assert_eq!(
        Jid::parse("a b@h"),
        Err(JidError::Prohibited {
            part: Part::Local,
            character: ' '
        })
    );
    assert_eq!(BareJid::parse("a@h/r"), Err(JidError::Resource));
    assert_eq!(
        JidError::Prohibited {
            part: Part::Host,
            character: '_'
        }
        .to_string(),
        "the host has the character '_', which it may not have"
    );
}

#[test]
fn owner_keys() {
    let user = BareJid::parse("juliet@example.com").unwrap();
    assert_eq!(user.owner(), b"example.com\0juliet");
    assert_eq!(BareJid::from_owner(&user.owner()), Some(user));
    let host = BareJid::parse("example.com").unwrap();
    assert_eq!(host.owner(), b"example.com\0");
    assert_eq!(BareJid::from_owner(&host.owner()), Some(host));
    for bad in [
        &b"example.com"[..],
        b"",
        b"\0",
        b"\0a",
        b"EXAMPLE.com\0a",
        b"h\0A",
        b"h\0a\0b",
    ] {
        assert_eq!(BareJid::from_owner(bad), None, "{bad:?}");
    }
    assert_eq!(BareJid::from_owner(b"h\0\xff"), None);
}

#[test]
fn equal_whatever_they_share() {
    let of_full = Jid::parse("a@h/r").unwrap().bare();
    let parsed = BareJid::parse("a@h").unwrap();
    assert_eq!(of_full, parsed);
    assert_eq!(of_full.compact(), parsed);
    assert_eq!(Jid::from(of_full.clone()), Jid::parse("a@h").unwrap());
    assert!(Jid::from(of_full.clone()).is_bare());
    let map: HashMap<BareJid, u8> = [(of_full.clone(), 1)].into();
    assert_eq!(map.get(&parsed), Some(&1));
    assert_eq!(map.get("a@h"), Some(&1));
    let set: BTreeSet<BareJid> = [of_full, parsed].into();
    assert_eq!(set.len(), 1);
}

#[test]
fn with_resource_normalises() {
    let bare = Jid::parse("a@h/other").unwrap().bare();
    assert_eq!(Jid::with_resource(&bare, "e\u{301}").unwrap(), "a@h/\u{E9}");
    assert_eq!(
        Jid::with_resource(&bare, ""),
        Err(JidError::Empty(Part::Resource))
    );
    assert!(Jid::with_resource(&bare, "\u{1}").is_err());
}
