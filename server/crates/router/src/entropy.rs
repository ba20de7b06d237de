//! Randomness as an argument, and how a second machine gets the same.

/// Where randomness comes from: the system in a server, a seed in a simulation.
pub trait Entropy {
    /// Fills the buffer.
    fn fill(&mut self, buffer: &mut [u8]);

    /// 128 random bits.
    fn u128(&mut self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// Appends to a list everything that it draws from another source.
pub struct Recorder<'a> {
    source: &'a mut dyn Entropy,
    drawn: &'a mut Vec<u8>,
}

impl<'a> Recorder<'a> {
    /// Draws from `source` and appends to `drawn`.
    pub fn new(source: &'a mut dyn Entropy, drawn: &'a mut Vec<u8>) -> Self {
        Self { source, drawn }
    }
}

impl Entropy for Recorder<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.source.fill(buffer);
        self.drawn.extend_from_slice(buffer);
    }
}

/// Gives what a [`Recorder`] has drawn, once more.
pub struct Replay<'a> {
    left: &'a [u8],
    short: bool,
}

impl<'a> Replay<'a> {
    /// Gives these bytes.
    pub fn new(drawn: &'a [u8]) -> Self {
        Self {
            left: drawn,
            short: false,
        }
    }

    /// As many bytes were asked for as were drawn. If not, the machine that asked is no copy of
    /// the one that drew.
    pub fn is_used_up(&self) -> bool {
        self.left.is_empty() && !self.short
    }
}

impl Entropy for Replay<'_> {
    fn fill(&mut self, buffer: &mut [u8]) {
        match self.left.split_at_checked(buffer.len()) {
            Some((bytes, left)) => {
                buffer.copy_from_slice(bytes);
                self.left = left;
            }
            None => {
                buffer.fill(0);
                self.short = true;
            }
        }
    }
}
