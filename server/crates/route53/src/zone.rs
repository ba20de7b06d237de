//! Which hosted zone a name is in. Pure.

use crate::Route53Error;

/// A zone as Route 53 lists it.
pub(crate) struct Listed<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// Answered inside of VPCs only: no authority sees it.
    pub(crate) private: bool,
}

/// The names that a zone of this name can have, longest first. A zone of one label is nobody's.
pub(crate) fn candidates(name: &str) -> impl Iterator<Item = String> {
    let name = name.trim_end_matches('.');
    let labels: Vec<&str> = name.split('.').collect();
    let longest = labels.len();
    // The record's own name is never a zone's: the first label is the challenge's.
    (1..longest.saturating_sub(1)).map(move |skipped| labels[skipped..].join("."))
}

/// The id of the public zone of exactly this name, if there is one.
pub(crate) fn choose<'a>(
    name: &str,
    listed: impl Iterator<Item = Listed<'a>>,
) -> Result<Option<&'a str>, Route53Error> {
    let is_it = |zone: &Listed<'_>| {
        !zone.private && zone.name.trim_end_matches('.').eq_ignore_ascii_case(name)
    };
    let found: Vec<&str> = listed.filter(is_it).map(|zone| zone.id).collect();
    match found.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        several => Err(Route53Error::Zones {
            name: name.to_owned(),
            count: several.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_is_looked_for_first() {
        let names: Vec<String> = candidates("_acme-challenge.chat.example.com").collect();
        assert_eq!(names, ["chat.example.com", "example.com"]);
        let names: Vec<String> = candidates("_acme-challenge.example.com.").collect();
        assert_eq!(names, ["example.com"]);
        assert_eq!(candidates("_acme-challenge.localhost").count(), 0);
        assert_eq!(candidates("").count(), 0);
    }

    #[test]
    fn a_public_zone_of_exactly_the_name() {
        let listed = |zones: &[(&'static str, bool)]| {
            let zone = |(at, (name, private)): (usize, &(&'static str, bool))| Listed {
                id: ["Z0", "Z1", "Z2"][at],
                name,
                private: *private,
            };
            let zones: Vec<Listed<'static>> = zones.iter().enumerate().map(zone).collect();
            choose("example.com", zones.into_iter())
        };
        assert_eq!(listed(&[]).unwrap(), None);
        // What comes after it in the order of names.
        assert_eq!(listed(&[("chat.example.com.", false)]).unwrap(), None);
        let with_private = [("example.com.", true), ("example.com.", false)];
        assert_eq!(listed(&with_private).unwrap(), Some("Z1"));
        let twice = [("example.com.", false), ("Example.COM.", false)];
        let error = listed(&twice).unwrap_err().to_string();
        assert!(
            error.starts_with("2 public hosted zones are named example.com"),
            "{error}"
        );
    }
}
