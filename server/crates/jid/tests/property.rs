//! Property tests of addresses, on texts that are near to addresses and on any text.

mod properties;

use proptest::prelude::*;

fn nearly_an_address() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "@",
        "@",
        "/",
        "/",
        ".",
        "-",
        "xn--",
        "[",
        "]",
        ":",
        " ",
        "\0",
        "&",
        "\u{AD}",
        "\u{DF}",
        "\u{3002}",
        "\u{FF20}",
        "\u{FDFA}",
        "\u{1F130}",
        "\u{5D0}",
        "\u{130}",
        "\u{345}",
        "\u{FFFF}",
        "\u{1F600}",
    ])
    .prop_map(str::to_owned);
    let piece = prop_oneof![
        odd,
        "[a-zA-Z0-9]{1,4}",
        any::<char>().prop_map(String::from)
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn texts_near_to_addresses(text in nearly_an_address()) {
        properties::any_text(&text);
    }

    #[test]
    fn texts_of_any_characters(
        local in any::<String>(), host in any::<String>(), resource in any::<String>()
    ) {
        properties::any_text(&host);
        properties::any_text(&format!("{local}@h"));
        properties::any_text(&format!("h/{resource}"));
        properties::any_text(&format!("{local}@{host}/{resource}"));
    }
}

#[test]
fn every_character_that_is_not_one_of_many_alike() {
    // Without Han, Hangul, private use and the empty planes: 3 s instead of 30.
    let kinds = [
        0..=0x33FF,
        0xA000..=0xABFF,
        0xF900..=0xFFFF,
        0x1D400..=0x1D7FF,
        0x1F000..=0x1FAFF,
    ];
    for c in kinds.into_iter().flatten().filter_map(char::from_u32) {
        properties::any_text(&format!("{c}@h"));
        properties::any_text(&format!("h/a{c}"));
        properties::any_text(&format!("a{c}b"));
    }
}
