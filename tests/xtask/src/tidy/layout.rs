//! Where things stand: the top-level folders, and names that say nothing.

use super::Fault;

/// What the root folder holds besides dot files: the parts of the product and their manifests.
const ENTRIES: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bootstrap",
    "cloud-init",
    "clippy.toml",
    "deny.toml",
    "docs",
    "packer",
    "rustfmt.toml",
    "server",
    "terraform",
    "tests",
];

/// Those of them that must be there.
const REQUIRED: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bootstrap",
    "deny.toml",
    "docs",
    "server",
    "tests",
];

/// Names under which anything could stand.
pub(super) const EMPTY_NAMES: &[&str] = &[
    "common", "core", "helper", "helpers", "manager", "misc", "util", "utils",
];

/// The faults of the names in the root folder.
#[must_use]
pub fn check(entries: &[String]) -> Vec<Fault> {
    let known = |name: &&String| ENTRIES.contains(&name.as_str()) || name.starts_with('.');
    let unknown = entries.iter().filter(|name| !known(name));
    let unknown = unknown.map(|name| Fault::of(name, "has no place in the root folder"));
    let missing = REQUIRED
        .iter()
        .filter(|name| !entries.iter().any(|entry| entry == *name));
    unknown
        .chain(missing.map(|name| Fault::of(name, "is missing")))
        .collect()
}

/// The fault of a source file whose name says nothing.
#[must_use]
pub fn check_file_name(place: &str) -> Option<Fault> {
    let stem = place.trim_end_matches(".rs");
    let empty = stem.split('/').find(|part| EMPTY_NAMES.contains(part))?;
    Some(Fault::of(
        place,
        format!("`{empty}` is no name: say what it holds"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(more: &[&str]) -> Vec<String> {
        REQUIRED
            .iter()
            .chain(more)
            .map(|name| (*name).to_owned())
            .collect()
    }

    #[test]
    fn an_unknown_entry_is_a_fault_and_a_dot_file_is_none() {
        assert_eq!(
            check(&names(&[".ci", ".gitignore", "packer", "clippy.toml"])),
            []
        );
        let faults = check(&names(&["scripts"]));
        assert_eq!(
            faults,
            [Fault::of("scripts", "has no place in the root folder")]
        );
    }

    #[test]
    fn a_missing_entry_is_a_fault() {
        let entries: Vec<String> = names(&[])
            .into_iter()
            .filter(|name| name != "LICENSE")
            .collect();
        assert_eq!(check(&entries), [Fault::of("LICENSE", "is missing")]);
    }

    #[test]
    fn names_that_say_nothing_are_faults() {
        assert!(check_file_name("server/crates/xml/src/util.rs").is_some());
        assert!(check_file_name("server/crates/core/src/lib.rs").is_some());
        assert!(check_file_name("server/crates/xml/src/framer.rs").is_none());
    }
}
