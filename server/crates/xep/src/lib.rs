//! Protocol features, one file each.
//!
//! A feature is a [`Feature`] value: what it is, what it announces, which IQs it answers. The
//! list in [`features`] is the order of registration; service discovery, dispatch and
//! docs/FEATURES.md are made from it.
//!
//! It never sees a socket or the store: handlers are functions of a request.

mod rfc3921_session;
mod rfc6121_im;
mod x0012_last;
mod x0030_disco;
mod x0077_register;
mod x0092_version;
mod x0115_caps;
mod x0160_offline;
mod x0198_sm;
mod x0199_ping;
mod x0202_time;
mod x0203_delay;
mod x0280_carbons;

use cirrus_router::{Feature, Registry, Source};

pub use x0115_caps::{Caps, caps};

/// Every feature of the server, in the order of registration.
pub fn features() -> &'static [&'static Feature] {
    static FEATURES: [&Feature; 13] = [
        &rfc6121_im::FEATURE,
        &rfc3921_session::FEATURE,
        &x0012_last::FEATURE,
        &x0030_disco::FEATURE,
        &x0077_register::FEATURE,
        &x0092_version::FEATURE,
        &x0115_caps::FEATURE,
        &x0160_offline::FEATURE,
        &x0198_sm::FEATURE,
        &x0199_ping::FEATURE,
        &x0202_time::FEATURE,
        &x0203_delay::FEATURE,
        &x0280_carbons::FEATURE,
    ];
    &FEATURES
}

/// The registry of [`features`]; in-band registration only where it is allowed, so that nobody is
/// offered what is refused.
pub fn registry(registration: bool) -> Registry {
    let offered: Vec<_> = features()
        .iter()
        .copied()
        .filter(|feature| registration || feature.name != x0077_register::FEATURE.name)
        .collect();
    Registry::new(&offered)
}

/// The feature table of docs/FEATURES.md.
pub fn document() -> String {
    let mut text = String::from(HEADER);
    for feature in features() {
        let source = match feature.source {
            Source::Rfc(number) => format!("RFC {number}"),
            Source::Xep(number, version) => format!("XEP-{number:04} {version}"),
        };
        text.push_str(&format!(
            "| {source} | {} | {} |\n",
            feature.name, feature.summary
        ));
    }
    text
}

const HEADER: &str = "\
# Features

Made from the registration of each feature; a test keeps this file equal to it.

| defined by | name | what Cirrus does |
|---|---|---|
";

#[cfg(test)]
mod tests;
