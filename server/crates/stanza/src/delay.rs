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
    fn the_delay_names_its_author() {
        let xml = String::from_utf8(delay("example.com", 0)).unwrap();
        assert_eq!(
            xml,
            "<delay xmlns='urn:xmpp:delay' from='example.com' \
             stamp='1970-01-01T00:00:00.000Z'/>"
        );
    }
}
