//! Conditions and ranges in DynamoDB's expression language. Pure.
//!
//! Expiry is part of every condition: DynamoDB removes an expired item days late, and until then
//! it must count as absent.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use cirrus_schema::{ATTR_EXPIRES, ATTR_PK, ATTR_SK, ATTR_VERSION};

use super::convert::{bytes, number};
use crate::rules::bounds;
use crate::{Condition, Direction, SkRange};

/// An expression with the names and values that stand in it as `#x` and `:x`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Expression {
    pub text: String,
    pub names: HashMap<String, String>,
    pub values: HashMap<String, AttributeValue>,
}

impl Expression {
    fn new(text: &str) -> Expression {
        Expression {
            text: text.to_owned(),
            ..Expression::default()
        }
    }

    fn name(mut self, placeholder: &str, name: &str) -> Expression {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    fn value(mut self, placeholder: &str, value: AttributeValue) -> Expression {
        self.values.insert(placeholder.to_owned(), value);
        self
    }
}

/// The expression that holds when the condition does; none if it always does.
pub(super) fn condition(condition: Condition, now_ms: u64) -> Option<Expression> {
    let expression = match condition {
        Condition::Any => return None,
        Condition::Absent => {
            Expression::new("attribute_not_exists(#p) OR #x <= :now").name("#p", ATTR_PK)
        }
        Condition::Version(0) => Expression::new(
            "attribute_exists(#p) AND attribute_not_exists(#e) \
             AND (attribute_not_exists(#x) OR #x > :now)",
        )
        .name("#p", ATTR_PK)
        .name("#e", ATTR_VERSION),
        Condition::Version(version) => {
            Expression::new("#e = :e AND (attribute_not_exists(#x) OR #x > :now)")
                .name("#e", ATTR_VERSION)
                .value(":e", number(version))
        }
    };
    Some(
        expression
            .name("#x", ATTR_EXPIRES)
            .value(":now", number(now_ms / 1_000)),
    )
}

/// The condition of a query on its keys, and the sort key to start behind. None if no key can
/// match: the provider refuses such a query, as it refuses a start outside the range.
pub(super) fn keys(
    pk: &[u8],
    range: &SkRange,
    direction: Direction,
    after: Option<&Bytes>,
) -> Option<(Expression, Option<Bytes>)> {
    let range = without_empty(range)?;
    bounds(&range, direction, after)?;
    let sort = |text: &str| Expression::new(&format!("#p = :p AND {text}")).name("#s", ATTR_SK);
    let expression = match &range {
        SkRange::All => Expression::new("#p = :p"),
        SkRange::Prefix(prefix) => sort("begins_with(#s, :a)").value(":a", bytes(prefix)),
        SkRange::From(first) => sort("#s >= :a").value(":a", bytes(first)),
        SkRange::To(last) => sort("#s <= :a").value(":a", bytes(last)),
        SkRange::Between(first, last) => sort("#s BETWEEN :a AND :b")
            .value(":a", bytes(first))
            .value(":b", bytes(last)),
    };
    let start = after.filter(|sk| range.contains(sk)).cloned();
    Some((expression.name("#p", ATTR_PK).value(":p", bytes(pk)), start))
}

/// The same range without empty sort keys, which the provider refuses; none if nothing is in it.
fn without_empty(range: &SkRange) -> Option<SkRange> {
    match range {
        SkRange::Prefix(none) | SkRange::From(none) if none.is_empty() => Some(SkRange::All),
        SkRange::To(none) | SkRange::Between(_, none) if none.is_empty() => None,
        SkRange::Between(none, last) if none.is_empty() => Some(SkRange::To(last.clone())),
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_know_expiry() {
        assert_eq!(condition(Condition::Any, 5_000), None);
        for (given, text, values) in [
            (
                Condition::Absent,
                "attribute_not_exists(#p) OR #x <= :now",
                1,
            ),
            (
                Condition::Version(0),
                "attribute_exists(#p) AND attribute_not_exists(#e) AND \
                 (attribute_not_exists(#x) OR #x > :now)",
                1,
            ),
            (
                Condition::Version(7),
                "#e = :e AND (attribute_not_exists(#x) OR #x > :now)",
                2,
            ),
        ] {
            let expression = condition(given, 5_999).unwrap();
            assert_eq!(expression.text, text);
            assert_eq!(expression.values[":now"], number(5));
            assert_eq!(expression.values.len(), values);
            // The provider refuses names that an expression doesn't use.
            for name in expression.names.keys() {
                assert!(text.contains(name.as_str()), "{name}");
            }
        }
    }

    fn text(range: &SkRange, direction: Direction, after: Option<&'static str>) -> String {
        let after = after.map(|sk| Bytes::from_static(sk.as_bytes()));
        match keys(b"p", range, direction, after.as_ref()) {
            None => "nothing".to_owned(),
            Some((expression, start)) => {
                let start = start.map(|sk| format!(" behind {}", sk.escape_ascii()));
                expression.text + &start.unwrap_or_default()
            }
        }
    }

    #[test]
    fn ranges_and_starts() {
        use Direction::{Backward, Forward};
        let at = |sk: &'static str| Bytes::from_static(sk.as_bytes());
        let between = SkRange::Between(at("b"), at("d"));
        for (range, direction, after, expected) in [
            (&SkRange::All, Forward, Some("x"), "#p = :p behind x"),
            (&SkRange::Prefix(at("")), Forward, None, "#p = :p"),
            (&SkRange::From(at("")), Forward, None, "#p = :p"),
            (&SkRange::To(at("")), Forward, None, "nothing"),
            (&SkRange::Between(at(""), at("")), Forward, None, "nothing"),
            (
                &SkRange::Between(at(""), at("b")),
                Forward,
                None,
                "#p = :p AND #s <= :a",
            ),
            (
                &SkRange::Between(at("c"), at("b")),
                Forward,
                None,
                "nothing",
            ),
            (&between, Forward, None, "#p = :p AND #s BETWEEN :a AND :b"),
            (
                &between,
                Forward,
                Some("a"),
                "#p = :p AND #s BETWEEN :a AND :b",
            ),
            (
                &between,
                Forward,
                Some("c"),
                "#p = :p AND #s BETWEEN :a AND :b behind c",
            ),
            (&between, Forward, Some("d"), "nothing"),
            (
                &between,
                Backward,
                Some("e"),
                "#p = :p AND #s BETWEEN :a AND :b",
            ),
            (&between, Backward, Some("a"), "nothing"),
            (
                &SkRange::Prefix(at("b")),
                Forward,
                Some("bb"),
                "#p = :p AND begins_with(#s, :a) behind bb",
            ),
            (&SkRange::Prefix(at("b")), Forward, Some("c"), "nothing"),
            (
                &SkRange::Prefix(at("b")),
                Backward,
                Some("c"),
                "#p = :p AND begins_with(#s, :a)",
            ),
        ] {
            assert_eq!(
                text(range, direction, after),
                expected,
                "{range:?} {after:?}"
            );
        }
    }
}
