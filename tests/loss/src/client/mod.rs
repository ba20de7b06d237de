//! Clients: pure machines, and the shell that gives them connections and the time.

pub(crate) mod login;
pub(crate) mod machine;
pub(crate) mod managed;
pub(crate) mod schedule;
pub(crate) mod servers;
pub(crate) mod shell;
mod stanzas;

#[cfg(test)]
mod tests;
