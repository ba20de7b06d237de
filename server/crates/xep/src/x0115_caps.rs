//! XEP-0115: a hash of what the server can do, in its stream features, so that clients which know
//! it need not ask.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cirrus_router::registry::About;
use cirrus_router::{Feature, Registry, Scope, Source};
use cirrus_stanza::ns;
use cirrus_xml::Writer;

use crate::x0030_disco::SERVER;

pub(crate) static FEATURE: Feature = Feature {
    name: "entity capabilities",
    source: Source::Xep(115, "1.6.0"),
    summary: "The server's capabilities as a hash in its stream features.",
    server: &[ns::CAPS],
    account: &[],
    iqs: &[],
};

/// Names the software; with the hash it is the disco node that answers for it.
const NODE: &str = "urn:cirrus:server";

/// The server's capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    ver: String,
}

/// The capabilities of a server with these features (XEP-0115 section 5.1).
pub fn caps(registry: &Registry, about: &About) -> Caps {
    let (category, ty) = SERVER;
    let mut text = format!("{category}/{ty}//{}<", about.name);
    for feature in registry.disco(Scope::Server) {
        text.push_str(feature);
        text.push('<');
    }
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    Caps {
        ver: STANDARD.encode(aws_lc_rs::digest::digest(algorithm, text.as_bytes())),
    }
}

impl Caps {
    /// The disco node that this hash stands for.
    pub fn node_ver(&self) -> String {
        format!("{NODE}#{}", self.ver)
    }

    /// The `<c/>` element for the stream features (section 6.3).
    pub fn to_xml(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.start("c").attr("xmlns", ns::CAPS).attr("hash", "sha-1");
        w.attr("node", NODE).attr("ver", &self.ver).end();
        w.into_bytes()
    }
}
