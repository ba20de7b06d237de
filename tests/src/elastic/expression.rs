//! CloudWatch's metric math, as far as our alarms use it: numbers, names of queries, arithmetic,
//! comparisons, `AND`, `OR` and `IF(condition, then, else)`.

use std::collections::BTreeMap;

/// Nested parentheses at most.
const MAX_DEPTH: usize = 32;

/// The value with these values of names; `None` where one that matters is missing.
///
/// # Errors
/// Where it is none of the expressions above.
pub(super) fn evaluate(text: &str, values: &BTreeMap<String, f64>) -> Result<Option<f64>, String> {
    let mut reader = Reader {
        text,
        values,
        depth: 0,
    };
    let value = reader.either()?;
    reader.skip();
    match reader.text {
        "" => Ok(value),
        rest => Err(format!("`{rest}` is not understood in `{text}`")),
    }
}

struct Reader<'a> {
    text: &'a str,
    values: &'a BTreeMap<String, f64>,
    depth: usize,
}

type Value = Result<Option<f64>, String>;

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Both values through a function, if both are there.
fn both(a: Option<f64>, b: Option<f64>, with: impl Fn(f64, f64) -> f64) -> Option<f64> {
    Some(with(a?, b?))
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn takes(&mut self, mark: &str) -> bool {
        self.skip();
        let rest = self.text.strip_prefix(mark);
        // A word ends where no other character of a word follows.
        let word = mark.ends_with(|c: char| c.is_ascii_alphanumeric());
        let goes_on = |rest: &str| word && rest.starts_with(|c: char| c.is_ascii_alphanumeric());
        match rest.filter(|rest| !goes_on(rest)) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn either(&mut self) -> Value {
        let mut value = self.every()?;
        while self.takes("OR") {
            let next = self.every()?;
            value = both(value, next, |a, b| truth(a != 0.0 || b != 0.0));
        }
        Ok(value)
    }

    fn every(&mut self) -> Value {
        let mut value = self.comparison()?;
        while self.takes("AND") {
            let next = self.comparison()?;
            value = both(value, next, |a, b| truth(a != 0.0 && b != 0.0));
        }
        Ok(value)
    }

    fn comparison(&mut self) -> Value {
        let left = self.sum()?;
        for mark in ["<=", ">=", "<", ">"] {
            if self.takes(mark) {
                let right = self.sum()?;
                let holds = |a: f64, b: f64| match mark {
                    "<=" => a <= b,
                    ">=" => a >= b,
                    "<" => a < b,
                    _ => a > b,
                };
                return Ok(both(left, right, |a, b| truth(holds(a, b))));
            }
        }
        Ok(left)
    }

    fn sum(&mut self) -> Value {
        let mut value = self.product()?;
        loop {
            if self.takes("+") {
                value = both(value, self.product()?, |a, b| a + b);
            } else if self.takes("-") {
                value = both(value, self.product()?, |a, b| a - b);
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Value {
        let mut value = self.single()?;
        loop {
            if self.takes("*") {
                value = both(value, self.single()?, |a, b| a * b);
            } else if self.takes("/") {
                value = both(value, self.single()?, |a, b| a / b);
            } else {
                return Ok(value);
            }
        }
    }

    fn single(&mut self) -> Value {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("nested too deeply".into());
        }
        let value = self.single_within()?;
        self.depth -= 1;
        Ok(value)
    }

    fn single_within(&mut self) -> Value {
        if self.takes("IF") {
            self.expects("(")?;
            let condition = self.either()?;
            self.expects(",")?;
            let (then, otherwise) = (self.either()?, {
                self.expects(",")?;
                self.either()?
            });
            self.expects(")")?;
            return Ok(condition.and_then(|it| if it != 0.0 { then } else { otherwise }));
        }
        if self.takes("(") {
            let value = self.either()?;
            self.expects(")")?;
            return Ok(value);
        }
        self.skip();
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = self.text.find(|c| !part(c)).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        if word.is_empty() {
            return Err(format!("`{}` is no value", self.text));
        }
        self.text = rest;
        if let Ok(number) = word.parse() {
            return Ok(Some(number));
        }
        let name = word.starts_with(|c: char| c.is_ascii_lowercase());
        match name {
            true => Ok(self.values.get(word).copied()),
            false => Err(format!("`{word}` is not known")),
        }
    }

    fn expects(&mut self, mark: &str) -> Result<(), String> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(format!("`{mark}` is missing before `{}`", self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<f64>, String> {
        let values = [("nodes", 3.0), ("sessions", 4.0), ("cpu", 10.0)];
        let values = values.map(|(name, value)| (name.to_owned(), value));
        evaluate(text, &values.into())
    }

    #[test]
    fn expressions() {
        for (text, value) in [
            ("1 + 2 * 3 - 4 / 2", Some(5.0)),
            ("(1 + 2) * 3", Some(9.0)),
            ("sessions * nodes / (nodes - 1)", Some(6.0)),
            ("nodes >= 3 AND cpu < 10 OR sessions <= 4", Some(1.0)),
            (
                "IF(nodes > 1 AND sessions * nodes / (nodes - 1) < 9.6, 1, 0)",
                Some(1.0),
            ),
            ("IF(nodes > 3, 1, 0)", Some(0.0)),
            ("unheard + 1", None),
            ("IF(nodes > 1 AND unheard < 1, 1, 0)", None),
        ] {
            assert_eq!(of(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for (text, expected) in [
            ("FILL(sessions, 0)", "`FILL` is not known"),
            ("1 +", "`` is no value"),
            ("(1", "`)` is missing before ``"),
            ("1 1", "`1` is not understood in `1 1`"),
        ] {
            assert_eq!(of(text), Err(expected.to_owned()), "{text}");
        }
        let deep = "(".repeat(100);
        assert_eq!(of(&deep), Err("nested too deeply".to_owned()));
    }
}
