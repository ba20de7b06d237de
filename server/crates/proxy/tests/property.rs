//! Property tests of headers: bytes that are nearly one, and any bytes.

mod properties;

use proptest::prelude::*;

fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => prop::sample::select(vec![
            "PROXY", "TCP4", "TCP6", "UNKNOWN", "192.0.2.1", "198.51.100.7", "2001:db8::1", "::",
            "::ffff:192.0.2.1", "1", "443", "65535", "65536", "0443", "+443", "", "\r\n", "\n",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,8}",
    ];
    let tail = prop::sample::select(vec!["\r\n", "\r\n", "\r\n<stream", "\n", "\r", ""]);
    let address = prop::sample::select(vec![
        "TCP4 192.0.2.1 192.0.2.2 1 2",
        "TCP6 2001:db8::1 2001:db8::2 65535 443",
        "UNKNOWN",
        "UNKNOWN ffff:f...f:ffff 65535",
    ]);
    let good = (address, tail).prop_map(|(address, tail)| format!("PROXY {address}{tail}"));
    let odd = (prop::collection::vec(word, 0..8), tail_again())
        .prop_map(|(words, tail)| format!("PROXY {}{tail}", words.join(" ")));
    prop_oneof![good, odd].prop_map(String::into_bytes)
}

fn tail_again() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["\r\n", "\n", ""])
}

fn nearly_binary() -> impl Strategy<Value = Vec<u8>> {
    let command = prop_oneof![8 => prop::sample::select(vec![0x20, 0x21]), 1 => any::<u8>()];
    let known = vec![0x00, 0x11, 0x11, 0x12, 0x21, 0x21, 0x22, 0x31, 0x32];
    let family = prop_oneof![8 => prop::sample::select(known), 1 => any::<u8>()];
    let size = prop_oneof![
        8 => prop::sample::select(vec![0_u16, 11, 12, 13, 36, 40, 216, 284, 285]),
        1 => any::<u16>()
    ];
    let rest = prop::collection::vec(any::<u8>(), 0..400);
    (command, family, size, rest).prop_map(|(command, family, size, rest)| {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([command, family]);
        bytes.extend(size.to_be_bytes());
        bytes.extend(rest);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn bytes_near_to_a_header(bytes in prop_oneof![nearly_text(), nearly_binary()], cut in 0_usize..500) {
        properties::any_bytes(&bytes);
        properties::any_bytes(&bytes[..cut.min(bytes.len())]);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        properties::any_bytes(&bytes);
    }
}
