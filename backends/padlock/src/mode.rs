//! Modes of operation that XCRYPT knows.

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every block for itself.
    Ecb,
    /// Cipher block chaining.
    Cbc,
    /// Counter.
    Ctr,
    /// Cipher feedback of whole blocks.
    Cfb,
    /// Output feedback.
    Ofb,
}

impl Mode {
    /// Octets that the processor may read behind the end of its input. Known for three of them; the worst of these is
    /// assumed of the others.
    pub(crate) const fn over_read(self) -> usize {
        match self {
            Mode::Ecb | Mode::Cfb | Mode::Ofb => 128,
            Mode::Cbc => 64,
            Mode::Ctr => 32,
        }
    }

    /// Whether a text may end within a block: the cipher makes a stream then.
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self, Mode::Ctr | Mode::Cfb | Mode::Ofb)
    }
}
