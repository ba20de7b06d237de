//! Passwords for people who have none yet.

use crate::Random;

/// Characters that are not taken for one another when read aloud or typed from paper: no i, l, o,
/// 0 or 1, no capitals.
const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
const GROUPS: usize = 4;
const GROUP: usize = 6;
/// Largest byte that gives every character the same chance: 8 x 31 = 248.
const FAIR: u8 = 248;

/// A random password such as `k3vwzt-9hqpn2-…`: 24 characters of 31 = 118 bits.
pub fn generate_password(random: &Random) -> String {
    let mut password = String::with_capacity(GROUPS * (GROUP + 1));
    let mut buffer = [0; 32];
    let mut written = 0;
    while written < GROUPS * GROUP {
        random(&mut buffer);
        let fair = buffer.iter().filter(|&&byte| byte < FAIR);
        for &byte in fair.take(GROUPS * GROUP - written) {
            if written > 0 && written % GROUP == 0 {
                password.push('-');
            }
            password.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            written += 1;
        }
    }
    buffer.fill(0);
    password
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use cirrus_sasl::Password;

    use super::*;

    /// Bytes that look random and are the same each time.
    fn random() -> Random {
        let state = AtomicU64::new(1);
        Arc::new(move |buffer| {
            for byte in buffer {
                let mixed = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
                let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                *byte = (mixed >> 56) as u8;
            }
        })
    }

    #[test]
    fn it_is_long_enough_and_easy_to_read() {
        let bits = (ALPHABET.len() as f64).log2() * (GROUPS * GROUP) as f64;
        assert!(bits >= 100.0, "{bits}");
        let password = generate_password(&random());
        assert_eq!(password.len(), GROUPS * GROUP + GROUPS - 1);
        assert!(password.split('-').all(|group| group.len() == GROUP));
        assert!(!password.contains(['i', 'l', 'o', '0', '1']));
        assert_eq!(Password::prepare(&password).unwrap().expose(), password);
    }

    #[test]
    fn every_character_has_the_same_chance() {
        let random = random();
        let mut counts: HashMap<char, u32> = HashMap::new();
        for _ in 0..2_000 {
            for character in generate_password(&random).chars().filter(|&it| it != '-') {
                *counts.entry(character).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), ALPHABET.len());
        let mean = 2_000 * 24 / 31;
        assert!(
            counts
                .values()
                .all(|&count| count > mean * 8 / 10 && count < mean * 12 / 10)
        );
    }

    #[test]
    fn bytes_that_would_favour_some_are_drawn_again() {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let random: Random = Arc::new(move |buffer| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            buffer.fill(if first { FAIR } else { FAIR - 1 });
        });
        assert!(generate_password(&random).starts_with("999999-"));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
