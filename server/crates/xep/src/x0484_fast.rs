//! XEP-0484: what the documentation says about it; the work is in the stream and in the accounts.

use cirrus_router::{Feature, Source};

pub(crate) static FEATURE: Feature = Feature {
    name: "fast authentication",
    source: Source::Xep(484, "0.2.0"),
    summary: "Login in one message with a token, by HT-SHA-256-EXPR, -ENDP or -NONE. Tokens are \
              not stored, are replaced at half of their life, and end with the password. No early \
              data is taken.",
    server: &[],
    account: &[],
    iqs: &[],
};
