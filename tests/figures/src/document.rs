//! Documents whose tables are computed: each stands between a line that names it and one that ends
//! it.

use std::fmt::Write as _;

const END: &str = "<!-- end -->";

/// A document with every table made anew by `table`, which is told its name.
///
/// # Errors
/// What `table` says, or a table without an end.
pub fn render(
    document: &str,
    table: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = document;
    while let Some((before, after)) = rest.split_once("<!-- computed: ") {
        let (name, after) = after.split_once(" -->").ok_or("a mark without an end")?;
        let (_, after) = after.split_once(END).ok_or(format!("{name} has no end"))?;
        let table = table(name)?;
        // Writing into a String can't fail.
        let _ = write!(text, "{before}<!-- computed: {name} -->\n\n{table}\n{END}");
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// A table of Markdown; all columns but the first are aligned to the right.
#[must_use]
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rule: Vec<&str> = vec!["---:"; head.len()];
    if let Some(first) = rule.first_mut() {
        *first = "---";
    }
    let mut text = line(head);
    let _ = writeln!(text, "|{}|", rule.join("|"));
    text.extend(rows.iter().map(|row| line(row)));
    text
}

/// As [`table`], of words: all columns to the left.
#[must_use]
pub fn words(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|it| (*it).to_owned()).collect();
    table(&head, rows).replacen("---:", "---", head.len())
}

/// A number with as many digits as say something, thousands apart.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 0.095 || small == 0.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let mut apart = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(digit);
    }
    let part = part.trim_end_matches('0');
    if part.is_empty() {
        apart
    } else {
        format!("{apart}.{part}")
    }
}

/// A number of users, as people say it.
#[must_use]
pub fn users(count: f64) -> String {
    match count {
        millions if millions >= 1e6 => format!("{} M", number(millions / 1e6)),
        thousands => format!("{} k", number(thousands / 1e3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_what_they_can() {
        let all = [0.0, 0.004_21, 0.5, 12.34, 1_234.5, 1_234_567.0].map(number);
        assert_eq!(all, ["0", "0.0042", "0.5", "12.3", "1,234", "1,234,567"]);
        assert_eq!([1e3, 1e7, 2.5e6].map(users), ["1 k", "10 M", "2.5 M"]);
    }

    #[test]
    fn a_table_stands_between_its_marks() {
        let made = render("a\n<!-- computed: x -->\nold\n<!-- end -->\nb", |name| {
            Ok(format!("{name}!"))
        });
        let expected = "a\n<!-- computed: x -->\n\nx!\n<!-- end -->\nb";
        assert_eq!(made.unwrap(), expected);
        assert!(render("<!-- computed: x -->", |_| Ok(String::new())).is_err());
    }
}
