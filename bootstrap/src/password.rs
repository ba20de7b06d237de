//! Passwords that nobody chose.

/// Letters and digits that are not taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Bytes of randomness, and characters: 20 * 5 = 100 bits.
pub const RANDOM: usize = 20;

/// A password from random bytes: `abcde-fghij-kmnpq-rstuv`.
pub fn password(random: &[u8; RANDOM]) -> String {
    let mut out = String::with_capacity(RANDOM + 3);
    for (i, byte) in random.iter().enumerate() {
        if i > 0 && i % 5 == 0 {
            out.push('-');
        }
        // 256 is a multiple of 32: every character is as likely as any other.
        out.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_evenness() {
        assert_eq!(password(&[0; RANDOM]), "aaaaa-aaaaa-aaaaa-aaaaa");
        assert_eq!(password(&[255; RANDOM]), "99999-99999-99999-99999");
        let all: std::collections::BTreeSet<u8> = ALPHABET.iter().copied().collect();
        assert_eq!(all.len(), 32);
    }
}
