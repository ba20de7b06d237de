//! What holds for any bytes at all. The property tests and the fuzz targets call this.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a property fails by panicking"
)]

mod oracle;
mod tree;

use bytes::BytesMut;
use cirrus_xml::{
    Children, Element, Frame, Framer, Header, Limits, Scope, Writer, XmlError, check, parse_header,
    standalone,
};
use tree::Tree;

/// Room enough that few inputs meet a limit, so that the others are compared.
const LIMITS: Limits = Limits::STORED;

/// One stanza: accepted exactly if the oracle accepts it, and read by the cursor as the oracle
/// reads it.
pub(crate) fn any_element(bytes: &[u8]) {
    read_everything(bytes);
    let scope = Scope::new("urn:default");
    let checked = check(bytes, &scope, &LIMITS);
    // The oracle knows a default namespace only from an element around it.
    let wrapped = [b"<w xmlns='urn:default'>", bytes, b"</w>"].concat();
    match (checked, oracle::document(&wrapped)) {
        (Ok(checked), Ok(theirs)) => {
            let ours = Element::parse_in(bytes, &scope).expect("what is checked is an element");
            let ours = Tree::of_element(&ours);
            assert_eq!(vec![ours.clone()], theirs.children, "{}", show(bytes));
            assert_eq!(
                (checked.name(bytes), checked.ns()),
                (&*ours.name, &*ours.ns)
            );
            assert_eq!(checked.child_elements(), ours.children.len());
            let payload = ours.children.first().map(|c| (&*c.name, &*c.ns));
            assert_eq!(checked.payload(bytes), payload);
            stands_alone(bytes, &scope, &ours);
        }
        (Ok(_), Err(error)) => panic!("only the oracle refuses {}: {error:?}", show(bytes)),
        (Err(error), Ok(theirs)) => {
            let is_known = is_stricter(&error)
                // The oracle saw something beside one element.
                || theirs.children.len() != 1
                || theirs.has_text
                || !bytes.starts_with(b"<")
                || bytes.starts_with(b"<![")
                || !bytes.ends_with(b">")
                || bytes.ends_with(b"]]>");
            assert!(is_known, "only we refuse {}: {error}", show(bytes));
        }
        (Err(_), Err(_)) => {}
    }
}

/// The rewritten stanza is the same tree, and depends on nothing.
fn stands_alone(bytes: &[u8], scope: &Scope, ours: &Tree) {
    let alone = standalone(bytes, scope, &LIMITS).expect("what is checked can be rewritten");
    let elsewhere = Scope::new("urn:elsewhere");
    let checked = match check(&alone, &elsewhere, &LIMITS) {
        Err(XmlError::TooBig { .. }) => return,
        checked => {
            checked.unwrap_or_else(|e| panic!("{} became {}: {e}", show(bytes), show(&alone)))
        }
    };
    assert!(!checked.foreign());
    let again = Element::parse(&alone, "urn:elsewhere").expect("what is checked is an element");
    assert_eq!(
        Tree::of_element(&again),
        *ours,
        "{} became {}",
        show(bytes),
        show(&alone)
    );
}

/// A stream: the same frames however it is cut, and accepted exactly if the oracle accepts it.
/// `cuts` are the lengths of the pieces, used in turn.
pub(crate) fn any_stream(bytes: &[u8], cuts: &[u8]) {
    let whole = frame(bytes, &[], LIMITS);
    assert_eq!(
        frame(bytes, cuts, LIMITS),
        whole,
        "{} in pieces",
        show(bytes)
    );
    let narrow = Limits {
        max_stanza: 24,
        max_header: 100,
        max_depth: 3,
        ..LIMITS
    };
    assert_eq!(
        frame(bytes, cuts, narrow),
        frame(bytes, &[], narrow),
        "{}",
        show(bytes)
    );

    let text = String::from_utf8_lossy(bytes);
    let ours = read_stream(&whole);
    match (ours, oracle::document(bytes)) {
        (Ok(ours), Ok(theirs)) => {
            if let Some((_, elements)) = ours {
                assert_eq!(elements, theirs.children, "{}", show(bytes));
            }
        }
        (Ok(ours), Err(error)) => {
            let is_known = ours.is_none()
                // We do not mind white space before the declaration, nor `standalone`, and we
                // do not read what follows the end.
                || text.trim_start() != text
                || text.contains("standalone")
                || !bytes.trim_ascii_end().ends_with(b">")
                || whole.rest > 0;
            assert!(
                is_known,
                "only the oracle refuses {}: {error:?}",
                show(bytes)
            );
        }
        (Err(error), Ok(_)) => {
            let is_known = is_stricter(&error)
                || error == XmlError::TextBetweenStanzas
                // It takes any case of `standalone='yes'`, and an empty CDATA section anywhere.
                || text.contains("standalone")
                || text.contains("<![CDATA[]]>");
            assert!(is_known, "only we refuse {}: {error}", show(bytes));
        }
        (Err(_), Err(_)) => {}
    }
}

/// What the oracle lets pass: it has other limits, allows every name of the fifth edition and any
/// text as a namespace, takes the last of two declarations of one prefix, and does not know that
/// the namespace of `xmlns` may not be the default.
fn is_stricter(error: &XmlError) -> bool {
    match error {
        XmlError::TooBig { .. } => true,
        XmlError::NotWellFormed { what, .. } => matches!(
            *what,
            "a character that no name may have"
                | "a namespace that is no URI"
                | "a namespace declaration that is there twice"
                | "a declaration of the namespace of xmlns"
        ),
        _ => false,
    }
}

/// Whatever is written passes the check and is read back, but for characters that XML cannot
/// have. Each text stands in an attribute, as text, and in an element inside the one before.
pub(crate) fn any_texts(texts: &[&str]) {
    let mut writer = Writer::new();
    writer.start("a").attr("xmlns", "urn:default");
    for text in texts {
        writer.start("b").attr("c", text).text(text);
        writer.start("d").text("").end().start("e").raw(b"").end();
    }
    let bytes = writer.into_bytes();
    match check(&bytes, &Scope::client(), &LIMITS) {
        Err(XmlError::TooBig { .. }) => return,
        checked => assert!(checked.is_ok(), "{}: {checked:?}", show(&bytes)),
    }
    let mut element = Element::parse(&bytes, "").expect("it is checked");
    for text in texts {
        let is_legal = |c: &char| {
            !matches!(c, '\0'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}') || "\t\n\r".contains(*c)
        };
        let kept: String = text
            .chars()
            .map(|c| if is_legal(&c) { c } else { '\u{FFFD}' })
            .collect();
        let inner = element.child("b", "urn:default").expect("it was written");
        assert_eq!(inner.attr("c").as_deref(), Some(&*kept));
        assert_eq!(inner.text(), kept);
        let [first, second] = [0, 1].map(|at| inner.children().nth(at).expect("it was written"));
        assert_eq!((first.raw(), second.raw()), (&b"<d/>"[..], &b"<e/>"[..]));
        element = inner;
    }
    let again = check(&element.standalone(), &Scope::client(), &LIMITS);
    assert!(again.is_ok(), "{}", show(&element.standalone()));
}

/// What the framer makes of a stream.
#[derive(Debug, PartialEq)]
struct Framed {
    frames: Vec<Frame>,
    error: Option<XmlError>,
    /// Bytes behind the end of the stream.
    rest: usize,
}

/// Frames `bytes`, in pieces of these lengths or at once.
fn frame(bytes: &[u8], cuts: &[u8], limits: Limits) -> Framed {
    let mut framer = Framer::new(limits);
    let mut framed = Framed {
        frames: Vec::new(),
        error: None,
        rest: 0,
    };
    let mut buf = BytesMut::new();
    let mut left = bytes;
    let mut cuts = cuts.iter().cycle();
    while !left.is_empty() {
        let length = cuts
            .next()
            .map_or(left.len(), |&cut| usize::from(cut).clamp(1, left.len()));
        let (piece, rest) = left.split_at(length);
        left = rest;
        buf.extend_from_slice(piece);
        loop {
            match framer.next(&mut buf) {
                // White space may come out in pieces.
                Ok(Some(Frame::Space(more))) => match framed.frames.last_mut() {
                    Some(Frame::Space(space)) => *space += more,
                    _ => framed.frames.push(Frame::Space(more)),
                },
                Ok(Some(frame)) => {
                    if frame == Frame::Close {
                        framed.rest = buf.len() + left.len();
                    }
                    framed.frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next(&mut buf), Err(error), "an error is final");
                    framed.error = Some(error);
                    return framed;
                }
            }
        }
        assert!(
            buf.len() <= limits.max_stanza.max(limits.max_header),
            "it waits for too much"
        );
    }
    framed
}

/// Checks all frames; `None` if the stream has no end.
fn read_stream(framed: &Framed) -> Result<Option<(Header, Vec<Tree>)>, XmlError> {
    let mut header = None;
    let mut elements = Vec::new();
    let mut is_closed = false;
    for frame in &framed.frames {
        match frame {
            Frame::Space(_) => {}
            Frame::Open(bytes) => header = Some(parse_header(bytes, &LIMITS)?),
            Frame::Element(bytes) => {
                let scope = &header.as_ref().expect("the header comes first").scope;
                check(bytes, scope, &LIMITS)?;
                let element = Element::parse_in(bytes, scope).expect("it is checked");
                elements.push(Tree::of_element(&element));
            }
            Frame::Close => is_closed = true,
        }
    }
    match framed.error {
        Some(error) => Err(error),
        None if is_closed => Ok(header.map(|header| (header, elements))),
        None => Ok(None),
    }
}

/// Walks through everything that the cursor gives of bytes that nobody checked.
fn read_everything(bytes: &[u8]) {
    let mut open = vec![Children::of_fragment(bytes, "")];
    let mut budget = 10_000;
    while let Some(children) = open.last_mut() {
        match children.next() {
            Some(element) if budget > 0 => {
                budget -= 1;
                let _ = (element.name(), element.ns(), element.text(), element.raw());
                for attribute in element.attributes() {
                    let _ = (attribute.value(), element.attribute_ns(&attribute));
                }
                open.push(element.children());
            }
            _ => drop(open.pop()),
        }
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
