//! Domains as users write them.

/// Normalises a domain, or says what is wrong with it.
pub(crate) fn normalise(text: &str) -> Result<String, String> {
    if let Some(scheme) = text.find("://") {
        return Err(format!("leave out `{}`", &text[..scheme + 3]));
    }
    if let Some(c) = text
        .chars()
        .find(|c| c.is_whitespace() || "/@:*,;\"'".contains(*c))
        && text.parse::<std::net::Ipv6Addr>().is_err()
    {
        return Err(format!("`{c}` cannot stand in one"));
    }
    let plain = text.trim_end_matches('.').to_lowercase();
    if plain.is_empty() || plain.len() > 253 || plain.contains("..") {
        return Err("it has an empty label or is longer than 253 bytes".into());
    }
    Ok(plain)
}
