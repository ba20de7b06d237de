//! Just enough of Rust's lexical rules to measure source text: where comments and literals are.

/// The source with the insides of comments, strings and character literals replaced by blanks.
/// Lines stay where they are, so that what is found in the result can be named by its line.
#[must_use]
pub fn blank(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut after_word = false;
    while let Some(c) = rest.chars().next() {
        let length = if after_word && c != '"' && c != '\'' && c != '/' {
            0
        } else {
            literal_or_comment(rest)
        };
        let (token, tail) = rest.split_at(length.max(c.len_utf8()));
        if length > 0 {
            out.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            after_word = false;
        } else {
            out.push(c);
            after_word = c.is_alphanumeric() || c == '_';
        }
        rest = tail;
    }
    out
}

/// The length in bytes of the comment or literal that starts here; 0 when none does.
fn literal_or_comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('\'') {
        return character(text);
    }
    // b"", c"", r"", br#""#, cr#""#
    let prefix = text.len() - text.trim_start_matches(['b', 'c']).len();
    let raw = text.get(prefix..).unwrap_or_default();
    if prefix > 1 {
        return 0;
    }
    if let Some(tail) = raw.strip_prefix('r') {
        let hashes = tail.len() - tail.trim_start_matches('#').len();
        if !tail
            .get(hashes..)
            .is_some_and(|quoted| quoted.starts_with('"'))
        {
            return 0;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let open = prefix + 1 + hashes + 1;
        let body = text.get(open..).unwrap_or_default();
        return body
            .find(&close)
            .map_or(text.len(), |at| open + at + close.len());
    }
    if raw.starts_with('"') {
        return prefix + quoted(raw);
    }
    if prefix == 1 && text.starts_with("b'") {
        return 1 + character(raw);
    }
    0
}

/// The length of the string literal that starts with the quote here.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal that starts here; 0 for a lifetime or a label.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let closing = chars.skip(1).find(|(_, c)| *c == '\'');
            closing.map_or(text.len(), |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// The length of the comment that starts here; block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the source, runs of blanks as one; every line must keep its length.
    fn check(source: &str, expected: &str) {
        let blanked = blank(source);
        let lengths = |text: &str| text.lines().map(str::len).collect::<Vec<_>>();
        assert_eq!(lengths(&blanked), lengths(source), "of {source:?}");
        let words: Vec<&str> = blanked.split_whitespace().collect();
        assert_eq!(words.join(" "), expected, "of {source:?}");
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        check("a // { b\nc", "a c");
        check("a /* { /* } */ { */ b", "a b");
        check("f(\"{\\\"{\", x)", "f( , x)");
        check("f(r#\"{\"{\"#, x)", "f( , x)");
        check("f(b\"{\", br\"}\", c\"{\")", "f( , , )");
        check("let c = '{'; let q = '\\''; b'}'", "let c = ; let q = ;");
        check(
            "fn f<'a>(x: &'a str) { 'l: loop {} }",
            "fn f<'a>(x: &'a str) { 'l: loop {} }",
        );
        check("\"two\nlines\" {", "{");
        check("r#type { bar(\"x\") }", "r#type { bar( ) }");
        check("attr\"x\"", "attr");
    }

    #[test]
    fn what_never_ends_is_blanked_to_the_end() {
        for source in ["\"abc", "/* abc", "r#\"abc\"", "'\\"] {
            assert!(blank(source).chars().all(|c| c == ' '), "{source:?}");
        }
    }
}
