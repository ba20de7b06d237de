//! Words that mark something unfinished.

use super::Fault;

/// The words, in pieces, so that this file does not hold them. The first two count only as whole
/// words, the others wherever they stand.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("not imple", "mented yet"),
];

/// The kinds of files that are read by people.
const KINDS: &[&str] = &[
    "rs", "md", "toml", "py", "sh", "yaml", "yml", "tf", "hcl", "xmpp", "service",
];

/// Whether the rule holds for this file.
#[must_use]
pub fn applies_to(place: &str) -> bool {
    place == ".ci/run"
        || place
            .rsplit_once('.')
            .is_some_and(|(_, kind)| KINDS.contains(&kind))
}

/// The faults of one file.
#[must_use]
pub fn check(place: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let found = MARKS.iter().find(|mark| {
            line.match_indices(**mark).any(|(at, _)| {
                let whole = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let before = line.get(..at).and_then(|head| head.chars().next_back());
                let after = line
                    .get(at + mark.len()..)
                    .and_then(|tail| tail.chars().next());
                mark.ends_with('!') || (whole(before) && whole(after))
            })
        });
        if let Some(mark) = found {
            faults.push(Fault::at(
                place,
                number,
                format!("`{mark}`: finish it or leave it out"),
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_found_and_longer_words_are_none() {
        for mark in MARKS {
            let faults = check("a.rs", &format!("fine\n    {mark}(\"later\")\n"));
            assert_eq!(faults.len(), 1, "{mark}");
            assert_eq!(faults[0].line, 2);
        }
        let method = concat!("let METH", "OD", "OLOGY = 1;");
        assert_eq!(check("a.rs", method), []);
        let lint = concat!("to", "do = \"warn\"");
        assert_eq!(check("Cargo.toml", lint), []);
    }

    #[test]
    fn it_reads_what_people_read() {
        assert!(applies_to("docs/ARCHITECTURE.md") && applies_to(".ci/run"));
        assert!(!applies_to("Cargo.lock") && !applies_to("a.der"));
    }
}
