use proptest::prelude::*;

use super::*;

/// Number of lines before, type and content of each part.
fn shown(text: &str) -> Vec<(usize, String, String)> {
    let message = parts(text.as_bytes()).unwrap();
    let part = |p: &Part| {
        let content = String::from_utf8(p.decoded().unwrap()).unwrap();
        (p.before, p.kind.clone(), content)
    };
    message.parts.iter().map(part).collect()
}

fn one(before: usize, kind: &str, content: &str) -> (usize, String, String) {
    (before, kind.to_owned(), content.to_owned())
}

const TWO: &str = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"==b==\"\n\n\
                   preamble\n--==b==\nContent-Type: text/cloud-config; charset=\"us-ascii\"\n\
                   Content-Disposition: attachment; filename=\"cloud.txt\"\n\n#cloud-config\n\n\
                   --==b==\nContent-Type: TEXT/X-CIRRUS\n\ndomain=example.com\n--==b==--\nepilogue\n";

#[test]
fn two_parts() {
    let expected = [
        one(8, "text/cloud-config", "#cloud-config\n"),
        one(13, "text/x-cirrus", "domain=example.com"),
    ];
    assert_eq!(shown(TWO), expected);
    assert_eq!(shown(&TWO.replace('\n', "\r\n"))[1], expected[1]);
    let names: Vec<String> = parts(TWO.as_bytes())
        .unwrap()
        .parts
        .into_iter()
        .map(|p| p.name)
        .collect();
    assert_eq!(names, ["part 1, cloud.txt", "part 2"]);
}

#[test]
fn a_missing_end_is_mended() {
    let cut = TWO.split("\n--==b==--").next().unwrap();
    let message = parts(cut.as_bytes()).unwrap();
    assert_eq!(message.parts.len(), 2);
    let what = "the last boundary (`--==b==--`) is missing; read to the end";
    assert_eq!(message.notes, [(14, what.to_owned())]);
}

#[test]
fn encodings() {
    for (encoding, content, expected) in [
        (
            "base64",
            "ZG9tYWluPWV4\n  YW1wbGUuY29t\n",
            Ok("domain=example.com"),
        ),
        (
            "BASE64",
            "ZG9tYWluPWV4YW1wbGUuY29t",
            Ok("domain=example.com"),
        ),
        (
            "quoted-printable",
            "domain=3Dexam=\nple.com",
            Ok("domain=example.com"),
        ),
        (
            "quoted-printable",
            "domain=3Dexam=\r\nple.com",
            Ok("domain=example.com"),
        ),
        ("8bit", "m\u{fc}nchen.example", Ok("m\u{fc}nchen.example")),
        ("7bit", "example.com", Ok("example.com")),
        ("base64", "%%%", Err("not base64")),
        ("quoted-printable", "a=b", Err("not quoted-printable")),
        ("quoted-printable", "a=", Err("not quoted-printable")),
        (
            "uuencode",
            "x",
            Err("the transfer encoding `uuencode` is not known"),
        ),
    ] {
        let text =
            format!("Content-Type: text/plain\nContent-Transfer-Encoding: {encoding}\n\n{content}");
        let message = parts(text.as_bytes()).unwrap();
        let decoded = message.parts[0].decoded();
        match (decoded, expected) {
            (Ok(bytes), Ok(expected)) => assert_eq!(bytes, expected.as_bytes(), "{text}"),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            (found, _) => panic!("{found:?}: {text}"),
        }
    }
}

#[test]
fn nested_and_too_much() {
    let nest = |depth: usize| {
        let mut inner = String::from("Content-Type: text/x-cirrus\n\nexample.com");
        for i in 0..depth {
            inner = format!(
                "Content-Type: multipart/mixed;\n boundary=b{i}\n\n--b{i}\n{inner}\n--b{i}--\n"
            );
        }
        inner
    };
    assert_eq!(shown(&nest(3)), [one(14, "text/x-cirrus", "example.com")]);
    let (line, what) = parts(nest(4).as_bytes()).unwrap_err();
    assert_eq!(
        (line, what.as_str()),
        (13, "multiparts are nested deeper than 3")
    );
    let many = "--b\n\nx\n".repeat(65);
    let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{many}--b--\n");
    assert!(
        parts(many.as_bytes())
            .unwrap_err()
            .1
            .contains("more than 64 parts")
    );
    let none = parts(b"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\nx").unwrap_err();
    assert_eq!(none, (2, "a multipart without a boundary".to_owned()));
}

#[test]
fn what_is_mime() {
    for (text, mime) in [
        ("MIME-Version: 1.0\n\nx", true),
        ("content-type: text/plain\n\nx", true),
        (
            "From nobody Sat Nov 28\nSubject: x\nMIME-Version: 1.0\n\nx",
            true,
        ),
        ("domains: [a]\n", false),
        ("#cloud-config\nContent-Type: x\n", false),
        ("example.com", false),
        ("", false),
    ] {
        assert_eq!(is_mime(text.as_bytes()), mime, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parts(&bytes);
    }

    #[test]
    fn no_lines_panic(
        lines in prop::collection::vec(
            "(Content-Type: (multipart/mixed; boundary=b|text/plain)|Content-Transfer-Encoding: \
             (base64|quoted-printable)|--b|--b--||x=3D|=| folded|\r)",
            0..30,
        ),
    ) {
        let text = lines.join("\n");
        if let Ok(message) = parts(text.as_bytes()) {
            for part in &message.parts {
                let _ = part.decoded();
                prop_assert!(part.before <= lines.len());
            }
        }
    }
}
