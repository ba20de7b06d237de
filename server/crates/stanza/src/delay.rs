//! Delayed delivery stamps (XEP-0203) in the date format of XEP-0082.

use cirrus_xml::Writer;

use crate::name::ns;

/// The `<delay/>` element that says when `from` first took the stanza; `at_ms` is Unix time.
pub fn delay(from: &str, at_ms: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.start("delay")
        .attr("xmlns", ns::DELAY)
        .attr("from", from)
        .attr("stamp", &stamp(at_ms))
        .end();
    w.into_bytes()
}

/// Unix milliseconds as an XEP-0082 DateTime in UTC, `2026-11-24T02:48:00.000Z`.
pub fn stamp(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// An XEP-0082 DateTime as Unix milliseconds; what is finer than that is cut off, and times before
/// 1970 are 0. `None` for anything else.
pub fn parse_stamp(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (clock, zone) = time.split_at_checked(8)?;
    let (fraction, offset) = zone.split_at(zone.find(['Z', '+', '-'])?);
    let mut parts = clock.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // 60 is a leap second, which Unix time counts as the next one.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let ms: i64 = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        None if fraction.is_empty() => 0,
        _ => return None,
    };
    let offset = match offset.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign, zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let seconds = hour * 3600 + minute * 60 + second;
    let seconds = (days_from_civil(year, month, day) * 86_400).checked_add_unsigned(seconds)?;
    let at = (seconds - offset) * 1000 + ms;
    Some(u64::try_from(at).unwrap_or(0))
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let right = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// The reverse of [`civil`], for years of four digits; before 1970 it is negative.
#[expect(clippy::cast_possible_wrap, reason = "at most 3,652,425 days")]
fn days_from_civil(year: u64, month: u64, day: u64) -> i64 {
    let year = year - u64::from(month <= 2).min(year);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era) as i64 - 719_468
}

/// Days since 1970-01-01 as year, month, day of the proleptic Gregorian calendar, counting in
/// 400-year eras that start on the first of March so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_xep_0082_datetimes() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(stamp(1_795_488_480_123), "2026-11-24T02:48:00.123Z");
    }

    #[test]
    fn stamps_are_read_again() {
        for at in [0, 1, 951_782_400_000, 951_868_799_999, 1_795_488_480_123] {
            assert_eq!(parse_stamp(&stamp(at)), Some(at));
        }
        for (text, at) in [
            ("1969-07-21T02:56:15Z", Some(0)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.5Z", Some(500)),
            ("1970-01-01T00:00:00.123456Z", Some(123)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T20:00:00-05:00", Some(3_600_000)),
            ("0000-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00-00:30", Some(1_800_000)),
        ] {
            assert_eq!(parse_stamp(text), at, "{text}");
        }
        for text in [
            "",
            "T",
            "2026",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-1-01T00:00:00Z",
            "2026-01-01t00:00:00Z",
            "2026-01-01T00:00:00Zx",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0\u{e9}Z",
        ] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
    }

    #[test]
    fn the_delay_names_its_author() {
        let xml = String::from_utf8(delay("example.com", 0)).unwrap();
        assert_eq!(
            xml,
            "<delay xmlns='urn:xmpp:delay' from='example.com' \
             stamp='1970-01-01T00:00:00.000Z'/>"
        );
    }
}
