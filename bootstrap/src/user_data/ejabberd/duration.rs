//! ejabberd's way to write durations and numbers.

use cirrus_config::{Content, Node};

/// A number or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    Finite(u64),
    /// `infinity`, `unlimited`.
    Infinite,
}

/// A count; `infinity` allowed.
pub(super) fn count(text: &str) -> Option<Amount> {
    match text {
        "infinity" | "unlimited" => Some(Amount::Infinite),
        digits => digits.parse().ok().map(Amount::Finite),
    }
}

/// A duration in seconds: a number of them, or as in `5 minutes`.
pub(super) fn seconds(node: &Node) -> Option<Amount> {
    let text = match &node.content {
        Content::Int(i) => return u64::try_from(*i).ok().map(Amount::Finite),
        Content::Text(text) => text.trim(),
        _ => return None,
    };
    if let Some(amount) = count(text) {
        return Some(amount);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (value, unit) = text.split_at(digits);
    let value: u64 = value.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => {
            return Some(Amount::Finite(value / 1000));
        }
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    value.checked_mul(seconds).map(Amount::Finite)
}

#[cfg(test)]
mod tests {
    use cirrus_config::Place;

    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("30", Some(Amount::Finite(30))),
            ("30 seconds", Some(Amount::Finite(30))),
            ("5m", Some(Amount::Finite(300))),
            ("2 hours", Some(Amount::Finite(7_200))),
            ("1 day", Some(Amount::Finite(86_400))),
            ("1500 ms", Some(Amount::Finite(1))),
            ("infinity", Some(Amount::Infinite)),
            ("soon", None),
            ("5 moons", None),
            ("", None),
            ("99999999999999999999 s", None),
            ("9999999999999999999 days", None),
        ] {
            let content = Content::Text(text.to_owned());
            let place = Place::default();
            assert_eq!(seconds(&Node { place, content }), expected, "{text}");
        }
    }
}
