use super::*;

const DOCUMENT: &str = "<m xmlns='urn:m' xmlns:p='urn:p' a='1' p:a=\"2\" b = '&lt;&#9;x\ty'>\
    one<x/><![CDATA[ two ]]><p:y p:q='3'><z/></p:y>&amp;three<m:w xmlns:m='urn:w&amp;'>\
    <m:v xmlns='urn:v'><u/></m:v></m:w><x c='>'>deep</x></m>";

fn root() -> Element<'static> {
    Element::parse(DOCUMENT.as_bytes(), "urn:outer").unwrap()
}

#[test]
fn names_and_namespaces() {
    let root = root();
    let names: Vec<(String, String)> = root
        .children()
        .map(|child| (child.ns().to_owned(), child.name().to_owned()))
        .collect();
    let expected = [
        ("urn:m", "x"),
        ("urn:p", "y"),
        ("urn:w&", "w"),
        ("urn:m", "x"),
    ];
    assert_eq!(
        names,
        expected.map(|(ns, name)| (ns.to_owned(), name.to_owned()))
    );
    // A default namespace is inherited through an element with a prefix.
    let inside = root.child("y", "urn:p").unwrap();
    assert!(inside.child("z", "urn:m").is_some());
    let prefixed = root
        .child("w", "urn:w&")
        .unwrap()
        .child("v", "urn:w&")
        .unwrap();
    assert!(prefixed.child("u", "urn:v").is_some());
    assert!(root.child("x", "urn:p").is_none());
    assert!(root.child("z", "urn:m").is_none());
}

#[test]
fn attributes() {
    let root = root();
    assert_eq!(root.attr("a").as_deref(), Some("1"));
    assert_eq!(root.attr("p:a").as_deref(), Some("2"));
    assert_eq!(root.attr("b").as_deref(), Some("<\tx y"));
    assert_eq!(root.attr("c"), None);
    let names: Vec<&str> = root.attributes().map(|a| a.name).collect();
    assert_eq!(names, ["xmlns", "xmlns:p", "a", "p:a", "b"]);
    let namespaces: Vec<String> = root
        .attributes()
        .map(|a| root.attribute_ns(&a).into_owned())
        .collect();
    assert_eq!(namespaces[2..], ["", "urn:p", ""]);
    let raw: Vec<&[u8]> = root.attributes().map(|a| a.raw()).collect();
    assert_eq!(raw[4], b"b = '&lt;&#9;x\ty'");
    let child = root.child("y", "urn:p").unwrap();
    let attribute = child.attributes().next().unwrap();
    assert_eq!(child.attribute_ns(&attribute), "urn:p");
}

#[test]
fn text_and_bytes() {
    let root = root();
    assert_eq!(root.text(), "one two &three");
    let last = root.children().last().unwrap();
    assert!(matches!(last.text(), Cow::Borrowed("deep")));
    assert_eq!(last.raw(), b"<x c='>'>deep</x>");
    assert_eq!(last.inner(), b"deep");
    let first = root.children().next().unwrap();
    assert_eq!((first.raw(), first.inner()), (&b"<x/>"[..], &b""[..]));
    assert_eq!(root.raw(), DOCUMENT.as_bytes());
}

#[test]
fn fragments() {
    let inner = b" <a/>text<b xmlns='urn:b'><c/></b><p:d/>";
    let scope = Scope::client();
    let names = |children: Children<'_>| -> Vec<String> {
        children
            .map(|child| format!("{}|{}", child.ns(), child.name()))
            .collect()
    };
    let expected = ["urn:x|a", "urn:b|b", "|d"];
    assert_eq!(names(children(inner, "urn:x", &scope)), expected);
    assert_eq!(names(Children::of_fragment(inner, "urn:x")), expected);
    assert_eq!(names(Children::of_fragment(b"", "urn:x")), [""; 0]);
}

#[test]
fn what_is_no_element() {
    for bytes in [
        &b""[..],
        b"<",
        b"<a",
        b"<>",
        b"</a>",
        b"<a>",
        b"<a></a",
        b"<a/>x",
        b"x<a/>",
        b"<a/><b/>",
        b"<!---->",
        b"<?a?>",
        b"<a b='/>",
        b"<a><b></a>",
        b"<a><![CDATA[</a>",
        b"\xFF",
    ] {
        assert!(
            Element::parse(bytes, "").is_err(),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_clone_outlives_its_parent() {
    let bytes = DOCUMENT.as_bytes().to_vec();
    let deep = {
        let root = Element::parse(&bytes, "").unwrap();
        let w = root.child("w", "urn:w&").unwrap();
        w.child("v", "urn:w&").unwrap().clone()
    };
    assert_eq!(deep.ns(), "urn:w&");
    assert_eq!(
        deep.standalone(),
        b"<v xmlns='urn:w&amp;'><u xmlns='urn:v'/></v>"
    );
}

#[test]
fn an_attribute_of_an_unknown_prefix_is_not_copied() {
    let element = Element::parse(b"<a p:b='c' d='e' xml:lang='en'/>", "urn:a").unwrap();
    assert_eq!(
        element.standalone(),
        b"<a xmlns='urn:a' d='e' xml:lang='en'/>"
    );
}
