//! What Cirrus costs and what bounds it, computed: the tables of `docs/COST.md` and
//! `docs/SCALE.md`.
//!
//! What was measured comes from where it is measured ([`measured`]); prices and AWS's limits come
//! from their files, with sources; what is only assumed is a named constant that the documents
//! print. It starts nothing and measures nothing.

pub mod cost;
pub mod day;
pub mod document;
pub mod measured;
pub mod plan;
pub mod price;
pub mod scale;

/// Makes the table of a name, or says what it lacks.
pub type Tables = fn(&str) -> Result<String, String>;

/// The documents, each with who makes its tables.
pub const DOCUMENTS: [(&str, Tables); 2] = [
    ("docs/COST.md", cost::table),
    ("docs/SCALE.md", scale::table),
];

#[cfg(test)]
mod tests {
    /// The tables are what is computed. `UPDATE_GOLDEN=1` writes them anew.
    #[test]
    fn the_documents_are_what_is_computed() {
        for (name, table) in super::DOCUMENTS {
            let path = xtask::root().join(name);
            let there = std::fs::read_to_string(&path).unwrap();
            let made = super::document::render(&there, table).unwrap();
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &made).unwrap();
                continue;
            }
            assert!(
                made == there,
                "{name} is out of date: UPDATE_GOLDEN=1 cargo test -p cirrus-figures"
            );
        }
    }
}
