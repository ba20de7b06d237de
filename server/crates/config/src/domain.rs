//! Domains as people write them, and as names of tables need them.

/// Normalises a domain, or says what is wrong with it.
pub(crate) fn normalise(text: &str) -> Result<String, String> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave out `{scheme}://`"));
    }
    if let Some((local, host)) = text.split_once('@') {
        return Err(format!(
            "`{local}@` makes it a user's address; the domain is `{host}`"
        ));
    }
    if let Some((_, rest)) = text.split_once('/') {
        return Err(format!("leave out `/{rest}`"));
    }
    if let Some(c) = text.chars().find(|c| c.is_whitespace()) {
        return Err(format!("it contains {c:?}"));
    }
    cirrus_jid::host(text).map_err(|e| e.to_string())
}

/// The domain with only the characters that a table's name may have: Punycode for Unicode labels,
/// `-` for the colons of an IPv6 literal.
pub(crate) fn ascii(domain: &str) -> String {
    let ascii = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned());
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let plain: String = ascii
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    let trimmed = plain.trim_matches('-');
    // The literal of the unspecified address has nothing else.
    if trimmed.is_empty() {
        "cirrus".to_owned()
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{ascii, normalise};

    #[test]
    fn what_people_write() {
        for (given, expected) in [
            ("Example.COM.", Ok("example.com")),
            ("münchen.example", Ok("münchen.example")),
            ("xn--mnchen-3ya.example", Ok("münchen.example")),
            ("localhost", Ok("localhost")),
            ("[::1]", Ok("[::1]")),
            ("https://example.com", Err("leave out `https://`")),
            ("example.com/chat", Err("leave out `/chat`")),
            (
                "bob@example.com",
                Err("`bob@` makes it a user's address; the domain is `example.com`"),
            ),
            ("example .com", Err("it contains ' '")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(normalise(given), expected, "{given}");
        }
        for bad in [
            "",
            ".",
            "-a.example",
            "a..b",
            "exa_mple.com",
            "1.2.3",
            &"a".repeat(64),
        ] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_tables() {
        for (domain, prefix) in [
            ("example.com", "example.com"),
            ("münchen.example", "xn--mnchen-3ya.example"),
            ("[2001:db8::1]", "2001-db8--1"),
            ("[::]", "cirrus"),
        ] {
            assert_eq!(ascii(domain), prefix);
            assert_eq!(cirrus_schema::check_prefix(prefix), Ok(()));
        }
    }
}
