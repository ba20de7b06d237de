use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn password(text: &str) -> Password {
    Password::prepare(text).unwrap()
}

/// RFC 6070, case 3: the only published SHA-1 vector with an accepted iteration count.
#[test]
fn pbkdf2_vector_of_rfc_6070() {
    let salted = salted_password(Hash::Sha1, &password("password"), b"salt", 4096).unwrap();
    assert_eq!(*salted, hex("4b007901b765489abead49d926f721d065a429c1"));
}

/// RFC 7914, section 11 has SHA-256 with 80,000 rounds; its first 32 of 64 bytes are one block.
#[test]
fn pbkdf2_vector_of_rfc_7914() {
    let salted = salted_password(Hash::Sha256, &password("Password"), b"NaCl", 80_000).unwrap();
    let wanted = "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56";
    assert_eq!(*salted, hex(wanted));
}

#[test]
fn version_1_is_read_as_it_was_written() {
    for (hash, golden) in [
        (
            Hash::Sha1,
            include_str!("../../golden/stored-key.v1.sha-1.hex"),
        ),
        (
            Hash::Sha256,
            include_str!("../../golden/stored-key.v1.sha-256.hex"),
        ),
    ] {
        let key = StoredKey::decode(&hex(golden)).unwrap();
        assert_eq!(key.hash, hash);
        assert_eq!(key.iterations, 10_000);
        assert_eq!(key.salt, b"0123456789abcdef");
        assert!(key.verify(&password("pencil")).unwrap());
        assert!(!key.verify(&password("Pencil")).unwrap());
        assert_eq!(
            key.encode(),
            hex(golden),
            "version 1 is what is written today"
        );
    }
}

#[test]
fn damaged_keys_are_refused() {
    let good = derive(Hash::Sha256, &password("pencil"), &[7; 16], MIN_ITERATIONS)
        .unwrap()
        .encode();
    for cut in 0..good.len() {
        assert!(StoredKey::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(
        StoredKey::decode(&longer).err(),
        Some(SaslError::KeyFormat("bytes left over"))
    );
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        StoredKey::decode(&bytes).err()
    };
    assert_eq!(with(0, 2), Some(SaslError::KeyFormat("unknown version")));
    assert_eq!(with(1, 3), Some(SaslError::KeyFormat("unknown hash")));
    assert_eq!(
        with(2, 1),
        Some(SaslError::Iterations((1 << 24) + MIN_ITERATIONS))
    );
}

#[test]
fn figures_out_of_range_are_refused() {
    let key = |salt: usize, iterations| {
        derive(Hash::Sha1, &password("x"), &vec![1; salt], iterations)
            .map(|_| ())
            .err()
    };
    assert_eq!(key(16, 0), Some(SaslError::Iterations(0)));
    assert_eq!(
        key(16, MIN_ITERATIONS - 1),
        Some(SaslError::Iterations(MIN_ITERATIONS - 1))
    );
    assert_eq!(
        key(16, MAX_ITERATIONS + 1),
        Some(SaslError::Iterations(MAX_ITERATIONS + 1))
    );
    assert_eq!(
        key(MIN_SALT_BYTES - 1, MIN_ITERATIONS),
        Some(SaslError::Salt(7))
    );
    assert_eq!(
        key(MAX_SALT_BYTES + 1, MIN_ITERATIONS),
        Some(SaslError::Salt(65))
    );
    assert_eq!(key(MIN_SALT_BYTES, MIN_ITERATIONS), None);
    assert_eq!(key(MAX_SALT_BYTES, MIN_ITERATIONS), None);
}

#[test]
fn keys_are_not_printed() {
    let key = derive(Hash::Sha1, &password("x"), b"saltsalt", MIN_ITERATIONS).unwrap();
    assert_eq!(
        format!("{key:?}"),
        "StoredKey { hash: Sha1, iterations: 4096, .. }"
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(key) = StoredKey::decode(&bytes) {
            prop_assert_eq!(key.encode(), bytes);
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(
        sha1 in any::<bool>(),
        salt in proptest::collection::vec(any::<u8>(), MIN_SALT_BYTES..=MAX_SALT_BYTES),
        iterations in MIN_ITERATIONS..=MAX_ITERATIONS,
        keys in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let hash = if sha1 { Hash::Sha1 } else { Hash::Sha256 };
        let key = StoredKey {
            hash,
            salt,
            iterations,
            stored_key: keys[..hash.size()].to_vec(),
            server_key: keys[32..32 + hash.size()].to_vec(),
        };
        let read = StoredKey::decode(&key.encode()).unwrap();
        prop_assert_eq!(read.encode(), key.encode());
        prop_assert_eq!((read.hash, read.iterations), (key.hash, key.iterations));
        prop_assert_eq!(read.salt, key.salt);
    }
}
