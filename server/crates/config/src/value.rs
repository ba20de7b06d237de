//! The types that options have.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::error::Fault;
use crate::nearest::nearest;
use crate::node::{Content, Node, excerpt};
use crate::option::{OptionDoc, Reader, Rule, Setting, Tree};

/// Elements of a list; more is a mistake in a generated file.
const MAX_LIST: usize = 64;
/// Bytes of a text.
const MAX_TEXT: usize = 4_096;

/// An XMPP domain: a DNS name or an IP address, normalised (lower case, Unicode labels as such).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Checks and normalises a domain; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::domain::normalise(text).map(Self)
    }

    /// Stands where a required domain is absent, until that is reported.
    pub(crate) fn unset() -> Self {
        Self(String::new())
    }

    /// The normalised text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain as certificates name it: Unicode labels as Punycode.
    pub fn to_ascii(&self) -> String {
        crate::domain::ascii(&self.0)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Declares an option whose values are some words.
macro_rules! words {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl $name {
            /// The word in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// All words.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl Setting for $name {
            fn kind() -> String {
                format!("one of {}", Self::WORDS.join(", "))
            }

            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                match word(node, Self::WORDS, reader)? {
                    $( $word => Some(Self::$variant), )+
                    _ => None,
                }
            }

            fn tree(&self) -> Tree {
                Tree::Text(self.as_str().into())
            }
        }
    };
}

words! {
    /// Where tables and blobs are.
    Backend {
        /// A file store on this machine; one node.
        Embedded = "embedded",
        /// In memory only: for tests; everything is lost at the end.
        Memory = "memory",
        /// DynamoDB and S3.
        Aws = "aws",
    }
}

words! {
    /// SASL mechanisms that need no clear password (RFC 5802, RFC 7677). PLAIN is an option of
    /// its own.
    Mechanism {
        /// SCRAM-SHA-256 bound to the TLS channel.
        ScramSha256Plus = "SCRAM-SHA-256-PLUS",
        /// SCRAM-SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// SCRAM-SHA-1 bound to the TLS channel.
        ScramSha1Plus = "SCRAM-SHA-1-PLUS",
        /// SCRAM-SHA-1.
        ScramSha1 = "SCRAM-SHA-1",
    }
}

words! {
    /// How an authority sees that a domain is ours (RFC 8555 section 8, RFC 8737).
    Challenge {
        /// By a question to port 80.
        Http01 = "http-01",
        /// By a handshake on port 443.
        TlsAlpn01 = "tls-alpn-01",
        /// By a record in the domain's zone.
        Dns01 = "dns-01",
    }
}

words! {
    /// The least version of TLS.
    TlsVersion {
        /// TLS 1.2 (RFC 5246).
        V1_2 = "1.2",
        /// TLS 1.3 (RFC 8446).
        V1_3 = "1.3",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least severity that is logged.
    LogLevel {
        /// Something failed and needs an operator.
        Error = "error",
        /// Something failed and was handled.
        Warn = "warn",
        /// What an operator wants to know: start, stop, changes.
        Info = "info",
        /// What each connection does.
        Debug = "debug",
        /// What each stanza does; never its body.
        Trace = "trace",
    }
}

fn word(node: &Node, words: &'static [&'static str], reader: &mut Reader) -> Option<&'static str> {
    let text = match &node.content {
        Content::Text(t) => t.clone(),
        // `min_version: 1.2` is a number to YAML.
        Content::Float(f) => f.to_string(),
        Content::Int(i) => i.to_string(),
        _ => {
            reader.wrong_type(node, format!("one of {}", words.join(", ")));
            return None;
        }
    };
    let found = words.iter().copied().find(|w| *w == text);
    if found.is_none() {
        let nearest = nearest(&text, words.iter().copied()).map(str::to_owned);
        let value = excerpt(&text);
        reader.report(
            node.place,
            Fault::NotOneOf {
                value,
                allowed: words.to_vec(),
                nearest,
            },
        );
    }
    found
}

impl Setting for bool {
    fn kind() -> String {
        "true or false".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if let Content::Bool(b) = node.content {
            return Some(b);
        }
        reader.wrong_type(node, "true or false");
        None
    }

    fn tree(&self) -> Tree {
        Tree::Bool(*self)
    }
}

macro_rules! numbers {
    ($($ty:ty),+) => { $(
        impl Setting for $ty {
            fn kind() -> String {
                "whole number".into()
            }

            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                let Content::Int(i) = node.content else {
                    reader.wrong_type(node, "a whole number");
                    return None;
                };
                let value = <$ty>::try_from(i).ok();
                if value.is_none() {
                    let allowed = format!("0 to {}", <$ty>::MAX);
                    reader.report(node.place, Fault::OutOfRange { value: i.to_string(), allowed });
                }
                value
            }

            fn tree(&self) -> Tree {
                Tree::Int(u64::try_from(*self).unwrap_or(u64::MAX))
            }
        }

        impl Rule<$ty> for RangeInclusive<$ty> {
            fn check(&self, value: &$ty) -> Result<(), Fault> {
                if self.contains(value) {
                    return Ok(());
                }
                let allowed = Rule::<$ty>::allowed(self);
                Err(Fault::OutOfRange { value: value.to_string(), allowed })
            }

            fn allowed(&self) -> String {
                format!("{} to {}", self.start(), self.end())
            }
        }
    )+ };
}
numbers!(u32, u64, usize);

impl Setting for String {
    fn kind() -> String {
        "text".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        text(node, "text", reader).map(str::to_owned)
    }

    fn tree(&self) -> Tree {
        Tree::Text(self.clone())
    }
}

/// A text without control characters, not empty.
pub(crate) fn text<'n>(node: &'n Node, what: &str, reader: &mut Reader) -> Option<&'n str> {
    let reason = match &node.content {
        Content::Text(t) if t.is_empty() => "an empty text",
        Content::Text(t) if t.len() > MAX_TEXT => "a text of more than 4096 bytes",
        Content::Text(t) if t.chars().any(char::is_control) => "a text with control characters",
        Content::Text(t) => return Some(t),
        Content::Int(_) | Content::Float(_) | Content::Bool(_) => {
            reader.wrong_type(node, format!("{what} (write it in quotes)"));
            return None;
        }
        _ => {
            reader.wrong_type(node, what);
            return None;
        }
    };
    let (expected, found) = (what.to_owned(), reason.to_owned());
    reader.report(node.place, Fault::WrongType { expected, found });
    None
}

impl Setting for PathBuf {
    fn kind() -> String {
        "path".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        text(node, "a path", reader).map(Self::from)
    }

    fn tree(&self) -> Tree {
        Tree::Text(self.to_string_lossy().into_owned())
    }
}

impl Setting for Domain {
    fn kind() -> String {
        "domain".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let given = text(node, "a domain", reader)?;
        match Self::parse(given) {
            Ok(domain) => Some(domain),
            Err(why) => {
                let reason = format!("`{}` is not a domain: {why}", excerpt(given));
                reader.report(node.place, Fault::Invalid { reason });
                None
            }
        }
    }

    fn tree(&self) -> Tree {
        Tree::Text(self.0.clone())
    }
}

impl Setting for SocketAddr {
    fn kind() -> String {
        "address and port".into()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        const WHAT: &str = "an address and port such as `[::]:5222` or `:5222`";
        let given = text(node, WHAT, reader)?;
        let every = |port: &str| {
            port.parse()
                .ok()
                .map(|p| (IpAddr::V6(Ipv6Addr::UNSPECIFIED), p))
        };
        let parsed = match given.strip_prefix(':') {
            Some(port) => every(port).map(Self::from),
            None => given.parse().ok(),
        };
        if parsed.is_none() {
            reader.wrong_type(node, WHAT);
        }
        parsed
    }

    fn tree(&self) -> Tree {
        Tree::Text(self.to_string())
    }
}

impl<T: Setting> Setting for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.content {
            Content::Null => Some(None),
            _ => T::read(node, reader).map(Some),
        }
    }

    fn tree(&self) -> Tree {
        self.as_ref().map_or(Tree::Null, Setting::tree)
    }

    fn describe(doc: OptionDoc, out: &mut Vec<OptionDoc>) {
        T::describe(doc, out);
    }
}

impl<T, R: Rule<T>> Rule<Option<T>> for R {
    fn check(&self, value: &Option<T>) -> Result<(), Fault> {
        value.as_ref().map_or(Ok(()), |v| Rule::<T>::check(self, v))
    }

    fn allowed(&self) -> String {
        Rule::<T>::allowed(self)
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn kind() -> String {
        format!("list of: {}", T::kind())
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Content::List(items) = &node.content else {
            reader.wrong_type(node, format!("a list (`[a, b]`) of: {}", T::kind()));
            return None;
        };
        if items.len() > MAX_LIST {
            let (value, allowed) = (format!("a list of {}", items.len()), "up to 64".to_owned());
            reader.report(node.place, Fault::OutOfRange { value, allowed });
            return None;
        }
        let read = |(i, item)| reader.within(&format!("[{i}]"), |r| T::read(item, r));
        let out: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        out.into_iter().collect()
    }

    fn tree(&self) -> Tree {
        Tree::List(self.iter().map(Setting::tree).collect())
    }

    fn describe(doc: OptionDoc, out: &mut Vec<OptionDoc>) {
        let path = format!("{}[]", doc.path);
        out.push(doc);
        let before = out.len();
        let element = OptionDoc {
            path: path.clone(),
            kind: T::kind(),
            default: None,
            allowed: None,
            doc: String::new(),
        };
        T::describe(element, out);
        // A list of plain values is one option.
        if out.len() == before + 1 && out[before].path == path {
            out.truncate(before);
        }
    }
}

/// A rule made of a function and the words for it.
pub(crate) struct Checked<T: ?Sized>(
    pub(crate) fn(&T) -> Result<(), String>,
    pub(crate) &'static str,
);

impl Rule<String> for Checked<str> {
    fn check(&self, value: &String) -> Result<(), Fault> {
        (self.0)(value).map_err(|reason| Fault::Invalid { reason })
    }

    fn allowed(&self) -> String {
        self.1.into()
    }
}

/// A list that is not empty.
pub(crate) struct NotEmpty;

impl<T> Rule<Vec<T>> for NotEmpty {
    fn check(&self, value: &Vec<T>) -> Result<(), Fault> {
        if value.is_empty() {
            return Err(Fault::Invalid {
                reason: "the list is empty; at least one is needed".into(),
            });
        }
        Ok(())
    }

    fn allowed(&self) -> String {
        "1 to 64 elements".into()
    }
}
