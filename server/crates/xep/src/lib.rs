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
mod x0059_rsm;
mod x0077_register;
mod x0092_version;
mod x0115_caps;
mod x0160_offline;
mod x0198_sm;
mod x0199_ping;
mod x0202_time;
mod x0203_delay;
mod x0280_carbons;
mod x0313_mam;
mod x0334_hints;
mod x0352_csi;
mod x0359_stanza_id;
mod x0386_bind2;
mod x0388_sasl2;
mod x0424_retract;
mod x0441_mam_prefs;
mod x0484_fast;

use cirrus_router::{Feature, Registry, Source};

pub use x0115_caps::{Caps, caps};

/// Every feature of the server, in the order of registration.
pub fn features() -> &'static [&'static Feature] {
    static FEATURES: [&Feature; 23] = [
        &rfc6121_im::FEATURE,
        &rfc3921_session::FEATURE,
        &x0012_last::FEATURE,
        &x0030_disco::FEATURE,
        &x0059_rsm::FEATURE,
        &x0077_register::FEATURE,
        &x0092_version::FEATURE,
        &x0115_caps::FEATURE,
        &x0160_offline::FEATURE,
        &x0198_sm::FEATURE,
        &x0199_ping::FEATURE,
        &x0202_time::FEATURE,
        &x0203_delay::FEATURE,
        &x0280_carbons::FEATURE,
        &x0313_mam::FEATURE,
        &x0334_hints::FEATURE,
        &x0352_csi::FEATURE,
        &x0359_stanza_id::FEATURE,
        &x0386_bind2::FEATURE,
        &x0388_sasl2::FEATURE,
        &x0424_retract::FEATURE,
        &x0441_mam_prefs::FEATURE,
        &x0484_fast::FEATURE,
    ];
    &FEATURES
}

/// What the operator has switched on.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// In-band registration (XEP-0077).
    pub registration: bool,
    /// Archives of messages (XEP-0313).
    pub archive: bool,
    /// Retracted messages are replaced in them (XEP-0424).
    pub tombstones: bool,
}

/// The registry of [`features`], without those that are off, so that nobody is offered what is
/// refused.
pub fn registry(offered: Offered) -> Registry {
    let archive = [
        x0059_rsm::FEATURE.name,
        x0313_mam::FEATURE.name,
        x0359_stanza_id::FEATURE.name,
        x0424_retract::FEATURE.name,
        x0441_mam_prefs::FEATURE.name,
    ];
    let is_on = |feature: &&'static Feature| {
        (offered.registration || feature.name != x0077_register::FEATURE.name)
            && (offered.archive || !archive.contains(&feature.name))
            && (offered.tombstones || feature.name != x0424_retract::FEATURE.name)
    };
    let features: Vec<_> = features().iter().copied().filter(is_on).collect();
    Registry::new(&features)
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
