//! The framer by itself: pieces, restarts, cost.

use bytes::{BufMut, BytesMut};
use cirrus_xml::{Frame, Framer, Limits, XmlError};

fn all(framer: &mut Framer, buf: &mut BytesMut) -> Result<Vec<Frame>, XmlError> {
    let mut frames = Vec::new();
    while let Some(frame) = framer.next(buf)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn element(text: &str) -> Frame {
    Frame::Element(text.to_owned().into())
}

#[test]
fn every_split_in_two_and_three() {
    let stream = "<?xml version='1.0'?><s:s xmlns:s='s' a='>'> <a b='>' c=\"'>\">x<b/>\
        <![CDATA[ >]>]]]]> ></a><c/>\n</s:s>";
    let mut framer = Framer::new(Limits::DEFAULT);
    let whole = all(&mut framer, &mut BytesMut::from(stream)).unwrap();
    assert_eq!(whole.len(), 6);
    assert_eq!(
        whole[2],
        element("<a b='>' c=\"'>\">x<b/><![CDATA[ >]>]]]]> ></a>")
    );
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let mut framer = Framer::new(Limits::DEFAULT);
            let mut buf = BytesMut::new();
            let mut frames = Vec::new();
            for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                buf.extend_from_slice(piece.as_bytes());
                frames.extend(all(&mut framer, &mut buf).unwrap());
            }
            assert_eq!(frames, whole, "{first} {second}");
        }
    }
}

#[test]
fn a_restart_expects_a_header() {
    let mut framer = Framer::new(Limits::DEFAULT);
    let mut buf = BytesMut::from("<s><auth/>\n<?xml version='1.0'?><t><iq/></t>");
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Open("<s>".into()))));
    assert_eq!(framer.next(&mut buf), Ok(Some(element("<auth/>"))));
    framer.restart();
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Space(1))));
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Open("<t>".into()))));
    assert_eq!(framer.next(&mut buf), Ok(Some(element("<iq/>"))));
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Close)));
    assert_eq!(framer.next(&mut buf), Ok(None));
}

#[test]
fn nothing_is_read_behind_the_end() {
    let mut framer = Framer::new(Limits::DEFAULT);
    let mut buf = BytesMut::from("<s></s><?junk");
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Open("<s>".into()))));
    assert_eq!(framer.next(&mut buf), Ok(Some(Frame::Close)));
    for _ in 0..3 {
        buf.put_slice(b"<more/>");
        assert_eq!(framer.next(&mut buf), Ok(None));
        assert!(buf.is_empty());
    }
    let mut framer = Framer::new(Limits::DEFAULT);
    let frames = all(&mut framer, &mut BytesMut::from("<s/>")).unwrap();
    assert_eq!(frames, [Frame::Open("<s/>".into()), Frame::Close]);
}

#[test]
fn an_error_is_final() {
    let mut framer = Framer::new(Limits::DEFAULT);
    let mut buf = BytesMut::from("<s>x");
    assert!(matches!(framer.next(&mut buf), Ok(Some(Frame::Open(_)))));
    assert_eq!(framer.next(&mut buf), Err(XmlError::TextBetweenStanzas));
    buf.clear();
    assert_eq!(framer.next(&mut buf), Err(XmlError::TextBetweenStanzas));
}

/// A framer that began at the start again with each piece would look at 10^12 bytes here, and
/// not be done in this lifetime of the test.
#[test]
fn two_megabytes_byte_by_byte() {
    let limits = Limits {
        max_stanza: 2 << 20,
        max_header: 2 << 20,
        ..Limits::DEFAULT
    };
    let filler = "x".repeat(1 << 20);
    let spaces = " ".repeat(1 << 20);
    let kinds = [
        format!("<s><a>{filler}</a>"),
        format!("<s><a b='{filler}'/>"),
        format!("<s><a><![CDATA[{filler}]]></a>"),
        format!("<s><a {filler}/>"),
        format!("<s><a></a{spaces}>"),
        format!("<s><a>{}</a>", "<b/>".repeat(1 << 18)),
        format!("<s b='{filler}'>"),
        format!("<?xml {filler}"),
    ];
    for text in kinds {
        let mut framer = Framer::new(limits);
        let mut buf = BytesMut::with_capacity(text.len());
        let mut last = None;
        for byte in text.bytes() {
            buf.put_u8(byte);
            if let Some(frame) = framer.next(&mut buf).unwrap() {
                last = Some(frame);
            }
        }
        let is_whole = matches!(&last, Some(Frame::Element(bytes)) if bytes.len() > 1 << 20)
            || matches!(&last, Some(Frame::Open(bytes)) if bytes.len() > 1 << 20)
            || (last.is_none() && text.starts_with("<?xml"));
        assert!(is_whole, "{}", &text[..20]);
    }
}
