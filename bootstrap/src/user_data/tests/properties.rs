//! What holds for any bytes as user-data. The property tests and the fuzz target call this.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::user_data::{MAX_USER_DATA, parse};

/// Parses `bytes`, plain, compressed and as a part, and asserts what must hold of what comes out.
pub(crate) fn any_bytes(bytes: &[u8]) {
    let plain = match parse(bytes, "user-data") {
        Ok(data) => data,
        Err(error) => {
            let said = error.to_string();
            let shown = said.replace('\n', "");
            assert!(
                !shown.is_empty() && !shown.contains(char::is_control),
                "{said:?}"
            );
            return;
        }
    };
    for note in &plain.notes {
        assert!(!note.to_string().contains(char::is_control), "{note:?}");
    }
    if plain.gzipped {
        return;
    }

    let compressed = gzip(bytes);
    if compressed.len() <= MAX_USER_DATA {
        let again = parse(&compressed, "user-data");
        let again = again.map(|data| (data.form, data.part, data.given.paths, data.gzipped));
        let same = (
            plain.form,
            plain.part.clone(),
            plain.given.paths.clone(),
            true,
        );
        assert_eq!(again, Ok(same), "compressed");
    }

    let wrapped = multipart(bytes);
    if plain.part.is_none() && wrapped.len() <= MAX_USER_DATA {
        let again = parse(&wrapped, "user-data");
        let again = again.map(|data| (data.form, data.given.config));
        assert_eq!(again, Ok((plain.form, plain.given.config)), "as a part");
    }
}

/// Any text as each form in turn: the forms that a text seldom has by chance.
pub(crate) fn any_body(text: &str) {
    for before in [
        "domains: [example.com]\n",
        "domain=example.com\n",
        "hosts: [example.com]\n",
    ] {
        any_bytes([before, text].concat().as_bytes());
    }
    let indented = text.replace('\n', "\n  ");
    any_bytes(format!("#cloud-config\ncirrus:\n  {indented}").as_bytes());
    let part = format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{text}");
    any_bytes(part.as_bytes());
}

/// `bytes` compressed.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` as the only part of a multipart.
fn multipart(bytes: &[u8]) -> Vec<u8> {
    let encoded = STANDARD.encode(bytes);
    let text = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: text/x-cirrus\nContent-Transfer-Encoding: base64\n\n{encoded}\n--b--\n"
    );
    text.into_bytes()
}
