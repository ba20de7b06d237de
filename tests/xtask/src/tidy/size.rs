//! Sizes: a file that grows past its limit is two ideas.

use std::ops::Range;

use super::{Fault, lex};

/// Lines of a file, its tests apart.
pub const FILE_LINES: usize = 600;
/// Lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES: usize = 70;
/// Columns of a line. Longer web addresses cannot be broken and may stand.
pub const COLUMNS: usize = 100;

/// The faults of one Rust file.
#[must_use]
pub fn check(place: &str, source: &str) -> Vec<Fault> {
    if is_test_file(place) {
        return Vec::new();
    }
    let code = lex::blank(source);
    let tests = test_lines(source, &code);
    let in_tests = |line: usize| tests.iter().any(|range| range.contains(&line));
    let mut faults = Vec::new();
    let lines = source.lines().count() - tests.iter().map(ExactSizeIterator::len).sum::<usize>();
    if lines > FILE_LINES {
        faults.push(Fault::of(
            place,
            format!("{lines} lines without tests; {FILE_LINES} at most"),
        ));
    }
    for (line, text) in (1..).zip(source.lines()) {
        let columns = text.chars().count();
        if columns > COLUMNS && !in_tests(line) && !text.contains("https://") {
            faults.push(Fault::at(
                place,
                line,
                format!("{columns} columns; {COLUMNS} at most"),
            ));
        }
    }
    for (name, range) in functions(&code) {
        let length = range.len();
        if length > FUNCTION_LINES && !in_tests(range.start) {
            let what = format!("fn {name} has {length} lines; {FUNCTION_LINES} at most");
            faults.push(Fault::at(place, range.start, what));
        }
    }
    faults
}

/// Whether the whole file is test code, by its name.
fn is_test_file(place: &str) -> bool {
    let name = place.rsplit('/').next().unwrap_or(place);
    let folders = place.strip_suffix(name).unwrap_or_default();
    name == "tests.rs"
        || name.ends_with("_tests.rs")
        || place.starts_with("tests/tests/")
        || place.starts_with("tests/fuzz/")
        || folders
            .strip_prefix("tests/")
            .unwrap_or(folders)
            .split('/')
            .any(|f| f == "tests")
}

/// The lines of each `#[cfg(test)] mod … { … }`.
fn test_lines(source: &str, code: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(found) = code.get(at..).and_then(|rest| rest.find("#[cfg(test)]")) {
        let start = at + found;
        at = start + 1;
        let item = code.get(start..).unwrap_or_default();
        let head = item.find(['{', ';']).unwrap_or(item.len());
        if !item.get(..head).is_some_and(|head| has_word(head, "mod")) {
            continue;
        }
        if let Some(end) = closing_brace(item) {
            ranges.push(line_of(source, start)..line_of(source, start + end) + 1);
            at = start + end;
        }
    }
    ranges
}

/// The name and the lines of each function that has a body.
fn functions(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    let mut previous = ' ';
    for (at, c) in code.char_indices() {
        let is_start = !(previous.is_alphanumeric() || previous == '_');
        previous = c;
        let item = code.get(at..).unwrap_or_default();
        let Some(signature) = item.strip_prefix("fn ").filter(|_| is_start) else {
            continue;
        };
        let name: String = signature
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if let Some(end) = closing_brace(item) {
            found.push((name, line_of(code, at)..line_of(code, at + end) + 1));
        }
    }
    found
}

/// Where the brace closes that opens first outside of parentheses and brackets; nothing when a
/// semicolon comes before it.
fn closing_brace(item: &str) -> Option<usize> {
    let (mut nested, mut braces) = (0_i32, 0_i32);
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' if braces == 0 => nested += 1,
            ')' | ']' if braces == 0 => nested -= 1,
            ';' if braces == 0 && nested == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces <= 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|w| w == word)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        let body = "    call(\"}\");\n".repeat(lines - 2);
        format!("fn long(a: [u8; 3]) -> Result<(), E> {{\n{body}}}\n")
    }

    #[test]
    fn a_function_of_71_lines_is_a_fault_and_one_of_70_is_none() {
        assert_eq!(check("a.rs", &function(70)), []);
        let faults = check("a.rs", &format!("\n{}", function(71)));
        assert_eq!(
            faults,
            [Fault::at("a.rs", 2, "fn long has 71 lines; 70 at most")]
        );
    }

    #[test]
    fn a_file_of_601_lines_is_a_fault_and_its_tests_do_not_count() {
        let small = "struct A;\n".repeat(600);
        assert_eq!(check("a.rs", &small), []);
        let with_tests = format!("{small}#[cfg(test)]\nmod tests {{\n{}}}\n", function(90));
        assert_eq!(check("a.rs", &with_tests), []);
        let faults = check("a.rs", &format!("{small}struct B;\n"));
        assert_eq!(
            faults,
            [Fault::of("a.rs", "601 lines without tests; 600 at most")]
        );
    }

    #[test]
    fn a_line_of_101_columns_is_a_fault_unless_it_is_an_address() {
        let wide = format!("// {}\n", "ä".repeat(97));
        assert_eq!(check("a.rs", &wide), []);
        let wider = format!("// {}\n", "ä".repeat(98));
        assert_eq!(
            check("a.rs", &wider),
            [Fault::at("a.rs", 1, "101 columns; 100 at most")]
        );
        assert_eq!(
            check("a.rs", &format!("// https://{}\n", "a".repeat(98))),
            []
        );
    }

    #[test]
    fn test_files_are_told_by_their_names() {
        for place in [
            "server/crates/x/src/tests.rs",
            "server/crates/x/src/y/tests/big.rs",
            "tests/tests/a.rs",
        ] {
            assert!(is_test_file(place), "{place}");
        }
        for place in [
            "server/crates/x/src/lib.rs",
            "tests/src/lib.rs",
            "tests/xtask/src/run.rs",
        ] {
            assert!(!is_test_file(place), "{place}");
        }
    }

    #[test]
    fn a_signature_without_a_body_is_no_function() {
        let code = "trait T { fn a(&self) -> [u8; 4]; fn b() {} }\ntype F = fn (u8);\n";
        let names: Vec<String> = functions(code).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn a_test_module_in_another_file_takes_nothing_away() {
        let source = format!("#[cfg(test)]\nmod tests;\n{}", function(71));
        assert_eq!(check("a.rs", &source).len(), 1);
    }
}
