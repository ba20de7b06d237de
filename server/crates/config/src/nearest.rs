//! "Did you mean": the nearest of some words.

/// The nearest of `words` to `given`, if it is near enough to be meant: at most a third of the
/// letters differ (a swap of neighbours counts as one). Case and `-`/`_` do not count.
pub fn nearest<'a>(given: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = fold(given);
    if given.is_empty() || given.len() > 64 {
        return None;
    }
    words
        .into_iter()
        .map(|w| (distance(&given, &fold(w)), w))
        .filter(|(d, w)| *d <= (given.len().max(w.len()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, w)| w)
}

fn fold(word: &str) -> Vec<char> {
    let lower = word.chars().flat_map(char::to_lowercase);
    lower.map(|c| if c == '-' { '_' } else { c }).collect()
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut rows: Vec<usize> = vec![0; width * (a.len() + 1)];
    for (j, first) in rows.iter_mut().enumerate().take(width) {
        *first = j;
    }
    for i in 1..=a.len() {
        rows[i * width] = i;
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[(i - 1) * width + j] + 1)
                .min(rows[i * width + j - 1] + 1)
                .min(rows[(i - 1) * width + j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[(i - 2) * width + j - 2] + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[width * (a.len() + 1) - 1]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn what_is_meant() {
        let words = ["stanza_bytes", "depth", "domains", "path"];
        for (given, expected) in [
            ("stanza_byte", Some("stanza_bytes")),
            ("Stanza-Bytes", Some("stanza_bytes")),
            ("dpeth", Some("depth")),
            ("domain", Some("domains")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, words), expected, "{given}");
        }
    }
}
