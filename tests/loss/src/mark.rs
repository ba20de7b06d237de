//! The numbers that stanzas carry: in a message's body, and in a presence's status.

use crate::ledger::Account;

/// What a message says: which run, from whom, to whom, which of that pair (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) run: u32,
    pub(crate) from: Account,
    pub(crate) to: Account,
    pub(crate) sequence: u32,
}

impl Mark {
    /// As it stands in a body.
    pub(crate) fn body(self) -> String {
        let Mark {
            run,
            from,
            to,
            sequence,
        } = self;
        format!("cirrus-loss {run} {from} {to} {sequence}")
    }

    /// The mark in a body, if it is one.
    pub(crate) fn parse(body: &str) -> Option<Mark> {
        let [run, from, to, sequence] = numbers(body.strip_prefix("cirrus-loss ")?)?;
        Some(Mark {
            run,
            from,
            to,
            sequence,
        })
    }
}

/// The text of a presence: its run and its number.
pub(crate) fn status(run: u32, number: u32) -> String {
    format!("cirrus-loss {run} {number}")
}

/// The number in a presence's text, if it is one of this run.
pub(crate) fn parse_status(run: u32, text: &str) -> Option<u32> {
    let [of, number] = numbers(text.strip_prefix("cirrus-loss ")?)?;
    (of == run).then_some(number)
}

fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let numbers: Option<Vec<u32>> = text.split(' ').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mark = Mark {
            run: 9,
            from: 1,
            to: 2,
            sequence: 3,
        };
        assert_eq!(Mark::parse(&mark.body()), Some(mark));
        assert_eq!(Mark::parse("cirrus-loss 9 1 2"), None);
        assert_eq!(Mark::parse("hello"), None);
        assert_eq!(parse_status(9, &status(9, 4)), Some(4));
        assert_eq!(parse_status(8, &status(9, 4)), None);
    }
}
