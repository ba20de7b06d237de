//! Patterns of `certfiles`, such as `/etc/letsencrypt/live/*/*.pem`: `*` and `?` within one name.
//! What is there is found out when the file is read, in the order of names.

use std::io;
use std::path::{Path, PathBuf};

/// The most files of one pattern: more are no certificates of one server.
const FILES: usize = 256;

/// Whether a path is a pattern.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

/// What in a pattern is not understood here, although ejabberd does.
pub(super) fn unknown(path: &str) -> Option<&'static str> {
    let words = ["**", "[", "{"];
    words.into_iter().find(|word| path.contains(word))
}

/// The files that a pattern fits; a folder that can't be read has none. `names` reads a folder.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn expand(
    pattern: &Path,
    names: impl Fn(&Path) -> io::Result<Vec<String>>,
) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str();
        let Some(wanted) = part.to_str().filter(|part| is_pattern(part)) else {
            for path in &mut found {
                path.push(part);
            }
            continue;
        };
        let mut next = Vec::new();
        for folder in &found {
            let mut inside = names(folder).unwrap_or_default();
            // What begins with a dot is hidden, as in a shell.
            inside.retain(|name| !name.starts_with('.') && fits(wanted, name));
            inside.sort_unstable();
            next.extend(inside.iter().map(|name| folder.join(name)));
            if next.len() > FILES {
                return Err(format!("more than {FILES} files: name them"));
            }
        }
        found = next;
    }
    if found.is_empty() {
        return Err("no such files".to_owned());
    }
    Ok(found)
}

/// Whether a name fits a pattern. It takes at most the product of their lengths.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and how much of the name it takes.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&have) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&want) if want == '?' || want == have => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.pem", "cert.pem", true),
            ("*.pem", "cert.pem.old", false),
            ("*", "", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("?.pem", "a.pem", true),
            ("?.pem", "ab.pem", false),
            ("**", "x", true),
            ("x", "x", true),
            ("x", "y", false),
            ("\u{e9}?", "\u{e9}\u{e9}", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        let long = "a".repeat(5_000);
        assert!(!fits(&"*a".repeat(40).replace("*a", "*a*b"), &long));
    }

    #[test]
    fn folders_are_walked_in_the_order_of_names() {
        let names = |folder: &Path| match folder.to_str().unwrap() {
            "/live" => Ok(vec!["b.org".to_owned(), "a.org".into(), ".hidden".into()]),
            "/live/a.org" => Ok(vec!["privkey.pem".to_owned(), "README".into()]),
            "/live/b.org" => Ok(vec!["fullchain.pem".to_owned()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let found = expand(Path::new("/live/*/*.pem"), names).unwrap();
        let expected = ["/live/a.org/privkey.pem", "/live/b.org/fullchain.pem"];
        assert_eq!(found, expected.map(PathBuf::from));
        // What follows a pattern is not looked for: it may not be there.
        let found = expand(Path::new("/live/?.org/key"), names).unwrap();
        assert_eq!(
            found,
            ["/live/a.org/key", "/live/b.org/key"].map(PathBuf::from)
        );
        let nothing = expand(Path::new("/none/*"), names).unwrap_err();
        assert_eq!(nothing, "no such files");
    }

    #[test]
    fn a_pattern_has_a_bound() {
        let names = |_: &Path| Ok((0..20).map(|n| n.to_string()).collect());
        assert!(expand(Path::new("/a/*"), names).is_ok());
        assert!(expand(Path::new("/a/*/*/*/*/*"), names).is_err());
    }
}
