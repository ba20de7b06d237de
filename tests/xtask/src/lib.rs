//! The project's own commands: `cargo xtask <verb>`.
//!
//! Purpose: one place that knows how the whole is checked, so that a contributor, the continuous
//! integration and the README all run the same thing. It does not know how the product works: it
//! starts cargo and reads the tree. Limits: std and a JSON reader only, so that it builds in
//! seconds before anything else does.

pub mod machine;
pub mod run;
pub mod terraform;
pub mod tidy;
pub mod tools;

use std::path::PathBuf;

/// The verbs of `cargo xtask`, each with the line that the help prints. Documents may name these
/// verbs and no others.
pub const VERBS: &[(&str, &str)] = &[
    (
        "test",
        "install what the tests need, build the binaries, run every test",
    ),
    (
        "lint",
        "formatting, clippy with warnings as errors, tidy, dependency policy",
    ),
    (
        "tidy",
        "only the checks on sizes, layers, layout, words, documents and dependencies",
    ),
    (
        "ci",
        "lint, test, and a boot of the image: what the continuous integration runs",
    ),
    ("tools", "only install what the tests need"),
    (
        "boot",
        "boot the image with fresh programs, twice, as a `pair` or with all `forms` of user-data; \
         needs root",
    ),
    (
        "image",
        "build the image with Packer, boot it twice, as a pair and in all forms; needs root",
    ),
    (
        "nightly",
        "image, the infrastructure's life, then 10,000 simulated clusters and growth; needs root",
    ),
    (
        "terraform",
        "the infrastructure: check (part of lint), checkov, apply to an emulated AWS; or all",
    ),
];

/// The workspace's root folder: two above this package's.
#[must_use]
pub fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}
