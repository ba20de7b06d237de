//! What is to be written to a client: how much at once, and how much of it is kept.

/// Most bytes that go into one write, unless a single stanza is larger.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Lets go of what the socket has taken when that is much: the buffer of a client that always lags
/// a little behind is never empty. How much it was.
pub(super) fn forget_taken(bytes: &mut Vec<u8>, taken: &mut usize) -> usize {
    if *taken < BATCH_BYTES.max(bytes.len() / 2) {
        return 0;
    }
    bytes.drain(..*taken);
    std::mem::take(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_client_that_always_lags_a_little_behind_does_not_grow() {
        let (mut bytes, mut taken, mut gone) = (vec![0; 3 * BATCH_BYTES], 0, 0);
        for _ in 0..10_000 {
            bytes.extend_from_slice(&[0; 1_024]);
            taken += 1_024;
            gone += forget_taken(&mut bytes, &mut taken);
        }
        assert_eq!(gone + taken, 10_000 * 1_024);
        assert_eq!(bytes.len() - taken, 3 * BATCH_BYTES);
        assert!(bytes.capacity() <= 16 * BATCH_BYTES, "{}", bytes.capacity());
    }
}
